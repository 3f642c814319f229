"""EDEN with whole numbers: normally distributed values as one of 2, 4, 8 or 16 levels, and one scale for all of them.

Levels are whole numbers of up to 15, so that rotations of them are exact, and lie as the Lloyd–Max centroids of a
normal distribution do, as near as whole numbers can. The scale S = ||x||^2 / <x, q> makes the decoded S q unbiased
where a rotation with a random key stands in front. How many bits a value has may be known only when a graph runs.

Source: Vargaftik et al. 2021 (DRIVE), 2022 (EDEN).
"""

import numpy as np

from tff_compress.codec import bits as bits_lib
from tff_compress.codec import floats
from tff_compress.codec import sums
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops
from tff_compress.codec.table import Scalar

MOST_BITS = 4

LEVELS = {1: (1,), 2: (3, 10), 3: (1, 3, 5, 8), 4: (1, 2, 4, 6, 8, 10, 12, 15)}
"""{bits: the positive levels}."""

UNITS = {1: 0.7978845608, 2: 0.1510351113, 3: 0.2669583705, 4: 0.1714738525}
"""{bits: what 1 stands for of a standard normal distribution, where the mean squared error is least}."""

DISTORTION = {1: 0.3633802, 2: 0.1174819, 3: 0.0349037, 4: 0.0109545}
"""{bits: mean squared error D of a standard normal value}. With the unbiased scale the error is D / (1 - D) of ||x||^2:
0.571, 0.133, 0.0362, 0.0111."""

_MAGNITUDE_BITS = 14  # Magnitudes up to 2^15: their squares fit an int32.
_NEVER = 1e30


def _boundaries() -> np.ndarray:
  """float32 [5, 7]: of each number of bits, where a higher level begins, in standard deviations."""
  table = np.full((MOST_BITS + 1, 2**(MOST_BITS - 1) - 1), _NEVER, np.float32)
  for bits, levels in LEVELS.items():
    middles = (np.asarray(levels[1:]) + np.asarray(levels[:-1])) / 2 * UNITS[bits]
    table[bits, :len(middles)] = middles
  return table


def _magnitudes() -> np.ndarray:
  """int32 [5 * 8]: the levels of each number of bits."""
  table = np.zeros((MOST_BITS + 1, 2**(MOST_BITS - 1)), np.int32)
  for bits, levels in LEVELS.items():
    table[bits, :len(levels)] = levels
  return table.reshape(-1)


def size(kept: Scalar, bits: Scalar) -> Scalar:
  """Bytes of `kept` values."""
  return bits_lib.packed_size(kept, bits)


def encode(xp: Ops, values: Array, bits: Scalar) -> tuple[Array, Array]:
  """float32[k] -> (uint8[ceil(k bits / 8)], int32[1] the scale as the bits of a bfloat16): the same on every runtime.

  Args:
    xp: operation table.
    values: float32[k], k > 0, as a rotation gives them.
    bits: 1 … 4.
  """
  numbers, unit = sums.fixed_point(xp, values, _MAGNITUDE_BITS, xp.reduce_max(xp.abs(values)))
  squares = sums.total(xp, numbers * numbers)
  count = xp.reshape(xp.cast(xp.size(values), np.float32), [1])
  deviation = floats.square_root(xp, squares / count)
  boundaries = xp.gather(xp.constant(_boundaries(), np.float32), bits)
  floating = xp.cast(numbers, np.float32)
  step = xp.zeros([1], np.int32)
  for i in range(2**(MOST_BITS - 1) - 1):
    step = step + xp.cast(floating >= deviation * boundaries[i:i + 1], np.int32)
  step = step + numbers * xp.constant(0, np.int32)
  levels = xp.gather(xp.constant(_magnitudes(), np.int32), step + _first(xp, bits))
  inner = sums.total(xp, numbers * levels)
  scale = squares / xp.maximum(inner, np.float32(1)) * unit
  # Denormals count as zero, which is positive: runtimes differ in whether they see them.
  positive = xp.cast(values > -floats.SMALLEST_NORMAL, np.int32)
  half = xp.shift_right(xp.power_of_two(bits), 1)
  one = xp.constant(1, np.int32)
  symbols = half - one - step + positive * (step + step + one)
  packed = bits_lib.pack(xp, bits_lib.low_bits(xp, symbols, bits, MOST_BITS), 1)
  return packed, floats.nearest_bfloat16(xp, scale)


def decode(xp: Ops, payload: Array, kept: Scalar, bits: Scalar) -> Array:
  """uint8[n] -> int32[k]: the levels, positive and negative.

  Raises:
    PayloadError: the payload has another length, or unused bits that are not zero.
  """
  flags = bits_lib.unpack(xp, payload, kept * bits, 1)
  symbols = bits_lib.from_low_bits(xp, flags, kept, bits, MOST_BITS)
  half = xp.shift_right(xp.power_of_two(bits), 1)
  one = xp.constant(1, np.int32)
  positive = xp.cast(symbols >= half, np.int32)
  step = positive * (symbols - half) + (one - positive) * (half - one - symbols)
  sign = positive + positive - one
  return sign * xp.gather(xp.constant(_magnitudes(), np.int32), step + _first(xp, bits))


def read(xp: Ops, body: Array, kept: Scalar, bits: Scalar) -> tuple[Array, Array]:
  """(int32[k] levels, float32 scalar scale) of a scale and levels, uint8[n].

  Raises:
    PayloadError: they are none of k coordinates and this number of bits.
  """
  xp.require((bits >= 1) & (bits <= MOST_BITS),
             'a message has another number of bits per coordinate than 1 … 4.')
  xp.require(xp.size(body) >= 2, 'a message is cut short.')
  bits = xp.minimum(xp.maximum(bits, 1), MOST_BITS)
  scale = floats.from_bfloat16(xp, xp.integers_from_bytes(body[:2], 2))[0]
  xp.require(floats.is_amount(xp, scale), 'a scale is not a number from 0 to 2^88.')
  return decode(xp, body[2:], kept, bits), scale


def _first(xp: Ops, bits: Scalar) -> Array:
  """Where the levels of this number of bits begin in the table."""
  return xp.integer(bits) * xp.constant(2**(MOST_BITS - 1), np.int32)
