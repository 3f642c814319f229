"""Payload bits do not depend on how a runtime treats denormal numbers, nor on the order in which it sums.

TensorFlow and TFLite flush denormal numbers to zero, NumPy and Java keep them; matrix products and sums are done in
whatever order is fastest. Both are imitated in NumPy here, for every codec of the contract suite. The rules are in
docs/random-numbers.md, "Exactness".
"""

import functools

import numpy as np
import pytest

from tests.contract import cases
from tff_compress import codec as codec_lib
from tff_compress.codec import floats
from tff_compress.codec import keys as keys_lib
from tff_compress.codec.ops import numpy_ops
from tff_compress.codec.ops import NumpyOps

TINY = np.finfo(np.float32).tiny
KEYS = keys_lib.MessageKeys(42, 5, 7)
SIZE = 1500


def flushed(x):
  return np.where(np.abs(x) < TINY, np.copysign(np.float32(0), x), x).astype(np.float32)


class Flushing(np.ndarray):
  """Arrays whose arithmetic takes denormal float32 for zero, in what goes in and in what comes out."""

  def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
    kwargs.pop('out', None)
    plain = [np.asarray(_as_flushing(i)) if isinstance(i, np.ndarray) else i for i in inputs]
    return _as_flushing(getattr(ufunc, method)(*plain, **kwargs))


def _as_flushing(result):
  if isinstance(result, tuple):
    return tuple(map(_as_flushing, result))
  if isinstance(result, (np.ndarray, np.float32)):
    result = np.asarray(result)
    return (flushed(result) if result.dtype == np.float32 else result).view(Flushing)
  return result


class FlushingOps(NumpyOps):
  """The operation table on such arrays."""

  def __getattribute__(self, name):
    found = super().__getattribute__(name)
    if name.startswith('_') or not callable(found) or name in ('bits_of', 'float_of'):
      return found
    return lambda *args, **kwargs: _as_flushing(found(*args, **kwargs))

  def by_rows(self, function, *arrays):
    return super().by_rows(lambda *parts: function(*map(_as_flushing, parts)), *arrays)


class ReorderedOps(NumpyOps):
  """Products of matrices and float sums one term after the other, in a shuffled order."""

  def matmul(self, a, b):
    total = np.zeros((a.shape[0], b.shape[1]), np.float32)
    for j in np.random.default_rng(b.shape[0]).permutation(b.shape[0]):
      total = total + a[:, j:j + 1] * b[j:j + 1]
    return total

  def reduce_sum(self, x):
    order = np.random.default_rng(x.shape[-1]).permutation(x.shape[-1])
    return np.cumsum(x[..., order], axis=-1, dtype=x.dtype)[..., -1:]


