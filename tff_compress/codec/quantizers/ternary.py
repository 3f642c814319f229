"""Rotated ternary: the few largest values of a rotated update, by sign only, with an unbiased scale."""

import dataclasses
import functools
import math
from typing import ClassVar

import numpy as np

from tff_compress.codec import floats
from tff_compress.codec.keys import Draws
from tff_compress.codec.quantizers import moments
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
class Ternary(Stage):
  """q = sign(x) where |x| >= T sigma, else 0; sigma^2 the block's mean square; decodes to S q, S = ||x||^2 / <x, q>.

  On a normal distribution this is the best scalar quantizer at one bit per value and below. Unbiased behind a rotation
  of the client's own. The largest value of a block is always kept, so that S exists.

  Attributes:
    threshold: T, 0.3 … 4: 1.208 keeps 22.7 % of the values (about 1 bit each), 1.728 8.4 % (0.5), 2.116 3.4 % (0.25),
      2.441 1.5 % (0.125), 2.81 0.5 % (0.05).
    block: values per scale, 16 … 4096.
  """
  name: ClassVar[str] = 'ternary'
  codomain: ClassVar[type[Signal]] = Integers
  summary: ClassVar[str] = 'signs of the largest rotated values, unbiased, below one bit'
  source: ClassVar[str] = 'entropy-coded scalar quantizer of a Gaussian at R <= 1 with the scale of DRIVE'
  examples: ClassVar[tuple[str, ...]] = ('threshold=1.728', 'threshold=2.441', 'threshold=1.208,block=1024')
  unbiased: ClassVar[bool] = True

  threshold: float = 2.441
  block: int = 4096

  def __post_init__(self) -> None:
    check(0.3 <= self.threshold <= 4, f'ternary: threshold must be 0.3 … 4, not {self.threshold}.')
    check(16 <= self.block <= moments.BLOCK, f'ternary: block must be 16 … {moments.BLOCK} values, not {self.block}.')

  @property
  def needs_rotation(self) -> bool:
    return True

  def _block(self, size: int) -> int:
    return max(1, min(self.block, size))

  def output(self, signal: Real) -> Integers:
    return Integers(signal.size, -1, 1)

  def side(self, signal: Real) -> tuple[Side, ...]:
    return (Side('scale', -(-signal.size // self._block(signal.size)), 2),)

  def nmse_bound(self, signal: Real) -> float:
    # With a = E|x|[|x| >= T], p = P[|x| >= T] of a unit normal: NMSE = p / a^2 - 1.
    density = math.exp(-self.threshold**2 / 2) / math.sqrt(2 * math.pi)
    kept = math.erfc(self.threshold / math.sqrt(2))
    nmse = kept / (2 * density)**2 - 1
    # In small blocks the number kept varies; with one value kept the error is at most that of a random coordinate.
    return nmse * (1.1 + 8 / math.sqrt(self._block(signal.size) * kept)) + 1e-3

  def encode(self, xp: Ops, x: Array, draws: Draws, signal: Real) -> tuple[Array, Arrays]:
    size = signal.size
    if not size:
      return xp.zeros([0], np.int32), {'scale': xp.zeros([0], np.int32)}
    block = self._block(size)
    symbols, bits = xp.by_rows(functools.partial(self._encode_rows, xp), floats.blocks(xp, x, size, block),
                               xp.constant(1 / moments.counts(size, block), np.float32))
    return xp.reshape(symbols, [-1])[:size], {'scale': xp.reshape(bits, [-1])}

  def _encode_rows(self, xp: Ops, rows: Array, inverse_counts: Array) -> tuple[Array, Array]:
    """[n, block] values -> int32 [n, block] symbols and int32 [n, 1] scales, in bfloat16."""
    stats = moments.Moments(xp, rows)
    limit = stats.root_mean_square(inverse_counts) * np.float32(self.threshold)
    limit = xp.maximum(xp.minimum(limit, xp.reduce_max(stats.magnitudes)), np.float32(1))
    kept = xp.cast(stats.magnitudes >= limit, np.float32)
    # Magnitudes are at most 4096 and a row has at most 4096 of them: the sum is exact.
    scale = stats.squares / xp.maximum(xp.reduce_sum(stats.magnitudes * kept), np.float32(1))
    symbols = kept * (xp.cast(rows >= 0, np.float32) * np.float32(2) - np.float32(1))
    return xp.cast(symbols, np.int32), floats.nearest_bfloat16(xp, scale * stats.unit)

  def decode(self, xp: Ops, values: Array, side: Arrays, draws: Draws, signal: Real) -> Array:
    size = signal.size
    if not size:
      return xp.zeros([0], np.float32)
    scale = floats.from_bfloat16(xp, side['scale'])
    xp.require(floats.is_amount(xp, scale), 'a scale of ternary is not a number from 0 to 2^88.')
    rows = floats.blocks(xp, xp.cast(values, np.float32), size, self._block(size))
    return xp.reshape(rows * xp.reshape(scale, [-1, 1]), [-1])[:size]
