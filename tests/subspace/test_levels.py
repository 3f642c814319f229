"""Whole-number levels: near the best that so many bits can do, right on average with their scale, packed as said."""

import math

import numpy as np
import pytest

from tests.wire import reference
from tff_compress.codec.errors import PayloadError
from tff_compress.codec.ops import numpy_ops as xp
from tff_compress.subspace import levels

BITS = list(levels.LEVELS)

LLOYD_MAX = {1: 0.36338, 2: 0.11748, 3: 0.03454, 4: 0.009497}
"""Mean squared errors of the best quantizers of a standard normal value (Max 1960, table I)."""


def _normal(size, seed=0):
  return np.random.default_rng(seed).normal(size=size).astype(np.float32)


def _scale(bits):
  return reference.bfloat16(int(bits[0]))


@pytest.mark.parametrize('bits', BITS)
def test_levels_lie_as_the_best_whole_numbers_can(bits):
  """The unit is that of the least error, and the error is what the table says: integrals over the normal density."""
  def error(unit):
    points = np.array(levels.LEVELS[bits]) * unit
    x = np.linspace(0, 9, 1 << 18)
    density = 2 * np.exp(-x**2 / 2) / math.sqrt(2 * math.pi)
    nearest = points[np.searchsorted((points[1:] + points[:-1]) / 2, x)]
    return np.trapz((x - nearest)**2 * density, x)
  unit = levels.UNITS[bits]
  assert error(unit) == pytest.approx(levels.DISTORTION[bits], rel=1e-4)
  assert error(unit) <= min(error(unit * 0.999), error(unit * 1.001))
  assert LLOYD_MAX[bits] - 1e-5 < error(unit) < 1.16 * LLOYD_MAX[bits]


@pytest.mark.parametrize('bits', BITS)
def test_what_is_decoded_has_the_error_of_the_unbiased_scale_and_is_right_along_the_vector(bits):
  """<S q, x> = ||x||^2 and ||S q - x||^2 = D / (1 - D) ||x||^2, but for the rounding of the scale."""
  x = _normal(1 << 16)
  packed, scale = levels.encode(xp, x, bits)
  decoded = levels.decode(xp, packed, x.size, bits).astype(np.float64) * _scale(scale)
  energy = np.sum(x.astype(np.float64)**2)
  assert decoded @ x / energy == pytest.approx(1, abs=2**-8)
  d = levels.DISTORTION[bits]
  assert np.sum((decoded - x)**2) / energy == pytest.approx(d / (1 - d), rel=0.02)


@pytest.mark.parametrize('bits', BITS)
def test_levels_are_packed_as_the_documents_say(bits):
  """Symbol 2^(b-1) + j is the j-th level, 2^(b-1) - 1 - j its negative; b bits each, the first in the lowest bits."""
  x, half = _normal(1000, bits), 2**(bits - 1)
  packed, _ = levels.encode(xp, x, bits)
  symbols = reference.Reader(packed.tobytes()).symbols(x.size, bits)
  table = levels.LEVELS[bits]
  expected = [table[s - half] if s >= half else -table[half - 1 - s] for s in symbols]
  assert levels.decode(xp, packed, x.size, bits).tolist() == expected
  assert packed.size == levels.size(x.size, bits) == math.ceil(x.size * bits / 8)
  assert np.all(np.sign(expected) == np.sign(x))


@pytest.mark.parametrize('bits', BITS)
@pytest.mark.parametrize('size', [1, 7, 256])
def test_vectors_at_the_edge_decode_to_something_finite(bits, size):
  for x in (np.zeros(size), np.full(size, 3.0), np.full(size, -2.0**64), np.eye(1, size)[0] * 2.0**60,
            np.full(size, 1e-38), np.full(size, -1e-45)):
    packed, scale = levels.encode(xp, x.astype(np.float32), bits)
    decoded = levels.decode(xp, packed, size, bits) * np.float32(_scale(scale))
    assert np.all(np.isfinite(decoded)) and decoded.size == size
    if not np.any(x):
      assert not np.any(decoded)


def test_the_scale_is_as_its_formula_in_whole_numbers_says():
  """S = ||x||^2 / <|x|, q>, x as whole multiples of 2^-14 of the power of two below its largest magnitude."""
  x = _normal(500, 3)
  packed, scale = levels.encode(xp, x, 2)
  power = 2.0**math.floor(math.log2(np.abs(x).max()))
  numbers = np.floor(np.abs(x.astype(np.float64)) * 2**14 / power + 0.5)
  inner = np.sum(numbers * np.abs(levels.decode(xp, packed, x.size, 2)))
  assert _scale(scale) == pytest.approx(np.sum(numbers**2) / inner * power / 2**14, rel=2**-8)


@pytest.mark.parametrize('bits', BITS)
def test_other_lengths_and_unused_bits_are_refused(bits):
  packed, _ = levels.encode(xp, _normal(61), bits)
  for bad in (packed[:-1], np.append(packed, np.uint8(0)), packed[:0], packed | np.uint8(128) if bits < 3 else None):
    if bad is not None:
      with pytest.raises(PayloadError):
        levels.decode(xp, bad, 61, bits)
