"""The smallest uplink that keeps float32's accuracy: one bit for a few per cent of the rotated coordinates."""

import dataclasses
import fractions
from typing import ClassVar

from tff_compress.codec.presets import Preset


@dataclasses.dataclass(frozen=True)
class SharedMask(Preset):
  """All variables as one vector, two shared rotations, a shared mask, and one bit of EDEN behind a private rotation.

  The rotation and the mask belong to the round, so the server sums the kept coordinates and rotates back once.

  Attributes:
    fraction: share of the rotated values that is kept.
    bits: bits per kept value, 1 … 4.
    least: values that are kept at least; training diverges with fewer than about 512, whatever the model's size.
  """
  name: ClassVar[str] = 'shared-mask'
  summary: ClassVar[str] = 'two rotations and a mask per round, one bit per kept value: about 0.016 bit per parameter'
  source: ClassVar[str] = 'EDEN (Vargaftik et al. 2022) on the coordinates of Konecny et al. 2016'
  examples: ClassVar[tuple[str, ...]] = ('', 'fraction=1/16,bits=2', 'least=512')

  fraction: fractions.Fraction = fractions.Fraction(1, 64)
  bits: int = 1
  least: int = 0

  @property
  def text(self) -> str:
    least = f',least={self.least}' if self.least else ''
    return (f'concat | hadamard:rotations=2 | subsample:{self.fraction}{least} | hadamard:key=client | '
            f'eden:bits={self.bits} | pack')
