"""How long clients are away, which decides how many bits a coordinate has: a server's business, as it alone knows.

What a client sends is received once, by the server. What becomes of it is received by everybody, and by a client that
missed rounds for all of them. So the longer clients are away, the more of the bytes are those that come down, and the
more pays it that what goes up says more of fewer coordinates.
"""

import numpy as np

from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops
from tff_compress.codec.table import Scalar

MANY_MISSED = 4.0
"""Rounds that clients miss on average, from which on there are more bits."""

FEW_BITS, MORE_BITS = 1, 2
"""Per coordinate of updates and changes, below and above."""

_ROUNDS = 10  # That the average looks back.


def after(xp: Ops, gap: Array, missed: Array, rounds: Scalar) -> Array:
  """The mean number of rounds that clients missed, a moving average over rounds: float32 scalar.

  Args:
    xp: operation table.
    gap: float32 scalar, that of the rounds before.
    missed: float32 scalar, the mean over the clients of this round. Who comes first has missed all.
    rounds: int32 scalar, how many rounds there were before.
  """
  some = xp.minimum(xp.cast(rounds, np.float32) + np.float32(1), np.float32(_ROUNDS))
  return gap + (missed - gap) / some


def bits(xp: Ops, gap: Array) -> Scalar:
  """Bits per coordinate: int32 scalar."""
  return xp.where(gap < np.float32(MANY_MISSED), xp.constant(FEW_BITS, np.int32), xp.constant(MORE_BITS, np.int32))
