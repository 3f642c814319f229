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
"""

import collections
import contextlib
import dataclasses
import hashlib
import os
import re
import shutil
import struct
import tempfile
import weakref
import zlib

from tff_compress.processes.errors import ProcessError
from tff_compress.processes.errors import StateError

_MAGIC, _VERSION = b'TFCSTATE', 2
_TAIL = struct.Struct('<16sIII8s')
_CHECKSUM = struct.Struct('<I')
_NAME = re.compile(r'([0-9a-f]{32})\.([0-9]{10})\.state')
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


class ClientStore:
  """States by client id.

  Args:
    layout: `Layout`.
    folder: where to keep files, as TFF's workers see it too; it is made if it is not there. On a file system in memory,
      such as /dev/shm, states stay in memory. None: a temporary folder that goes with the store.
    max_clients: most clients of which a state is kept; None: no limit.
    max_bytes: most bytes that states take together; None: no limit.

  Attributes:
    folder: as above, absolute.
    dropped: how many clients' states were dropped since the store was made, to stay within the limits. Those that took
      part least recently go first.
    kept_rounds: rounds to which `rewind` must be able to return: of each client the last state up to each of them is
      kept beside the newest.

  Raises:
    ProcessError: a limit is no positive whole number.
    StateError: the folder cannot be used.
  """

  def __init__(self, layout, folder=None, *, max_clients=None, max_bytes=None):
    for name, limit in (('max_clients', max_clients), ('max_bytes', max_bytes)):
      if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise ProcessError(f'{name} must be a whole number of at least 1, or None, not {limit!r}.')
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
      raise StateError(f'{folder or "the temporary folder"} cannot hold the states of clients: {error.strerror}.') from None
    # {name of client: {round: bytes}}, least recent first.
    self._index = collections.OrderedDict(sorted(found.items(), key=_last_round))
    self._bytes = sum(size for rounds in self._index.values() for size in rounds.values())
    self._targets = {}
    self._verified = {}
    self.dropped, self.kept_rounds = 0, ()

  def __len__(self):
    """Number of clients of which there is a state."""
    return len(self._index)

  def __contains__(self, client):
    return _name(client) in self._index

  @property
  def bytes(self):
    """Bytes that all states take, with what is added to them."""
    return self._bytes

  def get(self, client):
    """The newest state of a client: `Record`, or None if there is none.

    Raises:
      StateError: it is damaged, or of another model or codec.
    """
    name = _name(client)
    if name not in self._index:
      return None
    return self._checked(name, max(self._index[name]), client)

  def target(self, client):
    """Path of a new file that the body of the client's next state is to be written to, before `commit`.

    Raises:
      StateError: the id is too long.
    """
    _encoded(client)
    name = _name(client)
    self._targets[name] = os.path.join(self.folder, f'{_UNFINISHED}{name}')
    return self._targets[name]

  def commit(self, round_number, states):
    """Keeps the states of a round, whose bodies were written to their targets, in place of older ones of the same
    clients.

    Args:
      round_number: number of rounds that are done, 0 … 2^32-1; at least that of any state of these clients.
      states: {client id, a text: bytes of the small fields}.

    Raises:
      StateError: one cannot be written. The states of before are untouched.
    """
    written = {}
    try:
      for client, fields in states.items():
        written[_name(client)] = self._finish(round_number, client, fields)
    except BaseException:
      for name in written:
        self._delete(name, round_number)
      self.discard()
      raise
    self._targets.clear()
    for name, size in written.items():
      rounds = self._index.setdefault(name, {})
      self._bytes += size - rounds.get(round_number, 0)
      rounds[round_number] = size
      self._index.move_to_end(name)
      kept = {max((r for r in rounds if r <= limit), default=None) for limit in (*self.kept_rounds, round_number)}
      for old in set(rounds) - kept:
        self._remove(name, old)
    while len(self._index) > 1 and self._is_over():
      self._drop(next(iter(self._index)))
      self.dropped += 1

  def discard(self):
    """Removes what was written to targets and not kept."""
    for path in self._targets.values():
      with contextlib.suppress(OSError):
        os.remove(path)
    self._targets.clear()

  def forget(self, client):
    """Removes what is kept of a client, if it can be read or not. Raises StateError if there is nothing."""
    name = _name(client)
    if name not in self._index:
      raise StateError(f'nothing is stored of client {client!r}.')
    self._drop(name)

  def rewind(self, round_number):
    """Removes all states that were written later than when this many rounds were done."""
    for name in list(self._index):
      for later in [r for r in self._index[name] if r > round_number]:
        self._remove(name, later)
    self._index = collections.OrderedDict(sorted(self._index.items(), key=_last_round))

  def _found(self):
    found = {}
    for entry in os.scandir(self.folder):
      match = _NAME.fullmatch(entry.name)
      if match:
        found.setdefault(match[1], {})[int(match[2])] = entry.stat().st_size
      elif entry.name.startswith(_UNFINISHED):  # Of a process that was killed while it wrote.
        os.remove(entry.path)
    return found

  def _path(self, name, round_number):
    return os.path.join(self.folder, f'{name}.{round_number:010d}.state')

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
      raise StateError(f'the state of client {client!r} in {path} cannot be read ({error.strerror}): {remedy}.') from None
    if len(rest) >= _TAIL.size + _CHECKSUM.size:
      tail, stated = rest[:-_CHECKSUM.size], rest[-_CHECKSUM.size:]
      fingerprint, written, length, version, magic = _TAIL.unpack(tail[-_TAIL.size:])
      if (magic, version) == (_MAGIC, _VERSION) and fingerprint != layout.fingerprint:
        raise StateError(f'the state of client {client!r} in {path} is of another model, codec or error feedback: use '
                         'another '
                         f'folder, or {remedy}.')
      if (size == expected and (magic, version, written, length) == (_MAGIC, _VERSION, round_number, len(encoded))
          and tail[layout.fields_bytes:-_TAIL.size] == encoded and _CHECKSUM.unpack(stated)[0] == checksum):
        self._verified[path] = now, checksum
        return Record(round_number, tail[:layout.fields_bytes], path)
    raise StateError(f'the state of client {client!r} in {path} is damaged: {remedy}.')

  def _finish(self, round_number, client, fields):
    """Makes a client's target its state; returns the size."""
    name, encoded = _name(client), _encoded(client)
    path, target = self._path(name, round_number), self._targets[name]
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
      os.replace(target, path)
    except FileNotFoundError:
      raise StateError(f"the state of client {client!r} was not written to {self.folder}: use a folder that TFF's "
                       "workers see "
                       'under the same name.') from None
    except OSError as error:
      raise StateError(f'the state of client {client!r} cannot be written into {self.folder}: {error.strerror}.') from error
    self._verified[path] = identity, checksum
    return identity[0]

  def _is_over(self):
    return (self._max_clients is not None and len(self._index) > self._max_clients
            or self._max_bytes is not None and self._bytes > self._max_bytes)

  def _drop(self, name):
    for round_number in list(self._index[name]):
      self._remove(name, round_number)

  def _remove(self, name, round_number):
    self._delete(name, round_number)
    self._bytes -= self._index[name].pop(round_number)
    if not self._index[name]:
      del self._index[name]

  def _delete(self, name, round_number):
    path = self._path(name, round_number)
    self._verified.pop(path, None)
    with contextlib.suppress(FileNotFoundError):
      os.remove(path)


def _last_round(item):
  name, rounds = item
  return max(rounds), name


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
