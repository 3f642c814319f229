"""Uniform quantization with 2^bits levels between the smallest and the largest value."""

import dataclasses
from typing import ClassVar

import numpy as np

from tff_compress.codec import floats
from tff_compress.codec.keys import Draws
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
class Uniform(Stage):
  """2^bits levels, 2^bits - 1 intervals of width D = (high - low) / (2^bits - 1); decodes to low + symbol D.

  Stochastic rounding is unbiased with variance D^2 f (1 - f) per value, f the fraction of the interval; nearest
  rounding is biased with an error of at most D / 2.

  Attributes:
    bits: 1 … 8.
    rounding: 'stochastic' (with the client's own key) or 'nearest'.
    range: 'block' for a range per `block` values, sent as two bfloat16 rounded outwards (32 bits); 'tensor' for one
      range sent as two float32 (64 bits).
    block: values per range, 16 … 2^20.
  """
  name: ClassVar[str] = 'uniform'
  codomain: ClassVar[type[Signal]] = Integers
  summary: ClassVar[str] = '2^bits evenly spaced levels, stochastic or nearest rounding'
  source: ClassVar[str] = 'Konecny et al. 2016, sec. 3 (with its misprint corrected); Suresh et al. 2017'
  examples: ClassVar[tuple[str, ...]] = ('bits=1', 'bits=2', 'bits=3,range=tensor', 'bits=4', 'bits=5,block=100',
                                         'bits=6', 'bits=7', 'bits=8', 'bits=4,rounding=nearest')

  bits: int = 8
  rounding: str = choice('stochastic', 'nearest')
  range: str = choice('block', 'tensor')
  block: int = 1024

  def __post_init__(self) -> None:
    check(1 <= self.bits <= 8, f'uniform: bits must be 1 … 8, not {self.bits}.')
    check(16 <= self.block <= 1 << 20, f'uniform: block must be 16 … 2^20 values, not {self.block}.')

  @property
  def unbiased(self) -> bool:
    return self.rounding == 'stochastic'

  def _block(self, size: int) -> int:
    return max(1, size if self.range == 'tensor' else min(self.block, size))

  def output(self, signal: Real) -> Integers:
    return Integers(signal.size, 0, 2**self.bits - 1)

  def side(self, signal: Real) -> tuple[Side, ...]:
    ranges = -(-signal.size // self._block(signal.size))
    width = 4 if self.range == 'tensor' else 2
    return (Side('low', ranges, width), Side('high', ranges, width))

  def nmse_bound(self, signal: Real) -> float:
    levels = 2**self.bits - 1
    # Suresh et al. 2017, Theorem 2, per block; bfloat16 ranges are up to 2^-7 wider at each end.
    slack = 1.0 if self.range == 'tensor' else (1 + 2.0**-6)**2
    worst = self._block(signal.size) / (2 * levels**2) * slack
    return worst if self.rounding == 'stochastic' else worst + 1e-6

  def _width(self, low: Array, high: Array) -> Array:
    # A product, because graph optimizers turn a division by a constant into one, which rounds differently.
    return (high - low) * np.float32(1 / (2**self.bits - 1))

  def encode(self, xp: Ops, x: Array, draws: Draws, signal: Real) -> tuple[Array, Arrays]:
    size = signal.size
    if not size:
      empty = xp.zeros([0], np.int32)
      return empty, {'low': empty, 'high': empty}
    rows = floats.blocks(xp, x, size, self._block(size), fill_last=True)
    low, high = (_flushed_to_zero(xp, limit) for limit in (xp.reduce_min(rows), xp.reduce_max(rows)))
    if self.range == 'tensor':
      low_bits, high_bits = xp.bits_of(low), xp.bits_of(high)
    else:
      low_bits, high_bits = floats.rounded_down_bfloat16(xp, low), floats.rounded_up_bfloat16(xp, high)
      low, high = floats.from_bfloat16(xp, low_bits), floats.from_bfloat16(xp, high_bits)
    levels = np.float32(2**self.bits - 1)
    width = self._width(low, high)
    arrays = [rows, low, xp.where(width > 0, width, xp.constant(1, np.float32))]
    if self.rounding == 'stochastic':
      dither = draws.client(Purpose.QUANTIZER).dither
      arrays.append(Rows(xp, dither, int(rows.shape[0]), int(rows.shape[1])))

    def quantized(x: Array, low: Array, width: Array, dither: Array = np.float32(0.5)) -> tuple[Array]:
      position = xp.floor((x - low) / width + dither)
      return (xp.cast(xp.minimum(xp.maximum(position, np.float32(0)), levels), np.int32),)

    symbols, = xp.by_rows(quantized, *arrays)
    symbols = xp.reshape(symbols, [-1])[:size]
    return symbols, {'low': xp.reshape(low_bits, [-1]), 'high': xp.reshape(high_bits, [-1])}

  def decode(self, xp: Ops, values: Array, side: Arrays, draws: Draws, signal: Real) -> Array:
    size = signal.size
    if not size:
      return xp.zeros([0], np.float32)
    restore = xp.float_of if self.range == 'tensor' else (lambda bits: floats.from_bfloat16(xp, bits))
    low, high = restore(side['low']), restore(side['high'])
    xp.require(floats.is_sane(xp, low) & floats.is_sane(xp, high) & (floats.order(xp, low) <= floats.order(xp, high)),
               'a range of the uniform quantizer is not two numbers of at most 2^88 in order.')
    width = self._width(low, high)
    rows = floats.blocks(xp, xp.cast(values, np.float32), size, self._block(size))
    rows = xp.reshape(low, [-1, 1]) + rows * xp.reshape(width, [-1, 1])
    return xp.reshape(rows, [-1])[:size]


def _flushed_to_zero(xp: Ops, limit: Array) -> Array:
  """A range limit without negative zero and without magnitudes that could make a denormal later."""
  return xp.where(xp.abs(limit) < np.float32(2.0**-80), xp.constant(0, np.float32), limit)
