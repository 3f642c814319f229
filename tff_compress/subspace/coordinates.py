"""The coordinates in which a round's updates are sent: a part of the model's vector after two rotations.

All variables lie in one vector of d values, filled up with zeros to P, a multiple of the rotation's block. It is
rotated twice (`codec.transforms.hadamard`), and k of the P values are kept: those at (o + i g) mod P for i = 0 … k - 1,
where g is a number near P / golden ratio that has no divisor with P in common, and o a random place. Rotation and place
are drawn from the round's key, so whoever knows seed, round and k knows the coordinates, and no position is sent.

With random signs in front of each rotation, any choice of places is unbiased: the expectation of what comes back from
k coordinates is k / P times the vector (the signs of two different values are independent, so what a place mixes of
other values averages to zero). Neighbouring places differ by g, so that k of them are spread evenly over the blocks.
"""

import collections
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
import math
from typing import Any

import numpy as np

from tff_compress.codec import random
from tff_compress.codec.keys import CHUNKS_PER_OCCURRENCE
from tff_compress.codec.keys import Draws
from tff_compress.codec.keys import Keys
from tff_compress.codec.random import Purpose
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops
from tff_compress.codec.table import Scalar
from tff_compress.codec.transforms import hadamard

BLOCK = 1024
"""Values of a block of the two rotations: small whole numbers stay exact in float32 through both, see `lift`."""

UNIT = 256
"""k is a multiple of this many values, the block of a client's own rotation."""


