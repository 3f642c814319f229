"""Positions as Rice-coded gaps: the length formula, the best parameter, and hostile lists."""

import math

import numpy as np
import pytest

from tff_compress import codec as codec_lib
from tff_compress.codec import bits
from tff_compress.codec import counts
from tff_compress.codec import gaps
from tff_compress.codec.ops import numpy_ops as xp

PHI = (math.sqrt(5) + 1) / 2


def header_bits(coded):
  """The parameter and the count of the unary part's bytes."""
  return 8 * (1 + next(i + 1 for i in range(5) if coded[1 + i] < 128))


def random_positions(p, count, seed=0):
  """`count` positions with geometric gaps of density p, and a limit behind them."""
  drawn = np.random.default_rng(seed).geometric(p, count)
  positions = np.cumsum(drawn) - 1
  return positions.astype(np.int32), int(positions[-1]) + 1


@pytest.mark.parametrize('p, parameter, expected', [
    (0.1, 3, 4.756), (0.04, 4, 6.085), (0.01, 6, 8.108), (1 / 400, 8, 10.114),
    (0.001, 9, 11.495), (0.0001, 13, 14.788)])
def test_measured_bits_are_the_formula_within_one_per_cent(p, parameter, expected):
  """b* = 1 + floor(log2(ln(phi - 1) / ln(1 - p))), E bits = b* + 1 / (1 - (1 - p)^(2^b*)).

  That is 8.108 at p = 0.01, not 8.38.
  """
  assert parameter == 1 + math.floor(math.log2(math.log(PHI - 1) / math.log(1 - p)))
  assert expected == pytest.approx(parameter + 1 / (1 - (1 - p)**(2**parameter)), abs=1e-3)
  count = 20000
  positions, below = random_positions(p, count)
  coded = gaps.encode(xp, positions)
  assert (8 * len(coded) - header_bits(coded)) / count == pytest.approx(expected, rel=0.01)
  entropy = (-p * math.log2(p) - (1 - p) * math.log2(1 - p)) / p
  assert 8 * len(coded) / count < entropy * 1.03
  decoded, rest = gaps.decode(xp, coded, xp.constant(count, np.int32), below)
  np.testing.assert_array_equal(decoded, positions)
  assert rest.size == 0


@pytest.mark.parametrize('p', [0.9, 0.5, 0.2, 0.03, 0.002])
def test_the_parameter_makes_these_gaps_shortest(p):
  """Real positions are not geometric, so all parameters are tried: by the length of what they would give."""
  positions, below = random_positions(p, 500, 1)
  drawn = np.diff(positions, prepend=-1) - 1
  lengths = [int(np.sum((drawn >> b) + 1 + b)) for b in range(17)]
  coded = gaps.encode(xp, positions)
  assert coded[0] == int(np.argmin(lengths))
  assert abs(8 * len(coded) - header_bits(coded) - min(lengths)) < 16  # Two strings that end in part of a byte.


def test_the_worked_example_of_sparse_binary_compression():
  """D.1: positions 2 and 3 of 6 are gaps 2 and 0: with b = 1 the codes 100 and 00, five bits."""
  coded = gaps.encode(xp, np.asarray([2, 3], np.int32))
  parameter, length = int(coded[0]), int(coded[1])
  low, unary = coded[2:-length], coded[-length:]
  assert (parameter, length) == (0, 1) and low.size == 0  # 0 makes it five bits as well, and is tried first: 001 and 1.
  assert unary.tobytes() == bytes([0b1100])
  five = np.concatenate([np.asarray([1, 1], np.uint8), bits.pack(xp, np.asarray([0, 0], np.int32), 1),
                         bits.unary(xp, np.asarray([1, 0], np.int32))])
  np.testing.assert_array_equal(gaps.decode(xp, five, 2, 6)[0], [2, 3])


@pytest.mark.parametrize('positions, below', [
    ([], 0), ([], 5), ([0], 1), ([4], 5), ([0, 1, 2, 3, 4], 5), ([2**30], 2**30 + 1), ([0, 2**31 - 3], 2**31 - 2)])
def test_edges(positions, below):
  positions = np.asarray(positions, np.int32)
  coded = np.concatenate([gaps.encode(xp, positions), np.asarray([1, 2, 3], np.uint8)])
  decoded, rest = gaps.decode(xp, coded, xp.constant(len(positions), np.int32), below)
  np.testing.assert_array_equal(decoded, positions)
  np.testing.assert_array_equal(rest, [1, 2, 3])


def test_hostile_lists_are_refused():
  positions = np.asarray([1, 4, 9], np.int32)
  coded = gaps.encode(xp, positions)
  for length in range(len(coded)):
    with pytest.raises(codec_lib.PayloadError):
      gaps.decode(xp, coded[:length], 3, 10)
  with pytest.raises(codec_lib.PayloadError, match='too large'):
    gaps.decode(xp, coded, 3, 9)
  for count in (0, 1, 2, 4, 1000):
    with pytest.raises(codec_lib.PayloadError):
      found, rest = gaps.decode(xp, coded, count, 10)
      raise codec_lib.PayloadError(f'{found}') if rest.size else AssertionError
  big = coded.copy()
  big[0] = 17
  with pytest.raises(codec_lib.PayloadError, match='parameter'):
    gaps.decode(xp, big, 3, 10)


def test_sums_of_gaps_cannot_wrap_around():
  """Two gaps just below 2^31 in a vector of nearly 2^31 values: their sum in 32 bits would be small."""
  below = 2**31 - 2
  quotient = (2**31 - 70000) >> 16
  numbers = np.asarray([quotient, quotient], np.int32)
  low = bits.low_bits(xp, np.asarray([65535, 65535], np.int32), 16, 16)
  unary = bits.unary(xp, numbers)
  coded = np.concatenate([np.asarray([16], np.uint8), counts.encode(xp, xp.vector(len(unary))),
                          bits.pack(xp, low, 1), unary])
  with pytest.raises(codec_lib.PayloadError):
    gaps.decode(xp, coded, 2, below)
  # One gap of 2^31 - 1: the position behind it is negative in 32 bits.
  unary = bits.unary(xp, np.asarray([below >> 16], np.int32))
  coded = np.concatenate([np.asarray([16], np.uint8), counts.encode(xp, xp.vector(len(unary))),
                          np.asarray([255, 255], np.uint8), unary])
  with np.errstate(over='ignore'), pytest.raises(codec_lib.PayloadError, match='too large'):
    gaps.decode(xp, coded, 1, below)
