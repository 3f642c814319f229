"""Private sums: each client sends its coordinates at a scale of its own. Least error for the bits; the server reads
every message.

What a client's message holds behind the number of bits:

    offset  bytes  field
         0      2  scale, a bfloat16
         2      n  levels (`levels`) of the coordinates after a rotation of the client's own: ceil(k bits / 8) bytes
"""

from collections.abc import Mapping
import dataclasses
from typing import Any
from typing import ClassVar

import numpy as np

from tff_compress.codec.keys import Keys
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops
from tff_compress.codec.table import Scalar
from tff_compress.subspace import levels
from tff_compress.subspace.coordinates import Coordinates


@dataclasses.dataclass(frozen=True)
class PrivateSums:
  """See above; `session.Sums`."""
  least_bits: ClassVar[int] = 1
  most_bits: ClassVar[int] = levels.MOST_BITS
  common_scale: ClassVar[bool] = False
  dtype: ClassVar[Any] = np.float32

  def encode(self, xp: Ops, space: Coordinates, keys: Keys, copy: Mapping[str, Any], values: Array,
             most: int) -> Array:
    del most
    packed, scale = levels.encode(xp, space.rotated(xp, keys, values), copy['bits'])
    return xp.concat([xp.integers_to_bytes(scale, 2), packed])

  def decode(self, xp: Ops, space: Coordinates, keys: Keys, kept: Scalar, bits: Scalar, body: Array) -> Array:
    found, scale = levels.read(xp, body, kept, bits)
    return space.rotated_back(xp, keys, xp.cast(found, np.float32)) * scale

  def weighted(self, xp: Ops, found: Array, weight: Array) -> Array:
    del xp
    return found * weight

  def mean(self, xp: Ops, copy: Mapping[str, Any], total: Array, weight: Array) -> Array:
    del xp, copy
    return total / weight
