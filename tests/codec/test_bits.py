"""Bit strings: the order of bits, unary numbers, and what a reader refuses."""

import numpy as np
import pytest

from tff_compress import codec as codec_lib
from tff_compress.codec import bits
from tff_compress.codec.ops import numpy_ops as xp


def reference(symbols, width):
  """Least significant bit first, through a Python integer."""
  number = sum(int(s) << (width * i) for i, s in enumerate(symbols))
  return number.to_bytes((len(symbols) * width + 7) // 8, 'little')


@pytest.mark.parametrize('width', range(1, 17))
@pytest.mark.parametrize('size', [0, 1, 2, 3, 7, 8, 9, 31, 64, 65, 1000])
def test_pack_writes_the_least_significant_bit_first(width, size):
  symbols = np.random.default_rng(size).integers(0, 1 << width, size).astype(np.int32)
  packed = bits.pack(xp, symbols, width)
  assert packed.dtype == np.uint8 and packed.tobytes() == reference(symbols, width)
  assert len(packed) == bits.packed_size(size, width)
  np.testing.assert_array_equal(bits.unpack(xp, packed, size, width), symbols)


def test_pack_on_an_example():
  assert bits.pack(xp, np.asarray([1, 0, 2, 3, 1], np.int32), 2).tobytes() == bytes([0b11_10_00_01, 0b01])
  assert bits.pack(xp, np.asarray([5, 1, 7], np.int32), 3).tobytes() == bytes([0b11_001_101, 0b1])


@pytest.mark.parametrize('width, size', [(1, 3), (2, 3), (3, 3), (5, 1), (13, 3)])
def test_set_bits_behind_the_end_and_other_lengths_are_refused(width, size):
  packed = bits.pack(xp, np.zeros(size, np.int32), width)
  for bit in range(size * width, 8 * len(packed)):
    changed = packed.copy()
    changed[bit // 8] |= 1 << bit % 8
    with pytest.raises(codec_lib.PayloadError, match='unused bits'):
      bits.unpack(xp, changed, size, width)
  for wrong in (packed[:-1], np.concatenate([packed, packed])):
    with pytest.raises(codec_lib.PayloadError):
      bits.unpack(xp, wrong, size, width)


@pytest.mark.parametrize('numbers', [[], [0], [5], [0, 0, 0], [3, 0, 1, 30, 2], list(range(20))])
def test_unary_numbers(numbers):
  coded = bits.unary(xp, np.asarray(numbers, np.int32))
  text = ''.join(f'{byte:08b}'[::-1] for byte in coded)
  assert text.rstrip('0') == ''.join('0' * n + '1' for n in numbers) and len(text) - len(text.rstrip('0')) < 8
  np.testing.assert_array_equal(bits.read_unary(xp, coded, len(numbers), sum(numbers)), numbers)


def test_unary_strings_that_do_not_fit_are_refused():
  coded = bits.unary(xp, np.asarray([3, 0, 9], np.int32))
  for count in (0, 2, 4):
    with pytest.raises(codec_lib.PayloadError):
      bits.read_unary(xp, coded, count, 100)
  with pytest.raises(codec_lib.PayloadError):
    bits.read_unary(xp, np.concatenate([coded, [np.uint8(0)]]), 3, 100)
  with pytest.raises(codec_lib.PayloadError, match='longer than its numbers can be'):
    bits.read_unary(xp, np.zeros(10**6, np.uint8), 3, 12)
