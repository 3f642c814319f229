"""A server of a run in the shared subspace, in NumPy: what it holds, and what becomes of it by a round."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tff_compress.codec.errors import SpecError
from tff_compress.codec.ops import numpy_ops
from tff_compress.codec.table import Array
from tff_compress.subspace import session as session_lib
from tff_compress.subspace.forms import Form
from tff_compress.subspace.round_form import RoundForm
from tff_compress.subspace.session import Session
from tff_compress.timeline.timeline import Timeline


@dataclasses.dataclass(frozen=True)
class Server:
  """A server between two rounds. It never changes: a round gives another one.

  Attributes:
    session: the run's agreement.
    timeline: what clients are sent.
    copy: the server's, as `Session` describes it.
    form: what its rounds end with.
    memory: what it remembers for that.
  """
  session: Session
  timeline: Timeline
  copy: Any
  form: Form
  memory: Any

  @classmethod
  def begin(cls, session: Session, model: Array, *, bits: int = 1, start: bytes | None = None,
            form: Form | None = None, key_frame_bytes: int | None = None) -> Server:
    """A server before the first round.

    Args:
      session: the run's agreement.
      model: float32[d]. Where what is sent of it is not exact, the server takes what arrives.
      bits: bits per coordinate of the clients' first messages, 1 … 4.
      start: the bytes of a `timeline.start.Start` that draws the model; None: it is sent.
      form: what rounds end with; None for `RoundForm(key_frame_bytes)`.
      key_frame_bytes: about how long a key frame is; None for none.

    Raises:
      SpecError: the start draws another model.
    """
    if start is None:
      copy, base = session.first(numpy_ops, np.asarray(model, np.float32), bits)
    else:
      copy = session.begin(numpy_ops, np.asarray(model, np.float32), bits)
      base = session.base(numpy_ops, copy, session_lib.START, np.frombuffer(start, np.uint8))
    digest = session.digest(numpy_ops, copy)
    if not np.array_equal(session.digest(numpy_ops, session.from_base(numpy_ops, base)), digest):
      raise SpecError('a start draws another model than the first one: give the model that it draws.')
    form = RoundForm(key_frame_bytes) if form is None else form
    return cls(session, Timeline.begin(bytes(base), bytes(digest)), *_begun(form, copy))

  @property
  def round(self) -> int:
    """The number of the coming round."""
    return int(self.copy['round'])

  def read(self, message: bytes, client: int) -> np.ndarray:
    """float32[k]: the coordinates in a client's message of the coming round.

    Raises:
      PayloadError: it is none of this run, round and client.
    """
    return self.session.read(numpy_ops, self.copy['round'], client, self.session.kept(numpy_ops, self.copy),
                             np.frombuffer(message, np.uint8))

  def after(self, mean: np.ndarray | None, *, learning_rate: float = 1.0, bits: int = 1, next_bits: int = 1,
            gap: float = 0.0, next_scale: Array | None = None) -> Server:
    """The server after a round.

    Args:
      mean: float32[k], the weighted mean of what `read` gave; None where no message arrived.
      learning_rate: of the server.
      bits: bits per coordinate of the change, 1 … 4.
      next_bits: those of the clients' messages in the next round.
      gap: rounds that clients missed on average.
      next_scale: with integer sums, what `Session.next_scale` gives; None for this round's.
    """
    past, copy, memory = self.form.end(
        numpy_ops, self.session, self.timeline.state, self.copy, self.memory,
        np.zeros(0, np.float32) if mean is None else mean, arrived=mean is not None, gap=np.float32(gap),
        learning_rate=np.float32(learning_rate), bits=bits, next_bits=next_bits, next_scale=next_scale)
    return dataclasses.replace(self, timeline=self.timeline.followed_by(past), copy=copy, memory=memory)


def _begun(form: Form, copy: Any) -> tuple[Any, Form, Any]:
  copy, memory = form.begin(numpy_ops, copy)
  return copy, form, memory
