"""Values sent as floats: float32 unchanged, float16 with a power-of-two scale that keeps eleven bits of every
update."""

import numpy as np
import pytest

from tests.codec import measure
from tff_compress import codec as codec_lib

KEYS = dict(seed=0, round=0, client=0)


def _decoded(text, x):
  return next(measure.decodes(text, np.asarray(x, np.float32), 1))[0].astype(np.float32)


def test_float32_is_exact_but_for_the_sign_of_zero_and_denormals():
  x = np.asarray([1.5, -2.0**64, 2.0**-126, -0.0, 1e-40, -1e-44, 3.1415927], np.float32)
  decoded = _decoded('float32', x)
  np.testing.assert_array_equal(decoded, [1.5, -2.0**64, 2.0**-126, 0, 0, 0, np.float32(3.1415927)])
  assert not np.any(np.signbit(decoded[3:6]))
  assert codec_lib('float32').encode({'x': x[:2]}, **KEYS) == x[:2].tobytes()


@pytest.mark.parametrize('scale', [1, 1e-8, 1e-15, 1e10, 1e18])
def test_float16_keeps_eleven_bits_at_any_scale(scale):
  """Plain float16 would overflow above 65504 and lose bits below 6e-5, where updates often are."""
  x = measure.gaussian(3000) * np.float32(scale)
  decoded = _decoded('float16', x)
  large = np.abs(x) > np.max(np.abs(x)) * 2.0**-28
  assert np.max(np.abs(decoded[large] / x[large] - 1)) <= 2.0**-11
  assert measure.nmse('float16', x) < 2.0**-22


def test_float16_brings_the_largest_value_to_two_to_the_14():
  for largest in (1.0, 1.999, 2.0, 2.0**-64, 2.0**64, 3e-9):
    payload = codec_lib('float16').encode({'x': np.asarray([largest, 0], np.float32)}, **KEYS)
    assert 2.0**14 <= np.frombuffer(payload[1:3], np.float16)[0] <= 2.0**15
    assert payload[0] == np.float32(largest).view(np.uint32) >> 23


def test_float16_sends_no_denormals():
  """Runtimes differ in how they treat them, so what would be one is sent as zero."""
  x = 2.0**np.linspace(-30, 10, 500)
  payload = codec_lib('float16').encode({'x': x.astype(np.float32)}, **KEYS)
  codes = np.frombuffer(payload[1:], np.uint16)
  assert np.all((codes & 0x7C00 != 0) | (codes == 0)) and np.any(codes == 0) and np.any((codes & 0x7C00) == 0x0400)


def test_float16_of_nothing_but_tiny_values_is_zero():
  assert not np.any(_decoded('float16', [2.0**-65, -2.0**-70, 1e-44]))


def test_float16_behind_a_rotation_of_the_largest_values_is_read_again():
  """A rotation makes of 2^64 everywhere values beyond it."""
  x = np.full(5000, 2.0**64, np.float32)
  decoded = _decoded('hadamard:rotations=2 | float16', x)
  np.testing.assert_allclose(decoded, x, rtol=1e-2)
