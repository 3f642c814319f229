"""Where the states of clients are between rounds: a file for each, by client id.

A file, all integers little endian:

    offset  bytes  field
         0      b  body: what TFF's worker wrote, of a length that the model and the codec say
         b      f  the small fields of the state
       b+f      n  the client's id, UTF-8
     b+f+n     16  fingerprint of model, codec and way to remember
       +16      4  number of rounds that were done when it was written
       +20      4  n
       +24      4  version, 2
       +28      8  magic "TFCSTATE"
       +36      4  CRC-32 of everything before

A worker writes the body under another name. When the round is done, the rest is added to it and the file renamed, so
that a process that is killed leaves none half-written. Reading one runs nothing and allocates no more than the state's
own size.

A file's name has the round that it was written in: `NAME.ROUND.state` is live. Limits and figures count live states
alone. When a client's state is replaced, or dropped to stay within a limit, the file becomes `NAME.ROUND-END.state`
where `rewind` may have to return to a round from ROUND to before END, and is removed where not. So which states are
live in a round does not depend on which copies are kept.
"""

from collections.abc import Collection
from collections.abc import Mapping
import contextlib
import dataclasses
import hashlib
import os
import re
import shutil
import struct
import tempfile
from typing import Any
import weakref
import zlib

from tff_compress.codec import checks
from tff_compress.processes.errors import ProcessError
from tff_compress.processes.errors import StateError

_MAGIC, _VERSION = b'TFCSTATE', 2
_TAIL = struct.Struct('<16sIII8s')
_CHECKSUM = struct.Struct('<I')
_NAME = re.compile(r'([0-9a-f]{32})\.([0-9]{10})(?:-([0-9]{10}))?\.state')
_UNFINISHED = '.state-'
_MAX_ID = 4096
_CHUNK = 1 << 20


@dataclasses.dataclass(frozen=True)
class Layout:
  """What one client's state consists of.

  Attributes:
    fingerprint: 16 bytes that differ where states do not fit each other.
    body_bytes: size of what workers write.
    fields_bytes: size of the small fields.
  """
  fingerprint: bytes
  body_bytes: int
  fields_bytes: int


@dataclasses.dataclass(frozen=True)
class Record:
  """One client's state.

  Attributes:
    round: number of rounds that were done when it was written.
    fields: bytes of the small fields.
    path: file that begins with the body.
  """
  round: int
  fields: bytes
  path: str


@dataclasses.dataclass
class _File:
  """A state on disk: its size, and the round from which it was not live any more; None: it is."""
  size: int
  end: int | None = None


