"""FedPAQ: periodic averaging of quantized updates."""

import dataclasses
from typing import ClassVar

from tff_compress.codec import checks
from tff_compress.processes.errors import ProcessError
from tff_compress.processes.methods import Method


@dataclasses.dataclass(frozen=True)
class FedPaq(Method):
  """QSGD's quantizer on updates of several local steps, of some of the clients.

  Attributes:
    steps: local steps between messages. In Python they are a matter of the data that clients are given.
    levels: of the quantizer above zero, 1 … 4095.
  """
  name: ClassVar[str] = 'fedpaq'
  summary: ClassVar[str] = 'FedPAQ: QSGD after several local steps, unbiased'
  source: ClassVar[str] = 'Reisizadeh et al. 2020'
  page: ClassVar[str] = 'methods/less-often.md'
  codec_suffices: ClassVar[bool] = True
  examples: ClassVar[tuple] = ('', 'steps=2,levels=1')

  steps: int = 10
  levels: int = 7

  def check(self):
    checks.whole_number('fedpaq: steps', self.steps, ProcessError, least=1, most=10**5)

  @property
  def uplink(self):
    return f'qsgd:levels={self.levels}'

  @property
  def local_steps(self):
    return self.steps
