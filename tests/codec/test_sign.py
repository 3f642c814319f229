"""Signs: one bit, the rule for zero, and the scale of least error."""

import numpy as np
import pytest

from tests.codec import measure
from tff_compress import codec as codec_lib


def test_zero_is_positive_whatever_its_sign():
  x = np.asarray([0.0, -0.0, 1e-40, -1e-40, 2, -2], np.float32)
  decoded, length = next(measure.decodes('signsgd', x, 1))
  assert decoded.tolist() == [1, 1, 1, 1, 1, -1] and length == 1


@pytest.mark.parametrize('size', [1, 8, 9, 100_000])
def test_signs_take_one_bit(size):
  x = measure.gaussian(size)
  assert next(measure.decodes('signsgd', x, 1))[1] == -(-size // 8)
  assert next(measure.decodes('ef-signsgd', x, 1))[1] == -(-size // 8) + 4


@pytest.mark.parametrize('make', [measure.gaussian, measure.lognormal, measure.spikes])
def test_the_scale_is_the_mean_magnitude_and_the_error_the_least(make):
  """NMSE = 1 - ||x||_1^2 / (d ||x||^2): 1 - 2 / pi = 0.363 for normal values."""
  x = make(50_000)
  exact = x.astype(np.float64)
  decoded, _ = next(measure.decodes('ef-signsgd', x, 1))
  mean = np.mean(np.abs(exact))
  np.testing.assert_allclose(decoded, np.where(exact < 0, -mean, mean), rtol=1e-6)
  nmse = 1 - np.sum(np.abs(exact))**2 / (x.size * np.sum(exact**2))
  assert measure.nmse('ef-signsgd', x) == pytest.approx(nmse, rel=1e-5)
  if make is measure.gaussian:
    assert nmse == pytest.approx(1 - 2 / np.pi, rel=0.01)


def test_blocks_have_scales_of_their_own():
  x = measure.gaussian(1000) * np.repeat([1, 100], 500).astype(np.float32)
  decoded, length = next(measure.decodes('sign:per=block,block=250 | pack', x, 1))
  means = np.abs(x.astype(np.float64)).reshape(4, 250).mean(axis=1)
  np.testing.assert_allclose(np.abs(decoded).reshape(4, 250), np.repeat(means[:, None], 250, axis=1), rtol=2.0**-8)
  assert length == 125 + 4 * 2


def test_the_sum_of_signs_is_the_vote():
  """Sign of the sum of what five clients' messages decode to: an outvoted client changes nothing, and ties are zero
  sums."""
  x = measure.gaussian(2000)
  clients = [x, x, x, -x, np.where(np.arange(2000) % 2, x, -x)]
  votes = sum(next(measure.decodes('signsgd', c.astype(np.float32), 1))[0] for c in clients)
  np.testing.assert_array_equal(np.sign(votes), np.sign(x))
  tied = sum(next(measure.decodes('signsgd', c, 1))[0] for c in (x, -x))
  assert not np.any(tied)


def test_blocks_out_of_range_are_refused():
  with pytest.raises(codec_lib.CodecError):
    codec_lib('sign:block=5000 | pack')
