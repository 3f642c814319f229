"""One bit per value: its sign."""

import dataclasses
from typing import ClassVar

import numpy as np

from tff_compress.codec import floats
from tff_compress.codec import sums
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


@dataclasses.dataclass(frozen=True)
class Sign(Stage):
  """Symbol 1 for positive values and for zero, 0 for negative ones; decodes to S and -S. Biased.

  With S the mean magnitude this is the least-error quantizer of one bit and scale: the error is ||x||^2 - ||x||_1^2 /
  d, 0.363 of the energy of normally distributed values. It wants error feedback. With S = 1 nothing but signs is sent,
  the magnitude of the update is lost, and the server's learning rate takes its place.

  Attributes:
    scale: 'mean' for the mean magnitude, 'unit' for 1.
    per: 'tensor' for one scale, a float32; 'block' for one per `block` values, a bfloat16.
    block: values per scale, 16 … 4096.
  """
  name: ClassVar[str] = 'sign'
  codomain: ClassVar[type[Signal]] = Integers
  summary: ClassVar[str] = 'signs, with the mean magnitude or without any'
  source: ClassVar[str] = 'Bernstein et al. 2018 (signSGD); Karimireddy et al. 2019 (EF-signSGD)'
  examples: ClassVar[tuple[str, ...]] = ('', 'per=block,block=256', 'scale=unit')

  scale: str = choice('mean', 'unit')
  per: str = choice('tensor', 'block')
  block: int = 1024

  def __post_init__(self) -> None:
    check(16 <= self.block <= moments.BLOCK, f'sign: block must be 16 … {moments.BLOCK} values, not {self.block}.')

  def _block(self, size: int) -> int:
    return max(1, size if self.per == 'tensor' else min(self.block, size))

  def output(self, signal: Real) -> Integers:
    return Integers(signal.size, 0, 1)

  def side(self, signal: Real) -> tuple[Side, ...]:
    if self.scale == 'unit':
      return ()
    return (Side('scale', -(-signal.size // self._block(signal.size)), 4 if self.per == 'tensor' else 2),)

  def nmse_bound(self, signal: Real) -> float | None:
    # ||x||_1 >= ||x||; a scale off by a factor of 1 + 2^-8 adds 2^-16 of the energy. Ones have nothing to do with x.
    return 1 + 2.0**-15 if self.scale == 'mean' else None

  def encode(self, xp: Ops, x: Array, draws: Draws, signal: Real) -> tuple[Array, Arrays]:
    # Denormals count as zero: runtimes differ in whether they see them.
    symbols = xp.cast(x > -floats.SMALLEST_NORMAL, np.int32)
    size = signal.size
    if self.scale == 'unit':
      return symbols, {}
    if not size:
      return symbols, {'scale': xp.zeros([0], np.int32)}
    if self.per == 'tensor':
      numbers, unit = sums.fixed_point(xp, x, sums.BITS, xp.reduce_max(xp.abs(x)))
      return symbols, {'scale': xp.bits_of(sums.total(xp, numbers) * np.float32(1 / size) * unit)}
    block = self._block(size)
    bits, = xp.by_rows(lambda rows, inverse: (self._row_scales(xp, rows, inverse),), floats.blocks(xp, x, size, block),
                       xp.constant(1 / moments.counts(size, block), np.float32))
    return symbols, {'scale': xp.reshape(bits, [-1])}

  def _row_scales(self, xp: Ops, rows: Array, inverse_counts: Array) -> Array:
    """[n, block] values -> [n, 1] mean magnitudes, in bfloat16."""
    stats = moments.Moments(xp, rows)
    # Magnitudes are at most 4096 and a row has at most 4096 of them: the sum is exact.
    return floats.nearest_bfloat16(xp, xp.reduce_sum(stats.magnitudes) * inverse_counts * stats.unit)

  def decode(self, xp: Ops, values: Array, side: Arrays, draws: Draws, signal: Real) -> Array:
    size = signal.size
    signs = xp.cast(values, np.float32) * np.float32(2) - np.float32(1)
    if self.scale == 'unit' or not size:
      return signs
    scale = xp.float_of(side['scale']) if self.per == 'tensor' else floats.from_bfloat16(xp, side['scale'])
    xp.require(floats.is_amount(xp, scale), 'a scale of sign is not a number from 0 to 2^88.')
    rows = floats.blocks(xp, signs, size, self._block(size))
    return xp.reshape(rows * xp.reshape(scale, [-1, 1]), [-1])[:size]
