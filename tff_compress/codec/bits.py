"""Bits and fixed-width symbols to bytes and back, shared by all coders.

Bit order: least significant bit first. Symbol i of width w occupies bits i w … i w + w - 1 of the byte string, bit n of
which is bit n mod 8 of byte n div 8. Unused bits of the last byte are zero, and a reader refuses anything else.
"""

import numpy as np

from tff_compress.codec.random import signed
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops
from tff_compress.codec.table import Scalar


def packed_size(size: Scalar, width: int) -> Scalar:
  """Bytes that `size` symbols of `width` bits take."""
  return (size * width + 7) // 8


def _powers(xp: Ops, count: int, width: int) -> Array:
  """float32 [count, 1]: what `count` fields of `width` bits count for in a number."""
  return xp.constant([[2.0**(width * i)] for i in range(count)], np.float32)


def _step(width: int) -> int:
  """Width of the fields that symbols are cut into so that none lies in two bytes."""
  return width if width in (1, 2, 4) else 1


def _fields(width: int) -> np.ndarray:
  """int32 [256, 8 / width]: what each byte holds."""
  return (np.arange(256)[:, None] >> np.arange(0, 8, width)) & ((1 << width) - 1)


def pack(xp: Ops, symbols: Array, width: int) -> Array:
  """int32[n] (for width 1 also uint8[n]) in 0 … 2^width - 1, width 1 … 16 -> uint8[ceil(n width / 8)]."""
  if width in (8, 16):
    return xp.integers_to_bytes(symbols, width // 8)
  used = packed_size(xp.size(symbols), width)
  missing = (-xp.size(symbols)) % 16
  if not isinstance(missing, int) or missing:
    symbols = xp.concat([symbols, xp.zeros([missing], symbols.dtype)])
  step = _step(width)

  def joined(sixteens: Array) -> tuple[Array]:
    """[n, 16] symbols -> [n, 2 width] bytes."""
    fields = sixteens if step == width else low_bits(xp, sixteens, width, width)
    return (xp.reshape(_join(xp, xp.reshape(xp.cast(fields, np.uint8), [-1]), step), [-1, 2 * width]),)

  packed, = xp.by_rows(joined, xp.reshape(symbols, [-1, 16]))
  return xp.reshape(packed, [-1])[:used]


def _join(xp: Ops, fields: Array, step: int) -> Array:
  """uint8[16 n] fields of 1, 2 or 4 bits, one in a byte -> uint8[2 n step] without gaps."""
  words = xp.integers_from_bytes(fields, 4)
  if step == 4:
    # Every second byte gets its neighbour's field above its own.
    pairs = xp.integers_to_bytes(words + xp.shift_right(words, 4), 4)
    return xp.reshape(xp.reshape(pairs, [-1, 2])[:, :1], [-1])
  # The four fields of a word meet in its top byte; no two terms of the product share a bit, so nothing carries.
  meeting = xp.constant(sum(1 << (24 - (8 - step) * i) for i in range(4)), np.int32)
  fields = xp.cast(xp.shift_right(words * meeting, 24), np.uint8)
  return fields if step == 2 else _join(xp, fields, 4)


def unpack(xp: Ops, payload: Array, size: Scalar, width: int) -> Array:
  """Inverse of `pack`: uint8[ceil(size width / 8)] -> int32[size].

  Raises:
    PayloadError: the payload has another length or its unused bits are not zero.
  """
  payload = xp.static_bytes(payload, packed_size(size, width))
  if width in (8, 16):
    return xp.integers_from_bytes(payload, width // 8)
  step = _step(width)
  values = xp.reshape(xp.gather(xp.constant(_fields(step), np.int32), xp.cast(payload, np.int32)), [-1])
  used = size * width // step
  xp.require(xp.equal(values[used:], 0), 'unused bits at the end of a bit string are not zero.')
  return values[:used] if step == width else from_low_bits(xp, values[:used], size, width, width)


def unary(xp: Ops, numbers: Array) -> Array:
  """int32[n] >= 0 -> uint8 bytes: each number q as q zero bits and a one bit, one behind the other."""
  ends = xp.cumsum(numbers + xp.constant(1, np.int32)) - xp.constant(1, np.int32)
  length = xp.integer(xp.total(numbers)) + xp.size(numbers)
  return xp.bits_at(ends, packed_size(length, 1))


def read_unary(xp: Ops, payload: Array, count: Scalar, most: Scalar) -> Array:
  """Inverse of `unary` for a byte string that holds exactly `count` numbers.

  Args:
    xp: operation table.
    payload: uint8[n].
    count: how many numbers.
    most: an upper bound on their sum. Reading takes many times the memory of the string, so one that is longer than the
      bound allows is refused before it is looked at.

  Raises:
    PayloadError: the payload is too long, holds another number of ones, or bytes behind the last one.
  """
  longest = (xp.long(count) + most + 7) // 8
  xp.require(xp.long(xp.size(payload)) <= longest, 'a unary bit string is longer than its numbers can be.')
  payload = payload[:xp.integer(xp.minimum(longest, xp.long(xp.size(payload))))]
  ends = xp.where_bits(payload)
  found = xp.size(ends)
  xp.require(xp.equal(found, count), 'a unary bit string holds another count of numbers than expected.')
  starts = xp.concat([xp.constant([-1], np.int32), ends])
  numbers = starts[1:] - starts[:-1] - xp.constant(1, np.int32)
  last = starts[-1:] // xp.constant(8, np.int32) + xp.constant(1, np.int32)
  xp.require(xp.equal(last, xp.size(payload)), 'there are bytes behind the end of a unary bit string.')
  return numbers


def low_bits(xp: Ops, numbers: Array, count: Scalar, limit: int) -> Array:
  """int32[n] -> int32[n count]: the `count` low bits of each number, least significant first.

  `count` (0 … limit) may be known only when the graph runs; limit is an int, at most 16.
  """
  powers = xp.constant([signed(1 << (31 - j)) for j in range(limit)], np.int32)[:count]
  return xp.reshape(xp.shift_right(xp.reshape(numbers, [-1, 1]) * powers, 31), [-1])


def from_low_bits(xp: Ops, flags: Array, size: Scalar, count: Scalar, limit: int) -> Array:
  """Inverse of `low_bits`: int32[size count] -> int32[size]."""
  flags = xp.reshape(xp.cast(flags, np.float32), [size, count])
  return xp.cast(xp.reshape(xp.matmul(flags, _powers(xp, limit, 1)[:count]), [-1]), np.int32)
