"""Bytes by their SHA-256, in a folder or, by a URL that fsspec knows, in a bucket.

A blob is there whole or not at all: in a folder it is written beside its place, forced to the disk and renamed; buckets
do that by themselves. Parts of uploads lie apart from blobs, so that a device cannot have a blob deleted by sending the
same bytes as a part.
"""

import hashlib
import os
import re

import fsspec

from tff_compress.codec import files
from tff_compress.codec.errors import CompressionError


class BlobError(CompressionError):
  """A blob is not there, or is not what its name says."""


class Blobs:
  """Args:
    url: a folder, or a URL such as s3://bucket/folder.
  """

  def __init__(self, url: str) -> None:
    self._fs, self._root = fsspec.core.url_to_fs(url)
    self._local = 'file' in ([self._fs.protocol] if isinstance(self._fs.protocol, str) else self._fs.protocol)

  def put(self, data: bytes) -> str:
    """Keeps bytes; returns their SHA-256 in hexadecimal."""
    digest = hashlib.sha256(data).hexdigest()
    path = self._path(digest)
    if not self._fs.exists(path):
      self._write(path, data)
    return digest

  def get(self, digest: str, start: int = 0, stop: int | None = None) -> bytes:
    """The bytes of a blob, or those from start to stop.

    Raises:
      BlobError: it is not there; or, where all of it is asked for, damaged.
    """
    try:
      data = self._fs.cat_file(self._path(digest), start=start or None, end=stop)
    except FileNotFoundError:
      raise BlobError(f'there is no blob {digest}.') from None
    if not start and stop is None and hashlib.sha256(data).hexdigest() != digest:
      raise BlobError(f'the blob {digest} is damaged: its SHA-256 differs.')
    return data

  def size(self, digest: str) -> int:
    """Bytes of a blob. Raises BlobError where it is not there."""
    try:
      return self._fs.size(self._path(digest))
    except FileNotFoundError:
      raise BlobError(f'there is no blob {digest}.') from None

  def delete(self, digest: str) -> None:
    """Removes a blob, if it is there."""
    self._remove(self._path(digest))

  def put_part(self, data: bytes) -> str:
    """Keeps a part of an upload; returns a name, which no other part has or had."""
    name = os.urandom(16).hex()
    self._write(self._part(name), data)
    return name

  def get_part(self, name: str) -> bytes:
    """The same part. Raises BlobError where it is not there."""
    try:
      return self._fs.cat_file(self._part(name))
    except FileNotFoundError:
      raise BlobError('a part of an upload is not there.') from None

  def delete_part(self, name: str) -> None:
    """Removes a part, if it is there."""
    self._remove(self._part(name))

  def _path(self, digest: str) -> str:
    if re.fullmatch('[0-9a-f]{64}', digest) is None:  # No path comes from outside.
      raise BlobError('a blob is named by 64 hexadecimal digits.')
    return f'{self._root}/blobs/{digest[:2]}/{digest}'

  def _part(self, name: str) -> str:
    if re.fullmatch('[0-9a-f]{32}', name) is None:
      raise BlobError('a part is named by 32 hexadecimal digits.')
    return f'{self._root}/parts/{name}'

  def _write(self, path: str, data: bytes) -> None:
    if not self._local:
      self._fs.pipe_file(path, data)
      return
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    files.write(path, data, OSError)
    handle = os.open(folder, os.O_RDONLY)
    try:
      os.fsync(handle)  # The name too is on the disk before the database speaks of it.
    finally:
      os.close(handle)

  def _remove(self, path: str) -> None:
    try:
      self._fs.rm_file(path)
    except FileNotFoundError:
      pass
