"""The forms of a shared subspace, by name: what a round ends with on the server, the same for graphs and NumPy.

Clients need not know the form: they apply what they are sent.
"""

import collections
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Protocol

from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops
from tff_compress.codec.table import Scalar
from tff_compress.subspace import placement
from tff_compress.subspace.block_form import BlockForm
from tff_compress.subspace.fixed_form import FixedForm
from tff_compress.subspace.round_form import RoundForm
from tff_compress.subspace.session import Copy
from tff_compress.subspace.session import Session
from tff_compress.timeline import history

NAMES = ('round', 'block', 'fixed')


class Form(Protocol):
  """What a server does at the end of a round."""

  def begin(self, xp: Ops, copy: Copy) -> tuple[collections.OrderedDict[str, Any], collections.OrderedDict[str, Any]]:
    """(the first copy as the form needs it, what the server remembers besides: a structure of arrays)."""

  def sizes(self, session: Session, kept: int) -> Sequence[int]:
    """How many values each array of the memory has while there is a placement, in a round of k coordinates."""

  def end(self, xp: Ops, session: Session, past: history.State, copy: Copy, memory: Mapping[str, Any], mean: Array, *,
          arrived: Scalar, gap: Array, learning_rate: Array, bits: Scalar, next_bits: Scalar,
          next_scale: Array | None = None) -> tuple[collections.OrderedDict[str, Any], ...]:
    """(history, the server's copy, what it remembers) after a round.

    Args:
      xp: operation table.
      session: the run's agreement.
      past: the history, as `timeline.history.begin` describes it.
      copy: the server's.
      memory: what the server remembers, as `begin` gives it.
      mean: float32[k], of the clients' coordinates; anything where none arrived.
      arrived: boolean scalar, whether any did. Otherwise the model stays as it is, but for momentum.
      gap: float32 scalar, rounds that clients missed on average.
      learning_rate: float32 scalar, of the server.
      bits: of a change, per coordinate.
      next_bits: of the clients' next messages, per coordinate.
      next_scale: of those, as for `Session.change`.
    """

  def noise(self, xp: Ops, session: Session, copy: Copy, memory: Mapping[str, Any]) -> Array:
    """float64 scalar: energy of the noise that the model has taken on."""


def form_of(name: str, *, key_frame_bytes: int | None = None, momentum: float = 0.0, hold: int | None = None,
            placement_bits: int = placement.BITS) -> Form:
  """The form of a name, one of `NAMES`; arguments as the forms describe them. In the round form momentum is the
  session's. Blocks have none: a velocity would have to go from one subspace to the next."""
  if name == 'round':
    return RoundForm(key_frame_bytes)
  if name == 'block':
    return BlockForm(hold, placement_bits, key_frame_bytes)
  return FixedForm(momentum, placement_bits)
