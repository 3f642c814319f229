"""Ascending positions as Rice-coded gaps, in a layout that is written and read without a loop.

A gap is the number of coordinates skipped before the next position. With Rice parameter b, gap g is sent as its low b
bits and, in unary, g >> b. The two parts lie apart:

    b (1 byte) | unary length (4 bytes, little endian) | low bits, packed | unary part

Random positions of density p cost about b + 1 / (1 - (1 - p)^(2^b)) bits each, within 1.4 % of their entropy (Sattler et al.
2019, eq. 14, with b* = 1 + floor(log2(ln(phi - 1) / ln(1 - p)))).
"""

import numpy as np

from tff_compress.codec import bits

MAX_PARAMETER = 16


def encode(xp, positions, below):
  """Codes positions.

  Args:
    xp: operation table.
    positions: int32[m], ascending and distinct, each in 0 … below - 1.
    below: int.

  Returns:
    uint8[n]
  """
  starts = xp.concat([xp.constant([-1], np.int32), positions])
  gaps = starts[1:] - starts[:-1] - xp.constant(1, np.int32)
  parameter = best_parameter(xp, gaps)
  unary = bits.unary(xp, xp.shift_right(gaps, parameter))
  header = xp.concat([xp.integers_to_bytes(xp.vector(parameter), 1), xp.integers_to_bytes(xp.vector(xp.size(unary)), 4)])
  return xp.concat([header, bits.pack(xp, bits.low_bits(xp, gaps, parameter, MAX_PARAMETER), 1), unary])


def best_parameter(xp, gaps):
  """The Rice parameter, 0 … 16, that makes these gaps shortest (an int32 scalar)."""
  count = xp.long(xp.size(gaps))
  return xp.argmin([xp.total(xp.shift_right(gaps, b)) + count * (b + 1) for b in range(MAX_PARAMETER + 1)])


def decode(xp, payload, count, below):
  """Reads `count` positions from the front of a byte string.

  Returns:
    (int32[count] positions, the bytes that follow)

  Raises:
    PayloadError: the bytes are not a list of `count` positions below `below`.
  """
  xp.require(xp.size(payload) >= 5, 'a list of positions is cut short.')
  parameter = xp.integers_from_bytes(payload[:1], 1)[0]
  length = xp.integers_from_bytes(payload[1:5], 4)[0]
  xp.require(parameter <= MAX_PARAMETER, 'a Rice parameter is out of range.')
  low = (count * parameter + 7) // 8
  xp.require((length >= 0) & (length <= xp.size(payload) - 5 - low), 'a list of positions is cut short.')
  flags = bits.unpack(xp, payload[5:5 + low], count * parameter, 1)
  rest = bits.from_low_bits(xp, flags, count, parameter, MAX_PARAMETER)
  most = xp.long(xp.shift_right(xp.constant(below, np.int32), parameter))
  quotient = bits.read_unary(xp, payload[5 + low:5 + low + length], count, most)
  # Each quotient is bounded before it is multiplied, and the sum is taken in 64 bits: nothing can wrap around.
  xp.require(quotient <= xp.integer(most), 'a position lies behind the end.')
  steps = quotient * xp.power_of_two(parameter) + rest + xp.constant(1, np.int32)
  xp.require((steps > 0) & (xp.total(steps) <= below), 'a position lies behind the end.')
  return xp.cumsum(steps) - xp.constant(1, np.int32), payload[5 + low + length:]
