"""Frames: the header byte by byte, the checksum, and messages of another codec, model, round or client."""

import struct
import zlib

import numpy as np
import pytest

from tff_compress import codec as codec_lib
from tff_compress import wire

UPDATE = {'dense/kernel': np.linspace(-1, 1, 60, dtype=np.float32).reshape(6, 10),
          'dense/bias': np.zeros(10, np.float32)}
TEXT = 'hadamard | uniform:bits=4 | pack'
KEYS = dict(seed=9, round=5, client=7)


def _frame(text=TEXT, update=UPDATE, **keys):
  return wire.pack(text, update, **{**KEYS, **keys})


def _resealed(body):
  return body + struct.pack('<I', zlib.crc32(body))


def test_the_layout():
  codec = codec_lib(TEXT)
  frame = _frame(round=0x01020304, client=0xA0B0C0D0)
  assert frame[:4] == b'TFC\2'
  assert frame[4:8] == codec.fingerprint(codec_lib.Spec.of(UPDATE))
  assert frame[8:16] == bytes([4, 3, 2, 1, 0xD0, 0xC0, 0xB0, 0xA0])
  assert frame[16:-4] == codec.encode(UPDATE, seed=9, round=0x01020304, client=0xA0B0C0D0)
  assert frame[-4:] == struct.pack('<I', zlib.crc32(frame[:-4]))
  assert wire.FRAME_OVERHEAD == 20


def test_a_frame_says_what_decoding_needs():
  for round_number, client in ((0, 0), (2**32 - 1, codec_lib.SHARED_CLIENT), (5, 2**31)):
    frame = _frame(round=round_number, client=client)
    decoded, header = wire.unpack(TEXT, frame, UPDATE, seed=9)
    assert (header.round, header.client) == (round_number, client)
    expected = codec_lib(TEXT).decode(header.payload, UPDATE, seed=9, round=round_number, client=client)
    assert all(np.array_equal(decoded[n], expected[n]) for n in UPDATE)
    assert header == wire.read_header(frame)


def test_a_frame_may_come_in_any_bytes():
  frame = _frame()
  for data in (bytearray(frame), memoryview(frame)):
    assert wire.read_header(data) == wire.read_header(frame)
  for wrong in (None, 'TFC', 5, list(frame)):
    with pytest.raises(wire.FrameError, match='a frame is bytes'):
      wire.read_header(wrong)


def test_every_flipped_bit_and_every_cut_is_refused():
  frame = _frame()
  for bit in range(8 * len(frame)):
    changed = bytearray(frame)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(wire.FrameError):
      wire.unpack(TEXT, bytes(changed), UPDATE, seed=9)
  for length in range(len(frame)):
    with pytest.raises(wire.FrameError):
      wire.unpack(TEXT, frame[:length], UPDATE, seed=9)
  with pytest.raises(wire.FrameError):
    wire.unpack(TEXT, frame + b'\0', UPDATE, seed=9)


@pytest.mark.parametrize('change, message', [
    (lambda b: b'TFD' + b[3:], 'does not start with "TFC"'),
    (lambda b: b[:3] + b'\1' + b[4:], 'version 1; this release reads version 2'),
    (lambda b: b[:3] + b'\0' + b[4:], 'version 0'),
    (lambda b: b[:4] + b'\0\0\0\0' + b[8:], 'another codec or for another model'),
    (lambda b: b[:-1], 'expected|cut short'),
    (lambda b: b + b'\0', 'behind the end'),
])
def test_a_resealed_frame_that_does_not_fit_is_refused(change, message):
  with pytest.raises(codec_lib.PayloadError, match=message):
    wire.unpack(TEXT, _resealed(change(_frame()[:-4])), UPDATE, seed=9)


def test_frames_of_another_codec_or_model_are_refused():
  for text in ('hadamard | uniform:bits=3 | pack', 'float32', 'drive'):
    with pytest.raises(wire.FrameError, match='another codec'):
      wire.unpack(TEXT, _frame(text), UPDATE, seed=9)
  transposed = {**UPDATE, 'dense/kernel': UPDATE['dense/kernel'].T}
  renamed = {'other': UPDATE['dense/kernel'], 'dense/bias': UPDATE['dense/bias']}
  for other in (transposed, renamed, {**UPDATE, 'dense/bias': np.zeros(10, np.float64)}):
    with pytest.raises(wire.FrameError, match='another codec'):
      wire.unpack(TEXT, _frame(update=other), UPDATE, seed=9)


def test_a_frame_of_another_round_or_client_is_refused_where_one_is_expected():
  frame = _frame()
  assert wire.unpack(TEXT, frame, UPDATE, seed=9, round=5, client=7)[1].client == 7
  with pytest.raises(wire.FrameError, match='of round 5, but round 6 was expected'):
    wire.unpack(TEXT, frame, UPDATE, seed=9, round=6)
  with pytest.raises(wire.FrameError, match='of client 7, but client 0 was expected'):
    wire.unpack(TEXT, frame, UPDATE, seed=9, client=0)


def test_errors_of_packing_are_those_of_encoding():
  with pytest.raises(codec_lib.UpdateError):
    _frame(update={'x': np.asarray([np.nan])})
  with pytest.raises(codec_lib.SpecError):
    _frame(round=-1)
  with pytest.raises(codec_lib.CodecError):
    _frame('no such stage')


def test_checksums_are_those_of_zlib_and_java():
  assert zlib.crc32(b'123456789') == 0xCBF43926
  body = b'TFC\2' + bytes(12)
  assert wire.read_header(body + struct.pack('<I', zlib.crc32(body))).payload == b''
