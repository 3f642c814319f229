"""Placements: all of y, how far the model is from its anchor, in one record (see `fixed_form`).

All integers little endian (counts: `codec.counts`):

    offset  bytes  field
         0      1  bits of a number (bits 0-3), bits that clients send per coordinate in the next round (4-7)
         1      2  scale, a bfloat16
         3      s  with integer sums, 2 bytes: the scale of the clients' next messages, a bfloat16
       3+s      m  rounds since the anchor, a count of at least 1
     3+s+m      n  y in whole numbers of the scale (`whole_numbers`): ceil(k bits / 8) bytes

What rounding loses is lost for a round and does not add up: so it has the least error, and is not right on average.
"""

from collections.abc import Sequence

import numpy as np

from tff_compress.codec import counts
from tff_compress.codec import floats
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops
from tff_compress.codec.table import Scalar
from tff_compress.subspace import whole_numbers

BITS = 8
"""Of a number of a placement."""

LEAST_BITS = 4

HEAD = 3
"""Bytes before the scale of the next messages."""

MOST_SQUARES = 2**28
"""Of a placement's numbers q, ||q||^2: with that, their rotation is exact in float32 (`Coordinates.lift`)."""

_LARGEST_NORM = np.float32(12000)
# Rounding adds at most sqrt(k) / 2 to ||q||, and that of the scale to a bfloat16 2^-8 of it: 2^14 for k up to 2^26.


def encode(xp: Ops, target: Array, rounds: Scalar, bits: Scalar, next_bits: Scalar,
           more: Sequence[Array] = ()) -> Array:
  """uint8[n]: a placement.

  Args:
    xp: operation table.
    target: float32[k], y; k at most 2^26.
    rounds: int32 scalar, those since the anchor, at least 1.
    bits: of a number, 4 … 8.
    next_bits: bits per coordinate of the clients' next messages.
    more: uint8[2], their scale; or nothing.
  """
  deviation = whole_numbers.root_mean_square(xp, target)
  steps = xp.gather(xp.constant([0.0, 0.0, *whole_numbers.STEPS.values()], np.float32), xp.vector(bits))
  count = xp.reshape(xp.cast(xp.size(target), np.float32), [1])
  least = floats.square_root(xp, count) / _LARGEST_NORM
  packed_scale = floats.nearest_bfloat16(xp, deviation * xp.maximum(steps, least))
  numbers = whole_numbers.nearest(xp, target, floats.from_bfloat16(xp, packed_scale), bits)
  flags = xp.integer(bits) + 16 * xp.integer(next_bits)
  return xp.concat([xp.integers_to_bytes(xp.vector(flags), 1), xp.integers_to_bytes(packed_scale, 2), *more,
                    counts.encode(xp, xp.vector(rounds)), whole_numbers.pack(xp, numbers, bits)])


def decode(xp: Ops, record: Array, kept: Scalar, more: int = 0) -> tuple[Array, Array, Scalar, Scalar]:
  """(int32[k] numbers, float32 scalar scale, rounds since the anchor, bits of the next messages) of a placement
  that has `more` bytes behind its head.

  Raises:
    PayloadError: the record is no placement of k coordinates, or its rotation would not be exact.
  """
  xp.require(xp.size(record) >= 4, 'a placement is cut short.')
  flags = xp.cast(record[0], np.int32)
  bits, following = flags % 16, xp.shift_right(flags, 4)
  xp.require((bits >= LEAST_BITS) & (bits <= whole_numbers.MOST_BITS),
             'a placement has numbers of other than 4 … 8 bits.')
  bits = xp.minimum(xp.maximum(bits, LEAST_BITS), whole_numbers.MOST_BITS)
  scale = floats.from_bfloat16(xp, xp.integers_from_bytes(record[1:3], 2))[0]
  xp.require(floats.is_amount(xp, scale), 'a scale is not a number from 0 to 2^88.')
  rounds, rest = counts.decode_one(xp, record[HEAD + more:])
  xp.require(rounds >= 1, 'a placement is of the round of its anchor.')
  numbers = whole_numbers.unpack(xp, rest, kept, bits)
  xp.require(xp.total(numbers * numbers) <= MOST_SQUARES,
             'a placement has so many large numbers that their rotation would not be exact.')
  return numbers, scale, rounds, following
