"""FetchSGD: sketches up, and momentum and error on the server."""

import dataclasses
import fractions
from typing import ClassVar

from tff_compress import codec as codec_lib
from tff_compress.codec import checks
from tff_compress.processes.errors import ProcessError
from tff_compress.processes.methods import Method


@dataclasses.dataclass(frozen=True)
class FetchSgdMethod(Method):
  """Clients send count sketches and remember nothing; the server finds the largest values in what has come together.

  Attributes:
    fraction: size of a sketch, all rows together, as a share of the model's.
    k: share of the values that a round applies.
    momentum: of the server, 0 … below 1.
    rows: of the sketch: 1, 3, 5, 7 or 9.
  """
  name: ClassVar[str] = 'fetchsgd'
  summary: ClassVar[str] = 'FetchSGD: count sketches up; momentum and error feedback on the server'
  source: ClassVar[str] = 'Rothchild et al. 2020'
  page: ClassVar[str] = 'methods/sketches.md'
  memory: ClassVar[str] = 'server'
  examples: ClassVar[tuple] = ('', 'fraction=3/4,k=1/10,momentum=0.5,rows=3')

  fraction: fractions.Fraction = fractions.Fraction(1, 2)
  k: fractions.Fraction = fractions.Fraction(1, 100)
  momentum: float = 0.9
  rows: int = 5

  def check(self):
    codec_lib(self._keep)
    checks.number('fetchsgd: momentum', self.momentum, ProcessError, least=0, below=1)

  @property
  def uplink(self):
    return f'concat | countsketch:{self.fraction},rows={self.rows} | float32'

  @property
  def _keep(self):
    return f'concat | topk:{self.k} | float32'

  def other_arguments(self, model):
    from tff_compress.processes.memories.fetchsgd import FetchSgd
    return {'server': FetchSgd(self._keep, self.momentum)}
