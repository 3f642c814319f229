"""Unbiased sparsification: each value is kept with a probability in proportion to its magnitude."""

import dataclasses
import fractions
from typing import ClassVar

import numpy as np

from tff_compress.codec import floats
from tff_compress.codec import selection
from tff_compress.codec import sums
from tff_compress.codec.keys import Draws
from tff_compress.codec.random import Purpose
from tff_compress.codec.stage import Arrays
from tff_compress.codec.stage import check
from tff_compress.codec.stage import Integers
from tff_compress.codec.stage import Real
from tff_compress.codec.stage import Side
from tff_compress.codec.stage import Signal
from tff_compress.codec.stage import Stage
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops

_ROUNDS = 16
"""Of redistributing the budget; each caps the probabilities above 1. More values than fit a budget seldom take ten."""


@dataclasses.dataclass(frozen=True)
class Sparsify(Stage):
  """Value x is kept with probability p = min(1, |x| / l) and decodes to x / p: unbiased, with the least variance for
  its budget.

  The threshold l makes the probabilities sum to the budget s = max(1, round(fraction d)). So what is kept at random
  decodes to -l or l and is sent as a sign, and values of l and above are sent as they are, as float32. The variance is
  sum x^2 (1 / p - 1).

  Attributes:
    fraction: expected share of the values that is kept; 0 < fraction <= 1.
  """
  name: ClassVar[str] = 'sparsify'
  codomain: ClassVar[type[Signal]] = Integers
  summary: ClassVar[str] = 'values kept with probabilities in proportion to their magnitudes, unbiased'
  source: ClassVar[str] = 'Wang et al. 2018 (ATOMO), algorithm 1, entry-wise; Wangni et al. 2018'
  unbiased: ClassVar[bool] = True
  examples: ClassVar[tuple[str, ...]] = ('1/20', '0.3')

  fraction: fractions.Fraction

  def __post_init__(self) -> None:
    check(0 < self.fraction <= 1, f'sparsify: the fraction must be above 0 and at most 1, not {self.fraction}.')

  def output(self, signal: Real) -> Integers:
    # -2 stands for a value that is sent as it is.
    return Integers(signal.size, -2, 1)

  def side(self, signal: Real) -> tuple[Side, ...]:
    return (Side('threshold', min(signal.size, 1), 4), Side('large', None, 4))

  def nmse_bound(self, signal: Real) -> float:
    # sum (l |x| - x^2) <= l ||x||_1 <= ||x||_1^2 / s <= ||x||^2 d / s
    return signal.size / max(selection.count(self.fraction, signal.size), 1) * (1 + 1e-5)

  def threshold(self, xp: Ops, x: Array, size: int) -> Array:
    """float32[1]: l for float32[size], size > 0; 0 where all magnitudes are below 2^-64."""
    numbers, unit = sums.fixed_point(xp, x, sums.BITS, xp.reduce_max(xp.abs(x)))
    values = xp.cast(numbers, np.float32)
    # A whole number, so that what is left of it is exact however a graph optimizer orders the sums.
    budget = np.float32(selection.count(self.fraction, size))
    limit = sums.total(xp, numbers) * np.float32(1 / budget)
    for _ in range(_ROUNDS):
      below = xp.cast(values < limit, np.int32)
      left = budget - (np.float32(size) - sums.total(xp, below))
      limit = xp.where(left > 0, sums.total(xp, numbers * below) / xp.maximum(left, np.float32(1e-3)), limit)
      # Whatever is not zero is at least 1: where the budget holds all of those, all are kept.
      limit = xp.maximum(limit, np.float32(1))
    return limit * unit

  def encode(self, xp: Ops, x: Array, draws: Draws, signal: Real) -> tuple[Array, Arrays]:
    if not signal.size:
      empty = xp.zeros([0], np.int32)
      return empty, {'threshold': empty, 'large': empty}
    threshold = self.threshold(xp, x, signal.size)
    magnitudes = xp.abs(x)
    large = (magnitudes >= threshold) & (threshold > 0)
    divisor = xp.where(threshold > 0, threshold, xp.constant(1, np.float32))
    kept = xp.cast(xp.floor(magnitudes / divisor + draws.client(Purpose.QUANTIZER).dither(signal.size)), np.int32)
    symbols = xp.where(large, xp.constant(-2, np.int32), xp.where(x < 0, -kept, kept))
    return symbols, {'threshold': xp.bits_of(threshold), 'large': xp.compress(xp.bits_of(x), large)}

  def decode(self, xp: Ops, values: Array, side: Arrays, draws: Draws, signal: Real) -> Array:
    places = xp.where_nonzero(xp.cast(xp.equal(values, -2), np.int32))
    large = xp.float_of(side['large'])
    xp.require(xp.equal(xp.size(places), xp.size(large)), 'a sparsified tensor has another count of large values.')
    xp.require(floats.is_sane(xp, large), 'a large value is not a number of at most 2^88 in magnitude.')
    if not signal.size:
      return xp.zeros([0], np.float32)
    threshold = xp.float_of(side['threshold'])
    xp.require(floats.is_amount(xp, threshold), 'a threshold of sparsify is not a number from 0 to 2^88.')
    drawn = xp.cast(xp.where(values < -1, xp.constant(0, np.int32), values), np.float32)
    return drawn * threshold + xp.scatter(places, large, signal.size)
