"""Gaps and errors are measured as the benchmark says."""

import math

import numpy as np
import pytest

from benchmarks.codecs import rate_distortion
from tff_compress import codec as codec_lib


@pytest.mark.parametrize('bits', [0.125, 1.0, 4.0])
def test_least_bits_invert_the_limits(bits):
  assert rate_distortion.least_bits(1 / (2**(2 * bits) - 1), unbiased=True) == pytest.approx(bits)
  assert rate_distortion.least_bits(2**(-2 * bits), unbiased=False) == pytest.approx(bits)


def test_nothing_is_needed_for_an_error_above_the_energy():
  assert rate_distortion.least_bits(3.0, unbiased=False) == 0


@pytest.fixture(scope='module')
def normal():
  values = np.random.default_rng(1).standard_normal(1 << 14).astype(np.float32)
  return [{'x': values}] * 5


def test_private_errors_average_out_and_shared_ones_do_not(normal):
  private = rate_distortion.measured(codec_lib('drive'), normal)
  assert private['mean / one'] == pytest.approx(1 / 5, rel=0.1)
  topk = rate_distortion.measured(codec_lib('topk:1/10 | float32'), normal)
  assert topk['mean / one'] == pytest.approx(1)
  mask = rate_distortion.measured(codec_lib('concat | hadamard | subsample:1/4 | float32'), normal)
  assert mask['mean / one'] == pytest.approx(1)


def test_bits_are_those_of_frames(normal):
  row = rate_distortion.measured(codec_lib('float16'), normal)
  # Two bytes a value, an exponent, and 20 bytes of frame.
  assert row['bits'] == 16 + 8 * (1 + 20) / (1 << 14)


def test_one_bit_of_eden_has_the_error_of_its_formula(normal):
  row = rate_distortion.measured(codec_lib('drive'), normal)
  assert row['NMSE'] == pytest.approx(math.pi / 2 - 1, rel=0.03)
  assert row['unbiased'] and row['gap'] == pytest.approx(row['bits'] - 0.5 * math.log2(1 + 1 / row['NMSE']))


def test_families_are_valid_codecs():
  for codecs in rate_distortion.FAMILIES.values():
    for text in codecs:
      codec_lib(text)
