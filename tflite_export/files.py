"""Files: read within bounds, written whole or not at all."""

import os
import pathlib

from tff_compress.codec import files
from tflite_export.errors import FileError


def check_free(path: str | os.PathLike, overwrite: bool = False) -> pathlib.Path:
  """Refuses a path that an export could not be written to, before any long work is done.

  Returns:
    pathlib.Path

  Raises:
    FileError: something is there already (and `overwrite` is not set), or its folder does not exist.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    raise FileError(f'{path} is a folder: name a file.')
  if path.exists() and not overwrite:
    raise FileError(f'{path} exists already: name another file, remove it, or give overwrite=True.')
  if not path.parent.is_dir():
    raise FileError(f'the folder {path.parent} does not exist: make it first.')
  return path


def read(path: str | os.PathLike, limit: int, kind: str) -> bytes:
  """Reads a file whole.

  Args:
    path: the file.
    limit: most bytes that it may have.
    kind: what the file should be, for messages: 'model for a device'.

  Returns:
    bytes

  Raises:
    FileError: it is missing, no regular file, or too large.
  """
  try:
    found = pathlib.Path(path)
    # Checked before it is opened: opening a pipe would wait for its other end.
    if found.exists() and not found.is_file():
      raise FileError(f'{path} is not a file: name a {kind}.')
    if found.stat().st_size > limit:
      raise FileError(f'{path} has more than {limit} bytes: it is no {kind}.')
    return found.read_bytes()
  except OSError as error:
    raise FileError(f'{path} cannot be read: {error.strerror or error}.') from None
  except ValueError as error:
    if isinstance(error, FileError):
      raise
    raise FileError(f'{str(path)!r} cannot be read: it is no path.') from None


def write(path: str | os.PathLike, data: bytes, overwrite: bool = False) -> pathlib.Path:
  """Writes bytes to a file. Whatever interrupts it, there is the whole new file or what was there before."""
  path = check_free(path, overwrite)
  files.write(str(path), data, FileError)
  return path


def write_folder(path, contents):
  """Makes or replaces a folder of files, {name: bytes}, as a whole."""
  files.write_folder(str(path), contents, FileError)
