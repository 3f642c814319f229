"""Rotated ternary with Rice-coded positions: the best simple unbiased codec below one bit."""

import dataclasses
from typing import ClassVar

from tff_compress.codec.presets import Preset


@dataclasses.dataclass(frozen=True)
class RotatedTernary(Preset):
  """Signs of the largest values behind two rotations of the client's own.

  Attributes:
    threshold: see the stage `ternary`; 2.441 costs about 0.127 bit per value.
  """
  name: ClassVar[str] = 'rotated-ternary'
  summary: ClassVar[str] = 'signs of the largest rotated values, unbiased: 0.05 to 1 bit per parameter'
  source: ClassVar[str] = 'entropy-coded scalar quantizer of a Gaussian at R <= 1 with the scale of DRIVE'
  examples: ClassVar[tuple[str, ...]] = ('', 'threshold=1.728')

  threshold: float = 2.441

  @property
  def text(self) -> str:
    return f'concat | hadamard:rotations=2,key=client | ternary:threshold={self.threshold} | rice'
