"""Files that may be hostile: every size is checked before memory is taken for it, and nothing is unpickled.

A size is checked against a limit and against the size of the file. Whatever is wrong is a `DataError` with one sentence
that says what to do.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import gzip
import math
import os
import pathlib
import stat
import struct
import tarfile
from typing import Any
import zipfile
import zlib

import numpy as np

from tff_compress.codec import files as files_lib
from tff_compress.simulation.data import DataError

# The limits are above every data set this is meant for (the largest, all of EMNIST, has 527 million pixels), and low
# enough that a file that claims more is refused and not tried.
MAX_VALUES = 2**29  # per array; 2 GiB as float32
MAX_BYTES = 2**31  # of one file, and of the arrays in it before conversion
MAX_CLASSES = 100_000
MAX_TEXT = 2**24  # bytes of a text, three times Shakespeare's; its characters are sorted in memory

_CHUNK = 2**20


def file_size(path: pathlib.Path, limit: int = MAX_BYTES) -> int:
  """The size in bytes of a regular file of at most `limit` bytes."""
  try:
    status = os.stat(path)
  except (OSError, ValueError) as error:
    raise DataError(f'{path} cannot be opened ({files_lib.reason(error)}): check the path.') from None
  # A pipe or a device has no size that could be checked.
  if not stat.S_ISREG(status.st_mode):
    raise DataError(f'{path} is not a file: check the path.')
  if not 0 < status.st_size <= limit:
    raise DataError(f'{path} has {status.st_size} bytes, which is none or more than {limit}: give another file.')
  return status.st_size


def home() -> pathlib.Path:
  # Keras and TFF ask os.path for it, and pathlib's own way raises where there is none.
  return pathlib.Path(os.path.expanduser('~'))


def exactly(stream: Any, count: int) -> bytearray | None:
  """`count` bytes, or None if the stream has fewer; memory grows with what is there, not with what is claimed."""
  values = bytearray()
  while len(values) < count:
    chunk = stream.read(min(_CHUNK, count - len(values)))
    if not chunk:
      return None
    values += chunk
  return values


def from_bytes(intensities: np.ndarray) -> np.ndarray:
  """float32 in [0, 1] from integers 0 to 255, without an intermediate array."""
  return np.divide(intensities, np.float32(255), dtype=np.float32, casting='unsafe')


def idx(path: pathlib.Path, ndim: int) -> np.ndarray:
  """uint8 array of ndim dimensions from an idx file, plain or gzip.

  The format: bytes 0, 0, 8 (unsigned byte), ndim; ndim sizes as big-endian uint32; the values in C order; nothing else.
  """
  size = file_size(path)
  try:
    with open(path, 'rb') as raw:
      packed = raw.read(2) == b'\x1f\x8b'
      raw.seek(0)
      stream = gzip.GzipFile(fileobj=raw) if packed else raw
      header = stream.read(4 + 4 * ndim)
      if len(header) < 4 + 4 * ndim or header[:4] != bytes([0, 0, 8, ndim]):
        raise DataError(f'{path} is not an idx file of bytes with {ndim} dimension(s): give the original file.')
      shape = struct.unpack(f'>{ndim}I', header[4:])
      count = math.prod(shape)
      if not 0 < count <= MAX_VALUES:
        raise DataError(f'{path} claims the shape {shape}, which is empty or more than {MAX_VALUES} values: '
                        'give the original file.')
      # Deflate cannot pack more than 1032 bytes into one, so a header that lies about a small file is caught here.
      if count + len(header) > size * 1032 if packed else count + len(header) != size:
        raise DataError(
            f'{path} claims the shape {shape}, which does not fit its size of {size} bytes: give the original file.')
      values = exactly(stream, count)
      if values is None or stream.read(1):
        raise DataError(f'{path} does not hold the {count} values it claims: give the original file.')
  except (OSError, EOFError, zlib.error) as error:
    raise DataError(f'{path} cannot be read ({files_lib.reason(error)}): give the original file.') from None
  return np.frombuffer(values, np.uint8).reshape(shape)


def content(path: pathlib.Path, check: Callable[[object, int], None]) -> bytearray:
  """The content of a file whose size `check` accepts; see `tar_gz`."""
  size = file_size(path)
  check(path, size)
  try:
    with open(path, 'rb') as stream:
      values = exactly(stream, size)
  except OSError as error:
    raise DataError(f'{path} cannot be read ({files_lib.reason(error)}): give the original file.') from None
  if values is None:
    raise DataError(f'{path} is cut short: give the original file.')
  return values


def text(path: pathlib.Path) -> np.ndarray:
  """The code points of a UTF-8 file, uint32."""
  def check(name: object, size: int) -> None:
    if size > MAX_TEXT:
      raise DataError(f'{name} has {size} bytes, more than {MAX_TEXT}: give a shorter text.')

  values = content(path, check)
  try:
    decoded = values.decode('utf-8-sig')
  except UnicodeDecodeError as error:
    raise DataError(f'{path} is no text in UTF-8 ({files_lib.reason(error)}): save it as UTF-8.') from None
  return np.frombuffer(decoded.encode('utf-32-le'), np.uint32)


def tar_gz(path: pathlib.Path, wanted: list[str], check: Callable[[object, int], None], most: int,
           original: str) -> dict[str, bytearray]:
  """The wanted files of a .tar.gz by name.

  `tarfile` reads the headers only: what it opens takes the memory that a header claims.

  Args:
    path: the archive.
    wanted: names of files, in whatever folder of the archive.
    check: called with what to call a wanted file and its size in bytes; raises a DataError where that cannot be.
    most: bytes that the archive may unpack to, at most.
    original: what the archive should be, for errors.
  """
  file_size(path)
  block, too_large = tarfile.BLOCKSIZE, f'{path} unpacks to more than {original}: give the original file.'
  files, room = {}, most
  try:
    with gzip.open(path, 'rb') as stream:
      # Two blocks of zeros end an archive.
      while any(header := stream.read(block)):
        info = tarfile.TarInfo.frombuf(header, 'utf-8', 'surrogateescape')
        name, padding = info.name.rpartition('/')[2], -info.size % block
        room -= block + info.size + padding
        if info.size < 0 or room < 0:
          raise DataError(too_large)
        if info.isreg() and name in wanted:
          check(f'{path}: {name}', info.size)
          if name in files:
            raise DataError(f'{path} has {name} twice: give the original file.')
          values = exactly(stream, info.size)
          if values is None:
            raise DataError(f'{path} is cut short: give the original file.')
          files[name] = values
          stream.read(padding)
        else:
          stream.seek(info.size + padding, os.SEEK_CUR)
      # Up to the checksum, which is at the end.
      while rest := stream.read(_CHUNK):
        room -= len(rest)
        if room < 0:
          raise DataError(too_large)
  except (OSError, EOFError, zlib.error, tarfile.HeaderError) as error:
    raise DataError(f'{path} cannot be read as .tar.gz ({files_lib.reason(error)}): give the original file.') from None
  return files


def npz(path: pathlib.Path, wanted: tuple[str, ...]) -> dict[str, np.ndarray]:
  """The wanted arrays that an .npz file has. Reads numbers and strings only, never objects."""
  size = file_size(path)
  arrays = {}
  budget = MAX_BYTES
  try:
    with open(path, 'rb') as raw:
      _check_zip_directory(path, raw, size)
      with zipfile.ZipFile(raw) as archive:
        members = {}
        for info in archive.infolist():
          if info.filename in members:
            raise DataError(f'{path} has the member {info.filename[:40]!r} twice: save it with numpy.savez.')
          members[info.filename] = info
        for name in wanted:
          if f'{name}.npy' not in members:
            continue
          info = members[f'{name}.npy']
          if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 0x1:
            raise DataError(f'{path}: {name} is encrypted or packed in an unusual way: save it with numpy.savez.')
          budget -= info.file_size
          if budget < 0:
            raise DataError(f'{path} unpacks to more than {MAX_BYTES} bytes: save fewer examples or smaller types.')
          with archive.open(info) as stream:
            arrays[name] = _read_npy(f'{path}: {name}', stream, info.file_size)
  except (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError,
          struct.error) as error:
    raise DataError(f'{path} cannot be read as .npz ({files_lib.reason(error)}): save it with numpy.savez.') from None
  return arrays


def _check_zip_directory(path: pathlib.Path, raw: Any, size: int) -> None:
  """Refuses archives whose directory zipfile would need much memory for, or that numpy.savez does not write."""
  raw.seek(max(0, size - 42))
  tail = raw.read(42)
  end = tail[-22:]
  is_zip = len(end) == 22 and end[:4] == b'PK\x05\x06' and end[-2:] == b'\0\0'
  # A zip64 locator just before would override the sizes that are checked here.
  if not is_zip or tail[:4] == b'PK\x06\x07' or struct.unpack('<I', end[12:16])[0] > 2**16:
    raise DataError(f'{path} is not an .npz file: save it with numpy.savez.')
  raw.seek(0)


def _read_npy(name: str, stream: Any, size: int) -> np.ndarray:
  """An array of numbers or strings from a .npy stream of which `size` bytes are claimed to exist."""
  start = stream.read(8)
  length_bytes = {b'\x93NUMPY\x01\x00': 2, b'\x93NUMPY\x02\x00': 4}.get(start)
  if length_bytes is None:
    raise DataError(f'{name} is not a .npy array of version 1 or 2: save it with numpy.savez.')
  length = int.from_bytes(stream.read(length_bytes), 'little')
  # NumPy's own reader takes memory for a header of any length before it looks at it.
  if length > 10_000:
    raise DataError(f'{name} has a header of {length} bytes: save it with numpy.savez.')
  try:
    header = ast.literal_eval(stream.read(length).decode('latin1').strip())
    descr, fortran_order, shape = header['descr'], header['fortran_order'], header['shape']
    if not isinstance(descr, str) or not isinstance(fortran_order, bool) or not isinstance(shape, tuple):
      raise TypeError
    if len(shape) > 4 or not all(type(n) is int and 0 <= n <= MAX_VALUES for n in shape):
      raise TypeError
    dtype = np.dtype(descr)
  except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError):
    raise DataError(
        f'{name} has a header that describes no plain array: save numbers with numpy.savez, not objects.') from None
  if dtype.kind not in 'uifU' or dtype.itemsize == 0 or (dtype.kind == 'f' and dtype.itemsize > 8):
    raise DataError(f'{name} has the type {str(dtype)[:40]}: save integers or floats, and never objects.')
  count = math.prod(shape)
  nbytes = count * dtype.itemsize
  if count > MAX_VALUES or nbytes != size - (8 + length_bytes + length):
    raise DataError(
        f'{name} claims the shape {str(shape)[:60]}, which does not fit its size of {size} bytes: save it again.')
  values = exactly(stream, nbytes)
  if values is None or stream.read(1):
    raise DataError(f'{name} does not hold the {count} values it claims: save it again.')
  if dtype.kind == 'U':
    # Anything above the last code point would make Python strings that cannot be made.
    if nbytes and np.frombuffer(values,
                                np.uint32 if dtype.isnative else np.dtype(np.uint32).newbyteorder()).max() > 0x10FFFF:
      raise DataError(f'{name} has strings with impossible characters: save it again.')
  array = np.frombuffer(values, dtype).reshape(shape, order='F' if fortran_order else 'C')
  return np.ascontiguousarray(array, dtype.newbyteorder('='))


class Collector:
  """Gathers the examples of many clients and refuses to grow beyond the limit."""

  def __init__(self, source: pathlib.Path):
    self._source = source
    self._ids: list[np.ndarray] = []
    self._x: list[np.ndarray] = []
    self._y: list[np.ndarray] = []
    self.room = MAX_VALUES

  def add(self, ids: np.ndarray, x: np.ndarray, y: np.ndarray) -> None:
    self.room -= x.size
    if self.room < 0:
      raise DataError(f'{self._source} has more than {MAX_VALUES} pixels: load fewer writers with max_clients.')
    self._ids.append(ids)
    self._x.append(np.asarray(x, np.float32))
    self._y.append(y)

  def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if not self._x:
      raise DataError(f'{self._source} has no examples for these writers: give the original file.')
    x = np.concatenate(self._x)[..., np.newaxis]
    self._x = []  # A gigabyte that is not needed twice.
    y = np.concatenate(self._y)
    if y.min() < 0 or y.max() >= MAX_CLASSES:
      raise DataError(f'{self._source} has labels outside its range: give the original file.')
    return np.concatenate(self._ids), x, y.astype(np.int32)


def check_h5(file: pathlib.Path, client: str, stored: Any, kinds: str, shape: tuple[int, ...], room: int) -> None:
  """Refuses what would need much memory to read, or would read other files."""
  import h5py

  usable = (
      isinstance(stored, h5py.Dataset)
      and stored.dtype.kind in kinds
      and stored.dtype.itemsize <= 8
      and len(stored.shape) == 1 + len(shape)
      and stored.shape[1:] == shape
      and stored.size <= room
      and math.prod(stored.chunks or ()) <= 2**24
      and not stored.is_virtual
      and not stored.external
      and os.path.samefile(stored.file.filename, file)
  )
  if not usable:
    raise DataError(f'{file}: writer {client[:40]!r} does not have the expected arrays, or too many examples: '
                    'give the original file.')


@contextlib.contextmanager
def h5(file: pathlib.Path) -> Iterator[Any]:
  """A block with an open .h5 file; errors of h5py in it are DataErrors."""
  try:
    import h5py
  except ImportError:
    raise DataError('Files ending in .h5 are read by h5py: install h5py.') from None
  file_size(file)
  try:
    with files_lib.readable(str(file)) as alias, h5py.File(alias, 'r') as opened:
      yield opened
  except (OSError, KeyError, AttributeError, RuntimeError, TypeError, ValueError) as error:
    if isinstance(error, DataError):
      raise
    raise DataError(f'{file} cannot be read ({files_lib.reason(error)}): give the original file.') from None
