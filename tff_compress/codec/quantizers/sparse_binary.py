"""Sparse binary: the largest values of one sign, all as their mean."""

import dataclasses
import fractions
from typing import ClassVar

import numpy as np

from tff_compress.codec import floats
from tff_compress.codec import selection
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
from tff_compress.codec.table import Scalar


@dataclasses.dataclass(frozen=True)
class SparseBinary(Stage):
  """1 at the k = max(1, round(fraction d)) largest values, or at the k smallest, else 0; decodes to their signed mean.

  The side is taken whose k values have the larger sum of magnitudes; of equal sums the negative side. Values of the
  other sign and magnitudes below 2^-24 of the largest count as zero and take no place, so fewer than k positions are
  sent where there are fewer. Of equal values the lower positions win. Biased: it wants error feedback.

  Attributes:
    fraction: 0 < fraction <= 1.
  """
  name: ClassVar[str] = 'sparse-binary'
  codomain: ClassVar[type[Signal]] = Integers
  summary: ClassVar[str] = 'the largest values of one sign as their mean: no sign bits'
  source: ClassVar[str] = 'Sattler et al. 2019 (SBC), algorithm 2'
  examples: ClassVar[tuple[str, ...]] = ('1/100', '1')

  fraction: fractions.Fraction

  def __post_init__(self) -> None:
    check(0 < self.fraction <= 1, f'sparse-binary: the fraction must be above 0 and at most 1, not {self.fraction}.')

  def output(self, signal: Real) -> Integers:
    return Integers(signal.size, 0, 1)

  def side(self, signal: Real) -> tuple[Side, ...]:
    return (Side('mean', min(signal.size, 1), 4),)

  def nmse_bound(self, signal: Real) -> float:
    return 1 + 1e-6

  def encode(self, xp: Ops, x: Array, draws: Draws, signal: Real) -> tuple[Array, Arrays]:
    if not signal.size:
      empty = xp.zeros([0], np.int32)
      return empty, {'mean': empty}
    k = selection.count(self.fraction, signal.size)
    largest = xp.reduce_max(xp.abs(x))

    def side(signed: Array) -> tuple[Array, Array, Array, Scalar]:
      """(positions, magnitudes in whole numbers, what one is worth, their sum) of the k largest values."""
      index = selection.largest_values(xp, signed, k)
      numbers, unit = sums.fixed_point(xp, xp.maximum(xp.gather(signed, index), np.float32(0)), sums.BITS, largest)
      return index, numbers, unit, xp.total(numbers)

    above, numbers_above, unit, sum_above = side(x)
    below, numbers_below, _, sum_below = side(-x)
    positive = sum_above > sum_below
    index, numbers = xp.where(positive, above, below), xp.where(positive, numbers_above, numbers_below)
    symbols, mean = sums.mean_of_positive(xp, numbers, unit)
    return xp.scatter(index, symbols, signal.size), {'mean': xp.bits_of(xp.where(positive, mean, -mean))}

  def decode(self, xp: Ops, values: Array, side: Arrays, draws: Draws, signal: Real) -> Array:
    if not signal.size:
      return xp.zeros([0], np.float32)
    mean = xp.float_of(side['mean'])
    xp.require(floats.is_sane(xp, mean), 'a mean of sparse-binary is not a number of at most 2^88 in magnitude.')
    return xp.cast(values, np.float32) * mean
