"""Range asymmetric numeral systems (rANS) with a static table of symbol frequencies that is sent and counted."""

import dataclasses
import math
from typing import ClassVar

import numpy as np

from tff_compress.codec import gaps
from tff_compress.codec.coders import frequencies
from tff_compress.codec.stage import Bytes
from tff_compress.codec.stage import check
from tff_compress.codec.stage import Integers
from tff_compress.codec.stage import Stage

_INFORMATION = [0] + [math.floor(math.log2(frequencies.TOTAL / f) * (1 << 16)) for f in range(1, frequencies.TOTAL + 1)]
"""What a symbol of each frequency says, in 2^-16 bits."""


@dataclasses.dataclass(frozen=True)
class Rans(Stage):
  """Close to the entropy of the symbols' histogram, for alphabets of at most 256 symbols.

  Symbol i belongs to lane i mod L; the lanes run side by side, so that encoder and decoder are vector code: some thousands of
  steps, however many symbols there are. With few lanes the steps are many, and slow. States are in 2^16 … 2^32 - 1 and are
  renormalised by 16 bits.

  Layout: frequencies of the alphabet's symbols, which sum to 4096, Rice-coded (gaps.py) | L states of 4 bytes, little endian,
  where decoding starts | 16-bit words, little endian, in the order the decoder reads them.

  Attributes:
    lanes: largest number of lanes; a stream uses one per 4096 symbols (rounded down to a power of two) up to this.
  """
  name: ClassVar[str] = 'rans'
  domain: ClassVar[type] = Integers
  codomain: ClassVar[type] = Bytes
  summary: ClassVar[str] = 'entropy coding with a static table, sent and counted'
  source: ClassVar[str] = 'Duda 2013'
  unbiased: ClassVar[bool] = True
  examples: ClassVar[tuple] = ('', 'lanes=1')

  lanes: int = 4096

  def __post_init__(self):
    check(1 <= self.lanes <= 4096 and self.lanes & (self.lanes - 1) == 0,
          f'rans: lanes must be a power of two from 1 to 4096, not {self.lanes}.')

  def _lanes(self, xp, size):
    """The largest power of two that is at most `lanes` and one lane for 4096 symbols."""
    powers = xp.constant([1 << k for k in range(1, self.lanes.bit_length())], np.int32)
    return xp.power_of_two(xp.integer(xp.total(xp.cast(powers <= size // 4096, np.int32))))

  def output(self, signal):
    check(signal.high - signal.low < 256, 'rans: the alphabet has more than 256 symbols.')
    return Bytes(None)

  def nmse_bound(self, signal):
    return 0.0

  def cost(self, xp, symbols, signal):
    """What the frequencies say of the symbols, and half of what the states hold."""
    counts, table = self._table(xp, symbols, signal)
    information = xp.total(xp.cast(counts, np.int64) * xp.gather(xp.constant(_INFORMATION, np.int64), table))
    head = xp.size(gaps.encode_numbers(xp, table)) + 3 * self._lanes(xp, signal.size)
    return xp.integer(information // (8 << 16)) + head

  def _table(self, xp, symbols, signal):
    """(int32[A] counts, int32[A] frequencies)"""
    alphabet = signal.high - signal.low + 1
    counts = xp.count(symbols - xp.constant(signal.low, np.int32), alphabet)
    return counts, frequencies.frequencies(xp, counts, alphabet, signal.size)

  def encode(self, xp, symbols, draws, signal):
    lanes = self._lanes(xp, signal.size)
    steps = -(-signal.size // lanes)
    _, table = self._table(xp, symbols, signal)
    frequency_of = xp.cast(table, np.int64)
    start_of = xp.cast(xp.cumsum(table) - table, np.int64)
    symbols = symbols - xp.constant(signal.low, np.int32)
    # Lanes without a symbol in the last row code one of the most frequent kind there, which the decoder drops.
    filler = xp.repeat(xp.vector(xp.argmax(table)), steps * lanes - signal.size)
    rows = xp.reshape(xp.concat([symbols, filler]), [steps, lanes])

    def body(i, state):
      row = rows[steps - 1 - i]
      f = xp.gather(frequency_of, row)
      full = state >= f * (1 << (32 - frequencies.PRECISION))
      # -1 marks a lane that writes no word in this step.
      word = xp.cast(xp.where(full, state % 65536, xp.constant(-1, np.int64)), np.int32)
      state = xp.where(full, state // 65536, state)
      return word, (state // f * frequencies.TOTAL + state % f + xp.gather(start_of, row),)

    initial = xp.zeros([lanes], np.int64) + (1 << 16)
    words, (state,) = xp.collect(steps, body, (initial,))
    # The decoder reads in the opposite order of steps, and within a step in the order of lanes.
    words = xp.reshape(xp.reverse(words), [-1])
    words = xp.compress(words, words >= 0)
    return xp.concat([gaps.encode_numbers(xp, table), xp.long_to_bytes(state), xp.integers_to_bytes(words, 2)]), {}

  def decode(self, xp, values, side, draws, signal):
    alphabet = signal.high - signal.low + 1
    lanes = self._lanes(xp, signal.size)
    steps = -(-signal.size // lanes)
    table, values = gaps.decode_numbers(xp, values, alphabet, frequencies.TOTAL)
    xp.require(xp.equal(xp.total(table), frequencies.TOTAL), 'the frequencies of an entropy-coded tensor do not sum to 4096.')
    head = 4 * lanes
    count = (xp.size(values) - head) // 2
    xp.require((xp.size(values) >= head) & xp.equal(count * 2, xp.size(values) - head) & (count <= steps * lanes),
               'an entropy-coded tensor has an impossible length.')
    words = xp.integers_from_bytes(values[head:], 2)
    # Reads behind the end see zeros and are noticed by the count of words at the end.
    words = xp.concat([words, xp.zeros([lanes], np.int32)])
    ends = xp.cumsum(table)
    slots = xp.iota(frequencies.TOTAL)
    symbol_of = xp.search(ends, slots)
    frequency_of = xp.cast(xp.gather(table, symbol_of), np.int64)
    offset_of = xp.cast(slots - xp.gather(ends - table, symbol_of), np.int64)
    symbol_of = symbol_of + xp.constant(signal.low, np.int32)

    def body(i, state, used):
      slot = xp.cast(state % frequencies.TOTAL, np.int32)
      state = xp.gather(frequency_of, slot) * (state // frequencies.TOTAL) + xp.gather(offset_of, slot)
      low = xp.cast(state < 65536, np.int32)
      ordinal = xp.cumsum(low)
      index = xp.minimum(used + ordinal - low, xp.constant(0, np.int32) + count)
      state = xp.where(low > 0, state * 65536 + xp.cast(xp.gather(words, index), np.int64), state)
      return xp.gather(symbol_of, slot), (state, used + ordinal[-1])

    state = xp.long_from_bytes(values[:head])
    xp.require((state >= 65536) & (state < 1 << 32), 'a state of an entropy-coded tensor is out of range.')
    symbols, (state, used) = xp.collect(steps, body, (state, xp.constant(0, np.int32)))
    xp.require(xp.equal(used, count) & xp.all(xp.equal(state, 65536)), 'an entropy-coded tensor does not end as it should.')
    return xp.reshape(symbols, [-1])[:signal.size]
