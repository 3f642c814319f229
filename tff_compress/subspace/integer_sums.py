"""Integer sums: all clients send whole numbers of one public scale, so that the sum of these is all a server needs.

So integer secure aggregation can add them: a server learns k + 1 sums and how many clients there were, and from that
the same mean as from reading each message. Clients count alike.

What a client's message holds behind the number of bits:

    offset  bytes  field
         0      2  energy e: the mean square of the coordinates, in units of (L scale)^2 / 1024, rounded, at most 65535
         2      n  whole numbers (`whole_numbers`) of the coordinates, -L … L: ceil(k bits / 8) bytes

The scale of a round stands in the record before it (see `session`), and follows from the mean of e: L scales are SPANS
times the root mean square of the coordinates of the last round's clients. The first one is a guess from the first
weights. It comes right by itself: within a round it may grow or fall by more than ten times.

Each coordinate is rounded to one of the two numbers beside it so that it is right on average. There is no rotation of
the client's own, as sums have to be in the coordinates that all share.
"""

from collections.abc import Mapping
import dataclasses
import math
from typing import Any
from typing import ClassVar

import numpy as np

from tff_compress.codec import floats
from tff_compress.codec.keys import Keys
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops
from tff_compress.codec.table import Scalar
from tff_compress.subspace import whole_numbers
from tff_compress.subspace.coordinates import Coordinates

SPANS = {2: 2.5, 3: 2.75, 4: 3.25, 5: 3.5, 6: 4.0, 7: 4.0, 8: 4.5}
"""{bits: L scales, in standard deviations of a coordinate}: near the least error of the mean of 10 to 100 clients, to
which clipping adds the same whatever their number."""

DISTORTION = {2: 1.0095, 3: 0.14031, 4: 0.0360419, 5: 0.0091257, 6: 0.0027808, 7: 0.00067801, 8: 0.00020979}
"""{bits: mean squared error of normally distributed coordinates whose root mean square is the one that the scale is
for, in variances}. In the mean of n clients it is n times less, but for clipping."""

FIRST = 0.1
"""The first scale is for an update of this share of the first weights' norm."""

_LEAST_WEIGHT = 1e-3  # Root mean square that weights count for at least: they may all be zero.
_ENERGY_UNIT = 1024.0
_MOST_ENERGY = 65535
_MOST_CLIENTS = 2**15  # So that the sum of energies fits an int32.
_LARGEST_RATIO = np.float32(2.0**20)
_SCALES = np.float32(2.0**-40), np.float32(2.0**60)


@dataclasses.dataclass(frozen=True)
class IntegerSums:
  """See above; `session.Sums`."""
  least_bits: ClassVar[int] = whole_numbers.LEAST_BITS
  most_bits: ClassVar[int] = whole_numbers.MOST_BITS
  common_scale: ClassVar[bool] = True
  dtype: ClassVar[Any] = np.int32

  def encode(self, xp: Ops, space: Coordinates, keys: Keys, copy: Mapping[str, Any], values: Array,
             most: int) -> Array:
    bits, scale = copy['bits'], copy['scale']
    numbers = whole_numbers.stochastic(xp, values, scale, bits, space.dither(xp, keys, most)[:xp.size(values)])
    square, unit = whole_numbers.mean_square(xp, values)
    ratio = xp.minimum(unit / (scale * xp.cast(whole_numbers.limit(xp, bits), np.float32)), _LARGEST_RATIO)
    energy = xp.floor(square * ratio * ratio * np.float32(_ENERGY_UNIT) + np.float32(0.5))
    energy = xp.cast(xp.minimum(energy, np.float32(_MOST_ENERGY)), np.int32)
    return xp.concat([xp.integers_to_bytes(energy, 2), whole_numbers.pack(xp, numbers, bits)])

  def decode(self, xp: Ops, space: Coordinates, keys: Keys, kept: Scalar, bits: Scalar, body: Array) -> Array:
    """uint8[n] -> int32[k + 1], the whole numbers and the energy: to be added, in the clear or masked."""
    del space, keys
    xp.require((bits >= self.least_bits) & (bits <= self.most_bits),
               'a message has another number of bits per coordinate than 2 … 8.')
    xp.require(xp.size(body) >= 2, 'a message is cut short.')
    bits = xp.minimum(xp.maximum(bits, self.least_bits), self.most_bits)
    return xp.concat([whole_numbers.unpack(xp, body[2:], kept, bits), xp.integers_from_bytes(body[:2], 2)])

  def weighted(self, xp: Ops, found: Array, weight: Array) -> Array:
    del xp, weight
    return found

  def mean(self, xp: Ops, copy: Mapping[str, Any], total: Array, weight: Array) -> Array:
    return xp.cast(total[:-1], np.float32) * (copy['scale'] / weight)

  def is_scale(self, xp: Ops, scale: Array) -> Array:
    """Boolean: whether a scale is one that a server says."""
    return (scale >= _SCALES[0]) & (scale <= _SCALES[1])

  def first_scale(self, xp: Ops, space: Coordinates, energy: Array, bits: Scalar) -> Array:
    """float32 scalar, of the first round, from the first weights' energy, a float64 scalar."""
    square = xp.cast(energy / xp.constant(space.padded, np.float64), np.float32)
    square = xp.reshape(xp.maximum(square, np.float32(_LEAST_WEIGHT**2)), [1])
    return _scale_for(xp, floats.square_root(xp, square) * np.float32(FIRST), bits)

  def following_scale(self, xp: Ops, copy: Mapping[str, Any], total: Array, weight: Array, next_bits: Scalar) -> Array:
    """float32 scalar, of the next round.

    Args:
      xp: operation table.
      copy: the server's.
      total: int32[k + 1], the sum of what clients sent.
      weight: float32 scalar, how many they were, 1 … 2^15.
      next_bits: of their next messages.
    """
    largest = copy['scale'] * xp.cast(whole_numbers.limit(xp, copy['bits']), np.float32)
    energy = xp.maximum(xp.cast(total[-1:], np.float32) / weight, np.float32(0.5))
    return _scale_for(xp, floats.square_root(xp, energy * np.float32(1 / _ENERGY_UNIT)) * largest, next_bits)


def _scale_for(xp: Ops, deviation: Array, bits: Scalar) -> Array:
  """float32 scalar, a bfloat16: the scale for coordinates of a root mean square, float32[1]."""
  spans = xp.constant([1.0, 1.0, *SPANS.values()], np.float32)
  scale = deviation * xp.gather(spans, xp.vector(bits)) / xp.cast(whole_numbers.limit(xp, bits), np.float32)
  scale = xp.maximum(xp.minimum(scale, _SCALES[1]), _SCALES[0])
  return floats.from_bfloat16(xp, floats.nearest_bfloat16(xp, scale))[0]


def modulus_bits(bits: int, clients: int) -> tuple[int, int]:
  """(bits that the sum of whole numbers takes, bits that the sum of energies takes) of so many clients: where they are
  added modulo a power of two, as secure aggregation does, no sum may wrap around."""
  largest = 2**(bits - 1) - 1
  return math.ceil(math.log2(2 * largest * clients + 1)), math.ceil(math.log2(_MOST_ENERGY * clients + 1))
