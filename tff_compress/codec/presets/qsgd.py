"""QSGD: stochastic levels scaled by the norm of a block."""

import dataclasses
from typing import ClassVar

from tff_compress.codec.presets import Preset


@dataclasses.dataclass(frozen=True)
class Qsgd(Preset):
  """The quantizer of QSGD with a code like its own: gaps between non-zero symbols, signs, and magnitudes in Elias
  gamma.

  Attributes:
    levels: above zero, 1 … 4095.
    block: values per norm (the paper's bucket), 16 … 4096.
  """
  name: ClassVar[str] = 'qsgd'
  summary: ClassVar[str] = 'QSGD: random levels up to the norm of each 512 values, unbiased: 1 to 3 bits per parameter'
  source: ClassVar[str] = 'Alistarh et al. 2017'
  page: ClassVar[str] = 'methods/quantization.md'

  levels: int = 7
  block: int = 512

  @property
  def text(self) -> str:
    return f'symmetric:levels={self.levels},block={self.block} | rice'
