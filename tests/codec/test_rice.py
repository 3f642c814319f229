"""The sparse coder: its layout, what it costs, and lists that do not fit."""

import numpy as np
import pytest

from tff_compress import codec as codec_lib
from tff_compress.codec.coders.rice import Rice
from tff_compress.codec.ops import numpy_ops as xp
from tff_compress.codec.stage import Integers


def _coded(symbols, low, high):
  return Rice().encode(xp, np.asarray(symbols, np.int32), None, Integers(len(symbols), low, high))[0]


def test_sparse_signs_cost_a_position_and_one_bit():
  """C.14 at T = 2.441: 1.465 % kept; H(p) + p bits per value is the limit, reached within 2 %."""
  rng = np.random.default_rng(0)
  d, p = 1 << 18, 0.01465
  symbols = (rng.random(d) < p) * rng.choice([-1, 1], d)
  p = np.mean(symbols != 0)
  limit = -p * np.log2(p) - (1 - p) * np.log2(1 - p) + p
  assert limit < 8 * len(_coded(symbols, -1, 1)) / d < 1.02 * limit


def test_the_layout():
  """Count, positions, signs (1 for negative), and magnitudes only where the alphabet has any above 1."""
  coded = _coded([0, 0, -1, 0, 1, 1, 0, 0], -1, 1).tobytes()
  # m = 3 | b = 0 | 1 byte of unary | gaps 2, 1, 0 as 001 01 1, least significant first | signs 1, 0, 0
  assert coded == bytes([3, 0, 1, 0b110100, 0b001])
  unsigned = _coded([0, 0, 1, 0, 1, 1, 0, 0], 0, 1).tobytes()
  assert unsigned == coded[:-1]
  magnitudes = _coded([0, 0, -3, 0, 1, 2, 0, 0], -3, 3).tobytes()
  # … | 1 byte of unary | lengths 1, 0, 1 as 01 1 01 | bits below the leading one: 1 of 3, 0 of 2
  assert magnitudes == coded + bytes([1, 0b10110, 0b01])


@pytest.mark.parametrize('low, high', [(-1, 1), (0, 1), (0, 15), (-7, 7), (-1, 0), (1, 3), (-300, 2)])
@pytest.mark.parametrize('density', [0, 0.02, 0.5, 1])
def test_symbols_come_back(low, high, density):
  rng = np.random.default_rng(1)
  usual = max(low, min(0, high))
  symbols = np.where(rng.random(500) < density, rng.integers(low, high + 1, 500), usual).astype(np.int32)
  signal = Integers(500, low, high)
  payload, _ = Rice().encode(xp, symbols, None, signal)
  np.testing.assert_array_equal(Rice().decode(xp, payload, {}, None, signal), symbols)


def test_symbols_that_do_not_fit_are_refused():
  wide = _coded([0, 3, 0, 0], 0, 3)
  with pytest.raises(codec_lib.PayloadError, match='alphabet'):
    Rice().decode(xp, wide, {}, None, Integers(4, 0, 2))
  with pytest.raises(codec_lib.PayloadError, match='more than there are'):
    Rice().decode(xp, np.concatenate([np.asarray([5], np.uint8), wide[1:]]), {}, None, Integers(4, 0, 3))
  with pytest.raises(codec_lib.PayloadError):
    Rice().decode(xp, wide, {}, None, Integers(1, 0, 3))
