"""Block statistics are sums of whole numbers: exact, and so the same in any order of summation."""

import numpy as np
import pytest

from tests.codec import measure
from tff_compress.codec.ops import numpy_ops
from tff_compress.codec.quantizers import moments


def _split(products):
  """The documented sum: high and low 12 bits apart, then one rounded addition."""
  products = [int(p) for p in products]
  high, low = sum(p // 4096 for p in products), sum(p % 4096 for p in products)
  assert high <= 2**24 and low <= 2**24
  return np.float32(np.float32(high) * np.float32(4096) + np.float32(low))


@pytest.mark.parametrize('scale', [1, 1e-15, 3e18])
@pytest.mark.parametrize('make', [measure.gaussian, measure.lognormal,
                                  lambda size, seed: np.full(size, 1.999, np.float32)])
def test_magnitudes_are_whole_and_their_sums_exact(make, scale):
  rows = np.stack([make(4096, seed) for seed in range(3)]) * np.float32(scale)
  stats = moments.Moments(numpy_ops, rows)
  assert np.array_equal(stats.magnitudes, np.floor(stats.magnitudes))
  assert np.all((stats.magnitudes.max(axis=1) >= 2048) & (stats.magnitudes.max(axis=1) <= 4096))
  np.testing.assert_allclose(stats.magnitudes * stats.unit, np.abs(rows), atol=0.5001 * stats.unit.max())
  for row in range(3):
    assert stats.squares[row, 0] == _split(int(m)**2 for m in stats.magnitudes[row])
  weights = np.random.default_rng(0).integers(0, 2800, rows.shape).astype(np.float32)
  inner = stats.sum_of_products(stats.magnitudes, weights)
  for row in range(3):
    assert inner[row, 0] == _split(int(m) * int(w) for m, w in zip(stats.magnitudes[row], weights[row]))


def test_the_mean_square_counts_only_what_is_there():
  x = measure.gaussian(1000)
  rows = np.concatenate([x, np.zeros(24, np.float32)]).reshape(2, 512)
  stats = moments.Moments(numpy_ops, rows)
  counts = moments.counts(1000, 512)
  np.testing.assert_array_equal(counts, [[512], [488]])
  measured = stats.root_mean_square((1 / counts).astype(np.float32)) * stats.unit
  for row, part in enumerate((x[:512], x[512:])):
    assert measured[row, 0] == pytest.approx(np.sqrt(np.mean(part.astype(np.float64)**2)), rel=1e-3)


def test_rows_below_two_to_minus_64_count_as_zero():
  stats = moments.Moments(numpy_ops, np.full((1, 16), 2.0**-65, np.float32))
  assert not np.any(stats.magnitudes) and stats.unit[0, 0] == 0 and stats.squares[0, 0] == 0
