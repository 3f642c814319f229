"""Coordinates that all share: distinct and even places, a projection that is right on average, and an exact lift."""

import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from tests.wire import reference
from tff_compress.codec.keys import MessageKeys
from tff_compress.codec.ops import numpy_ops as xp
from tff_compress.subspace import levels
from tff_compress.subspace.coordinates import Coordinates

SEED, MASK = 5, 2


def _keys(number=0, client=0):
  return MessageKeys(SEED, number, client)


@hypothesis.given(st.integers(1, 2**31 - 2048))
def test_the_stride_visits_all_places_whatever_the_size(size):
  space = Coordinates(size)
  assert math.gcd(space._stride, space.padded) == 1
  assert size <= space.padded < size + 1024 and space.padded % space.unit == 0


@pytest.mark.parametrize('size', [1, 2, 3, 15, 16, 63, 64, 100, 1023, 1024, 1025, 5000])
def test_places_are_distinct_and_as_documented(size):
  """Place i is (o + i g) mod P, o the upper 31 bits of the round's first word."""
  space = Coordinates(size)
  stride = max(1, space.padded * 10946 // 17711)
  while math.gcd(stride, space.padded) > 1:
    stride += 1
  for number in range(3):
    first = reference.Stream(SEED, number, reference.SHARED, '', MASK, 0).word(0) >> 1
    found = space.places(xp, _keys(number, client=number), space.padded)
    assert found.tolist() == [(first + i * stride) % space.padded for i in range(space.padded)]
    assert len(set(found.tolist())) == space.padded


@pytest.mark.parametrize('size', [1 << 20, 1_199_882])
def test_places_are_spread_evenly_over_blocks(size):
  space = Coordinates(size)
  counts = np.bincount(space.places(xp, _keys(), size // 64) // 1024, minlength=space.padded // 1024)
  assert counts.mean() == pytest.approx(16, abs=0.1) and counts.min() >= 14 and counts.max() <= 18


def _lifted_by_the_reference(space, number, values):
  """In double precision, where nothing here is rounded, by the decoder that is written from the documents."""
  streams = lambda scope, purpose: reference.Stream(SEED, number, reference.SHARED, '', purpose, 0)
  stage = reference.Stage('hadamard:rotations=2', streams, space.padded, None, [(space.padded,)])
  scattered = [0.0] * space.padded
  for place, value in zip(space.places(xp, _keys(number), len(values)), values):
    scattered[place] = float(value)
  return stage.decode(scattered)[:space.size]


@pytest.mark.parametrize('size', [1, 3, 17, 100, 1500, 3000])
@pytest.mark.parametrize('bits', levels.LEVELS)
def test_the_lift_of_levels_is_exact(size, bits):
  space = Coordinates(size)
  kept = max(1, space.padded // space.unit // 2) * space.unit
  rng = np.random.default_rng(size)
  drawn = rng.choice([*levels.LEVELS[bits]], kept) * rng.choice([-1, 1], kept)
  lifted = space.lift(xp, _keys(3), drawn.astype(np.float32))
  assert lifted.dtype == np.float32
  assert lifted.astype(np.float64).tolist() == _lifted_by_the_reference(space, 3, drawn)


def test_the_lift_of_the_largest_levels_is_exact_where_they_meet_in_one_value():
  space = Coordinates(4096)
  unit = np.zeros(4096, np.float32)
  unit[77] = 1
  signs = np.where(space.project(xp, _keys(1), unit, 4096) >= 0, 15, -15)
  lifted = space.lift(xp, _keys(1), signs.astype(np.float32))
  assert lifted.astype(np.float64).tolist() == _lifted_by_the_reference(space, 1, signs)
  assert np.abs(lifted[77]) > 15 * 30  # Some sums are near the largest.


def test_all_coordinates_give_the_vector_back_but_for_rounding():
  for size in (1, 5, 64, 1500, 3000):
    space = Coordinates(size)
    x = np.random.default_rng(size).normal(size=size).astype(np.float32)
    back = space.lift(xp, _keys(), space.project(xp, _keys(), x, space.padded))
    np.testing.assert_allclose(back, x, atol=2e-3 * np.abs(x).max())


def test_all_clients_of_a_round_have_the_same_coordinates_and_no_other_round_has():
  space = Coordinates(2048)
  x = np.random.default_rng(0).normal(size=2048).astype(np.float32)
  one, other, later = (space.project(xp, keys, x, 512) for keys in (_keys(0, 1), _keys(0, 2), _keys(1, 1)))
  np.testing.assert_allclose(one, other, atol=2e-3)  # Each rounds for itself.
  assert np.any(one != other)
  assert abs(np.corrcoef(one, later)[0, 1]) < 0.2


VECTORS = {
    'one-value': lambda rng, d: np.eye(1, d, 5)[0],
    'constant': lambda rng, d: np.ones(d),
    'normal': lambda rng, d: rng.normal(size=d),
}


@pytest.mark.parametrize('vector', VECTORS)
def test_the_lifted_projection_is_right_on_average_and_its_error_is_that_of_sampling(vector):
  """z-test over 1,500 fixed keys, all of the vector and along it; E ||error||^2 = (P / k - 1) ||x||^2."""
  d, kept, draws = 1024, 256, 1500
  space = Coordinates(d)
  x = VECTORS[vector](np.random.default_rng(1), d).astype(np.float32)
  found = np.stack([space.lift(xp, _keys(n), space.project(xp, _keys(n), x, kept)) for n in range(draws)])
  found = found.astype(np.float64) * (space.padded / kept)
  errors = found - x
  z = errors.mean(0) / (errors.std(0) / np.sqrt(draws))
  assert np.mean(z**2) == pytest.approx(1, abs=5 * np.sqrt(2 / d))
  along = errors @ x / (x @ x)
  assert abs(along.mean()) < 4 * along.std() / np.sqrt(draws) + 1e-6
  nmse = np.sum(errors**2, 1) / (x @ x)
  assert nmse.mean() == pytest.approx(space.padded / kept - 1, rel=0.03)


def test_a_clients_own_rotation_is_undone_and_is_nobody_elses():
  space = Coordinates(4096)
  values = np.random.default_rng(0).normal(size=1024).astype(np.float32)
  mine, others = (space.rotated(xp, _keys(0, client), values) for client in (1, 2))
  np.testing.assert_allclose(space.rotated_back(xp, _keys(0, 1), mine), values, atol=1e-4)
  assert abs(np.corrcoef(mine, others)[0, 1]) < 0.15
  assert np.linalg.norm(mine) == pytest.approx(np.linalg.norm(values), rel=1e-4)
