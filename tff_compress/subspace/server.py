"""A server of a run in the shared subspace, in NumPy: what it holds, and what becomes of it by a round.

A server in bytes, for one that goes on after it was stopped (counts: `codec.counts`):

    offset  bytes  field
         0      3  magic, "TFS"
         3      1  version, 1
         4      4  the run's fingerprint
         8      …  form: count of bytes, and what Python shows of it, in UTF-8
         …      …  timeline: count of bytes, and `Timeline.to_bytes`
         …      …  copy: count of bytes, and `Session.content`. Its anchor, with a form that has one, is the timeline's
                   newest version
         …      …  memory: the values of its arrays, little endian, in the order in which the form has them; as many as
                   before the first round, or, where the timeline has a placement, as `Form.sizes` says
         …      4  CRC-32 of everything before, little endian
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tff_compress.codec import checks
from tff_compress.codec import counts
from tff_compress.codec.errors import PayloadError
from tff_compress.codec.errors import SpecError
from tff_compress.codec.ops import numpy_ops
from tff_compress.codec.table import Array
from tff_compress.subspace import session as session_lib
from tff_compress.subspace.forms import Form
from tff_compress.subspace.round_form import RoundForm
from tff_compress.subspace.session import Session
from tff_compress.timeline import stored
from tff_compress.timeline.timeline import Timeline

MAGIC = b'TFS'
VERSION = 1
_FINGERPRINT_BYTES = 4


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
    copy, memory = form.begin(numpy_ops, copy)
    return cls(session, Timeline.begin(bytes(base), bytes(digest)), copy, form, memory)

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

  def to_bytes(self) -> bytes:
    """The server, for `from_bytes`."""
    counted = (repr(self.form).encode(), self.timeline.to_bytes(), bytes(self.session.content(numpy_ops, self.copy)))
    return stored.sealed(MAGIC, VERSION, b''.join([
        self.session.fingerprint, *map(_counted, counted),
        *(bytes(numpy_ops.raw_bytes(values)) for values in self.memory.values())]))

  @classmethod
  def from_bytes(cls, session: Session, data: bytes, *, form: Form | None = None,
                 key_frame_bytes: int | None = None) -> Server:
    """Inverse of `to_bytes`: a server that sends, byte for byte, what the other would have sent.

    Args:
      session: the run's agreement.
      data: what `to_bytes` gave.
      form, key_frame_bytes: as for `begin`, and the same.

    Raises:
      PayloadError: the bytes are no server, damaged, or of another release, run or form.
    """
    form = RoundForm(key_frame_bytes) if form is None else form
    body = stored.opened(data, MAGIC, VERSION, 'server')
    if bytes(body[:_FINGERPRINT_BYTES]) != session.fingerprint:
      raise PayloadError('a server is of another run: give the session that it was begun with.')
    said, rest = counts.take(numpy_ops, body[_FINGERPRINT_BYTES:])
    if bytes(said) != repr(form).encode():
      raise PayloadError('a server ended its rounds with another form: '
                         f'{checks.shown(bytes(said).decode(errors="replace"))}, not {form}; give the same.')
    past, rest = counts.take(numpy_ops, rest)
    timeline = Timeline.from_bytes(bytes(past))
    content, rest = counts.take(numpy_ops, rest)
    copy, memory = form.begin(numpy_ops, session.from_content(numpy_ops, content))
    if 'anchor' in copy:
      copy['anchor'] = np.int32(timeline.version)
    placed = timeline.state['placement'].size > 0
    if (not np.array_equal(session.digest(numpy_ops, copy), timeline.state['digest'])
        or (copy['round'] > timeline.version) != placed):
      raise PayloadError('a server has another model than its history leads to.')
    sizes = form.sizes(session, session.kept(numpy_ops, copy)) if placed else [x.size for x in memory.values()]
    for (name, values), size in zip(list(memory.items()), sizes):
      length = size * values.itemsize
      numpy_ops.require(rest.size >= length, 'a server is cut short.')
      memory[name], rest = numpy_ops.raw_values(rest[:length], values.dtype.name), rest[length:]
    numpy_ops.require(rest.size == 0, 'there are bytes behind the end of a server.')
    return cls(session, timeline, copy, form, memory)


def _counted(data: bytes) -> bytes:
  return bytes(counts.encode(numpy_ops, np.asarray([len(data)], np.int32))) + data
