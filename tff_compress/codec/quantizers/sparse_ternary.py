"""Sparse ternary: the largest magnitudes, by sign only, with one scale."""

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


@dataclasses.dataclass(frozen=True)
class SparseTernary(Stage):
  """sign(x) at the k = max(1, round(fraction d)) largest magnitudes, else 0; decodes to mu sign(x), mu their mean
  magnitude.

  Of equal magnitudes the lower positions win. What is below 2^-24 of the largest counts as zero and takes no place, so
  fewer than k values are sent where an update has fewer. Biased: it wants error feedback.

  Attributes:
    fraction: 0 < fraction <= 1.
  """
  name: ClassVar[str] = 'sparse-ternary'
  codomain: ClassVar[type[Signal]] = Integers
  summary: ClassVar[str] = 'signs of the largest magnitudes and their mean'
  source: ClassVar[str] = 'Sattler et al. 2020 (STC), algorithm 1'
  examples: ClassVar[tuple[str, ...]] = ('1/100', '1')

  fraction: fractions.Fraction

  def __post_init__(self) -> None:
    check(0 < self.fraction <= 1, f'sparse-ternary: the fraction must be above 0 and at most 1, not {self.fraction}.')

  def output(self, signal: Real) -> Integers:
    return Integers(signal.size, -1, 1)

  def side(self, signal: Real) -> tuple[Side, ...]:
    return (Side('mean', min(signal.size, 1), 4),)

  def nmse_bound(self, signal: Real) -> float:
    return 1 + 1e-6

  def encode(self, xp: Ops, x: Array, draws: Draws, signal: Real) -> tuple[Array, Arrays]:
    if not signal.size:
      empty = xp.zeros([0], np.int32)
      return empty, {'mean': empty}
    index = selection.largest_magnitudes(xp, x, selection.count(self.fraction, signal.size))
    kept = xp.gather(x, index)
    numbers, unit = sums.fixed_point(xp, kept, sums.BITS, xp.reduce_max(xp.abs(kept)))
    symbols, mean = sums.mean_of_positive(xp, numbers, unit)
    symbols = xp.where(kept < 0, -symbols, symbols)
    return xp.scatter(index, symbols, signal.size), {'mean': xp.bits_of(mean)}

  def decode(self, xp: Ops, values: Array, side: Arrays, draws: Draws, signal: Real) -> Array:
    if not signal.size:
      return xp.zeros([0], np.float32)
    mean = xp.float_of(side['mean'])
    xp.require(floats.is_amount(xp, mean), 'a mean of sparse-ternary is not a number from 0 to 2^88.')
    return xp.cast(values, np.float32) * mean
