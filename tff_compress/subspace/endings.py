"""What the forms have in common that hold a subspace for several rounds, and those that end with changes."""

import collections
from collections.abc import Mapping
from typing import Any

import numpy as np

from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops
from tff_compress.codec.table import Scalar
from tff_compress.subspace.session import Copy
from tff_compress.subspace.session import Session
from tff_compress.timeline import history


def change(xp: Ops, session: Session, copy: Copy, mean: Array, *, arrived: Scalar, learning_rate: Array) -> Array:
  """float32[k]: the coordinates of what a round takes off the model, zeros where no message arrived; arguments as for
  `forms.Form.end`."""
  return xp.cond(arrived, lambda: session.gained(xp, mean, learning_rate),
                 lambda: xp.zeros([session.kept(xp, copy)], np.float32))


def held(xp: Ops, session: Session, copy: Copy, model: Array) -> collections.OrderedDict[str, Any]:
  """The copy of the anchor, which clients hold, from the present one and the anchor's model, float32[d]."""
  found = collections.OrderedDict(copy, model=xp.reshape(model, [session.size]), round=copy['anchor'])
  del found['anchor']
  return found


def noise(xp: Ops, session: Session, copy: Copy, memory: Mapping[str, Any]) -> Array:
  """As `forms.Form.noise`: the coordinates of one subspace add noise as one long round does."""
  share = xp.cast(session.kept(xp, copy), np.float64) / xp.constant(session.space.padded, np.float64)
  wide = xp.cast(memory['target'], np.float64)
  return copy['rule']['spent'] + xp.reduce_sum(wide * wide)[0] * (xp.constant(1, np.float64) - share)


def key_frame_due(xp: Ops, past: history.State, size: int | None) -> Scalar:
  """Whether a key frame of about this many bytes is due; None: there is none."""
  if size is None:
    return xp.cast(xp.constant(0, np.int32), np.bool_)
  return history.key_frame_due(xp, past, size)


def with_change(xp: Ops, past: history.State, record: Array, base: Array, digest: Array,
                size: int | None) -> collections.OrderedDict[str, Any]:
  """The history after a change, and after the key frame that it made, if it made one.

  Args:
    xp: operation table.
    past: the history.
    record: uint8[n], the change.
    base: uint8[n], the key frame, or of no bytes.
    digest: uint8[4], of what they lead to.
    size: as for `key_frame_due`.

  Raises:
    PayloadError: there are no key frames, and the history is at its limit.
  """
  following = history.with_change(xp, past, record, digest)
  if size is None:
    log = xp.apart(history.within_limit, (history.MOST_BYTES,), following['log'])
    return collections.OrderedDict(following, log=log)
  return xp.cond(xp.size(base) > 0, lambda: history.with_base(xp, following, base, digest), lambda: following)
