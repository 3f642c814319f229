"""EDEN behind rotations: the error table of Lloyd–Max quantizers, its two scales, and unbiasedness on spikes."""

import numpy as np
import pytest
import scipy.stats

from tests.codec import measure
from tff_compress import codec as codec_lib
from tff_compress.codec.ops import numpy_ops
from tff_compress.codec.quantizers import eden
from tff_compress.codec.stage import Real

ROTATED = 'hadamard:rotations=2,key=client'
DISTORTION = {1: 0.36338, 2: 0.11748, 3: 0.03455, 4: 0.00950}
"""Of a normal distribution's best scalar quantizer, per bits."""


@pytest.mark.thorough
@pytest.mark.parametrize('bits', [1, 2, 3, 4])
@pytest.mark.parametrize('make', [measure.gaussian, measure.lognormal])
def test_nmse_of_both_scales_is_that_of_the_table(bits, make):
  x = make(1 << 16)
  d = DISTORTION[bits]
  unbiased = measure.nmse(f'{ROTATED} | eden:bits={bits} | pack', x, 4)
  least = measure.nmse(f'{ROTATED} | eden:bits={bits},scale=least-error | pack', x, 4)
  assert unbiased == pytest.approx(d / (1 - d), rel=0.02)
  assert least == pytest.approx(d, rel=0.02)


def test_two_rotations_make_a_spike_unbiased():
  """One rotation does not, so the presets use two: of two spikes in a block only the larger decides a sign."""
  x = np.zeros(1 << 13, np.float32)
  x[100], x[200] = 1, -0.7
  assert 0.8 < measure.bias_ratio(f'{ROTATED} | eden | pack', x, 60) < 1.25
  assert measure.bias_ratio('hadamard:key=client | eden | pack', x, 60) > 3


@pytest.mark.thorough
def test_a_rotation_needs_values_to_rotate():
  """The share of the error that clients have in common: none from a hundred values on, all of it at three."""
  draws = 200
  for size, least, most in ((3, 0.9, 1.0), (20, 0.001, 0.1), (100, -1 / draws, 0.003), (1000, -1 / draws, 0.003)):
    ratio = measure.bias_ratio(f'{ROTATED} | eden | pack', measure.lognormal(size, 3), draws)
    assert least <= (ratio - 1) / draws <= most, size


def test_the_least_error_scale_does_not_average_out():
  x = measure.gaussian(1 << 13)
  assert 0.9 < measure.bias_ratio(f'{ROTATED} | eden | pack', x, 60) < 1.1
  assert measure.bias_ratio(f'{ROTATED} | eden:scale=least-error | pack', x, 60) > 20


@pytest.mark.parametrize('bits', [1, 2, 3, 4])
@pytest.mark.parametrize('scale', ['unbiased', 'least-error'])
@pytest.mark.parametrize('size', [1, 16, 100, 4096, 5000])
def test_the_scale_is_the_formula(bits, scale, size):
  """S = ||x||^2 / <x, q> or <x, q> / ||q||^2 per block, to the 8 bits of a bfloat16."""
  stage = eden.Eden(bits=bits, scale=scale, block=1024)
  x = measure.gaussian(size)
  symbols, side = stage.encode(numpy_ops, x, measure.draws_of(), Real(size))
  table = np.round(np.asarray(eden.CENTROIDS[bits]) * 1024) / 1024
  q = np.concatenate([-table[::-1], table])[symbols]
  sent = (side['scale'].astype(np.int64) << 16).astype(np.int32).view(np.float32)
  for row, start in enumerate(range(0, size, 1024)):
    values, levels = x[start:start + 1024].astype(np.float64), q[start:start + 1024]
    expected = values @ values / (values @ levels) if scale == 'unbiased' else values @ levels / (levels @ levels)
    assert sent[row] == pytest.approx(expected, rel=2.0**-8)


def test_each_value_becomes_the_nearest_centroid():
  x = measure.gaussian(4096)
  symbols, _ = eden.Eden(bits=3).encode(numpy_ops, x, measure.draws_of(), Real(4096))
  centroids = np.asarray(eden.CENTROIDS[3])
  levels = np.concatenate([-centroids[::-1], centroids])
  z = x / np.sqrt(np.mean(x.astype(np.float64)**2))
  nearest = np.argmin(np.abs(z[:, np.newaxis] - levels), axis=1)
  # Values are compared as 12-bit numbers: those next to a boundary may go to the other side.
  assert np.mean(symbols != nearest) < 2e-3
  assert np.max(np.abs(symbols - nearest)) <= 1


@pytest.mark.parametrize('bits', [1, 2, 3, 4])
def test_centroids_are_those_of_lloyd_and_max(bits):
  """Each is the mean of the normal distribution between the midpoints to its neighbours; D = 1 - E q^2."""
  c = np.asarray(eden.CENTROIDS[bits])
  edges = np.concatenate([[0], (c[1:] + c[:-1]) / 2, [np.inf]])
  mass = np.diff(scipy.stats.norm.cdf(edges))
  means = -np.diff(scipy.stats.norm.pdf(edges)) / mass
  np.testing.assert_allclose(c, means, atol=1e-6)
  assert 1 - 2 * np.sum(mass * c**2) == pytest.approx(DISTORTION[bits], abs=2e-5)


@pytest.mark.parametrize('bits, fraction', [(1, '1/8'), (2, '1/16'), (1, '0.3')])
def test_below_one_bit_the_composition_law_holds(bits, fraction):
  """C.8: NMSE = (1 + D / (1 - D)) d / k - 1. At 0.125 bit per value: 11.6 with one bit, 17.1 with two."""
  x = measure.gaussian(1 << 15)
  d = DISTORTION[bits]
  kept = codec_lib(f'subsample:{fraction} | float32').rules[0].pipeline.stages[0].kept(x.size)
  expected = (1 + d / (1 - d)) * x.size / kept - 1
  measured = measure.nmse(f'{ROTATED} | subsample:{fraction},key=client | eden:bits={bits} | pack', x, 20)
  assert measured == pytest.approx(expected, rel=0.03)


def test_size_is_bits_and_one_bfloat16_per_block():
  x = measure.gaussian(10000)
  assert measure.bits_per_value(f'{ROTATED} | eden:bits=3 | pack', x) * 10000 == 30000 + 16 * 3


def test_zeros_and_dead_blocks():
  for x in (np.zeros(5000, np.float32), np.full(5000, 2.0**-70, np.float32)):
    decoded, _ = next(measure.decodes(f'{ROTATED} | eden | pack', x, 1))
    assert not np.any(decoded)


@pytest.mark.parametrize('text', ['eden | pack', 'hadamard | eden | pack',
                                  'hadamard:key=client | hadamard | eden | pack'])
def test_an_unbiased_scale_needs_a_rotation_of_the_clients_own(text):
  with pytest.raises(codec_lib.CodecError, match='rotation of the client\'s own'):
    codec_lib(text)
  codec_lib(text.replace('eden', 'eden:scale=least-error'))


def test_a_shared_rotation_would_bias_the_mean_of_a_round():
  """What the pipeline's check is for: with the same rotation, equal updates err alike and nothing averages out."""
  x = measure.gaussian(4096)
  shared = [d for d, _ in measure.decodes('hadamard | eden:scale=least-error | pack', x, 20, same_round=True)]
  single = np.mean([np.sum((d - x)**2) for d in shared])
  assert np.sum((np.mean(shared, axis=0) - x)**2) > 0.9 * single
