"""Levels that lie symmetrically around zero, scaled by a norm: the quantizer of QSGD and of TernGrad."""

import dataclasses
from typing import ClassVar

import numpy as np

from tff_compress.codec import floats
from tff_compress.codec import sums
from tff_compress.codec.keys import Draws
from tff_compress.codec.quantizers import moments
from tff_compress.codec.random import Purpose
from tff_compress.codec.random import Rows
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
class Symmetric(Stage):
  """Value x becomes sign(x) l w, w = norm / levels, with l one of the two whole numbers around |x| / w, at random:
  unbiased.

  The variance is w^2 f (1 - f) for each value, f the fraction of |x| / w. With the Euclidean norm most symbols are
  zero: at most levels (levels + sqrt(block)) of a block are not, so a coder that makes zeros cheap belongs behind
    (rice, rans).
  With the largest magnitude as norm the error is smaller and the symbols cost more.

  Attributes:
    levels: above zero, 1 … 4095.
    norm: 'l2' for the Euclidean norm, 'max' for the largest magnitude.
    per: 'block' for a norm per `block` values, a bfloat16 rounded up; 'tensor' for one norm, a float32.
    block: values per norm, 16 … 4096.
  """
  name: ClassVar[str] = 'symmetric'
  codomain: ClassVar[type[Signal]] = Integers
  summary: ClassVar[str] = 'evenly spaced levels around zero up to a norm, stochastic rounding'
  source: ClassVar[str] = 'Alistarh et al. 2017 (QSGD); Wen et al. 2017 (TernGrad)'
  unbiased: ClassVar[bool] = True
  examples: ClassVar[tuple[str, ...]] = ('levels=7', 'levels=3,norm=max,block=64', 'levels=1,norm=max,per=tensor',
                                         'levels=40,per=tensor')

  levels: int = 7
  norm: str = choice('l2', 'max')
  per: str = choice('block', 'tensor')
  block: int = 512

  def __post_init__(self) -> None:
    check(1 <= self.levels <= 4095, f'symmetric: levels must be 1 … 4095, not {self.levels}.')
    check(16 <= self.block <= moments.BLOCK, f'symmetric: block must be 16 … {moments.BLOCK} values, not {self.block}.')

  def _block(self, size: int) -> int:
    return max(1, size if self.per == 'tensor' else min(self.block, size))

  def output(self, signal: Real) -> Integers:
    return Integers(signal.size, -self.levels, self.levels)

  def side(self, signal: Real) -> tuple[Side, ...]:
    return (Side('norm', -(-signal.size // self._block(signal.size)), 4 if self.per == 'tensor' else 2),)

  def nmse_bound(self, signal: Real) -> float:
    # Alistarh et al. 2017, lemma 3.1, with f (1 - f) <= 1/4; a norm rounded up to bfloat16 is up to 2^-7 larger.
    block, slack = self._block(signal.size), 1 + 2.0**-6
    return min(block / (4 * self.levels**2) * slack**2, block**0.5 / self.levels * slack)

  def _width(self, norm: Array) -> Array:
    # A product, because graph optimizers turn a division by a constant into one, which rounds differently.
    return norm * np.float32(1 / self.levels)

  def _norm(self, xp: Ops, rows: Array) -> Array:
    """[n, block] values -> [n, 1] norms, none below the largest magnitude of its row."""
    if self.norm == 'max':
      norm = xp.reduce_max(xp.abs(rows))
    elif self.per == 'tensor':
      norm = xp.reshape(sums.norm(xp, xp.reshape(rows, [-1])), [1, 1])
    else:
      stats = moments.Moments(xp, rows)
      norm = xp.maximum(floats.square_root(xp, stats.squares) * stats.unit, stats.largest)
    return xp.where(norm < floats.SMALLEST, xp.constant(0, np.float32), norm)

  def encode(self, xp: Ops, x: Array, draws: Draws, signal: Real) -> tuple[Array, Arrays]:
    size = signal.size
    if not size:
      empty = xp.zeros([0], np.int32)
      return empty, {'norm': empty}
    rows = floats.blocks(xp, x, size, self._block(size))
    if self.per == 'tensor':
      norm = self._norm(xp, rows)
      bits = xp.bits_of(norm)
    else:
      norm, = xp.by_rows(lambda rows: (self._norm(xp, rows),), rows)
      bits = floats.rounded_up_bfloat16(xp, norm)
      norm = floats.from_bfloat16(xp, bits)
    width = self._width(norm)
    dithers = Rows(xp, draws.client(Purpose.QUANTIZER).dither, int(rows.shape[0]), int(rows.shape[1]))

    def quantized(x: Array, width: Array, dither: Array) -> tuple[Array]:
      level = xp.minimum(xp.floor(xp.abs(x) / width + dither), np.float32(self.levels))
      return (xp.cast(xp.where(x < 0, -level, level), np.int32),)

    symbols, = xp.by_rows(quantized, rows, xp.where(width > 0, width, xp.constant(1, np.float32)), dithers)
    return xp.reshape(symbols, [-1])[:size], {'norm': xp.reshape(bits, [-1])}

  def decode(self, xp: Ops, values: Array, side: Arrays, draws: Draws, signal: Real) -> Array:
    size = signal.size
    if not size:
      return xp.zeros([0], np.float32)
    norm = xp.float_of(side['norm']) if self.per == 'tensor' else floats.from_bfloat16(xp, side['norm'])
    xp.require(floats.is_amount(xp, norm), 'a norm of the symmetric quantizer is not a number from 0 to 2^88.')
    rows = floats.blocks(xp, xp.cast(values, np.float32), size, self._block(size))
    return xp.reshape(rows * xp.reshape(self._width(norm), [-1, 1]), [-1])[:size]
