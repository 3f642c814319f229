"""Values shared by clusters: k-means with a codebook that is sent."""

import dataclasses
from typing import ClassVar

import numpy as np

from tff_compress.codec import floats
from tff_compress.codec import sums
from tff_compress.codec.keys import Draws
from tff_compress.codec.stage import Arrays
from tff_compress.codec.stage import check
from tff_compress.codec.stage import Integers
from tff_compress.codec.stage import Real
from tff_compress.codec.stage import Side
from tff_compress.codec.stage import Signal
from tff_compress.codec.stage import Stage
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops


@dataclasses.dataclass(frozen=True)
class Cluster(Stage):
  """Each value becomes the number of the nearest of k centroids, which are sent as float32.

  The centroids start evenly spaced from the smallest to the largest value, which is deterministic and keeps large
  values, and become the means of their clusters a fixed number of times. Biased.

  Attributes:
    centroids: k, 2 … 32.
    iterations: of k-means, 0 … 50.
  """
  name: ClassVar[str] = 'cluster'
  codomain: ClassVar[type[Signal]] = Integers
  summary: ClassVar[str] = 'k-means of the values, codebook sent'
  source: ClassVar[str] = 'Han et al. 2016 (Deep Compression); Malekijoo et al. 2021 (FedZip)'
  examples: ClassVar[tuple[str, ...]] = ('', 'centroids=16,iterations=3')

  centroids: int = 3
  iterations: int = 10

  def __post_init__(self) -> None:
    check(2 <= self.centroids <= 32, f'cluster: centroids must be 2 … 32, not {self.centroids}.')
    check(0 <= self.iterations <= 50, f'cluster: iterations must be 0 … 50, not {self.iterations}.')

  def output(self, signal: Real) -> Integers:
    return Integers(signal.size, 0, self.centroids - 1)

  def side(self, signal: Real) -> tuple[Side, ...]:
    return (Side('codebook', self.centroids if signal.size else 0, 4),)

  def nmse_bound(self, signal: Real) -> float:
    # Evenly spaced, every value is within half an interval; (high - low)^2 <= 2 ||x||^2; k-means only makes it less.
    return signal.size / (2 * (self.centroids - 1)**2) + 1e-6

  def encode(self, xp: Ops, x: Array, draws: Draws, signal: Real) -> tuple[Array, Arrays]:
    if not signal.size:
      empty = xp.zeros([0], np.int32)
      return empty, {'codebook': empty}
    magnitudes, unit = sums.fixed_point(xp, x, sums.BITS, xp.reduce_max(xp.abs(x)))
    numbers = xp.where(x < 0, -magnitudes, magnitudes)
    values = xp.cast(numbers, np.float32)
    low, high = xp.reduce_min(values), xp.reduce_max(values)
    # Rounded down before the sum, so that a compiler cannot fuse product and sum.
    last = self.centroids - 1
    centroids = xp.concat([low + xp.floor((high - low) * np.float32(i / last)) for i in range(self.centroids)])
    for _ in range(self.iterations):
      centroids = self._means(xp, numbers, self._nearest(xp, values, centroids), centroids)
    codebook = floats.without_denormals(xp, centroids * unit)
    return self._nearest(xp, values, centroids), {'codebook': xp.bits_of(codebook)}

  def _nearest(self, xp: Ops, values: Array, centroids: Array) -> Array:
    """int32[n]: number of the nearest centroid; half-way, and of equal centroids, the higher number."""
    boundaries = (centroids[1:] + centroids[:-1]) * np.float32(0.5)
    return xp.sum_last(xp.cast(xp.reshape(values, [-1, 1]) >= xp.reshape(boundaries, [1, -1]), np.int32))

  def _means(self, xp: Ops, numbers: Array, nearest: Array, centroids: Array) -> Array:
    """float32[k]: the mean of each cluster; a centroid without values stays."""
    members = xp.cast(xp.equal(xp.reshape(xp.iota(self.centroids), [-1, 1]), xp.reshape(nearest, [1, -1])), np.int32)
    counts = xp.cast(xp.totals(members), np.float32)
    means = xp.cast(xp.totals(members * xp.reshape(numbers, [1, -1])), np.float32) / xp.maximum(counts, np.float32(1))
    return xp.where(counts > 0, means, centroids)

  def decode(self, xp: Ops, values: Array, side: Arrays, draws: Draws, signal: Real) -> Array:
    if not signal.size:
      return xp.zeros([0], np.float32)
    codebook = xp.float_of(side['codebook'])
    xp.require(floats.is_sane(xp, codebook), 'a centroid is not a number of at most 2^88 in magnitude.')
    return xp.gather(codebook, values)
