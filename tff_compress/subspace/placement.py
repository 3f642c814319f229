"""Placements: all of y, how far the model is from its anchor, in one record (see `block_form`).

All integers little endian (counts: `codec.counts`):

    offset  bytes  field
         0      1  bits of a coordinate (bits 0-3), bits that clients send per coordinate in the next round (4-7)
         1      2  scale, a bfloat16
         3      s  with integer sums, 2 bytes: the scale of the clients' next messages, a bfloat16
       3+s      m  rounds since the anchor, a count of at least 1
     3+s+m      n  y: ceil(k bits / 8) bytes. Of 1 to 3 bits a coordinate: levels (`levels`) of y after a rotation of
                   the server's own, in blocks of `UNIT`, with the keys of the round and of messages to all. Of 4 to 8
                   bits: whole numbers of the scale (`whole_numbers`), the nearest ones

What is lost is lost for a round and does not add up.
"""

from collections.abc import Sequence

import numpy as np

from tff_compress.codec import counts
from tff_compress.codec import floats
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops
from tff_compress.codec.table import Scalar
from tff_compress.subspace import levels
from tff_compress.subspace import whole_numbers

BITS = 8
"""Of a coordinate, where one subspace is held for good."""

LEAST_BITS = 1

LEAST_OF_WHOLE_NUMBERS = 4

HEAD = 3
"""Bytes before the scale of the next messages."""

MOST_SQUARES = 2**28
"""Of whole numbers q, ||q||^2: with that, their rotation is exact in float32 (`Coordinates.lift`)."""

MOST_SQUARES_ROTATED = 2**20
"""Of levels, which the rotation of the server's own makes multiples of 1 / 16 first."""

_LARGEST_NORM = np.float32(12000)
# Rounding adds at most sqrt(k) / 2 to ||q||, and that of the scale to a bfloat16 2^-8 of it: 2^14 for k up to 2^26.


def encode(xp: Ops, target: Array, rotated: Array, rounds: Scalar, bits: Scalar, next_bits: Scalar,
           more: Sequence[Array] = ()) -> Array:
  """uint8[n]: a placement.

  Args:
    xp: operation table.
    target: float32[k], y; k at most 2^26.
    rotated: float32[k], the same after the server's own rotation.
    rounds: int32 scalar, those since the anchor, at least 1.
    bits: of a coordinate, 1 … 8. Of so many coordinates that levels of these bits would not be exact, fewer or more.
    next_bits: bits per coordinate of the clients' next messages.
    more: uint8[2], their scale; or nothing.
  """
  bits = exact_bits(xp, xp.integer(bits), xp.size(target))
  few = bits < xp.constant(LEAST_OF_WHOLE_NUMBERS, np.int32)
  packed, scale = xp.cond(few, lambda: levels.encode(xp, rotated, bits), lambda: _whole_numbers(xp, target, bits))
  flags = bits + xp.constant(16, np.int32) * xp.integer(next_bits)
  return xp.concat([xp.integers_to_bytes(xp.vector(flags), 1), xp.integers_to_bytes(scale, 2), *more,
                    counts.encode(xp, xp.vector(rounds)), packed])


def exact_bits(xp: Ops, bits: Scalar, kept: Scalar) -> Scalar:
  """The bits at which k coordinates are sent where these bits are asked for: int32 scalar."""
  # Whatever the values are: 1, 10 and 8 are the largest levels.
  limits = [0, *(MOST_SQUARES_ROTATED // levels.LEVELS[b][-1]**2 for b in (1, 2, 3)), *[2**31 - 1] * 5]
  most = xp.constant(limits, np.int32)
  fewer = xp.where(xp.integer(kept) <= most[1], xp.constant(1, np.int32), xp.constant(LEAST_OF_WHOLE_NUMBERS, np.int32))
  return xp.where(xp.integer(kept) <= xp.gather(most, bits), bits, fewer)


def _whole_numbers(xp: Ops, target: Array, bits: Scalar) -> tuple[Array, Array]:
  """(uint8[n], int32[1] the scale as the bits of a bfloat16)."""
  deviation = whole_numbers.root_mean_square(xp, target)
  steps = xp.gather(xp.constant([0.0, 0.0, *whole_numbers.STEPS.values()], np.float32), xp.vector(bits))
  count = xp.reshape(xp.cast(xp.size(target), np.float32), [1])
  least = floats.square_root(xp, count) / _LARGEST_NORM
  scale = floats.nearest_bfloat16(xp, deviation * xp.maximum(steps, least))
  return whole_numbers.pack(xp, whole_numbers.nearest(xp, target, floats.from_bfloat16(xp, scale), bits), bits), scale


def decode(xp: Ops, record: Array, kept: Scalar, more: int = 0) -> tuple[Array, Array, Scalar, Scalar, Scalar]:
  """What a placement says that has `more` bytes behind its head.

  Returns:
    (int32[k] numbers, float32 scalar scale, whether the numbers are to be rotated back by the server's own rotation,
    rounds since the anchor, bits of the next messages).

  Raises:
    PayloadError: the record is no placement of k coordinates, or its rotation would not be exact.
  """
  xp.require(xp.size(record) >= 4, 'a placement is cut short.')
  flags = xp.cast(record[0], np.int32)
  bits, following = flags % 16, xp.shift_right(flags, 4)
  xp.require((bits >= LEAST_BITS) & (bits <= whole_numbers.MOST_BITS),
             'a placement has coordinates of other than 1 … 8 bits.')
  bits = xp.minimum(xp.maximum(bits, LEAST_BITS), whole_numbers.MOST_BITS)
  rotated = bits < xp.constant(LEAST_OF_WHOLE_NUMBERS, np.int32)
  scale = floats.from_bfloat16(xp, xp.integers_from_bytes(record[1:3], 2))[0]
  xp.require(floats.is_amount(xp, scale), 'a scale is not a number from 0 to 2^88.')
  rounds, rest = counts.decode_one(xp, record[HEAD + more:])
  xp.require(rounds >= 1, 'a placement is of the round of its anchor.')
  numbers = xp.cond(rotated, lambda: xp.apart(levels.decode, (), rest, kept, xp.minimum(bits, 3)),
                    lambda: xp.apart(whole_numbers.unpack, (), rest, kept, xp.maximum(bits, LEAST_OF_WHOLE_NUMBERS)))
  most = xp.where(rotated, xp.constant(MOST_SQUARES_ROTATED, np.int32), xp.constant(MOST_SQUARES, np.int32))
  xp.require(xp.total(numbers * numbers) <= xp.long(most),
             'a placement has so many large numbers that their rotation would not be exact.')
  return numbers, scale, rotated, rounds, following
