"""FedPAQ: periodic averaging of quantized updates."""

import dataclasses
from typing import ClassVar

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
    if not 1 <= self.steps <= 10**5:
      raise ProcessError(f'fedpaq: steps must be a whole number from 1 to 10^5, not {self.steps}.')

  @property
  def uplink(self):
    return f'qsgd:levels={self.levels}'

  @property
  def local_steps(self):
    return self.steps
