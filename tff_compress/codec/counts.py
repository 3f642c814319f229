"""Counts: the lengths and numbers of entries that a message tells, most of them small.

A count is written in groups of seven bits, lowest first, a byte each, whose highest bit says that another follows
(LEB128). The last group is not zero unless it is the only one, so every number has one form. 0 … 127 take a byte,
2^31 - 1 takes five.
"""

import numpy as np

LONGEST = 5
"""Bytes of the largest count."""


def size(xp, numbers):
  """int32[n] >= 0 -> int32[n]: the bytes that each takes."""
  length = numbers * xp.constant(0, np.int32) + xp.constant(1, np.int32)
  for j in range(1, LONGEST):
    length = length + xp.cast(numbers >= (1 << (7 * j)), np.int32)
  return length


def encode(xp, numbers):
  """int32[n] >= 0 -> uint8[m], one behind the other."""
  lengths = xp.reshape(size(xp, numbers), [-1, 1])
  groups = xp.stack_last([xp.shift_right(numbers, 7 * j) % xp.constant(128, np.int32) for j in range(LONGEST)])
  place = xp.reshape(xp.iota(LONGEST), [1, LONGEST])
  marked = groups + xp.cast(place + xp.constant(1, np.int32) < lengths, np.int32) * xp.constant(128, np.int32)
  sent = xp.compress(xp.reshape(marked, [-1]), xp.reshape(place < lengths, [-1]))
  return xp.integers_to_bytes(sent, 1)


def decode(xp, payload, count):
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
  numbers = length * xp.constant(0, np.int32)
  for j in range(LONGEST):
    group = xp.gather(head, xp.minimum(behind[:-1] + xp.constant(j, np.int32), last)) % xp.constant(128, np.int32)
    numbers = numbers + xp.cast(length > j, np.int32) * group * xp.constant(1 << (7 * j), np.int32)
  return xp.reshape(numbers, [count]), payload[behind[-1]:]


def decode_one(xp, payload):
  """Reads one number: (integer scalar, the bytes that follow)."""
  numbers, rest = decode(xp, payload, 1)
  return numbers[0], rest