class ClientStore:
  """States by client id.

  Args:
    layout: `Layout`.
    folder: where to keep files, as TFF's workers see it too; it is made if it is not there. On a file system in memory,
      such as /dev/shm, states stay in memory. None: a temporary folder that goes with the store.
    max_clients: most clients that have a state; None: no limit.
    max_bytes: most bytes that the states of all clients take together, without copies for `rewind`; None: no limit.

  Attributes:
    folder: as above, absolute.
    dropped: how many clients' states were dropped since the store was made, to stay within the limits. Those that took
      part least recently go first; of those that last did in one round, the order is always the same.
    kept_rounds: rounds to which `rewind` must be able to return; set before they end. Copies of the states that clients
      had then are kept.

  Raises:
    ProcessError: a limit is no positive whole number.
    StateError: the folder cannot be used.
  """

  def __init__(self, layout: Layout, folder: str | None = None, *, max_clients: int | None = None,
               max_bytes: int | None = None) -> None:
    for name, limit in (('max_clients', max_clients), ('max_bytes', max_bytes)):
      checks.whole_number(name, limit, ProcessError, least=1, optional=True)
    self._layout, self._max_clients, self._max_bytes = layout, max_clients, max_bytes
    try:
      if folder is None:
        self.folder = tempfile.mkdtemp(prefix='tff-compress-clients-')
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
      else:
        self.folder = os.path.abspath(folder)
        os.makedirs(self.folder, exist_ok=True)
      found = self._found()
    except OSError as error:
      raise StateError(
          f'{folder or "the temporary folder"} cannot hold the states of clients: {error.strerror}.') from None
    self._files = found  # {name of client: {round: `_File`}}
    self._live: dict[str, int] = {}
    self._ended: set[str] = set()
    self._targets: dict[str, str] = {}
    self._verified: dict[str, Any] = {}
    self._look()
    self.dropped = 0
    self.kept_rounds: Collection[int] = ()

  def __len__(self) -> int:
    """Number of clients that have a state."""
    return len(self._live)

  def __contains__(self, client):
    return _name(client) in self._live

  @property
  def bytes(self) -> int:
    """Bytes that the states of all clients take, with what is added to them, without copies."""
    return self._bytes

  def get(self, client: str) -> Record | None:
    """The newest state of a client: `Record`, or None if there is none.

    Raises:
      StateError: it is damaged, or of another model or codec.
    """
    name = _name(client)
    if name not in self._live:
      return None
    return self._checked(name, self._live[name], client)

  def target(self, client: str) -> str:
    """Path of a new file that the body of the client's next state is to be written to, before `commit`.

    Raises:
      StateError: the id is too long.
    """
    _encoded(client)
    name = _name(client)
    self._targets[name] = os.path.join(self.folder, f'{_UNFINISHED}{name}')
    return self._targets[name]

  def commit(self, round_number: int, states: Mapping[str, Any]) -> None:
    """Keeps the states of a round, whose bodies were written to their targets, in place of older ones of the same
    clients.

    Args:
      round_number: number of rounds that are done, 0 … 2^32-1; at least that of any state of these clients.
      states: {client id, a text: bytes of the small fields}.

    Raises:
      StateError: one cannot be written. The states of before are untouched.
    """
    try:
      written = {_name(client): self._finished(round_number, client, fields) for client, fields in states.items()}
      self._replace(round_number, written)
    except BaseException:
      self.discard()
      raise
    self._targets.clear()
    for name, (size, *_) in written.items():
      self._end(name, round_number)
      self._files.setdefault(name, {})[round_number] = _File(size)
      self._live[name] = round_number
      self._bytes += size
    if self._is_over():
      # A total order: what goes may not depend on the order of commits within a round, nor on a restart.
      for name in sorted(self._live, key=lambda name: (self._live[name], name))[:-1]:
        if not self._is_over():
          break
        dropped = self._live[name]
        self._end(name, round_number)
        if dropped == round_number:
          self._remove(name, round_number)
        self.dropped += 1
    self._sweep()

  def discard(self) -> None:
    """Removes what was written to targets and not kept."""
    for path in self._targets.values():
      with contextlib.suppress(OSError):
        os.remove(path)
    self._targets.clear()

  def forget(self, client: str) -> None:
    """Removes what is kept of a client, if it can be read or not. Raises StateError if there is nothing."""
    name = _name(client)
    if name not in self._live:
      raise StateError(f'nothing is stored of client {client!r}.')
    for round_number in list(self._files[name]):
      self._remove(name, round_number)
    self._look()

  def rewind(self, round_number: int) -> None:
    """Returns to the states that clients had when this many rounds were done, one of `kept_rounds`."""
    for name, files in list(self._files.items()):
      for later in [r for r in files if r > round_number]:
        self._remove(name, later)
      if files and (files[max(files)].end or 0) > round_number:
        self._mark(name, max(files), None)
    self._look()

  def _found(self):
    found: dict[str, dict[int, _File]] = {}
    for entry in os.scandir(self.folder):
      match = _NAME.fullmatch(entry.name)
      if match:
        end = None if match[3] is None else int(match[3])
        found.setdefault(match[1], {})[int(match[2])] = _File(entry.stat().st_size, end)
      elif entry.name.startswith(_UNFINISHED):  # Of a process that was killed while it wrote.
        os.remove(entry.path)
    return found

  def _look(self):
    """Finds out from the files what is live."""
    self._live, self._bytes, self._ended = {}, 0, set()
    for name, files in self._files.items():
      rounds = sorted(files)
      for start, following in zip(rounds, rounds[1:]):
        if files[start].end is None:  # Of a process that was killed before it could say so.
          self._mark(name, start, following)
      if files[rounds[-1]].end is None:
        self._live[name] = rounds[-1]
        self._bytes += files[rounds[-1]].size
      if len(files) > (name in self._live):
        self._ended.add(name)

  def _path(self, name, round_number, end=None):
    until = '' if end is None else f'-{end:010d}'
    return os.path.join(self.folder, f'{name}.{round_number:010d}{until}.state')

  def _checked(self, name, round_number, client):
    path, layout = self._path(name, round_number), self._layout
    encoded = _encoded(client)
    expected = layout.body_bytes + layout.fields_bytes + len(encoded) + _TAIL.size + _CHECKSUM.size
    remedy = 'forget the client, or remove the file, to let it start anew'
    try:
      with open(path, 'rb') as file:
        now = _identity(file)
        size = now[0]
        # What this store has written or checked before is not read again.
        checksum = self._verified[path][1] if self._verified.get(path, (None,))[0] == now else None
        if checksum is None and size == expected:
          checksum = _crc32(file, size - _CHECKSUM.size)
        file.seek(max(0, min(layout.body_bytes, size - _TAIL.size - _CHECKSUM.size)))
        rest = file.read(layout.fields_bytes + len(encoded) + _TAIL.size + _CHECKSUM.size)
    except OSError as error:
      raise StateError(
          f'the state of client {client!r} in {path} cannot be read ({error.strerror}): {remedy}.') from None
    if len(rest) >= _TAIL.size + _CHECKSUM.size:
      tail, stated = rest[:-_CHECKSUM.size], rest[-_CHECKSUM.size:]
      fingerprint, written, length, version, magic = _TAIL.unpack(tail[-_TAIL.size:])
      if (magic, version) == (_MAGIC, _VERSION) and fingerprint != layout.fingerprint:
        raise StateError(f'the state of client {client!r} in {path} is of another model, codec or error feedback: use '
                         f'another folder, or {remedy}.')
      if (size == expected and (magic, version, written, length) == (_MAGIC, _VERSION, round_number, len(encoded))
          and tail[layout.fields_bytes:-_TAIL.size] == encoded and _CHECKSUM.unpack(stated)[0] == checksum):
        self._verified[path] = now, checksum
        return Record(round_number, tail[:layout.fields_bytes], path)
    raise StateError(f'the state of client {client!r} in {path} is damaged: {remedy}.')

  def _finished(self, round_number, client, fields):
    """Makes a client's target its whole state; returns (size, identity, checksum)."""
    name, encoded = _name(client), _encoded(client)
    target = self._targets[name]
    tail = fields + encoded + _TAIL.pack(self._layout.fingerprint, round_number, len(encoded), _VERSION, _MAGIC)
    try:
      # A state without slots has no body that a worker would write.
      with open(target, 'r+b' if self._layout.body_bytes else 'w+b') as file:
        size = os.fstat(file.fileno()).st_size
        if size != self._layout.body_bytes:
          raise StateError(f'the state of client {client!r} that was written to {target} has {size} bytes instead of '
                           f'{self._layout.body_bytes}: look whether there is room in {self.folder}.')
        checksum = zlib.crc32(tail, _crc32(file, size))
        file.seek(size)
        file.write(tail + _CHECKSUM.pack(checksum))
        file.flush()
        identity = _identity(file)
    except FileNotFoundError:
      raise StateError(f"the state of client {client!r} was not written to {self.folder}: use a folder that TFF's "
                       'workers see under the same name.') from None
    except OSError as error:
      raise StateError(
          f'the state of client {client!r} cannot be written into {self.folder}: {error.strerror}.') from error
    return identity[0], identity, checksum

  def _replace(self, round_number, written):
    """Gives targets their names, which is all that is left to do once every one of them is whole."""
    done = []
    try:
      for name, (_, identity, checksum) in written.items():
        path = self._path(name, round_number)
        os.replace(self._targets[name], path)
        done.append(name)
        self._verified[path] = identity, checksum
    except OSError as error:
      for name in done:
        if round_number not in self._files.get(name, ()):
          self._delete(self._path(name, round_number))
      raise StateError(f'{path} cannot be written: {error.strerror}.') from error

  def _is_over(self):
    return (self._max_clients is not None and len(self._live) > self._max_clients
            or self._max_bytes is not None and self._bytes > self._max_bytes)

  def _end(self, name, round_number):
    """Says that the state that a client has, if it has one, is not live from this round on."""
    last = self._live.pop(name, None)
    if last is None:
      return
    self._bytes -= self._files[name][last].size
    if last == round_number:
      return  # Its file is replaced, or removed.
    if self._is_needed(last, round_number):
      self._mark(name, last, round_number)
      self._ended.add(name)
    else:
      self._remove(name, last)

  def _is_needed(self, start, end):
    return any(start <= kept < end for kept in self.kept_rounds)

  def _mark(self, name, round_number, end):
    """Writes down from when on a state was not live any more, or with None that it is."""
    file = self._files[name][round_number]
    before, after = self._path(name, round_number, file.end), self._path(name, round_number, end)
    try:
      os.rename(before, after)
    except OSError as error:
      raise StateError(f'{before} cannot be renamed: {error.strerror}.') from error
    file.end = end
    if before in self._verified:
      self._verified[after] = self._verified.pop(before)

  def _sweep(self):
    """Removes copies of states that were live in no kept round."""
    for name in list(self._ended):
      files = self._files.get(name, {})
      for start in [r for r, file in files.items() if file.end is not None and not self._is_needed(r, file.end)]:
        self._remove(name, start)
      if all(file.end is None for file in files.values()):
        self._ended.discard(name)

  def _remove(self, name, round_number):
    self._delete(self._path(name, round_number, self._files[name][round_number].end))
    del self._files[name][round_number]
    if not self._files[name]:
      del self._files[name]

  def _delete(self, path):
    self._verified.pop(path, None)
    try:
      os.remove(path)
    except FileNotFoundError:
      pass
    except OSError as error:
      raise StateError(f'{path} cannot be removed: {error.strerror}.') from error


def _name(client):
  """What a client is filed under: ids may be of any length and hold any character."""
  return hashlib.sha256(client.encode('utf-8', 'surrogatepass')).hexdigest()[:32]


def _encoded(client):
  encoded = client.encode('utf-8', 'surrogatepass')
  if len(encoded) > _MAX_ID:
    raise StateError(f'a client id has at most {_MAX_ID} bytes, not {len(encoded)}.')
  return encoded


def _identity(file):
  """What changes with an open file: (size, time of the last write, inode)."""
  stat = os.fstat(file.fileno())
  return stat.st_size, stat.st_mtime_ns, stat.st_ino


def _crc32(file, size):
  """CRC-32 of the first bytes of an open file."""
  file.seek(0)
  checksum = 0
  while size > 0:
    data = file.read(min(size, _CHUNK))
    if not data:
      break
    size -= len(data)
    checksum = zlib.crc32(data, checksum)
  return checksum
