"""Elias gamma codes: the code's vectors and lengths, in bit planes."""

import numpy as np
import pytest

from tff_compress import codec as codec_lib
from tff_compress.codec import elias_gamma
from tff_compress.codec.coders.elias import Elias
from tff_compress.codec.ops import numpy_ops as xp
from tff_compress.codec.stage import Integers


def gamma(n):
  """The code as it is written in one piece: L = floor(log2 n) zeros, then n in L + 1 bits."""
  return '0' * (n.bit_length() - 1) + f'{n:b}'


def test_gamma_has_the_lengths_and_bits_of_the_code():
  """1: "1", 2: "010", 3: "011", 4: "00100".

  The unary part holds the zeros and the leading one, the planes the bits below it.
  """
  assert [gamma(n) for n in (1, 2, 3, 4)] == ['1', '010', '011', '00100']
  for n in (*range(1, 70), 255, 256, 2**20 + 5, 2**23 - 1):
    coded = elias_gamma.encode(xp, np.asarray([n], np.int32), 23)
    unary, planes = coded[1:1 + coded[0]], coded[1 + coded[0]:]
    length = n.bit_length() - 1
    code = gamma(n)
    text = ''.join(f'{byte:08b}'[::-1] for byte in unary)
    assert text[:length + 1] == code[:length + 1] and '1' not in text[length + 1:]
    below = ''.join(f'{byte:08b}'[::-1] for byte in planes)
    assert below[:length][::-1] == code[length + 1:] and '1' not in below[length:]


@pytest.mark.parametrize('size', [0, 1, 9, 1000])
def test_numbers_come_back_and_cost_two_log_plus_one_bits(size):
  numbers = np.random.default_rng(0).geometric(0.2, size).astype(np.int32)
  coded = elias_gamma.encode(xp, numbers, 10)
  np.testing.assert_array_equal(elias_gamma.decode(xp, coded, size, 10), numbers)
  cost = sum(len(gamma(int(n))) for n in numbers)
  # A count of 1 or 2 bytes, and two strings that end in part of a byte.
  assert cost <= 8 * (len(coded) - 1) < cost + 24


def test_lengths_at_powers_of_two():
  numbers = np.asarray([v for j in range(1, 24) for v in ((1 << j) - 1, 1 << j)][:-1], np.int32)
  np.testing.assert_array_equal(elias_gamma.lengths(xp, numbers), [int(n).bit_length() - 1 for n in numbers])


def test_symbols_near_the_middle_are_short():
  """n = 1 for the middle, then 2 and 3 for its neighbours on either side: 1, 3 and 3 bits."""
  signal = Integers(800, -5, 5)

  def length(symbol):
    return 8 * (Elias().encode(xp, np.full(800, symbol, np.int32), None, signal)[0].size
                - (1 if symbol == 0 else 2)) / 800
  assert [length(s) for s in (0, -1, 1, -2, 2, -3, 3, 5)] == [1, 3, 3, 5, 5, 5, 5, 7]


def test_numbers_beyond_the_alphabet_are_refused():
  signal = Integers(3, 0, 5)
  wide = Elias().encode(xp, np.asarray([7, 1, 4], np.int32), None, Integers(3, 0, 7))[0]
  # The middle of 0 … 7 is 4 and of 0 … 5 it is 3: the first number means 6 there.
  with pytest.raises(codec_lib.PayloadError, match='alphabet'):
    Elias().decode(xp, wide, {}, None, signal)
  huge = Elias().encode(xp, np.asarray([900, 0, 1], np.int32), None, Integers(3, 0, 1000))[0]
  with pytest.raises(codec_lib.PayloadError):
    Elias().decode(xp, huge, {}, None, signal)
