"""Top-k: the coordinates of largest magnitude, with their positions sent as Rice-coded gaps."""

import dataclasses
import fractions
from typing import ClassVar

from tff_compress.codec import selection
from tff_compress.codec.keys import Draws
from tff_compress.codec.stage import Arrays
from tff_compress.codec.stage import check
from tff_compress.codec.stage import Real
from tff_compress.codec.stage import Side
from tff_compress.codec.stage import Stage
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops


@dataclasses.dataclass(frozen=True)
class TopK(Stage):
  """Keeps exactly k = max(1, round(fraction d)) coordinates; of equal magnitudes the lower positions win.

  Selecting by a threshold instead would keep everything in an update with fewer than k non-zero values. Biased: use it
  with error feedback, or where bias is accepted.

  Attributes:
    fraction: 0 < fraction <= 1.
  """
  name: ClassVar[str] = 'topk'
  summary: ClassVar[str] = 'the largest magnitudes and their positions'
  source: ClassVar[str] = 'Aji and Heafield 2017; positions: Sattler et al. 2019, eq. 14'
  examples: ClassVar[tuple[str, ...]] = ('1/100', '0.25', '1')

  fraction: fractions.Fraction

  def __post_init__(self) -> None:
    check(0 < self.fraction <= 1, f'topk: the fraction must be above 0 and at most 1, not {self.fraction}.')

  def kept(self, size: int) -> int:
    """Number of coordinates kept of `size`."""
    return selection.count(self.fraction, size)

  def output(self, signal: Real) -> Real:
    return Real(self.kept(signal.size))

  def side(self, signal: Real) -> tuple[Side, ...]:
    return (Side('positions', self.kept(signal.size), None, below=signal.size),)

  def nmse_bound(self, signal: Real) -> float:
    return 1 - self.kept(signal.size) / max(signal.size, 1) + 1e-6

  def encode(self, xp: Ops, x: Array, draws: Draws, signal: Real) -> tuple[Array, Arrays]:
    index = selection.largest_magnitudes(xp, x, self.kept(signal.size))
    return xp.gather(x, index), {'positions': index}

  def decode(self, xp: Ops, values: Array, side: Arrays, draws: Draws, signal: Real) -> Array:
    return xp.scatter(side['positions'], values, signal.size)
