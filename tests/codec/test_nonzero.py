"""Values without their zeros: sizes to the byte, and payloads that no encoder writes."""

import numpy as np
import pytest

from tff_compress import codec as codec_lib
from tff_compress.codec import counts
from tff_compress.codec.ops import numpy_ops

KEYS = dict(seed=1, round=2, client=3)
CODEC = codec_lib('nonzero')


def payload(x):
  """The bytes of one variable, without its length in front."""
  encoded = CODEC.encode({'x': np.asarray(x, np.float32)}, **KEYS)
  length, body = counts.decode_one(numpy_ops, np.frombuffer(encoded, np.uint8))
  assert length == body.size
  return body.tobytes()


def decode(body, size):
  message = counts.encode(numpy_ops, numpy_ops.vector(len(body))).tobytes() + body
  return CODEC.decode(message, {'x': np.zeros(size, np.float32)}, **KEYS)['x']


@pytest.mark.parametrize('size, nonzero, length', [
    (0, 0, 0), (1, 0, 1), (1, 1, 4), (31, 0, 4), (31, 29, 4 + 116), (31, 30, 124), (33, 31, 5 + 124), (64, 62, 256),
    (64, 61, 8 + 244)])
def test_the_shorter_of_the_two_ways_is_sent(size, nonzero, length):
  x = np.zeros(size, np.float32)
  x[np.random.default_rng(size).permutation(size)[:nonzero]] = -1.5
  assert len(payload(x)) == length
  np.testing.assert_array_equal(decode(payload(x), size), x)


def test_negative_zeros_and_denormals_are_zeros():
  assert payload([-0.0, 1e-42, 0, 0, 0, 0, 0, 0]) == b'\0'


@pytest.mark.parametrize('body, problem', [
    (b'', 'cut short'), (b'\1', 'not as many'), (b'\1' + 8 * b'\0', 'not as many'), (b'\1' + 5 * b'\0', 'not as many'),
    (b'\x1f' + 20 * b'\0', 'longer way'), (b'\x20', 'unused bits'), (b'\1' + np.float32(np.nan).tobytes(), 'NaN')])
def test_payloads_that_no_encoder_writes_are_refused(body, problem):
  with pytest.raises(codec_lib.PayloadError, match=problem):
    decode(body, 5)
