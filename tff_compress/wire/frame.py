"""Writing and reading frames. See the package's docstring for the layout."""

from collections.abc import Mapping
import dataclasses
import struct

import numpy as np
import numpy.typing as npt

from tff_compress.codec.codec import Codec
from tff_compress.codec.errors import PayloadError
from tff_compress.codec.grammar import as_codec
from tff_compress.codec.ops import numpy_ops
from tff_compress.codec.spec import Spec
from tff_compress.codec.spec import SpecSource

MAGIC = b'TFC'
VERSION = 2
HEADER_BYTES = 16
CHECKSUM_BYTES = 4
FRAME_OVERHEAD = HEADER_BYTES + CHECKSUM_BYTES
"""Bytes that a frame adds to a payload."""


class FrameError(PayloadError):
  """A frame is not what a sender of this codec and spec would have sent."""


@dataclasses.dataclass(frozen=True)
class Frame:
  """What a frame says.

  Attributes:
    fingerprint: 4 bytes that identify codec and spec.
    round, client: whose message it is.
    payload: bytes for `Codec.decode`.
  """
  fingerprint: bytes
  round: int
  client: int
  payload: bytes


def pack(codec: Codec | str, update: Mapping[str, npt.ArrayLike], *, seed: int, round: int, client: int) -> bytes:
  """Encodes an update and frames it.

  Args:
    codec: `Codec` or its text.
    update: mapping of variable name to array.
    seed, round, client: as for `Codec.encode`.

  Returns:
    bytes

  Raises:
    CompressionError: as for `Codec.encode`.
  """
  codec = as_codec(codec)
  payload = codec.encode(update, seed=seed, round=round, client=client)
  return framed(Frame(codec.fingerprint(Spec.of(update)), round, client, payload))


def framed(frame: Frame) -> bytes:
  """The bytes of a frame whose payload was encoded elsewhere, for `read_header`."""
  body = header(frame.fingerprint) + struct.pack('<II', frame.round, frame.client) + frame.payload
  return body + struct.pack('<I', int(numpy_ops.crc32(np.frombuffer(body, np.uint8))) & 0xFFFFFFFF)


def header(fingerprint: bytes) -> bytes:
  """The first 8 bytes of every frame of a codec and spec."""
  return MAGIC + bytes([VERSION]) + fingerprint


def read_header(data: bytes | bytearray | memoryview) -> Frame:
  """Takes a frame apart without decoding its payload; needs neither codec nor spec.

  Returns:
    Frame

  Raises:
    FrameError: not a frame, another version, cut short, or changed on the way.
  """
  if not isinstance(data, (bytes, bytearray, memoryview)):
    raise FrameError(f'a frame is bytes, not {type(data).__name__}.')
  data = bytes(data)
  if len(data) < FRAME_OVERHEAD:
    raise FrameError(f'a frame has at least {FRAME_OVERHEAD} bytes, but this has {len(data)}.')
  if data[:3] != MAGIC:
    raise FrameError('this is not a frame: it does not start with "TFC".')
  if data[3] != VERSION:
    raise FrameError(f'the frame has version {data[3]}; this release reads version {VERSION}.')
  checksum, = struct.unpack('<I', data[-4:])
  if checksum != int(numpy_ops.crc32(np.frombuffer(data[:-4], np.uint8))) & 0xFFFFFFFF:
    raise FrameError('the frame was damaged on the way: its checksum does not match.')
  round_number, client = struct.unpack('<II', data[8:16])
  return Frame(data[4:8], round_number, client, data[16:-4])


def unpack(codec: Codec | str, data: bytes | bytearray | memoryview, spec: SpecSource, *, seed: int,
           round: int | None = None, client: int | None = None) -> tuple[dict[str, np.ndarray], Frame]:
  """Reads a frame and decodes its payload.

  Args:
    codec: `Codec` or its text.
    data: bytes.
    spec: a `Spec`, or what one can be made of.
    seed: session seed.
    round, client: where given, the frame must be of this round or client.

  Returns:
    (dict of variable name to array, `Frame`)

  Raises:
    FrameError, PayloadError: the frame is not a whole and unchanged message of this codec, spec, round and client.
  """
  codec = as_codec(codec)
  spec = Spec.of(spec)
  frame = read_header(data)
  if frame.fingerprint != codec.fingerprint(spec):
    raise FrameError('the frame was made with another codec or for another model.')
  for name, expected in (('round', round), ('client', client)):
    if expected is not None and getattr(frame, name) != expected:
      raise FrameError(f'the frame is of {name} {getattr(frame, name)}, but {name} {expected} was expected.')
  update = codec.decode(frame.payload, spec, seed=seed, round=frame.round, client=frame.client)
  return update, frame
