"""How a round in the shared subspace ends on the server: the next version of the model, and of its history."""

import collections
from typing import Any

import numpy as np

from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops
from tff_compress.codec.table import Scalar
from tff_compress.subspace.session import Copy
from tff_compress.subspace.session import Session
from tff_compress.timeline import history


def end(xp: Ops, session: Session, past: history.State, copy: Copy, mean: Array, *, arrived: Scalar,
        learning_rate: Array, bits: Scalar, next_bits: Scalar,
        key_frame_bytes: int | None) -> tuple[collections.OrderedDict[str, Array], collections.OrderedDict[str, Any]]:
  """(history, the server's copy) of the next version.

  Args:
    xp: operation table.
    session: the run's agreement.
    past: the history, as `timeline.history.begin` describes it.
    copy: the server's.
    mean: float32[k], of the clients' coordinates; anything where none arrived.
    arrived: boolean scalar, whether any did. Otherwise the model stays as it is.
    learning_rate, bits, next_bits: as for `Session.change`.
    key_frame_bytes: about how long a key frame is; None for none.
  """
  due = xp.cast(xp.constant(0, np.int32), np.bool_)
  if key_frame_bytes is not None:
    due = history.behind_base(xp, past) > xp.constant(key_frame_bytes, np.int32)

  def record_of() -> Array:
    return session.change(xp, copy, mean, learning_rate=learning_rate, bits=bits, next_bits=next_bits, key_frame=due)

  record = xp.cond(arrived, record_of, lambda: xp.zeros([0], np.uint8))
  moved, base = session.advance(xp, copy, record)
  digest = session.digest(xp, moved)
  following = history.with_change(xp, past, record, digest)
  if key_frame_bytes is not None:
    following = xp.cond(xp.size(base) > 0, lambda: history.with_base(xp, following, base, digest), lambda: following)
  return following, moved