@dataclasses.dataclass(frozen=True)
class Coordinates:
  """The coordinates of vectors of `size` values.

  Attributes:
    size: d, number of values of the model's vector, at least 1.
  """
  size: int

  @functools.cached_property
  def padded(self) -> int:
    """P: the size filled up to whole blocks."""
    block = hadamard.largest_block(BLOCK, self.size)
    return -(-self.size // block) * block

  @functools.cached_property
  def unit(self) -> int:
    """k is a multiple of this."""
    return hadamard.largest_block(UNIT, self.size)

  @functools.cached_property
  def block(self) -> int:
    """Values of a block of the two rotations."""
    return hadamard.largest_block(BLOCK, self.padded)

  @property
  def rows(self) -> int:
    """Blocks of each rotation."""
    return self.padded // self.block

  @functools.cached_property
  def _stride(self) -> int:
    """g."""
    stride = max(1, self.padded * 10946 // 17711)
    while math.gcd(stride, self.padded) > 1:
      stride += 1
    return stride

  def requests(self) -> list[tuple[str, str, int, int]]:
    """[(scope, name, purpose, chunk)] of all keys that are drawn from, as `tensorflow.keys.GraphKeys` needs to know."""
    words = 2 * self.padded // 32 + 1
    chunks = -(-words // random.WORDS_PER_KEY)
    own = CHUNKS_PER_OCCURRENCE  # Of a client's own rotation, the second stage of its class.
    return [*(('round', '', int(Purpose.ROTATION), chunk) for chunk in range(chunks)),
            ('round', '', int(Purpose.MASK), 0), ('client', '', int(Purpose.PRE_ROUNDING), 0),
            ('client', '', int(Purpose.ROTATION), own), ('client', '', int(Purpose.PRE_ROUNDING), own),
            *(('client', '', int(Purpose.PRE_ROUNDING), 2 * own + chunk)
              for chunk in range(-(-self.padded // (2 * random.WORDS_PER_KEY))))]

  def places(self, xp: Ops, keys: Keys, kept: Scalar) -> Array:
    """int32[k]: where the kept values lie among the P."""
    word = Draws(xp, keys, '', 0).of('round', Purpose.MASK).words(1)
    first = xp.cast(xp.shift_right(word, 1), np.int64)
    steps = xp.cast(xp.iota(kept), np.int64) * xp.constant(self._stride, np.int64)
    return xp.cast((first + steps) % xp.constant(self.padded, np.int64), np.int32)

  def filled(self, xp: Ops, parts: Sequence[Array]) -> Array:
    """float32[P]: vectors of d values together, one behind the other, and zeros; of P values, these themselves."""
    missing = self.padded - sum(int(part.shape[0]) for part in parts)
    return xp.concat([*parts, *([xp.zeros([missing], np.float32)] if missing else [])])

  def _cells(self, xp: Ops, keys: Keys, kept: Scalar) -> Array:
    """int32[k]: the places, counted along the blocks of the second rotation, which lie across those of the first."""
    places, rows = self.places(xp, keys, kept), xp.constant(self.rows, np.int32)
    return places % rows * xp.constant(self.block, np.int32) + places // rows

  def _signs(self, xp: Ops, keys: Keys) -> list[random.Rows]:
    """The signs of the two rotations, [rows, block] each: consecutive pieces of one stream."""
    stream = Draws(xp, keys, '', 0).of('round', Purpose.ROTATION)
    return [random.Rows(xp, stream.signs, self.rows, self.block, start) for start in (0, self.padded)]

  def shared(self, xp: Ops, keys: Keys, kept: Scalar) -> collections.OrderedDict[str, Array]:
    """What all clients of a round draw alike: OrderedDict of
      signs: float32[2, P / block, block], of the two rotations: each client would have to turn anything smaller into
        these.
      cells: int32[k], the places, counted along the blocks of the second rotation.
    """
    signs = xp.reshape(xp.concat([signs[:] for signs in self._signs(xp, keys)]), [2, self.rows, self.block])
    return collections.OrderedDict(signs=signs, cells=self._cells(xp, keys, kept))

  def project(self, xp: Ops, keys: Keys, vector: Array, kept: Scalar,
              shared: Mapping[str, Array] | None = None) -> Array:
    """float32[d] -> float32[k], its coordinates: the same bits on every runtime.

    Args:
      xp: operation table.
      keys: of a client's message.
      vector: float32[d], or float32[P] with zeros behind it.
      kept: k.
      shared: as `shared` gives it, where several clients are simulated; None: it is drawn.
    """
    dither = Draws(xp, keys, '', 0).client(Purpose.PRE_ROUNDING).dither(2 * self.block)
    first: Any
    second: Any
    if shared is None:
      (first, second), cells = self._signs(xp, keys), self._cells(xp, keys, kept)
    else:
      cells, first, second = shared['cells'], shared['signs'][0], shared['signs'][1]

    def turned(values: Array, signs: Any, dither: Array) -> Array:
      return xp.by_rows(lambda x, signs: (hadamard.forward(xp, x, signs, dither),), values, signs)[0]

    values = turned(xp.reshape(self.filled(xp, [vector]), [self.rows, self.block]), first, dither[:self.block])
    across = xp.transpose(xp.reshape(values, [self.block, self.rows]), [1, 0])
    values = turned(across, second, dither[self.block:])
    return xp.gather(xp.reshape(values, [self.padded]), cells)

  def lift(self, xp: Ops, keys: Keys, levels: Array) -> Array:
    """float32[k] -> float32[d], the vector with these coordinates and zero elsewhere.

    For whole numbers q it is exact, and so the same on every runtime, where ||q||^2 is at most 2^28: the two rotations
    add multiples of 1 / 1024, and by Cauchy and Schwarz no sum on the way is above ||q||, which is 2^24 of these.
    Levels of 1 to 4 bits of normally distributed values have a mean square of at most 39: six million are that few.

    Args:
      xp: operation table.
      keys: of a message of the same round.
      levels: float32[k].
    """
    first, second = self._signs(xp, keys)

    def turned_back(values: Array, signs: random.Rows) -> Array:
      return xp.by_rows(lambda x, signs: (hadamard.inverse(xp, x, signs),), values, signs)[0]

    scattered = xp.scatter(self._cells(xp, keys, xp.size(levels)), levels, self.padded)
    across = turned_back(xp.reshape(scattered, [self.rows, self.block]), second)
    values = xp.reshape(xp.transpose(across, [1, 0]), [self.rows, self.block])
    return xp.reshape(turned_back(values, first), [self.padded])[:self.size]

  def rotated(self, xp: Ops, keys: Keys, values: Array) -> Array:
    """float32[k] -> float32[k], rotated in blocks of `unit` as only this client does: what a quantizer loses of two
    clients' values is then independent, whatever they have in common."""
    dither = Draws(xp, keys, '', 1).client(Purpose.PRE_ROUNDING).dither(self.unit)
    rows = xp.reshape(values, [-1, self.unit])
    return xp.reshape(hadamard.forward(xp, rows, self._own_signs(xp, keys, values), dither), [-1])

  def rotated_back(self, xp: Ops, keys: Keys, values: Array) -> Array:
    """Inverse of `rotated`."""
    rows = xp.reshape(values, [-1, self.unit])
    return xp.reshape(hadamard.inverse(xp, rows, self._own_signs(xp, keys, values)), [-1])

  def dither(self, xp: Ops, keys: Keys, size: int) -> Array:
    """float32[size], at most P values, uniform on (0, 1), of this client's own: for the rounding of its coordinates."""
    return Draws(xp, keys, '', 2).client(Purpose.PRE_ROUNDING).dither(size)

  def _own_signs(self, xp: Ops, keys: Keys, values: Array) -> Array:
    """float32[k / unit, unit] of a client's own rotation."""
    stream = Draws(xp, keys, '', 1).of('client', Purpose.ROTATION)
    return xp.reshape(stream.few_signs(xp.size(values)), [-1, self.unit])
