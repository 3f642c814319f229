"""The block form: one subspace is held for several rounds, and what became of them is said in one change.

A block begins with a version of the model, its base, which everybody holds. Rotation, places and k stay those of its
first round. The server keeps y, the sum of the block's changes, in R^k. Within the block, the model is the base less
what the coordinates y stand for, and a placement says all of y anew in each round: what coding it loses is lost for a
round, and does not add up, so one bit per coordinate does. The block's last round ends with a change that says y to
more bits and leads to the next base, and so that versions are rounds, with an empty change for each of the block's
other rounds.

A client that comes every g-th round receives, besides a placement, the changes of g / L blocks of L rounds, in place
of g changes. But the longer a subspace is held, the more what training asks for has to be looked for in the same few
coordinates: blocks of about as many rounds as clients miss, and at most `MOST`, are best. The first ones are shorter,
as nobody can have missed many rounds yet.
"""

import collections
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops
from tff_compress.codec.table import Scalar
from tff_compress.subspace import endings
from tff_compress.subspace.session import Copy
from tff_compress.subspace.session import Session
from tff_compress.timeline import history

MOST = 25
"""Rounds of the longest block that is chosen by itself."""

_GROWTH = 4  # Such a block has at most this part of the rounds before it.


@dataclasses.dataclass(frozen=True)
class BlockForm:
  """See above; `forms.Form`.

  Attributes:
    hold: rounds of a block, at least 1; None: as many as clients miss on average, at most `MOST`.
    placement_bits: of a coordinate in a placement.
    key_frame_bytes: about how long a key frame is; None for none.
  """
  hold: int | None = None
  placement_bits: int = 1
  key_frame_bytes: int | None = None

  def begin(self, xp: Ops, copy: Copy) -> tuple[collections.OrderedDict[str, Any], collections.OrderedDict[str, Any]]:
    """(the copy with an anchor, OrderedDict of
      base: float32[d], that of the block; empty before the block's first round ends.
      target: float32[k], y; empty before.
      length: int32[1], rounds of the block).
    """
    return (collections.OrderedDict(copy, anchor=copy['round'] + xp.constant(0, np.int32)),
            self._fresh(xp, xp.constant([1], np.int32)))

  def sizes(self, session: Session, kept: int) -> Sequence[int]:
    return session.size, kept, 1

  def _fresh(self, xp: Ops, length: Array) -> collections.OrderedDict[str, Any]:
    nothing = lambda: xp.zeros([0], np.float32)
    return collections.OrderedDict(base=nothing(), target=nothing(), length=length)

  def end(self, xp: Ops, session: Session, past: history.State, copy: Copy, memory: Mapping[str, Any], mean: Array, *,
          arrived: Scalar, gap: Array, learning_rate: Array, bits: Scalar, next_bits: Scalar,
          next_scale: Array | None = None) -> tuple[collections.OrderedDict[str, Any], ...]:
    change = endings.change(xp, session, copy, mean, arrived=arrived, learning_rate=learning_rate)
    memory = self.moved(xp, memory, copy['model'], change)
    held = endings.held(xp, session, copy, memory['base'])
    following = copy['round'] + xp.constant(1, np.int32)
    rounds = following - copy['anchor']
    said: dict[str, Any] = dict(next_bits=next_bits, next_scale=next_scale)

    def placed() -> tuple[collections.OrderedDict[str, Any], ...]:
      record = session.placement(xp, held, following, memory['target'],
                                 bits=xp.constant(self.placement_bits, np.int32), **said)
      present = session.place(xp, held, record)
      return history.with_placement(xp, past, record, session.digest(xp, present)), present, memory

    def closed() -> tuple[collections.OrderedDict[str, Any], ...]:
      due = endings.key_frame_due(xp, past, self.key_frame_bytes)
      record = session.change_of(xp, held, memory['target'], bits=bits, key_frame=due, **said)
      moved, base = session.advance(xp, held, record)
      present = collections.OrderedDict(moved, round=following)
      digest = session.digest(xp, present)
      after = endings.with_change(xp, past, record, base, digest, self.key_frame_bytes)
      after = history.with_empty_changes(xp, after, rounds - xp.constant(1, np.int32), digest)
      present['anchor'] = following + xp.constant(0, np.int32)
      return after, present, self._fresh(xp, self.length(xp, gap, following))

    return xp.cond(rounds >= memory['length'][0], closed, placed)

  def moved(self, xp: Ops, memory: Mapping[str, Any], model: Array,
            change: Array) -> collections.OrderedDict[str, Array]:
    """What the server remembers after a round.

    Args:
      xp: operation table.
      memory: as `begin` describes it.
      model: float32[d], which becomes the base where there is none.
      change: float32[k], the coordinates of what the clients' mean takes off the model.
    """
    base, target = xp.cond(xp.size(memory['target']) > 0, lambda: (memory['base'], memory['target'] + change),
                           lambda: (model, change))
    return collections.OrderedDict(memory, base=base, target=target)

  def length(self, xp: Ops, gap: Array, number: Scalar) -> Array:
    """int32[1]: rounds of the block that begins in round `number`, where clients missed `gap` rounds on average."""
    if self.hold is not None:
      wanted, longest = xp.constant(self.hold, np.int32), number
    else:
      wanted = xp.minimum(xp.cast(xp.floor(gap + np.float32(0.5)), np.int32), xp.constant(MOST, np.int32))
      # In the first rounds updates have much in common, and a subspace is soon used up.
      longest = number // xp.constant(_GROWTH, np.int32)
    return xp.vector(xp.maximum(xp.minimum(wanted, longest), xp.constant(1, np.int32)))

  def noise(self, xp: Ops, session: Session, copy: Copy, memory: Mapping[str, Any]) -> Array:
    return endings.noise(xp, session, copy, memory)
