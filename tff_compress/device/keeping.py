"""What a device keeps between rounds: tokens, files by their SHA-256, the model that it holds, a residual, and an
update that was encoded and has no receipt yet.

Every file is replaced whole. The order of the steps is what makes it right to be killed between them: what is sent is
kept before, with the residual that belongs to it, and that residual becomes the device's only after a receipt that says
accepted. Sent again after a restart, the same update gets the same receipt.
"""

import contextlib
import hashlib
import json
import os
import re
from typing import Any

import numpy as np

from tff_compress.codec import files
from tff_compress.device.errors import DeviceError
from tff_compress.serving import messages
from tff_compress.serving import protocol

MOST_CACHED = 1 << 30
"""Bytes of files that are kept; those used longest ago go first."""

Residuals = dict[str, np.ndarray]


class Keeping:
  """Args:
    folder: of this device alone; made if need be.
  """

  def __init__(self, folder: str) -> None:
    self._folder = folder
    os.makedirs(os.path.join(folder, 'cache'), exist_ok=True)

  # Small things, by name.

  def _path(self, *parts: str) -> str:
    return os.path.join(self._folder, *parts)

  def _read(self, name: str) -> bytes | None:
    try:
      with open(self._path(name), 'rb') as file:
        return file.read()
    except FileNotFoundError:
      return None

  def _write(self, name: str, data: bytes) -> None:
    files.write(self._path(name), data, DeviceError)

  def _remove(self, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
      os.remove(self._path(name))

  @property
  def tokens(self) -> protocol.Tokens | None:
    """What the device shows; None before it is enrolled."""
    data = self._read('tokens.json')
    try:
      return None if data is None else protocol.Tokens.read(data)
    except messages.MessageError:
      return None

  @tokens.setter
  def tokens(self, tokens: protocol.Tokens) -> None:
    self._write('tokens.json', tokens.to_bytes())

  @property
  def copy(self) -> bytes | None:
    """The copy of the model that the device holds, as bytes."""
    return self._read('copy')

  @copy.setter
  def copy(self, data: bytes) -> None:
    self._write('copy', data)

  # Files by their digest.

  def cached(self, sha256: str) -> bytes | None:
    """A file; None where it is not there, or was damaged."""
    if re.fullmatch('[0-9a-f]{64}', sha256) is None:
      raise DeviceError('a file is named by 64 hexadecimal digits.')
    name = os.path.join('cache', sha256)
    data = self._read(name)
    if data is None or hashlib.sha256(data).hexdigest() != sha256:
      return None
    with contextlib.suppress(OSError):
      os.utime(self._path(name))
    return data

  def cache(self, data: bytes) -> None:
    """Keeps a file, and lets go of others where there are too many."""
    self._write(os.path.join('cache', hashlib.sha256(data).hexdigest()), data)
    entries = sorted((entry.stat().st_mtime, entry.stat().st_size, entry.path)
                     for entry in os.scandir(self._path('cache')) if entry.is_file())
    total = sum(size for _, size, _ in entries)
    for _, size, path in entries[:-1]:
      if total <= MOST_CACHED:
        break
      os.remove(path)
      total -= size

  # Updates and residuals.

  def residuals(self, fingerprint: str) -> Residuals:
    """Of a codec and model: what its last accepted update left out; {} for zeros."""
    data = self._read(_residual(fingerprint))
    try:
      return {} if data is None else files.unpacked(data, DeviceError, 'the residual')
    except DeviceError:
      return {}

  def keep_update(self, assignment: protocol.Assignment, frame: bytes, residuals: Residuals) -> None:
    """Keeps an update that is to be sent, with the residuals that are the device's once it is counted."""
    self._write('frame', frame)
    self._write('residual.next', files.packed(residuals))
    # Last, as it says that the others are there, and of which frame.
    self._write('update.json', json.dumps({'assignment': assignment.as_dict(), 'residuals': bool(residuals),
                                           'frame': hashlib.sha256(frame).hexdigest()}).encode())

  def update(self) -> tuple[protocol.Assignment, bytes] | None:
    """The update that has no receipt yet."""
    found, frame = self._pending(), self._read('frame')
    if found is None or frame is None or hashlib.sha256(frame).hexdigest() != found['frame']:
      return None
    return found['assignment'], frame

  def _pending(self) -> dict[str, Any] | None:
    data = self._read('update.json')
    try:
      value = None if data is None else json.loads(data)
      return value and {**value, 'assignment': protocol.Assignment.of(value['assignment'])}
    except (ValueError, KeyError, TypeError, messages.MessageError):
      return None

  def settle(self, counted: bool) -> None:
    """Ends an update. Counted, its residuals become the device's; otherwise they stay what they were."""
    found = self._pending()
    # Not there where the device was killed below this: then it is where it belongs.
    if found is not None and counted and found['residuals'] and os.path.exists(self._path('residual.next')):
      os.replace(self._path('residual.next'), self._path(_residual(found['assignment'].fingerprint)))
    self._remove('update.json')
    self._remove('residual.next')
    self._remove('frame')


def _residual(fingerprint: str) -> str:
  return f'residual-{fingerprint}'
