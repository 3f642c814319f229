"""The fixed form: one subspace from the anchor on, so that one record makes good for any number of missed rounds.

The anchor is a version of the model, of which on rotation and places stay those of its round, and k what the rule says
there. The server keeps y, the sum of all changes since, in R^k. The model is the anchor less what the coordinates y
stand for, and as everybody holds the anchor, a placement says all of y anew each round. What rounding it loses is lost
for a round and does not add up, so least error counts, not being right on average.

A placement, all integers little endian (counts: `codec.counts`):

    offset  bytes  field
         0      1  bits of a number (bits 0-3), bits that clients send per coordinate in the next round (4-7)
         1      2  scale, a bfloat16
         3      m  rounds since the anchor, a count of at least 1
       3+m      n  y in whole numbers of the scale (`whole_numbers`): ceil(k bits / 8) bytes

The round of the anchor itself is like any other: clients use that round's coordinates, as they would without a
placement. So only the server needs to know that a subspace is fixed from there on, and may decide it late.
"""

import collections
from collections.abc import Mapping
from typing import Any

import numpy as np

from tff_compress.codec import counts
from tff_compress.codec import floats
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops
from tff_compress.codec.table import Scalar
from tff_compress.subspace import levels
from tff_compress.subspace import whole_numbers

BITS = 8
"""Of a number of a placement."""

LEAST_BITS = 4

SWITCH = 30.0
"""Clients that miss more rounds than this, on average, are better served by the fixed form."""

MOST_SQUARES = 2**28
"""Of a placement's numbers q, ||q||^2: with that, their rotation is exact in float32 (`Coordinates.lift`)."""

_LARGEST_NORM = np.float32(12000)
# Rounding adds at most sqrt(k) / 2 to ||q||, and that of the scale to a bfloat16 2^-8 of it: 2^14 for k up to 2^26.


def begin(xp: Ops, momentum: float) -> collections.OrderedDict[str, Array]:
  """What the server remembers besides the copy, before there is an anchor.

  Returns:
    OrderedDict of
      anchor: float32[d], the model of the anchor; empty where there is none.
      target: float32[k], y.
      velocity: float32[k], with momentum alone.
  """
  names = ['anchor', 'target', *(['velocity'] if momentum else [])]
  return collections.OrderedDict((name, xp.zeros([0], np.float32)) for name in names)


def moved(xp: Ops, state: Mapping[str, Any], model: Array, change: Array,
          momentum: float) -> collections.OrderedDict[str, Array]:
  """The state after a round.

  Args:
    xp: operation table.
    state: as `begin` describes it.
    model: float32[d], which becomes the anchor where there is none.
    change: float32[k], the coordinates of what the clients' mean takes off the model.
    momentum: 0 … 1 without 1.
  """
  begun = xp.size(state['target']) > 0
  of_before = lambda name: xp.cond(begun, lambda: state[name], lambda: change * np.float32(0))
  following = collections.OrderedDict(anchor=xp.cond(begun, lambda: state['anchor'], lambda: model))
  if momentum:
    change = of_before('velocity') * np.float32(momentum) + change
  following['target'] = of_before('target') + change
  if momentum:
    following['velocity'] = change
  return following


def encode(xp: Ops, target: Array, rounds: Scalar, bits: Scalar, next_bits: Scalar) -> Array:
  """uint8[n]: a placement.

  Args:
    xp: operation table.
    target: float32[k], y; k at most 2^26.
    rounds: int32 scalar, those since the anchor, at least 1.
    bits: of a number, 4 … 8.
    next_bits: bits per coordinate of the clients' next messages.
  """
  deviation = whole_numbers.root_mean_square(xp, target)
  steps = xp.gather(xp.constant([0.0, 0.0, *whole_numbers.STEPS.values()], np.float32), xp.vector(bits))
  count = xp.reshape(xp.cast(xp.size(target), np.float32), [1])
  least = floats.square_root(xp, count) / _LARGEST_NORM
  packed_scale = floats.nearest_bfloat16(xp, deviation * xp.maximum(steps, least))
  numbers = whole_numbers.nearest(xp, target, floats.from_bfloat16(xp, packed_scale), bits)
  flags = xp.integer(bits) + 16 * xp.integer(next_bits)
  return xp.concat([xp.integers_to_bytes(xp.vector(flags), 1), xp.integers_to_bytes(packed_scale, 2),
                    counts.encode(xp, xp.vector(rounds)), whole_numbers.pack(xp, numbers, bits)])


def decode(xp: Ops, record: Array, kept: Scalar) -> tuple[Array, Array, Scalar, Scalar]:
  """(int32[k] numbers, float32 scalar scale, rounds since the anchor, bits of the next messages) of a placement.

  Raises:
    PayloadError: the record is no placement of k coordinates, or its rotation would not be exact.
  """
  xp.require(xp.size(record) >= 4, 'a placement is cut short.')
  flags = xp.cast(record[0], np.int32)
  bits, following = flags % 16, xp.shift_right(flags, 4)
  xp.require((bits >= LEAST_BITS) & (bits <= whole_numbers.MOST_BITS),
             'a placement has numbers of other than 4 … 8 bits.')
  xp.require((following >= 1) & (following <= levels.MOST_BITS),
             'a placement has another number of bits for the next messages than 1 … 4.')
  bits = xp.minimum(xp.maximum(bits, LEAST_BITS), whole_numbers.MOST_BITS)
  scale = floats.from_bfloat16(xp, xp.integers_from_bytes(record[1:3], 2))[0]
  xp.require(floats.is_amount(xp, scale), 'a scale is not a number from 0 to 2^88.')
  rounds, rest = counts.decode_one(xp, record[3:])
  xp.require(rounds >= 1, 'a placement is of the round of its anchor.')
  numbers = whole_numbers.unpack(xp, rest, kept, bits)
  xp.require(xp.total(numbers * numbers) <= MOST_SQUARES,
             'a placement has so many large numbers that their rotation would not be exact.')
  return numbers, scale, rounds, following
