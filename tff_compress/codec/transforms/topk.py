"""Top-k: the coordinates of largest magnitude, with their positions sent as Rice-coded gaps."""

import dataclasses
import fractions
from typing import ClassVar

from tff_compress.codec import selection
from tff_compress.codec.stage import check
from tff_compress.codec.stage import Real
from tff_compress.codec.stage import Side
from tff_compress.codec.stage import Stage


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
  examples: ClassVar[tuple] = ('1/100', '0.25', '1')

  fraction: fractions.Fraction

  def __post_init__(self):
    check(0 < self.fraction <= 1, f'topk: the fraction must be above 0 and at most 1, not {self.fraction}.')

  def kept(self, size):
    """Number of coordinates kept of `size`."""
    return selection.count(self.fraction, size)

  def output(self, signal):
    return Real(self.kept(signal.size))

  def side(self, signal):
    return (Side('positions', self.kept(signal.size), None, below=signal.size),)

  def nmse_bound(self, signal):
    return 1 - self.kept(signal.size) / max(signal.size, 1) + 1e-6

  def encode(self, xp, x, draws, signal):
    index = selection.largest_magnitudes(xp, x, self.kept(signal.size))
    return xp.gather(x, index), {'positions': index}

  def decode(self, xp, values, side, draws, signal):
    return xp.scatter(side['positions'], values, signal.size)
