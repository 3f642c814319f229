"""The fixed form: one subspace from the anchor on, so that one record makes good for any number of missed rounds.

The anchor is a version of the model, of which on rotation and places stay those of its round, and k what the rule says
there. The server keeps y, the sum of all changes since, in R^k. The model is the anchor less what the coordinates y
stand for, and as everybody holds the anchor, a placement says all of y anew each round (`placement`).

The round of the anchor itself is like any other: clients use that round's coordinates, as they would without a
placement. So only the server needs to know that a subspace is fixed from there on, and may decide it late.
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
from tff_compress.subspace import placement
from tff_compress.subspace.session import Copy
from tff_compress.subspace.session import Session
from tff_compress.timeline import history


@dataclasses.dataclass(frozen=True)
class FixedForm:
  """See above; `forms.Form`.

  Attributes:
    momentum: of the server, in the subspace, 0 … 1 without 1.
    bits: of a number of a placement, 4 … 8.
  """
  momentum: float = 0.0
  bits: int = placement.BITS

  def begin(self, xp: Ops, copy: Copy) -> tuple[collections.OrderedDict[str, Any], collections.OrderedDict[str, Any]]:
    """(the copy with an anchor, OrderedDict of
      anchor: float32[d], the model of the anchor; empty before the first round.
      target: float32[k], y; empty before.
      velocity: float32[k], with momentum alone).
    """
    names = ['anchor', 'target', *(['velocity'] if self.momentum else [])]
    empty = collections.OrderedDict((name, xp.zeros([0], np.float32)) for name in names)
    return collections.OrderedDict(copy, anchor=copy['round'] + xp.constant(0, np.int32)), empty

  def sizes(self, session: Session, kept: int) -> Sequence[int]:
    return session.size, kept, *([kept] if self.momentum else [])

  def end(self, xp: Ops, session: Session, past: history.State, copy: Copy, memory: Mapping[str, Any], mean: Array, *,
          arrived: Scalar, gap: Array, learning_rate: Array, bits: Scalar, next_bits: Scalar,
          next_scale: Array | None = None) -> tuple[collections.OrderedDict[str, Any], ...]:
    del gap, bits
    change = endings.change(xp, session, copy, mean, arrived=arrived, learning_rate=learning_rate)
    memory = self.moved(xp, memory, copy['model'], change)
    held = endings.held(xp, session, copy, memory['anchor'])
    record = session.placement(xp, held, copy['round'] + xp.constant(1, np.int32), memory['target'],
                               bits=xp.constant(self.bits, np.int32), next_bits=next_bits, next_scale=next_scale)
    placed = session.place(xp, held, record)
    return history.with_placement(xp, past, record, session.digest(xp, placed)), placed, memory

  def moved(self, xp: Ops, memory: Mapping[str, Any], model: Array,
            change: Array) -> collections.OrderedDict[str, Array]:
    """What the server remembers after a round.

    Args:
      xp: operation table.
      memory: as `begin` describes it.
      model: float32[d], which becomes the anchor where there is none.
      change: float32[k], the coordinates of what the clients' mean takes off the model.
    """
    begun = xp.size(memory['target']) > 0
    of_before = lambda name: xp.cond(begun, lambda: memory[name], lambda: change * np.float32(0))
    following = collections.OrderedDict(anchor=xp.cond(begun, lambda: memory['anchor'], lambda: model))
    if self.momentum:
      change = of_before('velocity') * np.float32(self.momentum) + change
    following['target'] = of_before('target') + change
    if self.momentum:
      following['velocity'] = change
    return following

  def noise(self, xp: Ops, session: Session, copy: Copy, memory: Mapping[str, Any]) -> Array:
    return endings.noise(xp, session, copy, memory)
