"""Rice-coded numbers, and ascending positions as the gaps between them, in a layout that is written and read without a
loop.

A gap is the number of coordinates skipped before the next position. With Rice parameter b, number g is sent as its low
b bits and, in unary, g >> b. The two parts lie apart:

    b (1 byte) | unary length (a count) | low bits, packed | unary part

Random positions of density p cost about b + 1 / (1 - (1 - p)^(2^b)) bits each, within 1.4 % of their entropy (Sattler
et al. 2019, eq. 14, with b* = 1 + floor(log2(ln(phi - 1) / ln(1 - p)))).
"""

import numpy as np

from tff_compress.codec import bits
from tff_compress.codec import counts
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops
from tff_compress.codec.table import Scalar

MAX_PARAMETER = 16


def encode(xp: Ops, positions: Array) -> Array:
  """int32[m] positions, ascending and distinct -> uint8[n]."""
  starts = xp.concat([xp.constant([-1], np.int32), positions])
  return encode_numbers(xp, starts[1:] - starts[:-1] - xp.constant(1, np.int32))


def encode_numbers(xp: Ops, numbers: Array) -> Array:
  """int32[m] >= 0 -> uint8[n]."""
  parameter = best_parameter(xp, numbers)
  unary = bits.unary(xp, xp.shift_right(numbers, parameter))
  header = xp.concat([xp.integers_to_bytes(xp.vector(parameter), 1), counts.encode(xp, xp.vector(xp.size(unary)))])
  return xp.concat([header, bits.pack(xp, bits.low_bits(xp, numbers, parameter, MAX_PARAMETER), 1), unary])


def best_parameter(xp: Ops, numbers: Array) -> Scalar:
  """The Rice parameter, 0 … 16, that makes these numbers shortest (an int32 scalar)."""
  count = xp.long(xp.size(numbers))
  unary = xp.stack_last([xp.total(xp.shift_right(numbers, b)) for b in range(MAX_PARAMETER + 1)])
  return xp.argmin(unary + xp.constant([*range(1, MAX_PARAMETER + 2)], np.int64) * count)


def decode(xp: Ops, payload: Array, count: Scalar, below: Scalar) -> tuple[Array, Array]:
  """Reads `count` positions from the front of a byte string.

  Returns:
    (int32[count] positions, the bytes that follow)

  Raises:
    PayloadError: the bytes are not a list of `count` positions below `below`.
  """
  xp.require((count >= 0) & (count <= below), 'a list of positions has more than there are.')
  numbers, rest = decode_numbers(xp, payload, count, xp.constant(0, np.int32) + below - count)
  return xp.cumsum(numbers + xp.constant(1, np.int32)) - xp.constant(1, np.int32), rest


def decode_numbers(xp: Ops, payload: Array, count: Scalar, most: Scalar) -> tuple[Array, Array]:
  """Reads `count` numbers, the sum of which is at most `most`, an integer scalar below 2^31 - count.

  Returns:
    (int32[count], the bytes that follow)

  Raises:
    PayloadError: the bytes are not such a list.
  """
  xp.require(xp.size(payload) >= 2, 'a list of numbers is cut short.')
  parameter = xp.integers_from_bytes(payload[:1], 1)[0]
  xp.require(parameter <= MAX_PARAMETER, 'a Rice parameter is out of range.')
  length, payload = counts.decode_one(xp, payload[1:])
  low = (count * parameter + 7) // 8
  xp.require(length <= xp.size(payload) - low, 'a list of numbers is cut short.')
  flags = bits.unpack(xp, payload[:low], count * parameter, 1)
  rest = bits.from_low_bits(xp, flags, count, parameter, MAX_PARAMETER)
  largest = xp.shift_right(xp.constant(0, np.int32) + most, parameter)
  quotient = bits.read_unary(xp, payload[low:low + length], count, xp.long(largest))
  # Each quotient is bounded before it is multiplied, and the sum is taken in 64 bits: nothing can wrap around.
  xp.require(quotient <= largest, 'a number of a list is too large.')
  numbers = quotient * xp.power_of_two(parameter) + rest
  xp.require((numbers >= 0) & (xp.total(numbers) <= xp.long(most)), 'the numbers of a list are too large.')
  return numbers, payload[low + length:]
