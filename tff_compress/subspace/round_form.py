"""The round form: each round has its own subspace, and ends with a change that is said in it."""

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


@dataclasses.dataclass(frozen=True)
class RoundForm:
  """See above; `forms.Form`.

  Attributes:
    key_frame_bytes: about how long a key frame is; None for none.
  """
  key_frame_bytes: int | None = None

  def begin(self, xp: Ops, copy: Copy) -> tuple[collections.OrderedDict[str, Any], collections.OrderedDict[str, Any]]:
    del xp
    return collections.OrderedDict(copy), collections.OrderedDict()

  def sizes(self, session: Session, kept: int) -> Sequence[int]:
    del session, kept
    return ()

  def end(self, xp: Ops, session: Session, past: history.State, copy: Copy, memory: Mapping[str, Any], mean: Array, *,
          arrived: Scalar, gap: Array, learning_rate: Array, bits: Scalar, next_bits: Scalar,
          next_scale: Array | None = None) -> tuple[collections.OrderedDict[str, Any], ...]:
    del gap
    due = endings.key_frame_due(xp, past, self.key_frame_bytes)

    def record_of() -> Array:
      return session.change(xp, copy, mean, learning_rate=learning_rate, bits=bits, next_bits=next_bits, key_frame=due,
                            next_scale=next_scale)

    record = xp.cond(arrived, record_of, lambda: xp.zeros([0], np.uint8))
    moved, base = session.advance(xp, copy, record)
    following = endings.with_change(xp, past, record, base, session.digest(xp, moved), self.key_frame_bytes)
    return following, moved, collections.OrderedDict(memory)

  def noise(self, xp: Ops, session: Session, copy: Copy, memory: Mapping[str, Any]) -> Array:
    del xp, session, memory
    return copy['rule']['spent']
