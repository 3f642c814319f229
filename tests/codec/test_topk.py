"""Top-k: exactly k coordinates, whatever the ties, and the error that is left."""

import numpy as np
import pytest

from tests.codec import measure
from tff_compress import codec as codec_lib
from tff_compress.codec.ops import numpy_ops


def _decoded(text, x):
  return next(measure.decodes(text, np.asarray(x, np.float32), 1))[0]


@pytest.mark.parametrize('fraction, d, k', [('1/100', 1000, 10), ('0.25', 10, 2), ('1/100', 3, 1), ('1', 5, 5),
                                            ('0.3', 7, 2)])
def test_exactly_k_of_the_largest_magnitudes_come_back_unchanged(fraction, d, k):
  x = measure.gaussian(d)
  decoded = _decoded(f'topk:{fraction} | float32', x)
  kept = np.flatnonzero(decoded)
  assert len(kept) == k
  assert set(kept) == set(np.argsort(-np.abs(x), kind='stable')[:k])
  np.testing.assert_array_equal(decoded[kept], x[kept])


def test_of_equal_magnitudes_the_lower_positions_are_kept():
  x = [1, -2, 2, -2, 2, 2]
  np.testing.assert_array_equal(_decoded('topk:1/2 | float32', x), [0, -2, 2, -2, 0, 0])
  np.testing.assert_array_equal(_decoded('topk:1/3 | float32', [7] * 6), [7, 7, 0, 0, 0, 0])


def test_fewer_values_than_k_do_not_make_it_keep_everything():
  """A threshold of zero would: k = 10 of 1000 with three non-zero values."""
  x = np.zeros(1000, np.float32)
  x[[5, 500, 999]] = 1, -2, 3
  assert np.array_equal(_decoded('topk:1/100 | float32', x), x)
  payload = codec_lib('topk:1/100 | float32').encode({'x': x}, seed=0, round=0, client=0)
  assert len(payload) < 40 + 40


@pytest.mark.parametrize('make', [measure.gaussian, measure.lognormal])
def test_the_error_is_what_was_left_out(make):
  x = make(5000)
  squares = np.sort(x.astype(np.float64)**2)
  assert measure.nmse('topk:1/100 | float32', x) == pytest.approx(np.sum(squares[:-50]) / np.sum(squares), rel=1e-6)
  assert measure.nmse('topk:1/100 | float32', x) <= 1 - 50 / 5000


def test_positions_cost_about_their_entropy():
  """8.108 bits each at p = 1/100 (docs/wire-format.md, positions), here with the values as float32."""
  x = measure.gaussian(1 << 17)
  k = round(x.size / 100)
  bits = (measure.bits_per_value('topk:1/100 | float32', x) * x.size - 32 * k) / k
  assert bits == pytest.approx(8.11, rel=0.02)


@pytest.mark.parametrize('k', [0, 1, 3, 6])
def test_largest_breaks_ties_by_position(k):
  index = numpy_ops.largest(np.asarray([3, 5, 5, 3, 5, 1], np.float32), k)
  assert index.dtype == np.int32
  assert list(index) == sorted([1, 2, 4, 0, 3, 5][:k])