@functools.cache
def vectors(size):
  """{what: float32[size]}: inputs on which encoders without the rules differ between runtimes, and others."""
  rng = np.random.default_rng(7)
  sign = rng.choice([-1.0, 1.0], size)
  usual = rng.standard_normal(size)
  return {what: np.asarray(x, np.float64).astype(np.float32) for what, x in {
      'heavy tails': cases.values(size),
      '1e-44 to 1e18': sign * 10.0**rng.uniform(-44, 18, size),
      'sparse 1e-30': np.where(rng.random(size) < 0.02, 1e-30 * usual, 0),
      'denormal': sign * rng.uniform(0, 1, size) * TINY,
      'usual and denormal': np.where(rng.random(size) < 0.5, usual, sign * 1e-40),
      'just above and below 2^-64': sign * 2.0**rng.uniform(-66, -62, size),
      'around 2^-80': sign * 2.0**rng.uniform(-90, -70, size),
      'around 2^-115': usual * 2.0**-115,
      'around 2^-122': usual * 2.0**-122,
      'one block denormal': np.where(np.arange(size) < size // 2, sign * 1e-42, usual),
      'ties': sign * rng.integers(0, 9, size) * 0.5,
      'saturating': np.where(rng.random(size) < 0.01, 2.0**64, 1e-38),
  }.items()}


def _encode(case, xp, x):
  codec = case.codec
  spec = codec_lib.Spec.of({'x': x})
  with np.errstate(all='ignore'):
    return np.asarray(codec.plan(spec).encode(xp, [x], KEYS)).tobytes()


def _size(case):
  return max(SIZE, case.large)


@cases.ANY_MODEL
@pytest.mark.parametrize('case', cases.parameters())
def test_denormal_inputs_may_be_flushed_first(case):
  for what, x in vectors(_size(case)).items():
    assert _encode(case, numpy_ops, flushed(x)) == _encode(case, numpy_ops, x), what


@cases.ANY_MODEL
@pytest.mark.parametrize('case', cases.parameters())
def test_denormal_results_may_be_flushed_anywhere(case):
  xp = FlushingOps()
  for what, x in vectors(_size(case)).items():
    assert _encode(case, xp, x.view(Flushing)) == _encode(case, numpy_ops, x), what


@cases.ANY_MODEL
@pytest.mark.parametrize('case', cases.parameters())
def test_sums_may_be_done_in_any_order(case):
  xp = ReorderedOps()
  for what, x in vectors(_size(case)).items():
    if what in ('heavy tails', '1e-44 to 1e18', 'ties', 'saturating'):
      assert _encode(case, xp, x) == _encode(case, numpy_ops, x), what


def test_the_imitation_flushes():
  """A number that is denormal on the way but not at the end tells whether the imitation works at all."""
  xp = FlushingOps()
  x = np.full(3, 2.0**-100, np.float32)
  through = xp.reduce_max(x.view(Flushing) * np.float32(2.0**-40)) * np.float32(2.0**60)
  assert not np.any(np.asarray(through))
  assert np.all(x * np.float32(2.0**-40) * np.float32(2.0**60) > 0)
  assert isinstance(xp.matmul(x.view(Flushing).reshape(1, 3), xp.zeros([3, 2], np.float32)), Flushing)


def test_the_reordering_shows_where_sums_are_not_exact():
  x = np.random.default_rng(0).standard_normal((4, 1000)).astype(np.float32)
  assert np.any(ReorderedOps().reduce_sum(x) != numpy_ops.reduce_sum(x))
  assert np.any(ReorderedOps().matmul(x, x.T) != numpy_ops.matmul(x, x.T))


@pytest.mark.parametrize('value', [1.0, 1.00390625, 0.3, 1e-20, 2.0**-64, 3e38, 2.0**64])
def test_bfloat16_is_rounded_to_the_side_that_is_asked_for(value):
  """Down, up and to nearest, on both signs; exact values stay."""
  def number(bits):
    return float((np.asarray([bits]).astype(np.int64) << 16).astype(np.uint32).astype(np.uint32).view(np.float32)[0])
  for x in np.asarray([[value], [-value]], np.float32):
    down = number(floats.rounded_down_bfloat16(numpy_ops, x)[0] & 0xFFFF)
    up = number(floats.rounded_up_bfloat16(numpy_ops, x)[0] & 0xFFFF)
    assert down <= x[0] <= up
    assert up - down <= abs(x[0]) * 2.0**-7
    if down == x[0] or up == x[0]:
      assert down == up
  positive = np.asarray([value], np.float32)
  nearest = number(floats.nearest_bfloat16(numpy_ops, positive)[0])
  assert abs(nearest - value) <= value * 2.0**-8 * 1.001


def test_square_roots_are_right_to_a_unit_in_the_last_place():
  x = (2.0**np.random.default_rng(0).uniform(-60, 60, 5000)).astype(np.float32)
  root = floats.square_root(numpy_ops, x)
  np.testing.assert_allclose(root, np.sqrt(x.astype(np.float64)), rtol=2.0**-22)
  assert floats.square_root(numpy_ops, np.zeros(1, np.float32))[0] == pytest.approx(2.0**-30, rel=1e-6)
