"""Exact sums over a whole vector, for quantizers of which one norm or mean serves all values.

Sums of floats differ between runtimes in their last bits, so they may not decide a payload bit. Here values are first
rounded to whole multiples of one unit, a power of two relative to the largest magnitude, and those are added as 64-bit
integers: exact for any number of values and in any order. `quantizers/moments.py` does the same for blocks of a matrix.
"""

import numpy as np

from tff_compress.codec import floats
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops

BITS = 23
"""For sums: magnitudes become whole numbers up to 2^24, which float32 and int32 both hold."""

_SQUARE_BITS = 14  # Squares of whole numbers up to 2^15 fit an int32.


def scale(xp: Ops, bits: int, largest: Array) -> tuple[Array, Array]:
  """(up, unit): 2^bits / p and its inverse, p the power of two below `largest`; both 0 where `largest` is below 2^-64.

  The largest magnitude times `up` is in 2^bits … 2^(bits + 1); all are float32[1], bits an int.
  """
  live = xp.cast(largest >= floats.SMALLEST, np.float32)
  exponent = floats.exponent(xp, xp.maximum(largest, floats.SMALLEST))
  up = floats.power(xp, xp.constant(254 + bits, np.int32) - exponent) * live
  return up, floats.power(xp, exponent - xp.constant(bits, np.int32)) * live


def fixed_point(xp: Ops, x: Array, bits: int, largest: Array) -> tuple[Array, Array]:
  """Magnitudes as whole numbers, multiples of one unit.

  Args:
    xp: operation table.
    x: float32[n].
    bits: int.
    largest: float32[1], at least the largest magnitude of x.

  Returns:
    (int32[n], float32[1]): round(|x| 2^bits / p), which is at most 2^(bits + 1), with p the power of two below
    `largest`; and p / 2^bits, what one counts for. Both are 0 where `largest` is below 2^-64.
  """
  up, unit = scale(xp, bits, largest)
  return xp.cast(xp.floor(xp.abs(x) * up + np.float32(0.5)), np.int32), unit


def total(xp: Ops, whole_numbers: Array) -> Array:
  """float32[1]: the sum of int32[n], added exactly and rounded once."""
  return xp.reshape(xp.cast(xp.total(whole_numbers), np.float32), [1])


def mean_of_positive(xp: Ops, whole_numbers: Array, unit: Array) -> tuple[Array, Array]:
  """(int32[n] of 0 and 1: which numbers are above 0; float32[1]: the mean of those, times `unit`, 0 where there are
  none)."""
  positive = xp.cast(whole_numbers > 0, np.int32)
  return positive, total(xp, whole_numbers) / xp.maximum(total(xp, positive), np.float32(1)) * unit


def root_mean_square(xp: Ops, x: Array, size: int) -> Array:
  """float32[1] of float32[size], size > 0: exact but for values below 2^-15 of the largest magnitude, which count as
  0."""
  numbers, unit = fixed_point(xp, x, _SQUARE_BITS, xp.reduce_max(xp.abs(x)))
  # A product, because graph optimizers turn a division by a constant into one, which rounds differently.
  return floats.square_root(xp, total(xp, numbers * numbers) * np.float32(1 / size)) * unit


def norm(xp: Ops, x: Array) -> Array:
  """float32[1]: the Euclidean norm of float32[n], n > 0, as exact as `root_mean_square`; never below the largest
  magnitude."""
  largest = xp.reduce_max(xp.abs(x))
  numbers, unit = fixed_point(xp, x, _SQUARE_BITS, largest)
  return xp.maximum(floats.square_root(xp, total(xp, numbers * numbers)) * unit, largest)
