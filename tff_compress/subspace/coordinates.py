"""The coordinates in which a round's updates are sent: a part of the model's vector after two rotations.

All variables lie in one vector of d values, filled up with zeros to P, a multiple of the rotation's block. It is
rotated twice (`codec.transforms.hadamard`), and k of the P values are kept: those at (o + i g) mod P for i = 0 … k - 1,
where g is a number near P / golden ratio that has no divisor with P in common, and o a random place. Rotation and place
are drawn from the round's key, so whoever knows seed, round and k knows the coordinates, and no position is sent.

With random signs in front of each rotation, any choice of places is unbiased: the expectation of what comes back from
k coordinates is k / P times the vector (the signs of two different values are independent, so what a place mixes of
other values averages to zero). Neighbouring places differ by g, so that k of them are spread evenly over the blocks.
"""

import dataclasses
import functools
import math

import numpy as np

from tff_compress.codec import random
from tff_compress.codec.keys import Draws
from tff_compress.codec.keys import Keys
from tff_compress.codec.random import Purpose
from tff_compress.codec.stage import Real
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
    block = min(BLOCK, 4**int(math.log(self.size, 4) + 1e-9))
    return -(-self.size // block) * block

  @functools.cached_property
  def unit(self) -> int:
    """k is a multiple of this."""
    return min(UNIT, 4**int(math.log(self.size, 4) + 1e-9))

  @functools.cached_property
  def _rotation(self) -> hadamard.Hadamard:
    return hadamard.Hadamard(rotations=2, block=BLOCK)

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
    own = 1 << 16  # As `Draws` counts a second rotation.
    return [*(('round', '', int(Purpose.ROTATION), chunk) for chunk in range(chunks)),
            ('round', '', int(Purpose.MASK), 0), ('client', '', int(Purpose.PRE_ROUNDING), 0),
            ('client', '', int(Purpose.ROTATION), own), ('client', '', int(Purpose.PRE_ROUNDING), own)]

  def places(self, xp: Ops, keys: Keys, kept: Scalar) -> Array:
    """int32[k]: where the kept values lie among the P."""
    word = Draws(xp, keys, '', 0).of('round', Purpose.MASK).words(1)
    first = xp.cast(xp.shift_right(word, 1), np.int64)
    steps = xp.cast(xp.iota(kept), np.int64) * xp.constant(self._stride, np.int64)
    return xp.cast((first + steps) % xp.constant(self.padded, np.int64), np.int32)

  def project(self, xp: Ops, keys: Keys, vector: Array, kept: Scalar) -> Array:
    """float32[d] -> float32[k], its coordinates: the same bits on every runtime.

    Args:
      xp: operation table.
      keys: of a client's message.
      vector: float32[d].
      kept: k.
    """
    padding = xp.zeros([self.padded - self.size], np.float32)
    rotated, _ = self._rotation.encode(xp, xp.concat([vector, padding]), Draws(xp, keys, '', 0), Real(self.padded))
    return xp.gather(rotated, self.places(xp, keys, kept))

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
    scattered = xp.scatter(self.places(xp, keys, xp.size(levels)), levels, self.padded)
    scattered = xp.reshape(scattered, [self.padded])
    lifted = self._rotation.decode(xp, scattered, {}, Draws(xp, keys, '', 0), Real(self.padded))
    return lifted[:self.size]

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

  def _own_signs(self, xp: Ops, keys: Keys, values: Array) -> Array:
    """float32[k / unit, unit] of a client's own rotation."""
    # k may be known only when the graph runs, and how many words are drawn is known before.
    signs = Draws(xp, keys, '', 1).of('client', Purpose.ROTATION).signs(self.padded)
    return xp.reshape(signs[:xp.size(values)], [-1, self.unit])
