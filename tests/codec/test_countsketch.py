"""Count sketch: sums of sketches, unbiased estimates, their variance, and the heavy values found again."""

import numpy as np
import pytest

from tests.codec import measure
from tff_compress import codec as codec_lib
from tff_compress.codec.ops import numpy_ops
from tff_compress.codec.transforms import countsketch
from tff_compress.codec.transforms.countsketch import CountSketch

D = 5000


def sketches(fraction, rows, x, round=0):
  stage = CountSketch(fraction=codec_lib(f'countsketch:{fraction} | float32').rules[0].pipeline.stages[0].fraction,
                      rows=rows)
  draws = measure.draws_of(round=round)
  return stage, draws, stage.sketch(numpy_ops, x, draws, x.size)


def test_the_sketch_of_a_sum_is_the_sum_of_the_sketches():
  """Exactly, for whole numbers."""
  rng = np.random.default_rng(0)
  parts = [rng.integers(-50, 50, D).astype(np.float32) for _ in range(4)]
  tables = [sketches('1/5', 5, x)[2] for x in parts]
  assert tables[0].shape == (5, 200)
  np.testing.assert_array_equal(sum(tables), sketches('1/5', 5, sum(parts))[2])


def test_every_value_is_in_one_column_of_every_row():
  for i in (0, 199, 200, 4999):
    x = np.zeros(D, np.float32)
    x[i] = 3
    _, _, table = sketches('1/5', 5, x)
    assert np.all(np.count_nonzero(table, axis=1) == 1) and np.all(np.abs(table).sum(axis=1) == 3)


@pytest.mark.thorough
def test_each_rows_estimate_is_unbiased_with_the_variance_of_the_formula():
  """Over rounds: mean x_i, and variance (||x||^2 - the energy of i's own chunk) / c, which is below ||x||^2 / c."""
  x = measure.gaussian(400)
  estimates = []
  for round_number in range(3000):
    stage, draws, table = sketches('1/10', 1, x, round_number)
    estimates.append(stage.estimate(numpy_ops, table, draws, x.size)[:40].astype(np.float64))
  errors = np.asarray(estimates) - x[:40]
  expected = np.sum(x[40:].astype(np.float64)**2) / 40
  assert np.mean(np.mean(errors, axis=0)**2) < 2 * expected / 3000
  assert np.mean(errors**2) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize('rows', [1, 3, 5, 7, 9])
def test_the_median_is_the_middle_of_the_rows(rows):
  arrays = np.random.default_rng(rows).standard_normal((rows, 1000)).astype(np.float32)
  np.testing.assert_array_equal(countsketch._median(numpy_ops, arrays), np.median(arrays, axis=0).astype(np.float32))


def test_a_zero_is_decoded_as_plus_zero():
  """Which of -0 and +0 is the smaller one differs between processors, and so would the median."""
  x = np.where(np.arange(300) % 7 == 0, 1, 0).astype(np.float32)
  codec = codec_lib('countsketch:1/2 | float32')
  keys = dict(seed=1, round=2, client=3)
  decoded = codec.decode(codec.encode({'x': x}, **keys), {'x': x}, **keys)['x']
  assert np.sum(decoded == 0) > 50 and not np.any(np.signbit(decoded[decoded == 0]))


def test_the_largest_values_are_found_again():
  """The 20 largest of 50,000 from a sketch of a tenth of the size: all of them, and their values to a tenth.

  That takes enough rows: a small value is taken for a large one where it meets large ones in most of them.
  """
  rng = np.random.default_rng(3)
  x = rng.standard_normal(50_000).astype(np.float32) * np.float32(0.05)
  heavy = rng.choice(x.size, 20, replace=False)
  x[heavy] = rng.choice([-1, 1], 20) * rng.uniform(5, 10, 20)
  decoded, length = next(measure.decodes('countsketch:1/10,rows=9 | float32', x, 1))
  assert length == 4 * 9 * 556
  assert set(np.argsort(-np.abs(decoded))[:20]) == set(heavy)
  np.testing.assert_allclose(decoded[heavy], x[heavy], atol=0.6)


def test_rounding_before_the_sums_is_of_no_account():
  x = measure.gaussian(D)
  stage, draws, exact = sketches('1/5', 5, x.astype(np.float64))
  sent, _ = stage.encode(numpy_ops, x, draws, codec_lib('countsketch:1/5 | float32').rules[0].pipeline.signals(D)[0])
  assert np.sum((sent - exact.reshape(-1))**2) < 1e-7 * np.sum(exact**2)


@pytest.mark.parametrize('text',
                         ['countsketch:0 | float32', 'countsketch:2 | float32', 'countsketch:1/5,rows=2 | float32',
                          'countsketch:1/9999 | float32'])
def test_parameters_out_of_range_are_refused(text):
  with pytest.raises(codec_lib.CodecError):
    codec_lib(text)
