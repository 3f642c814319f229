"""Which values are the largest: exactly k of them, alike on every runtime."""

import fractions

import numpy as np

from tff_compress.codec import floats
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops


def count(fraction: fractions.Fraction, size: int) -> int:
  """k = max(1, round(fraction size)), and at most `size`."""
  return min(size, max(1, round(fraction * size)))


def largest_magnitudes(xp: Ops, x: Array, k: int) -> Array:
  """int32[k]: ascending positions of the k largest magnitudes; of equal ones the lower positions.

  Selecting by a threshold instead would take everything from a vector with fewer than k non-zero values.
  """
  return xp.largest(floats.without_denormals(xp, xp.abs(x)), k)


def largest_values(xp: Ops, x: Array, k: int) -> Array:
  """int32[k]: ascending positions of the k largest values; of equal ones, which all below zero are, the lower
  positions."""
  return xp.largest(xp.maximum(floats.without_denormals(xp, x), np.float32(0)), k)
