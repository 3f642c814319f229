"""What server and clients keep between rounds as bytes: magic, version, body and checksum.

    offset  bytes  field
         0      3  magic
         3      1  version
         4      n  body
       4+n      4  CRC-32 of everything before, little endian
"""

import zlib

import numpy as np

from tff_compress.codec.errors import PayloadError
from tff_compress.codec.table import Array

_HEAD_BYTES, _CHECKSUM_BYTES = 4, 4


def sealed(magic: bytes, version: int, body: bytes) -> bytes:
  """The bytes of a body."""
  data = magic + bytes([version]) + body
  return data + zlib.crc32(data).to_bytes(_CHECKSUM_BYTES, 'little')


def opened(data: bytes, magic: bytes, version: int, name: str) -> Array:
  """Inverse of `sealed`: uint8[n], the body.

  Args:
    data: what was stored.
    magic, version: that it must have.
    name: what it is, for errors.

  Raises:
    PayloadError: it has others, or was damaged.
  """
  if len(data) < _HEAD_BYTES + _CHECKSUM_BYTES or data[:3] != magic:
    raise PayloadError(f'these bytes are no {name}: they do not start with "{magic.decode()}", or are cut short.')
  if data[3] != version:
    raise PayloadError(f'a {name} has version {data[3]}; this release reads version {version}.')
  if zlib.crc32(data[:-_CHECKSUM_BYTES]).to_bytes(_CHECKSUM_BYTES, 'little') != data[-_CHECKSUM_BYTES:]:
    raise PayloadError(f'a {name} was damaged: its checksum does not match.')
  return np.frombuffer(data, np.uint8)[_HEAD_BYTES:-_CHECKSUM_BYTES]
