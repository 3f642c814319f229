"""Files: written whole or not at all, with errors that name the file and the reason; and paths that are no text."""

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import io
import os
import re
import shutil
import tempfile
from typing import BinaryIO
import zipfile
import zlib

import numpy as np

from tff_compress.codec.errors import CompressionError

UNFINISHED = '.tff-compress-'
"""What names of files begin with as long as they are not whole; a process that is killed leaves them behind."""


@contextlib.contextmanager
def replacing(path: str, error: type[Exception] = CompressionError) -> Iterator[BinaryIO]:
  """A block that writes a new file, which takes the place of `path` at the end of the block.

  Whatever interrupts it, there is the whole new file or what was there before.

  Args:
    path: text; the file's folder must exist.
    error: class of the error that is raised.

  Yields:
    a stream to write bytes to.

  Raises:
    `error`: it cannot be written; the message names the file and the reason.
  """
  temporary = _beside(path)
  try:
    try:
      with _new_file(temporary) as file:
        yield file
      os.replace(temporary, path)
    except BaseException:
      with contextlib.suppress(OSError):
        os.remove(temporary)
      raise
  except OSError as problem:
    raise error(f'{path} cannot be written: {reason(problem)}.') from problem


def write(path: str, data: bytes, error: type[Exception] = CompressionError) -> None:
  """Replaces a file by one of these bytes, as `replacing` does."""
  with replacing(path, error) as file:
    file.write(data)


def write_folder(path: str, contents: Mapping[str, bytes], error: type[Exception] = CompressionError) -> None:
  """Makes a folder that holds these files and nothing else, or replaces the one that is there.

  Whatever interrupts it, there is the whole new folder or what was there before; only where the process ends between
  two renames is that under a name of its own, which begins with `UNFINISHED`.

  Args:
    path: text; the folder that it is in must exist.
    contents: {name of a file: bytes}.
    error: class of the error that is raised.

  Raises:
    `error`: it cannot be written; the message names the folder and the reason.
  """
  temporary, before = _beside(path), _beside(path)
  try:
    try:
      os.mkdir(temporary)
      for name, data in contents.items():
        with _new_file(os.path.join(temporary, name)) as file:
          file.write(data)
      if os.path.lexists(path):
        os.rename(path, before)
      os.rename(temporary, path)
    except BaseException:
      if os.path.lexists(before) and not os.path.lexists(path):
        os.rename(before, path)
      shutil.rmtree(temporary, ignore_errors=True)
      raise
  except OSError as problem:
    raise error(f'{path} cannot be written: {reason(problem)}.') from problem
  shutil.rmtree(before, ignore_errors=True)


def packed(arrays: Mapping[str, np.ndarray]) -> bytes:
  """Arrays with their names as the bytes of an .npz file, the same for equal arrays."""
  file = io.BytesIO()
  np.savez(file, **arrays)
  return file.getvalue()


def unpacked(data: bytes, error: type[Exception], name: str) -> dict[str, np.ndarray]:
  """Inverse of `packed`; never reads a pickle.

  Args:
    data: bytes.
    error: class of the error that is raised.
    name: what they are, for its message.

  Raises:
    `error`: they are no such file.
  """
  try:
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
      return {key: file[key] for key in file.files}
  # What NumPy and zipfile raise of bytes that are none; TypeError, where they are a single array.
  except (ValueError, KeyError, OSError, EOFError, TypeError, NotImplementedError, zipfile.BadZipFile, zlib.error):
    raise error(f'{name} cannot be read: it was damaged.') from None


def _beside(path: str) -> str:
  """A name that is not taken, in the folder of a path."""
  return os.path.join(os.path.dirname(path), UNFINISHED + os.urandom(8).hex())


@contextlib.contextmanager
def _new_file(path: str) -> Iterator[BinaryIO]:
  """A block that writes a file, which is on the disk at the end of it."""
  # Not tempfile's, whose files are for the user alone: here the umask decides.
  with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), 'wb') as file:
    yield file
    file.flush()
    os.fsync(file.fileno())


def reason(problem: object) -> str:
  """Why the operating system refused, as the end of a sentence.

  Args:
    problem: an OSError, or an error of TensorFlow or its text, which has the reason in it: 'path; No space left on
      device'.
  """
  text = getattr(problem, 'strerror', None)
  if not text:
    found = re.search(r'; ([A-Z][a-z][\w /-]*?)\s*(?:$|[\n\[])', str(problem))
    text = found[1] if found else str(problem) or type(problem).__name__
  return ' '.join(text.split())[:200].rstrip('.')


@contextlib.contextmanager
def readable(path: str) -> Iterator[str]:
  """A block in which a path can be given to TensorFlow and HDF5.

  A path is any bytes. These libraries take UTF-8 alone, and not what is surrogates in Python's text (`os.fsdecode`);
  and TensorFlow takes the name of a checkpoint for a pattern. The block is given a link to the file or folder where
  that matters, and otherwise the path itself.

  Args:
    path: text.
  """
  if re.search(r'[*?\[\\\ud800-\udfff]', path) is None:
    yield path
    return
  with tempfile.TemporaryDirectory(prefix='tff-compress-') as folder:
    link = os.path.join(folder, 'link' + re.sub(r'[^.\w]', '_', os.path.splitext(path)[1], flags=re.ASCII))
    os.symlink(os.path.abspath(path), link)
    yield link
