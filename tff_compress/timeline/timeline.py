"""A server's history of a model: every client's cheapest way to the present, versions and digests checked.

A timeline in bytes, for a server that goes on later, all integers little endian (counts: `codec.counts`):

    offset  bytes  field
         0      3  magic, "TFT"
         3      1  version, 1
         4      4  newest version of the model
         8      4  version that the base gives
        12      n  base: count of bytes, and the record
      12+n      m  number of changes, a count, and of each, a count of bytes and the record, oldest first
         …  4 + 4m  digests of the version before the first change, and of those that the changes lead to
         …      p  placement: count of bytes, 0 where there is none, and the record
         …      4  digest of the present, where there is one
         …      4  CRC-32 of everything before
"""

from __future__ import annotations

import dataclasses
import struct

import numpy as np

from tff_compress.codec import checks
from tff_compress.codec import counts
from tff_compress.codec.errors import PayloadError
from tff_compress.codec.ops import numpy_ops
from tff_compress.codec.table import Array
from tff_compress.timeline import history
from tff_compress.timeline import stored

MAGIC = b'TFT'
VERSION = 1
_HEAD = struct.Struct('<II')
_DIGEST_BYTES = 4


@dataclasses.dataclass(frozen=True)
class Timeline:
  """A history that never changes: a round gives another one, which shares what is old.

  Attributes:
    state: as `history.begin` describes it, in NumPy.
    digests: of every version from that before the first change in the log to the newest.
  """
  state: history.State
  digests: tuple[bytes, ...]

  @classmethod
  def begin(cls, base: bytes, digest: bytes) -> Timeline:
    """A history of version 0, which a base gives.

    Args:
      base: a record.
      digest: 4 bytes, `Rules.digest` of the version.
    """
    return cls(history.begin(numpy_ops, _array(base), _array(digest)), (bytes(digest),))

  def with_change(self, record: bytes, digest: bytes) -> Timeline:
    """The history after a change to a version of this digest."""
    return self.followed_by(history.with_change(numpy_ops, self.state, _array(record), _array(digest)))

  def with_key_frame(self, record: bytes, digest: bytes) -> Timeline:
    """The history where a base gives the newest version, whose digest is this."""
    return self.followed_by(history.with_base(numpy_ops, self.state, _array(record), _array(digest)))

  def with_placement(self, record: bytes, digest: bytes) -> Timeline:
    """The history where a placement on top of the newest version gives a present of this digest."""
    return self.followed_by(history.with_placement(numpy_ops, self.state, _array(record), _array(digest)))

  def followed_by(self, state: history.State) -> Timeline:
    """The history in a state that functions of `history` made of this one's: of the same version, or of a later one;
    nobody holds those in between."""
    if state['placement'].size:  # No version.
      return Timeline(state, self.digests)
    later = int(state['version'] - self.state['version'])
    older = (*self.digests, *[bytes(_DIGEST_BYTES)] * (later - 1)) if later else self.digests[:-1]
    return Timeline(state, (*older, bytes(state['digest']))[-1 - len(state['ends']):])

  @property
  def version(self) -> int:
    """The newest."""
    return int(self.state['version'])

  @property
  def size(self) -> int:
    """Bytes that are kept."""
    return (self.state['log'].nbytes + self.state['ends'].nbytes + self.state['base'].nbytes
            + _DIGEST_BYTES * len(self.digests))

  def key_frame_due(self, size: int) -> bool:
    """As `history.key_frame_due`."""
    return bool(history.key_frame_due(numpy_ops, self.state, size))

  def check(self, version: int, digest: bytes | None = None) -> None:
    """Refuses what a client says that it holds.

    Args:
      version: as `Copy.version` gives it.
      digest: as `Copy.digest` gives it; None for a client that does not say.

    Raises:
      VersionError: no client of this run holds it.
    """
    checks.whole_number('version', version, history.VersionError, least=-2**63, most=2**63 - 1)
    history.check_version(self.state, version)
    place = version - (self.version - len(self.state['ends']))
    if digest is not None and version != history.UNKNOWN and place >= 0 and self.digests[place] != bytes(digest):
      raise history.VersionError(f'a client holds another version {version} of the model than this run had: it is of '
                                 'another run, or was changed; let it start anew.')

  def way(self, version: int = history.UNKNOWN, digest: bytes | None = None) -> bytes:
    """The shortest message that leads a client to the present, for `Copy.follow`.

    Args, raises: as for `check`.
    """
    self.check(version, digest)
    return bytes(history.way(numpy_ops, self.state, version))

  def cost(self, version: int = history.UNKNOWN) -> int:
    """Bytes of `way`."""
    self.check(version)
    return int(history.cost(numpy_ops, self.state, version))

  def to_bytes(self) -> bytes:
    """The history, for `from_bytes`."""
    head = _HEAD.pack(self.version, int(self.state['base_version']))
    number = counts.encode(numpy_ops, np.asarray([len(self.state['ends'])], np.int32))
    body = b''.join([head, bytes(self.state['base']), bytes(number), bytes(self.state['log']), *self.digests,
                     *([bytes(self.state['placement']), bytes(self.state['digest'])] if self.state['placement'].size
                       else [b'\0'])])
    return stored.sealed(MAGIC, VERSION, body)

  @classmethod
  def from_bytes(cls, data: bytes) -> Timeline:
    """Inverse of `to_bytes`.

    Raises:
      PayloadError: the bytes are no history, or damaged.
    """
    rest = stored.opened(data, MAGIC, VERSION, 'history of a model')
    if rest.size < _HEAD.size:
      raise PayloadError('a history of a model is cut short.')
    newest, base_version = _HEAD.unpack_from(rest)
    base, rest = counts.take(numpy_ops, rest[_HEAD.size:])
    number, rest = counts.decode_one(numpy_ops, rest)
    log, ends = rest, []
    for _ in range(number):
      _, rest = counts.take(numpy_ops, rest)
      ends.append(log.size - rest.size)
    log = log[:log.size - rest.size]
    of_versions, rest = rest[:_DIGEST_BYTES * (number + 1)], rest[_DIGEST_BYTES * (number + 1):]
    placement, present = counts.take(numpy_ops, rest)
    if (not newest - number <= base_version <= newest < 2**31
        or present.size != (_DIGEST_BYTES if placement.size else 0)):
      raise PayloadError('a history of a model is not one: its versions, changes and digests do not fit together.')
    digests = tuple(bytes(digest) for digest in of_versions.reshape(-1, _DIGEST_BYTES))
    state = history.begin(numpy_ops, base, of_versions[-_DIGEST_BYTES:])
    state.update(version=np.int32(newest), base_version=np.int32(base_version), log=log,
                 ends=np.asarray(ends, np.int32))
    if placement.size:
      state = history.with_placement(numpy_ops, state, placement, present)
    return cls(state, digests)


def _array(data: bytes) -> Array:
  return np.frombuffer(bytes(data), np.uint8)
