"""Where the states of clients are between rounds, by client id: in memory, or one file for each.

A file, all integers little endian:

    offset  bytes  field
         0      8  magic "TFCSTATE"
         8      4  version, 1
        12     16  fingerprint of model, codec and way to remember
        28      4  number of rounds that were done when it was written
        32      4  length n of the client's id
        36      n  the id, UTF-8
      36+n      …  the arrays of the state, in order
        -4      4  CRC-32 of everything before

Files are written under another name and then renamed, so that a process that is killed leaves none half-written. Reading
one runs nothing and allocates no more than the state's own size.
"""

import collections
import contextlib
import dataclasses
import hashlib
import os
import re
import struct
import tempfile
import zlib

import numpy as np

from tff_compress.processes.errors import ProcessError
from tff_compress.processes.errors import StateError

_MAGIC, _VERSION = b'TFCSTATE', 1
_HEAD = struct.Struct('<8sI16sII')
_TAIL = 4
_NAME = re.compile(r'([0-9a-f]{32})\.([0-9]{10})\.state')
_MAX_ID = 4096


@dataclasses.dataclass(frozen=True)
class Layout:
  """What one client's state consists of.

  Attributes:
    fingerprint: 16 bytes that differ where states do not fit each other.
    arrays: tuple of (shape, dtype name).
  """
  fingerprint: bytes
  arrays: tuple

  @property
  def bytes(self):
    """Size of the arrays of one state."""
    return sum(int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize for shape, dtype in self.arrays)


