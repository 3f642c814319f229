"""Range asymmetric numeral systems (rANS) with a static table of symbol frequencies that is sent and counted."""

import dataclasses
from typing import ClassVar

import numpy as np

from tff_compress.codec import bits
from tff_compress.codec.coders import frequencies
from tff_compress.codec.stage import Bytes
from tff_compress.codec.stage import check
from tff_compress.codec.stage import Integers
from tff_compress.codec.stage import Stage

@dataclasses.dataclass(frozen=True)
class Rans(Stage):
  """Close to the entropy of the symbols' histogram, for alphabets of at most 256 symbols.

  Symbol i belongs to lane i mod L; the lanes run side by side, so that encoder and decoder are vector code. States are
  in 2^16 … 2^32 - 1 and are renormalised by 16 bits.

  Layout: frequencies of the alphabet's symbols, 13 bits each, packed, summing to 4096 | L states of 4 bytes, little
  endian, where decoding starts | 16-bit words, little endian, in the order the decoder reads them.

  Attributes:
    lanes: largest number of lanes; a tensor uses one per 4096 symbols (rounded down to a power of two) up to this.
  """
  name: ClassVar[str] = 'rans'
  domain: ClassVar[type] = Integers
  codomain: ClassVar[type] = Bytes
  summary: ClassVar[str] = 'entropy coding with a static table, sent and counted'
  source: ClassVar[str] = 'Duda 2013'
  unbiased: ClassVar[bool] = True
  examples: ClassVar[tuple] = ('', 'lanes=1')

  lanes: int = 256

  def __post_init__(self):
    check(1 <= self.lanes <= 4096 and self.lanes & (self.lanes - 1) == 0,
          f'rans: lanes must be a power of two from 1 to 4096, not {self.lanes}.')

  def _lanes(self, size):
    return max(1, min(self.lanes, 1 << (max(size // 4096, 1).bit_length() - 1)))

  def output(self, signal):
    check(signal.high - signal.low < 256, 'rans: the alphabet has more than 256 symbols.')
    return Bytes(None)

  def nmse_bound(self, signal):
    return 0.0

  def encode(self, xp, symbols, draws, signal):
    if not signal.size:
      return xp.zeros([0], np.uint8), {}
    alphabet = signal.high - signal.low + 1
    lanes = self._lanes(signal.size)
    steps = -(-signal.size // lanes)
    symbols = symbols - xp.constant(signal.low, np.int32)
    table = frequencies.frequencies(xp, xp.count(symbols, alphabet), alphabet, signal.size)
    starts = xp.cumsum(table) - table
    # Lanes without a symbol in the last row code one of the most frequent kind there, which the decoder drops.
    filler = xp.repeat(xp.vector(xp.argmax(table)), steps * lanes - signal.size)
    rows = xp.reshape(xp.concat([symbols, filler]), [steps, lanes])
    frequency = xp.cast(xp.gather(table, rows), np.int64)
    start = xp.cast(xp.gather(starts, rows), np.int64)

    def body(i, state):
      f, c = frequency[steps - 1 - i], start[steps - 1 - i]
      full = state >= f * (1 << (32 - frequencies.PRECISION))
      # -1 marks a lane that writes no word in this step.
      word = xp.where(full, state % 65536, state * 0 - 1)
      state = xp.where(full, state // 65536, state)
      return word, (state // f * frequencies.TOTAL + state % f + c,)

    initial = xp.zeros([lanes], np.int64) + (1 << 16)
    words, (state,) = xp.collect(steps, body, (initial,))
    # The decoder reads in the opposite order of steps, and within a step in the order of lanes.
    words = xp.reshape(xp.reverse(words), [-1])
    words = xp.cast(xp.compress(words, words >= 0), np.int32)
    return xp.concat([bits.pack(xp, table, 13), xp.long_to_bytes(state), xp.integers_to_bytes(words, 2)]), {}

  def decode(self, xp, values, side, draws, signal):
    if not signal.size:
      xp.static_bytes(values, 0)
      return xp.zeros([0], np.int32)
    alphabet = signal.high - signal.low + 1
    lanes = self._lanes(signal.size)
    steps = -(-signal.size // lanes)
    table_bytes = bits.packed_size(alphabet, 13)
    head = table_bytes + 4 * lanes
    count = (xp.size(values) - head) // 2
    xp.require((xp.size(values) >= head) & xp.equal(count * 2, xp.size(values) - head) & (count <= steps * lanes),
               'an entropy-coded tensor has an impossible length.')
    table = bits.unpack(xp, values[:table_bytes], alphabet, 13)
    xp.require(xp.equal(xp.total(table), frequencies.TOTAL), 'the frequencies of an entropy-coded tensor do not sum to 4096.')
    words = xp.cast(xp.integers_from_bytes(values[head:], 2), np.int64)
    # Reads behind the end see zeros and are noticed by the count of words at the end.
    words = xp.concat([words, xp.zeros([lanes], np.int64)])
    ends = xp.cumsum(table)
    slots = xp.iota(frequencies.TOTAL)
    symbol_of = xp.search(ends, slots)
    frequency_of = xp.cast(xp.gather(table, symbol_of), np.int64)
    offset_of = xp.cast(slots - xp.gather(ends - table, symbol_of), np.int64)

    def body(i, state, used):
      slot = xp.cast(state % frequencies.TOTAL, np.int32)
      state = xp.gather(frequency_of, slot) * (state // frequencies.TOTAL) + xp.gather(offset_of, slot)
      low = xp.cast(state < 65536, np.int32)
      ordinal = xp.cumsum(low)
      index = xp.minimum(used + ordinal - low, xp.constant(0, np.int32) + count)
      state = xp.where(low > 0, state * 65536 + xp.gather(words, index), state)
      return xp.gather(symbol_of, slot), (state, used + ordinal[-1])

    state = xp.long_from_bytes(values[table_bytes:head])
    xp.require((state >= 65536) & (state < 1 << 32), 'a state of an entropy-coded tensor is out of range.')
    symbols, (state, used) = xp.collect(steps, body, (state, xp.constant(0, np.int32)))
    xp.require(xp.equal(used, count) & xp.all(xp.equal(state, 65536)), 'an entropy-coded tensor does not end as it should.')
    return xp.reshape(symbols, [-1])[:signal.size] + xp.constant(signal.low, np.int32)
