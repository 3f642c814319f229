"""PowerSGD: coordinates on a basis that the server refines, and error feedback."""

import dataclasses
from typing import ClassVar

from tff_compress.codec import checks
from tff_compress.processes.errors import ProcessError
from tff_compress.processes.memories.error_feedback import ErrorFeedback
from tff_compress.processes.methods import Method


@dataclasses.dataclass(frozen=True)
class PowerSgdMethod(Method):
  """Clients send their matrices' coordinates on a basis of few columns, and keep what it leaves out.

  Attributes:
    rank: columns of the basis, 1 … 1024.
  """
  name: ClassVar[str] = 'powersgd'
  summary: ClassVar[str] = 'PowerSGD: matrices of low rank, half a power iteration a round; error feedback'
  source: ClassVar[str] = 'Vogels et al. 2019'
  page: ClassVar[str] = 'methods/low-rank.md'
  memory: ClassVar[str] = 'clients, server'
  examples: ClassVar[tuple] = ('', 'rank=1')

  rank: int = 2

  def check(self):
    checks.whole_number('powersgd: rank', self.rank, ProcessError, least=1, most=1024)

  @property
  def uplink(self):
    return 'float32'

  @property
  def error_feedback(self):
    return ErrorFeedback()

  def encoder_input(self, update):
    # As many values as coordinates on any other columns.
    return update[:, :self.rank]

  def other_arguments(self, model):
    from tff_compress.processes.memories.powersgd import PowerSgd
    return {'server': PowerSgd(self.rank)}
