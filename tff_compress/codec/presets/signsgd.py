"""signSGD: one bit per parameter and nothing else."""

import dataclasses
from typing import ClassVar

from tff_compress.codec.presets import Preset


@dataclasses.dataclass(frozen=True)
class SignSgd(Preset):
  """Signs alone, decoded to 1 and -1: the server's learning rate says how far to go."""
  name: ClassVar[str] = 'signsgd'
  summary: ClassVar[str] = 'signSGD: signs without a scale, for a majority vote: 1 bit per parameter'
  source: ClassVar[str] = 'Bernstein et al. 2018'
  page: ClassVar[str] = 'methods/sparse-and-sign.md'

  @property
  def text(self) -> str:
    return 'sign:scale=unit | pack'
