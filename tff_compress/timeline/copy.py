"""A client's copy of a model: what it holds, and what becomes of it by a message.

A copy in bytes, for a client that keeps it between rounds, all integers little endian:

    offset  bytes  field
         0      3  magic, "TFK"
         3      1  version, 1
         4      4  the run's fingerprint
         8      n  all that the copy is (`Rules.content`)
       8+n      4  CRC-32 of everything before
"""

from __future__ import annotations

import dataclasses
from typing import Any
from typing import Protocol

import numpy as np

from tff_compress.codec.errors import PayloadError
from tff_compress.codec.ops import numpy_ops
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops
from tff_compress.timeline import history
from tff_compress.timeline import stored

MAGIC = b'TFK'
VERSION = 1
_FINGERPRINT_BYTES = 4


class Rules(Protocol):
  """What a run's records do with a copy: `subspace.session.Session`, for one. A copy is a mapping with an integer
  scalar `round`, its version.

  All raise PayloadError for what is no such record or content.
  """

  @property
  def fingerprint(self) -> bytes:
    """4 bytes that tell the run from others."""

  def from_base(self, xp: Ops, record: Array) -> Any:
    """The copy that a base (uint8[n]) gives."""

  def move(self, xp: Ops, copy: Any, record: Array) -> Any:
    """The copy after a change (uint8[n])."""

  def place(self, xp: Ops, copy: Any, record: Array) -> Any:
    """The present, by a placement (uint8[n]) on top of a copy; of no bytes where there is none."""

  def content(self, xp: Ops, copy: Any) -> Array:
    """uint8[n]: all that a copy is."""

  def from_content(self, xp: Ops, content: Array) -> Any:
    """Inverse of `content`."""

  def digest(self, xp: Ops, copy: Any) -> Array:
    """uint8[4], as `history.digest_of` gives it of fingerprint and content."""


@dataclasses.dataclass(frozen=True)
class Copy:
  """A client's copy. It never changes: a message gives another one, and one that is refused leaves this as it was.

  Attributes:
    rules: of the run.
    held: what `Rules` call a copy; None where the client has none yet.
    present: the same with the placement of the last message on top, if it had one; None before a message.
  """
  rules: Rules
  held: Any = None
  present: Any = None

  @property
  def version(self) -> int:
    """What the client tells the server that it holds."""
    return history.UNKNOWN if self.held is None else int(self.held['round'])

  @property
  def digest(self) -> bytes | None:
    """4 bytes that the server can compare with its own of this version; None where nothing is held."""
    return None if self.held is None else bytes(self.rules.digest(numpy_ops, self.held))

  def follow(self, message: bytes) -> Copy:
    """The copy after a message of `Timeline.way`.

    Raises:
      PayloadError: the message is damaged, or not for what is held.
      DigestError: it can be read, and leads to something else than what the server has.
    """
    data = np.frombuffer(message, np.uint8)
    if self.held is None and not (data.size and history.has_base(data)):
      raise PayloadError('a message of changes is for a client that holds a model, and this one holds none: ask the '
                         'server for all of it.')
    held, present = history.follow(
        numpy_ops, data, self.held, on_base=lambda record: self.rules.from_base(numpy_ops, record),
        on_change=lambda copy, record: self.rules.move(numpy_ops, copy, record),
        on_placement=lambda copy, record: self.rules.place(numpy_ops, copy, record))
    if not np.array_equal(self.rules.digest(numpy_ops, present), history.digest_in(data)):
      raise history.DigestError('a message led to another model than the server has: it was damaged or is of another '
                                'run, or what this client holds was changed; ask the server for all of it.')
    return Copy(self.rules, held, present)

  def to_bytes(self) -> bytes:
    """The copy, of a client that holds one, for `from_bytes`."""
    if self.held is None:
      raise PayloadError('a client that holds no model has nothing to keep.')
    return stored.sealed(MAGIC, VERSION, self.rules.fingerprint + bytes(self.rules.content(numpy_ops, self.held)))

  @classmethod
  def from_bytes(cls, rules: Rules, data: bytes) -> Copy:
    """Inverse of `to_bytes`.

    Raises:
      PayloadError: the bytes are no copy, damaged, or of another release or run.
    """
    body = stored.opened(data, MAGIC, VERSION, 'copy of a model')
    if bytes(body[:_FINGERPRINT_BYTES]) != rules.fingerprint:
      raise PayloadError('a copy of a model is of another run: let the client start anew.')
    return cls(rules, rules.from_content(numpy_ops, body[_FINGERPRINT_BYTES:]))
