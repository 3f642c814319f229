"""Which values are the largest: exactly k of them, alike on every runtime."""

import numpy as np

from tff_compress.codec import floats


def count(fraction, size):
  """k = max(1, round(fraction size)), and at most `size`."""
  return min(size, max(1, round(fraction * size)))


def settled(xp, x):
  """x with zeros for denormal numbers, as some runtimes take them for that anyway."""
  return xp.where(xp.abs(x) < floats.SMALLEST_NORMAL, xp.constant(0, np.float32), x)


def largest_magnitudes(xp, x, k):
  """int32[k]: ascending positions of the k largest magnitudes; of equal ones the lower positions.

  Selecting by a threshold instead would take everything from a vector with fewer than k non-zero values.
  """
  return xp.largest(settled(xp, xp.abs(x)), k)


def largest_values(xp, x, k):
  """int32[k]: ascending positions of the k largest values; of equal ones, which all below zero are, the lower
  positions."""
  return xp.largest(xp.maximum(settled(xp, x), np.float32(0)), k)
