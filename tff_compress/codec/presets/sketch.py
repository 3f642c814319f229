"""Sketched updates: random rotation, sub-sampling and probabilistic quantization."""

import dataclasses
import fractions
from typing import ClassVar

from tff_compress.codec.presets import Preset


@dataclasses.dataclass(frozen=True)
class Sketch(Preset):
  """The sketched updates of Konecny et al.: at the defaults 256 times smaller on every tensor of 20,000 values or more.

  Attributes:
    fraction: share of the rotated values that is kept, with a mask that all clients of a round share.
    bits: bits per kept value.
  """
  name: ClassVar[str] = 'sketch'
  summary: ClassVar[str] = ('sketched updates: rotation, shared mask, 2-bit stochastic rounding; '
                            'small tensors as float32')
  source: ClassVar[str] = 'Konecny et al. 2016, sec. 3'
  examples: ClassVar[tuple[str, ...]] = ('', 'fraction=1/4,bits=1')

  fraction: fractions.Fraction = fractions.Fraction(1, 16)
  bits: int = 2

  @property
  def text(self) -> str:
    return f'size<20000 => float32; * => hadamard | subsample:{self.fraction} | uniform:bits={self.bits} | pack'
