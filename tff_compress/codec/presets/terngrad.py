"""TernGrad: signs at random, with probability |x| / max|x|."""

import dataclasses
from typing import ClassVar

from tff_compress.codec.presets import Preset


@dataclasses.dataclass(frozen=True)
class TernGrad(Preset):
  """Each value becomes -s, 0 or s, s the variable's largest magnitude after clipping.

  Attributes:
    clip: limit of the values as a multiple of their root mean square; 0 for none, which is unbiased.
  """
  name: ClassVar[str] = 'terngrad'
  summary: ClassVar[str] = 'TernGrad: -1, 0 or 1 times the largest magnitude, at random: 1 to 1.5 bits per parameter'
  source: ClassVar[str] = 'Wen et al. 2017'
  page: ClassVar[str] = 'methods/quantization.md'

  clip: float = 2.5

  @property
  def text(self) -> str:
    clip = f'sigma-clip:deviations={self.clip} | ' if self.clip else ''
    return f'{clip}symmetric:levels=1,norm=max,per=tensor | rice'
