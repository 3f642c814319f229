"""EDEN: Lloyd–Max quantization of rotated values, with a scale that makes the whole unbiased."""

import dataclasses
import functools
from typing import ClassVar

import numpy as np

from tff_compress.codec import floats
from tff_compress.codec.keys import Draws
from tff_compress.codec.quantizers import moments
from tff_compress.codec.stage import Arrays
from tff_compress.codec.stage import check
from tff_compress.codec.stage import choice
from tff_compress.codec.stage import Integers
from tff_compress.codec.stage import Real
from tff_compress.codec.stage import Side
from tff_compress.codec.stage import Signal
from tff_compress.codec.stage import Stage
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops

CENTROIDS = {
    1: (0.7978845608,),
    2: (0.4527800346, 1.5104176085),
    3: (0.2450941789, 0.7560052812, 1.3439092785, 2.1519457045),
    4: (0.1283950299, 0.3880482995, 0.6567591185, 0.9423404565, 1.2562311973, 1.6180463860, 2.0690172265, 2.7325895710),
}
"""Positive half of the Lloyd–Max centroids of the standard normal distribution, per bits."""

# Centroids are used in the encoder's exact sums as integers.
_UNITS = 1024


@dataclasses.dataclass(frozen=True)
class Eden(Stage):
  """Each value becomes the nearest centroid q of a normal distribution of the block's own variance; decodes to S q.

  S = ||x||^2 / <x, q> ('unbiased') or <x, q> / ||q||^2 ('least-error'), sent as one bfloat16 per block. The unbiased
  scale owes its name to a rotation in front that only this client uses: the quantizer itself draws no random number.
  Below one bit per value, put a sub-sampling stage in front.

  NMSE behind a rotation: D / (1 - D) = 0.571, 0.133, 0.0358, 0.0096 at 1 … 4 bits; D = 0.363, 0.117, 0.0345, 0.0095
  with the least-error scale, which must not be used for a mean over clients: its bias does not average out.

  Attributes:
    bits: 1 … 4.
    scale: 'unbiased' or 'least-error'.
    block: values per scale, 16 … 4096.
  """
  name: ClassVar[str] = 'eden'
  codomain: ClassVar[type[Signal]] = Integers
  summary: ClassVar[str] = 'Lloyd–Max centroids behind a rotation, unbiased or least-error scale'
  source: ClassVar[str] = 'Vargaftik et al. 2021 (DRIVE), 2022 (EDEN)'
  examples: ClassVar[tuple[str, ...]] = ('bits=1', 'bits=2', 'bits=3', 'bits=4,block=1024', 'bits=2,scale=least-error')

  bits: int = 1
  scale: str = choice('unbiased', 'least-error')
  block: int = 4096

  def __post_init__(self) -> None:
    check(1 <= self.bits <= 4, f'eden: bits must be 1 … 4, not {self.bits}.')
    check(16 <= self.block <= moments.BLOCK, f'eden: block must be 16 … {moments.BLOCK} values, not {self.block}.')

  @property
  def unbiased(self) -> bool:
    return self.scale == 'unbiased'

  @property
  def needs_rotation(self) -> bool:
    return self.unbiased

  def _block(self, size: int) -> int:
    return max(1, min(self.block, size))

  def output(self, signal: Real) -> Integers:
    return Integers(signal.size, 0, 2**self.bits - 1)

  def side(self, signal: Real) -> tuple[Side, ...]:
    return (Side('scale', -(-signal.size // self._block(signal.size)), 2),)

  def nmse_bound(self, signal: Real) -> float:
    distortion = {1: 0.36338, 2: 0.11748, 3: 0.03455, 4: 0.0095}[self.bits]
    if self.unbiased:
      # Small blocks have a larger spread of <x, q>; behind a rotation the mean is that of the normal distribution.
      return distortion / (1 - distortion) * (1.05 + 4 / self._block(signal.size)**0.5)
    return 1.0

  def encode(self, xp: Ops, x: Array, draws: Draws, signal: Real) -> tuple[Array, Arrays]:
    size = signal.size
    if not size:
      return xp.zeros([0], np.int32), {'scale': xp.zeros([0], np.int32)}
    block = self._block(size)
    counts = moments.counts(size, block)
    symbols, bits = xp.by_rows(functools.partial(self._encode_rows, xp), floats.blocks(xp, x, size, block),
                               xp.constant(1 / counts, np.float32), xp.constant(block - counts, np.float32))
    return xp.reshape(symbols, [-1])[:size], {'scale': xp.reshape(bits, [-1])}

  def _encode_rows(self, xp: Ops, rows: Array, inverse_counts: Array, filling: Array) -> tuple[Array, Array]:
    """[n, block] values -> int32 [n, block] symbols and int32 [n, 1] scales, in bfloat16."""
    stats = moments.Moments(xp, rows)
    centroids = np.asarray(CENTROIDS[self.bits])
    integers = np.round(centroids * _UNITS).astype(np.float32)
    deviation = stats.root_mean_square(inverse_counts)
    # With one bit there is no boundary, and one entry stands for all.
    level = xp.zeros([1, 1], np.float32)
    centroid = level + integers[0]
    for k, boundary in enumerate((centroids[1:] + centroids[:-1]) / 2, start=1):
      above = xp.cast(stats.magnitudes >= deviation * np.float32(boundary), np.float32)
      level = level + above
      centroid = centroid + above * (integers[k] - integers[k - 1])
    inner = stats.sum_of_products(stats.magnitudes, centroid) * np.float32(1 / _UNITS)
    if self.unbiased:
      scale = stats.squares / xp.maximum(inner, np.float32(2.0**-10))
    else:
      each = centroid + xp.zeros(rows.shape, np.float32)
      energy = stats.sum_of_products(each, each) - filling * np.float32(integers[0])**2
      energy = energy * np.float32(1 / _UNITS**2)
      scale = inner / energy
    half = np.float32(2**(self.bits - 1))
    # Denormals count as zero, which is positive: runtimes differ in whether they see them.
    positive = xp.cast(rows > -floats.SMALLEST_NORMAL, np.float32)
    symbols = half - np.float32(1) - level + positive * (level * np.float32(2) + np.float32(1))
    return xp.cast(symbols, np.int32), floats.nearest_bfloat16(xp, scale * stats.unit)

  def decode(self, xp: Ops, values: Array, side: Arrays, draws: Draws, signal: Real) -> Array:
    size = signal.size
    if not size:
      return xp.zeros([0], np.float32)
    scale = floats.from_bfloat16(xp, side['scale'])
    xp.require(floats.is_amount(xp, scale), 'a scale of eden is not a number from 0 to 2^88.')
    integers = np.round(np.asarray(CENTROIDS[self.bits]) * _UNITS) / _UNITS
    if self.bits == 1:
      centred = (xp.cast(values, np.float32) * np.float32(2) - np.float32(1)) * np.float32(integers[0])
    else:
      centred = xp.gather(xp.constant(np.concatenate([-integers[::-1], integers]), np.float32), values)
    rows = floats.blocks(xp, centred, size, self._block(size))
    return xp.reshape(rows * xp.reshape(scale, [-1, 1]), [-1])[:size]
