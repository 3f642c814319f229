"""Elias gamma code in bit planes: lengths in unary, then the bits below the leading one, plane by plane.

    length of the unary part (a count) | unary part | planes, lowest first
"""

import numpy as np

from tff_compress.codec import bits
from tff_compress.codec import counts
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops
from tff_compress.codec.table import Scalar

MAX_LENGTH = 24


def lengths(xp: Ops, numbers: Array) -> Array:
  """floor(log2 n) of int32 n in 1 … 2^24 - 1, by comparisons (a float logarithm may round either way)."""
  length = numbers * xp.constant(0, np.int32)
  for j in range(1, MAX_LENGTH):
    length = length + xp.cast(numbers >= (1 << j), np.int32)
  return length


def encode(xp: Ops, numbers: Array, limit: int) -> Array:
  """int32[n], each 1 … 2^limit - 1 -> uint8[m]; 2 floor(log2 n) + 1 bits for each number n."""
  length = lengths(xp, numbers)
  planes = []
  for j in range(limit - 1):
    bit = xp.shift_right(numbers, j) - xp.shift_right(numbers, j + 1) * xp.constant(2, np.int32)
    planes.append(xp.integers_to_bytes(xp.compress(bit, length > j), 1))
  planes = xp.concat(planes) if planes else xp.zeros([0], np.uint8)
  unary = bits.unary(xp, length)
  return xp.concat([counts.encode(xp, xp.vector(xp.size(unary))), unary, bits.pack(xp, planes, 1)])


def decode(xp: Ops, payload: Array, count: Scalar, limit: int) -> Array:
  """Inverse of `encode` for a byte string that holds nothing else.

  Raises:
    PayloadError: the bytes are not `count` numbers below 2^limit.
  """
  size, payload = counts.decode_one(xp, payload)
  xp.require(size <= xp.size(payload), 'Elias-coded numbers are cut short.')
  planes = payload[size:]
  length = bits.read_unary(xp, payload[:size], count, xp.long(count) * (limit - 1))
  xp.require(length < limit, 'an Elias-coded number is too large.')
  found = [xp.integer(xp.total(xp.cast(length > j, np.int32))) for j in range(limit - 1)]
  total = sum(found[1:], found[0]) if found else 0
  flags = bits.unpack(xp, planes, total, 1)
  numbers = length * xp.constant(0, np.int32)
  start = 0
  for j, many in enumerate(found):
    index = xp.where_nonzero(xp.cast(length > j, np.int32))
    numbers = numbers + xp.scatter(index, flags[start:start + many], count) * xp.constant(1 << j, np.int32)
    start = start + many
  leading = xp.gather(xp.constant([1 << j for j in range(MAX_LENGTH)], np.int32), length)
  return numbers + leading
