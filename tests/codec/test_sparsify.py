"""Unbiased sparsification: probabilities that spend the whole budget, and their variance."""

import fractions

import numpy as np
import pytest

from tests.codec import measure
from tff_compress import codec as codec_lib
from tff_compress.codec.ops import numpy_ops
from tff_compress.codec.quantizers.sparsify import Sparsify

D = 10_000


def probabilities(fraction, x):
  threshold = Sparsify(fractions.Fraction(fraction)).threshold(numpy_ops, x, x.size)[0]
  return np.minimum(np.abs(x.astype(np.float64)) / threshold, 1)


def few(size):
  """Fewer values that are not zero than a budget of a hundredth allows."""
  x = np.zeros(size, np.float32)
  x[:size // 200] = np.arange(1, size // 200 + 1)
  return x


@pytest.mark.parametrize('fraction', ['1/200', '1/20', '0.3'])
@pytest.mark.parametrize('make', [measure.gaussian, measure.lognormal, lambda n: measure.lognormal(n, sigma=4)])
def test_the_probabilities_sum_to_the_budget(fraction, make):
  """Not so after a single cap: what is cut off has to be given to others, again and again."""
  x = make(D)
  budget = float(fractions.Fraction(fraction)) * D
  assert np.sum(probabilities(fraction, x)) == pytest.approx(budget, rel=1e-3)
  if fraction == '0.3':
    assert np.sum(np.minimum(np.abs(x) * (budget / np.sum(np.abs(x))), 1)) < 0.998 * budget


@pytest.mark.parametrize('make', [measure.gaussian, measure.lognormal])
def test_the_error_is_the_variance_of_the_formula(make):
  x = make(D)
  p = probabilities('1/20', x)
  expected = np.sum(x.astype(np.float64)**2 * (1 / p - 1)) / np.sum(x.astype(np.float64)**2)
  assert measure.nmse('atomo:1/20', x, 30) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize('make', [measure.gaussian, measure.lognormal])
def test_it_is_unbiased(make):
  assert 0.85 < measure.bias_ratio('atomo:1/20', make(2000), 100) < 1.15


def test_it_errs_less_than_uniform_sampling_of_as_many_values():
  x = measure.lognormal(D)
  assert measure.nmse('atomo:1/20', x, 10) < 0.3 * measure.nmse('subsample:1/20,key=client | float32', x, 10)


def test_as_many_values_are_sent_as_the_budget_says():
  x = measure.gaussian(D)
  sent = [np.count_nonzero(decoded) for decoded, _ in measure.decodes('atomo:1/20', x, 20)]
  assert np.mean(sent) == pytest.approx(500, rel=0.03)


def test_values_that_fit_the_budget_come_back_as_they_are():
  x = few(D)
  decoded, _ = next(measure.decodes('atomo:1/100', x, 1))
  np.testing.assert_array_equal(decoded, x)


def test_fractions_out_of_range_are_refused():
  with pytest.raises(codec_lib.CodecError):
    codec_lib('atomo:0')
