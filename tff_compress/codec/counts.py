"""Counts: the lengths and numbers of entries that a message tells, most of them small.

A count is written in groups of seven bits, lowest first, a byte each, whose highest bit says that another follows
(LEB128). The last group is not zero unless it is the only one, so every number has one form. 0 … 127 take a byte,
2^31 - 1 takes five.
"""

import numpy as np

from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops
from tff_compress.codec.table import Scalar

LONGEST = 5
"""Bytes of the largest count."""

_SHIFTS = np.arange(0, 7 * LONGEST, 7)[np.newaxis]
"""Bits below each group."""


def size(xp: Ops, numbers: Array) -> Array:
  """int32[n] >= 0 -> int32[n]: the bytes that each takes."""
  limits = xp.constant([[0] + [1 << (7 * j) for j in range(1, LONGEST)]], np.int32)
  return xp.sum_last(xp.cast(xp.reshape(numbers, [-1, 1]) >= limits, np.int32))


def encode(xp: Ops, numbers: Array) -> Array:
  """int32[n] >= 0 -> uint8[m], one behind the other."""
  lengths = xp.reshape(size(xp, numbers), [-1, 1])
  groups = xp.shift_right(xp.reshape(numbers, [-1, 1]), xp.constant(_SHIFTS, np.int32)) % xp.constant(128, np.int32)
  place = xp.reshape(xp.iota(LONGEST), [1, LONGEST])
  marked = groups + xp.cast(place + xp.constant(1, np.int32) < lengths, np.int32) * xp.constant(128, np.int32)
  return xp.integers_to_bytes(xp.compress(xp.reshape(marked, [-1]), xp.reshape(place < lengths, [-1])), 1)


def decode(xp: Ops, payload: Array, count: int) -> tuple[Array, Array]:
  """Reads `count` numbers (an int) from the front of a byte string.

  Returns:
    (int32[count], the bytes that follow)

  Raises:
    PayloadError: there are not as many, or one is not as `encode` writes it.
  """
  head = xp.cast(payload[:LONGEST * count], np.int32)
  last = xp.where_nonzero(xp.cast(head < 128, np.int32))[:count]
  xp.require(xp.equal(xp.size(last), count), 'a count is cut short.')
  behind = xp.concat([xp.constant([0], np.int32), last + xp.constant(1, np.int32)])
  length = behind[1:] - behind[:-1]
  highest = xp.gather(head, last)
  xp.require((length < LONGEST) | (xp.equal(length, LONGEST) & (highest < 8)), 'a count is above 2^31 - 1.')
  xp.require(xp.equal(length, 1) | (highest > 0), 'a count is longer than it need be.')
  first, last, length = (xp.reshape(x, [-1, 1]) for x in (behind[:-1], last, length))
  place = xp.reshape(xp.iota(LONGEST), [1, LONGEST])
  groups = xp.gather(head, xp.minimum(first + place, last)) % xp.constant(128, np.int32)
  parts = groups * xp.cast(place < length, np.int32) * xp.constant(1 << _SHIFTS, np.int32)
  return xp.reshape(xp.sum_last(parts), [count]), payload[behind[-1]:]


def decode_one(xp: Ops, payload: Array) -> tuple[Scalar, Array]:
  """Reads one number: (integer scalar, the bytes that follow)."""
  numbers, rest = decode(xp, payload, 1)
  return numbers[0], rest


def take(xp: Ops, payload: Array) -> tuple[Array, Array]:
  """Reads a count and as many bytes: (these, the bytes that follow). Raises PayloadError where there are fewer."""
  length, rest = decode_one(xp, payload)
  xp.require(length <= xp.size(rest), 'a byte string is cut short.')
  return rest[:length], rest[length:]
