"""Uniform quantization: levels, the exact variance of stochastic rounding, ranges, and what a rotation is worth."""

import numpy as np
import pytest

from tests.codec import measure
from tff_compress import codec as codec_lib


def _one(text, x):
  return next(measure.decodes(text, x, 1))[0]


@pytest.mark.parametrize('bits', [1, 2, 4])
@pytest.mark.parametrize('fraction', [0.1, 0.5, 0.73])
def test_stochastic_rounding_has_variance_d_squared_f_times_one_minus_f(bits, fraction):
  """D = (high - low) / (2^b - 1). At one bit this is (high - h)(h - low)."""
  copies = 40000
  low, high = -1.0, 3.0
  width = (high - low) / (2**bits - 1)
  value = low + width * (2**(bits - 1) - 1 + fraction)
  x = np.full(copies + 2, value, np.float32)
  x[:2] = low, high
  errors = _one(f'uniform:bits={bits},range=tensor | pack', x)[2:] - float(x[2])
  f = (float(x[2]) - low) / width % 1
  expected = width**2 * f * (1 - f)
  if bits == 1:
    assert expected == pytest.approx((high - float(x[2])) * (float(x[2]) - low), rel=1e-6)
  assert np.mean(errors**2) == pytest.approx(expected, rel=0.03)
  assert abs(np.mean(errors)) < 5 * np.sqrt(expected / copies)


@pytest.mark.parametrize('bits', range(1, 9))
@pytest.mark.parametrize('rounding', ['stochastic', 'nearest'])
def test_exactly_two_to_the_bits_levels_are_used(bits, rounding):
  x = np.linspace(-2, 5, 4000, dtype=np.float32)
  decoded = _one(f'uniform:bits={bits},range=tensor,rounding={rounding} | pack', x)
  levels = np.unique(decoded)
  assert len(levels) == 2**bits
  np.testing.assert_allclose(np.diff(levels), 7 / (2**bits - 1), rtol=1e-3)
  assert (levels[0], levels[-1]) == pytest.approx((-2, 5))


@pytest.mark.parametrize('bits', [1, 3, 8])
def test_nearest_rounding_is_off_by_half_an_interval_at_most(bits):
  x = measure.lognormal(3000)
  decoded = _one(f'uniform:bits={bits},range=tensor,rounding=nearest | pack', x)
  width = (float(x.max()) - float(x.min())) / (2**bits - 1)
  assert np.max(np.abs(decoded - x)) <= width / 2 * (1 + 1e-4)
  assert np.max(np.abs(decoded - x)) > width / 4


def test_block_ranges_are_rounded_outwards_and_hold_every_value():
  x = measure.lognormal(5000) * np.float32(1.2345)
  decoded = _one('uniform:bits=8,block=100,rounding=nearest | pack', x).reshape(50, 100)
  rows = x.reshape(50, 100).astype(np.float64)
  low, high = rows.min(1), rows.max(1)
  # Two bfloat16 have 8 bits: each end lies at most 2^-7 of its magnitude further out.
  slack = 2.0**-7 * np.maximum(np.abs(low), np.abs(high))
  width = (high - low + 2 * slack) / 255
  assert np.all(np.abs(decoded - rows).max(1) <= width / 2 * (1 + 1e-3))
  assert np.all(decoded.min(1) >= low - slack - 1e-9) and np.all(decoded.max(1) <= high + slack + 1e-9)


@pytest.mark.parametrize('value', [0.0, 1.0, -0.3, 2.0**64, 1e-10])
def test_a_constant_vector_survives(value):
  x = np.full(700, value, np.float32)
  np.testing.assert_array_equal(_one('uniform:bits=2,range=tensor | pack', x), x)
  np.testing.assert_allclose(_one('uniform:bits=2 | pack', x), x, rtol=2.0**-6)


def test_values_on_a_level_come_back():
  x = np.tile(np.arange(4, dtype=np.float32), 500)
  np.testing.assert_array_equal(_one('uniform:bits=2,range=tensor | pack', x), x)


@pytest.mark.parametrize('bits', [1, 5, 7, 8])
def test_the_largest_value_is_never_rounded_beyond_the_last_level(bits):
  """(high - low) / width may come out just above 2^b - 1; one dither in thousands then leads to the next number."""
  rng = np.random.default_rng(bits)
  for high in rng.uniform(1, 2, 12):
    x = np.full(30000, high, np.float32)
    x[0] = 0
    decoded = _one(f'uniform:bits={bits},range=tensor | pack', x)
    np.testing.assert_allclose(decoded[1:], x[1], rtol=1e-6)


def test_size_is_bits_times_d_and_64_bits_for_the_range():
  x = measure.gaussian(8000)
  assert measure.bits_per_value('uniform:bits=3,range=tensor | pack', x) * 8000 == 3 * 8000 + 64
  assert measure.bits_per_value('uniform:bits=3,block=1000 | pack', x) * 8000 == 3 * 8000 + 8 * 32


def test_a_rotation_makes_a_heavy_tailed_update_fifty_times_better_at_two_bits():
  vectors = [measure.lognormal(1 << 16, seed) for seed in range(4)]
  plain = np.mean([measure.nmse('uniform:bits=2,range=tensor | pack', x) for x in vectors])
  rotated = np.mean([measure.nmse('hadamard | uniform:bits=2,range=tensor | pack', x) for x in vectors])
  per_block = np.mean([measure.nmse('hadamard | uniform:bits=2 | pack', x) for x in vectors])
  assert plain > 50 * rotated
  assert per_block < rotated / 2


@pytest.mark.parametrize('bits, expected', [(1, 9.8), (2, 0.81), (4, 0.032), (8, 1.1e-4)])
def test_nmse_of_rotated_gaussian_blocks(bits, expected):
  """Range per block of 1024: between the block values of A.3 (4096: 0.97 at two bits) and smaller blocks."""
  measured = measure.nmse(f'hadamard | uniform:bits={bits} | pack', measure.gaussian(1 << 16), 2)
  assert measured == pytest.approx(expected, rel=0.05)


def test_the_sketch_of_the_paper_costs_and_errs_as_composed():
  """A.5: 1/16 of the values at 2 bits is 0.125 bit per value; NMSE = (1 + q) / p - 1 with q the quantizer's own."""
  x = measure.gaussian(1 << 16)
  q = measure.nmse('hadamard | uniform:bits=2 | pack', x, 2)
  sketch = measure.nmse('hadamard | subsample:1/16 | uniform:bits=2 | pack', x, 12)
  assert sketch == pytest.approx((1 + q) * 16 - 1, rel=0.05)
  bits = measure.bits_per_value('hadamard | subsample:1/16 | uniform:bits=2,range=tensor | pack', x)
  assert bits == 0.125 + 64 / x.size


@pytest.mark.parametrize('text', ['bits=0', 'bits=9', 'block=15', 'block=2000000', 'rounding=up', 'range=row'])
def test_parameters_out_of_range_are_refused(text):
  with pytest.raises(codec_lib.CodecError):
    codec_lib(f'uniform:{text} | pack')
