"""Error-bounded quantization: the bound holds for every float32 that comes out, whatever went in."""

import numpy as np
import pytest

from tests.codec import measure
from tests.codec import test_exactness
from tff_compress import codec as codec_lib
from tff_compress.codec.ops import numpy_ops
from tff_compress.codec.stage import Real


def largest_error(text, x):
  decoded, _ = next(measure.decodes(text, x, 1))
  return np.max(np.abs(decoded - x.astype(np.float64)))


INPUTS = {**{f.__name__: f(20_000) for f in (measure.gaussian, measure.lognormal, measure.spikes)},
          'constant': np.full(100, 0.3, np.float32), 'zeros': np.zeros(50, np.float32), 'one': np.ones(1, np.float32),
          'steps': (np.arange(-2000, 2000) * 0.005).astype(np.float32),
          'offset': measure.gaussian(1000) + np.float32(1e6),
          **test_exactness.vectors(1500)}


@pytest.mark.parametrize('error', [0.3, 0.01, 1e-4])
@pytest.mark.parametrize('limit', [127, 3])
def test_no_value_is_off_by_more_than_the_bound(error, limit):
  for what, x in INPUTS.items():
    assert largest_error(f'bound:{error},limit={limit} | elias', x) <= error, what


@pytest.mark.parametrize('error', [0.3, 0.01, 1e-4])
def test_a_relative_bound_is_a_share_of_the_range(error):
  for what, x in INPUTS.items():
    span = np.max(x.astype(np.float64)) - np.min(x.astype(np.float64))
    # Denormals come back as zero, as from every codec.
    assert largest_error(f'bound:{error},mode=relative | elias', x) <= max(error * span, 2.0**-126), what


def test_the_bound_is_nearly_used():
  """Steps are within 2^-7 of twice the error."""
  x = np.random.default_rng(0).uniform(-1, 1, 100_000).astype(np.float32)
  assert largest_error('bound:0.013 | elias', x) > 0.013 * (1 - 2.0**-7) * 0.999


def test_values_beyond_the_limit_come_back_as_they_are():
  x = np.asarray([0, 0.1, 1e9, -3.7, 2.0**64, -1], np.float32)
  decoded, length = next(measure.decodes('bound:0.05,limit=20 | pack', x, 1))
  np.testing.assert_array_equal(decoded[[2, 3, 4]], x[[2, 3, 4]])
  # Length of the segment, step, count, three outliers, six symbols of six bits.
  assert length == 1 + 2 + 1 + 3 * 4 + 5


def test_bits_are_the_entropy_of_the_symbols():
  """Without a predictor, which would make white noise costlier: 1.4 times its deviation, half a bit."""
  x = measure.gaussian(80_000)

  def entropy(v):
    q = np.round(v / 0.1)
    share = np.unique(q, return_counts=True)[1] / q.size
    return -np.sum(share * np.log2(share))

  assert measure.bits_per_value('bound:0.05 | rans', x) == pytest.approx(entropy(x), rel=0.03)
  assert entropy(np.diff(x)) > entropy(x) + 0.4


@pytest.mark.parametrize('text', ['bound:0 | elias', 'bound:0.6,mode=relative | elias', 'bound:1,limit=0 | elias',
                                  'bound:1,limit=200 | rans', 'bound:-1 | elias'])
def test_parameters_out_of_range_are_refused(text):
  with pytest.raises(codec_lib.CodecError):
    codec_lib(text)


def test_a_wrong_count_of_outliers_is_refused():
  x = np.asarray([0, 200], np.float32)
  codec = codec_lib('bound:0.5 | pack')
  payload = codec.encode({'x': x}, seed=1, round=0, client=0)
  # Length, step, the count of outliers, one outlier, two symbols.
  changed = payload[:-2] + bytes([payload[-2], payload[-2]])
  with pytest.raises(codec_lib.PayloadError, match='count'):
    codec.decode(changed, {'x': x}, seed=1, round=0, client=0)


@pytest.mark.parametrize('error, coder', [(0.01, 'huffman'), (0.001, 'elias'), (0.5, 'huffman')])
def test_the_preset_has_steps_enough_for_its_error(error, coder):
  codec = codec_lib(f'bounded:{error}')
  assert codec.rules[0].pipeline.stages[1].name == coder
  x = np.random.default_rng(1).uniform(-1, 1, 4000).astype(np.float32)
  assert largest_error(str(codec), x) <= error * 2
  symbols, side = codec.rules[0].pipeline.stages[0].encode(numpy_ops, x, measure.draws_of(), Real(x.size))
  assert not side['outliers'].size and symbols.max() > 0
