"""How long clients are away, and what follows from it."""

import numpy as np
import pytest

from tff_compress.codec.ops import numpy_ops as xp
from tff_compress.subspace import absence


def test_the_average_is_the_mean_at_first_and_looks_back_ten_rounds_then():
  gap, missed = np.float32(0), np.random.default_rng(0).exponential(5, 40).astype(np.float32)
  for number in range(10):
    gap = absence.after(xp, gap, missed[number], number)
  assert gap == pytest.approx(missed[:10].mean(), rel=1e-5)
  expected = float(gap)
  for number in range(10, 40):
    gap, expected = absence.after(xp, gap, missed[number], number), 0.9 * expected + 0.1 * missed[number]
  assert gap == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize('gap, bits', [(0.0, 1), (3.99, 1), (4.0, 2), (100.0, 2)])
def test_coordinates_have_more_bits_where_clients_are_away_for_long(gap, bits):
  assert absence.bits(xp, np.float32(gap)) == bits