class ClientStore:
  """States by client id.

  Args:
    layout: `Layout`.
    folder: where to keep files; it is made if it is not there. None: in memory.
    max_clients: most clients of which a state is kept; None: no limit.
    max_bytes: most bytes that states take together; None: no limit.

  Attributes:
    dropped: how many clients' states were dropped since the store was made, to stay within the limits. Those that took part
      least recently go first.
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
    self._records = _Memory() if folder is None else _Files(folder, layout)
    # {name of client: {round: bytes}}, least recent first.
    self._index = collections.OrderedDict(sorted(self._records.index().items(), key=lambda item: (max(item[1]), item[0])))
    self._bytes = sum(size for rounds in self._index.values() for size in rounds.values())
    self.dropped, self.kept_rounds = 0, ()

  def __len__(self):
    """Number of clients of which there is a state."""
    return len(self._index)

  def __contains__(self, client):
    return _name(client) in self._index

  @property
  def bytes(self):
    """Bytes that all states take: on disk with their headers, in memory without."""
    return self._bytes

  def get(self, client):
    """The newest state of a client.

    Returns:
      (number of rounds that were done when it was written, list of arrays); None if there is none.

    Raises:
      StateError: it is damaged, or of another model or codec.
    """
    name = _name(client)
    if name not in self._index:
      return None
    round_number = max(self._index[name])
    return round_number, self._records.read(name, round_number, client)

  def put(self, round_number, states):
    """Keeps the states of a round, in place of older ones of the same clients.

    Args:
      round_number: number of rounds that are done, 0 … 2^32-1; more than that of any state of these clients.
      states: {client id, a text: list of arrays as the layout says}.

    Raises:
      StateError: one cannot be written. The states of before are untouched.
    """
    written = {}
    try:
      for client, arrays in states.items():
        written[_name(client)] = self._records.write(_name(client), round_number, client, arrays)
    except BaseException:
      for name in written:
        self._records.remove(name, round_number)
      raise
    for name, size in written.items():
      rounds = self._index.setdefault(name, {})
      rounds[round_number] = size
      self._bytes += size
      self._index.move_to_end(name)
      kept = {max((r for r in rounds if r <= limit), default=None) for limit in (*self.kept_rounds, round_number)}
      for old in set(rounds) - kept:
        self._remove(name, old)
    while len(self._index) > 1 and self._is_over():
      self._drop(next(iter(self._index)))
      self.dropped += 1

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
    self._index = collections.OrderedDict(sorted(self._index.items(), key=lambda item: (max(item[1]), item[0])))

  def _is_over(self):
    return (self._max_clients is not None and len(self._index) > self._max_clients
            or self._max_bytes is not None and self._bytes > self._max_bytes)

  def _drop(self, name):
    for round_number in list(self._index[name]):
      self._remove(name, round_number)

  def _remove(self, name, round_number):
    self._records.remove(name, round_number)
    self._bytes -= self._index[name].pop(round_number)
    if not self._index[name]:
      del self._index[name]


def _name(client):
  """What a client is filed under: ids may be of any length and hold any character."""
  return hashlib.sha256(client.encode('utf-8', 'surrogatepass')).hexdigest()[:32]


class _Memory:
  """Records in this process."""

  def __init__(self):
    self._records = {}

  def index(self):
    return {}

  def read(self, name, round_number, client):
    del client
    return self._records[name, round_number]

  def write(self, name, round_number, client, arrays):
    del client
    self._records[name, round_number] = [np.asarray(array) for array in arrays]
    return sum(array.nbytes for array in self._records[name, round_number])

  def remove(self, name, round_number):
    del self._records[name, round_number]


class _Files:
  """Records in a folder."""

  def __init__(self, folder, layout):
    self._folder, self._layout = folder, layout
    try:
      os.makedirs(folder, exist_ok=True)
      for entry in os.listdir(folder):
        if entry.startswith('.state-'):  # Of a process that was killed while it wrote.
          os.remove(os.path.join(folder, entry))
    except OSError as error:
      raise StateError(f'{folder} cannot hold the states of clients: {error.strerror}.') from None

  def index(self):
    found = {}
    for entry in os.scandir(self._folder):
      match = _NAME.fullmatch(entry.name)
      if match:
        found.setdefault(match[1], {})[int(match[2])] = entry.stat().st_size
    return found

  def read(self, name, round_number, client):
    path, layout = self._path(name, round_number), self._layout
    encoded = _encoded(client)
    size = _HEAD.size + len(encoded) + layout.bytes + _TAIL
    remedy = 'forget the client to let it start anew'
    try:
      with open(path, 'rb') as file:
        data = file.read(max(size, _HEAD.size) + 1)
    except OSError as error:
      raise StateError(f'the state of client {client!r} in {path} cannot be read ({error.strerror}): {remedy}.') from None
    if len(data) >= _HEAD.size:
      magic, version, fingerprint, written, length = _HEAD.unpack_from(data)
      if magic == _MAGIC and version == _VERSION and fingerprint != layout.fingerprint:
        raise StateError(f'the state of client {client!r} in {path} is of another model, codec or error feedback: use another '
                         f'folder, or {remedy}.')
      if (len(data) == size and (magic, version, written, length) == (_MAGIC, _VERSION, round_number, len(encoded))
          and data[_HEAD.size:_HEAD.size + length] == encoded
          and struct.unpack('<I', data[-_TAIL:])[0] == zlib.crc32(data[:-_TAIL])):
        arrays, start = [], _HEAD.size + length
        for shape, dtype in layout.arrays:
          count = int(np.prod(shape, dtype=np.int64))
          arrays.append(np.frombuffer(data, dtype, count, start).reshape(shape))
          start += arrays[-1].nbytes
        return arrays
    raise StateError(f'the state of client {client!r} in {path} is damaged: {remedy}.')

  def write(self, name, round_number, client, arrays):
    encoded = _encoded(client)
    parts = [_HEAD.pack(_MAGIC, _VERSION, self._layout.fingerprint, round_number, len(encoded)), encoded]
    parts += [np.ascontiguousarray(array).tobytes() for array in arrays]
    checksum = 0
    for part in parts:
      checksum = zlib.crc32(part, checksum)
    parts.append(struct.pack('<I', checksum))
    temporary = None
    try:
      descriptor, temporary = tempfile.mkstemp(prefix='.state-', dir=self._folder)
      with open(descriptor, 'wb') as file:
        file.writelines(parts)
      os.replace(temporary, self._path(name, round_number))
    except BaseException as error:
      if temporary is not None:
        with contextlib.suppress(OSError):
          os.remove(temporary)
      if isinstance(error, OSError):
        raise StateError(f'the state of client {client!r} cannot be written into {self._folder}: {error.strerror}.') from error
      raise
    return sum(map(len, parts))

  def remove(self, name, round_number):
    with contextlib.suppress(FileNotFoundError):
      os.remove(self._path(name, round_number))

  def _path(self, name, round_number):
    return os.path.join(self._folder, f'{name}.{round_number:010d}.state')


def _encoded(client):
  encoded = client.encode('utf-8', 'surrogatepass')
  if len(encoded) > _MAX_ID:
    raise StateError(f'a client id has at most {_MAX_ID} bytes, not {len(encoded)}.')
  return encoded
