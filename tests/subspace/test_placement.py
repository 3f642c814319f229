"""Placements: small errors, exact rotations, and typed refusals."""

import numpy as np
import pytest

from tff_compress.codec.errors import PayloadError
from tff_compress.codec.keys import MessageKeys
from tff_compress.codec.ops import numpy_ops as xp
from tff_compress.subspace import placement
from tff_compress.subspace import whole_numbers
from tff_compress.subspace.coordinates import Coordinates

SEED = 11


@pytest.mark.parametrize('bits', range(placement.LEAST_OF_WHOLE_NUMBERS, 9))
def test_error_of_a_placement_is_that_of_the_least_error_scale(bits):
  y = np.random.default_rng(bits).normal(size=1 << 16).astype(np.float32) * np.float32(3e-5)
  record = placement.encode(xp, y, y, np.int32(300), bits, 2)
  numbers, scale, rotated, rounds, following = placement.decode(xp, record, y.size)
  assert (bool(rotated), int(rounds), int(following)) == (False, 300, 2)
  assert record.size == 5 + y.size * bits // 8
  error = np.sum(np.square(numbers * scale - y, dtype=np.float64)) / np.sum(np.square(y, dtype=np.float64))
  assert error == pytest.approx(whole_numbers.DISTORTION[bits], rel=0.05)


def test_placements_of_any_size_are_exact():
  """The scale of many coordinates is coarser: ||q|| is never above 2^14."""
  y = np.random.default_rng(0).normal(size=1 << 20).astype(np.float32)
  numbers, scale, *_ = placement.decode(xp, placement.encode(xp, y, y, 1, 8, 1), y.size)
  assert 0.5 * 2**28 < np.sum(np.square(numbers, dtype=np.int64)) <= 2**28
  np.testing.assert_allclose(numbers * scale, y, atol=float(scale))


@pytest.mark.parametrize('numbers', ['normal', 'largest', 'meeting'])
def test_the_lift_of_whole_numbers_is_exact_as_long_as_squares_allow(numbers):
  size, kept = 40 * 1024, 16 * 1024
  space, keys, rng = Coordinates(size), MessageKeys(SEED, 5, 0), np.random.default_rng(3)
  q = np.rint(np.clip(rng.normal(size=kept) * 32, -127, 127)).astype(np.int32)
  if numbers == 'largest':
    q = np.where(q >= 0, 127, -127).astype(np.int32)
  elif numbers == 'meeting':
    q = _worst(space, keys, kept)
  assert np.sum(np.square(q, dtype=np.int64)) <= placement.MOST_SQUARES
  lifted = space.lift(xp, keys, q.astype(np.float32))
  np.testing.assert_array_equal(lifted, _lifted_in_integers(space, keys, q) / 1024)


def _worst(space, keys, kept):
  """Numbers of which as much as possible meets in one value."""
  unit = np.zeros(space.size, np.float32)
  unit[12345] = 1
  return np.where(space.project(xp, keys, unit, kept) >= 0, 127, -127).astype(np.int32)


def _lifted_in_integers(space, keys, q):
  """1024 times the lift, in whole numbers, from lifts of digits so small that float32 is exact without doubt."""
  lifted = lambda digits: np.rint(space.lift(xp, keys, digits.astype(np.float32)).astype(np.float64) * 1024)
  of_digits = sum(4**place * lifted((q + 127) >> 2 * place & 3) for place in range(4))
  return of_digits - 127 * lifted(np.ones_like(q))


@pytest.mark.parametrize('harm', ['short', 'bits', 'round', 'longer', 'number'])
def test_what_is_no_placement_is_refused(harm):
  y = np.random.default_rng(0).normal(size=1024).astype(np.float32)
  record = np.array(placement.encode(xp, y, y, 1, 8, 1))
  if harm == 'short':
    record = record[:3]
  elif harm == 'bits':
    record[0] = 9 + 16
  elif harm == 'round':
    record[3] = 0
  elif harm == 'longer':
    record = np.concatenate([record, [np.uint8(0)]])
  else:
    record[4] = 255
  with pytest.raises(PayloadError):
    placement.decode(xp, record, y.size)


def test_a_placement_whose_rotation_would_not_be_exact_is_refused():
  kept = 1 << 15
  largest = np.concatenate([np.array([8 + 16, 0, 0x3F, 1], np.uint8), np.full(kept, 254, np.uint8)])
  with pytest.raises(PayloadError, match='exact'):
    placement.decode(xp, largest, kept)
