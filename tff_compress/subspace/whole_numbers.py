"""Whole numbers at one scale for all of them: what a placement says of the model, and what integer sums are made of.

A number of b bits is one of -L … L with L = 2^(b-1) - 1, and is sent as itself plus L, in b bits. How many bits a
number has may be known only when a graph runs.
"""

import numpy as np

from tff_compress.codec import bits as bits_lib
from tff_compress.codec import floats
from tff_compress.codec import sums
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops
from tff_compress.codec.table import Scalar

LEAST_BITS, MOST_BITS = 2, 8

STEPS = {2: 1.224004, 3: 0.650768, 4: 0.353412, 5: 0.193249, 6: 0.105488, 7: 0.057261, 8: 0.03087}
"""{bits: the scale at which the nearest whole numbers of normally distributed values, clipped to -L … L, have the least
mean squared error, in standard deviations}."""

DISTORTION = {2: 0.190174, 3: 0.0468600, 4: 0.0128894, 5: 0.00369322, 6: 0.00106929, 7: 0.000308622, 8: 0.0000883080}
"""{bits: that error, in variances}."""

_MAGNITUDE_BITS = 14  # Squares of whole numbers up to 2^15 fit an int32.
_SMALLEST_SCALE = np.float32(2.0**-100)


def limit(xp: Ops, bits: Scalar) -> Scalar:
  """L, an int32 scalar."""
  return xp.power_of_two(bits - 1) - xp.constant(1, np.int32)


def size(kept: Scalar, bits: Scalar) -> Scalar:
  """Bytes of `kept` numbers."""
  return bits_lib.packed_size(kept, bits)


def mean_square(xp: Ops, values: Array) -> tuple[Array, Array]:
  """(float32[1], float32[1]): the mean square of float32[k], k > 0, and a unit whose square it is to be multiplied by;
  the same on every runtime. (Its product with the squared unit might be too small for a float32.)"""
  numbers, unit = sums.fixed_point(xp, values, _MAGNITUDE_BITS, xp.reduce_max(xp.abs(values)))
  count = xp.reshape(xp.cast(xp.size(values), np.float32), [1])
  return sums.total(xp, numbers * numbers) / count, unit


def root_mean_square(xp: Ops, values: Array) -> Array:
  """float32[1] of float32[k], k > 0."""
  square, unit = mean_square(xp, values)
  return floats.square_root(xp, square) * unit


def nearest(xp: Ops, values: Array, scale: Array, bits: Scalar) -> Array:
  """float32[k] -> int32[k]: the nearest multiples of the scale (float32 scalar), clipped to -L … L."""
  return _clipped(xp, values, scale, np.float32(0.5), bits)


def stochastic(xp: Ops, values: Array, scale: Array, bits: Scalar, dither: Array) -> Array:
  """float32[k] -> int32[k]: one of the two multiples of the scale beside each value, so that it is right on average,
  clipped to -L … L.

  Args:
    xp: operation table.
    values: float32[k].
    scale: float32 scalar.
    bits: int32 scalar.
    dither: float32[k], uniform on (0, 1).
  """
  return _clipped(xp, values, scale, dither, bits)


def _clipped(xp: Ops, values: Array, scale: Array, dither: Array | np.float32, bits: Scalar) -> Array:
  most = xp.cast(limit(xp, bits), np.float32)
  # Clipped before and after: what is far outside has no place in an int32, and dithers lie above 0.
  inside = xp.maximum(xp.minimum(values / xp.maximum(scale, _SMALLEST_SCALE), most), -most)
  return xp.cast(xp.minimum(xp.floor(inside + dither), most), np.int32)


def pack(xp: Ops, numbers: Array, bits: Scalar) -> Array:
  """int32[k] in -L … L -> uint8[ceil(k bits / 8)]."""
  return bits_lib.pack(xp, bits_lib.low_bits(xp, numbers + limit(xp, bits), bits, MOST_BITS), 1)


def unpack(xp: Ops, payload: Array, kept: Scalar, bits: Scalar) -> Array:
  """Inverse of `pack`: uint8[n] -> int32[k].

  Raises:
    PayloadError: the payload has another length, a number above L, or unused bits that are not zero.
  """
  flags = bits_lib.unpack(xp, payload, kept * bits, 1)
  most = limit(xp, bits)
  numbers = bits_lib.from_low_bits(xp, flags, kept, bits, MOST_BITS) - most
  xp.require(numbers <= most, 'a whole number is larger than its number of bits allows.')
  return numbers
