"""The public rule for k: from constants and the energies of changes alone, and so many that the budget lasts."""

import numpy as np
import pytest

from tff_compress.codec.errors import CodecError
from tff_compress.codec.ops import numpy_ops as xp
from tff_compress.subspace.coordinates import Coordinates
from tff_compress.subspace.rate import Rate


def test_k_is_a_multiple_of_the_unit_between_floor_and_most():
  space = Coordinates(100_000)
  for energy, signal, spent in ((1, 1e-9, 0), (1, 1, 0), (1e9, 1e-3, 5), (1, 0, 0), (1, 1e-5, 1.5), (1, 1e-5, 99)):
    for number in (0, 299, 300, 10**6):
      rule = Rate(most=0.2)
      kept = rule.kept(xp, space, dict(energy=np.float64(energy), signal=np.float64(signal), spent=np.float64(spent)),
                       np.int32(number))
      assert kept % space.unit == 0 and 512 <= kept <= 0.2 * space.padded


@pytest.mark.parametrize('size', [1, 3, 100, 1000])
def test_a_model_smaller_than_the_floor_keeps_all(size):
  space = Coordinates(size)
  rule = Rate()
  state = rule.begin(xp, np.float64(1))
  assert rule.kept(xp, space, state, 0) == space.padded // space.unit * space.unit if size < 512 else 512


def test_changes_of_equal_energy_use_up_the_budget_in_the_rounds_that_it_is_for():
  space, rule = Coordinates(1 << 20), Rate(noise=0.5, rounds=200, most=0.5)
  state = rule.begin(xp, np.float64(100))
  for number in range(200):
    kept = rule.kept(xp, space, state, number)
    # What is sent of a mean of energy 0.01 has P / k times its energy.
    state = rule.after(xp, space, state, kept, np.float64(0.01 * space.padded / kept), np.int32(number))
  assert state['spent'] == pytest.approx(50, rel=0.15)


def test_constants_that_make_no_sense_are_refused():
  for wrong in (dict(noise=0), dict(noise=float('nan')), dict(rounds=0), dict(first=0), dict(most=1.1), dict(floor=0)):
    with pytest.raises(CodecError):
      Rate(**wrong)
