"""Range asymmetric numeral systems (rANS) with a static table of symbol frequencies that is sent and counted."""

import array
import dataclasses
import math
from typing import ClassVar

import numpy as np

from tff_compress.codec import gaps
from tff_compress.codec.coders import frequencies
from tff_compress.codec.keys import Draws
from tff_compress.codec.stage import Arrays
from tff_compress.codec.stage import Bytes
from tff_compress.codec.stage import check
from tff_compress.codec.stage import Coder
from tff_compress.codec.stage import Integers
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops
from tff_compress.codec.table import Scalar

_INFORMATION = [0] + [math.floor(math.log2(frequencies.TOTAL / f) * (1 << 16)) for f in range(1, frequencies.TOTAL + 1)]
"""What a symbol of each frequency says, in 2^-16 bits."""


@dataclasses.dataclass(frozen=True)
class Rans(Coder):
  """Close to the entropy of the symbols' histogram, for alphabets of at most 256 symbols.

  Symbol i belongs to lane i mod L; the lanes run side by side, so that encoder and decoder are vector code: some
  thousands of steps, however many symbols there are. States are in 2^16 … 2^32 - 1 and are renormalised by 16
  bits.

  Layout: frequencies of the alphabet's symbols, which sum to 4096, Rice-coded (gaps.py) | L states of 4 bytes, little
  endian, where decoding starts | 16-bit words, little endian, in the order the decoder reads them.

  Attributes:
    lanes: largest number of lanes; a stream uses one per 4096 symbols (rounded down to a power of two) up to this. Few
      lanes for many symbols are slow: every symbol is a step.
  """
  name: ClassVar[str] = 'rans'
  summary: ClassVar[str] = 'entropy coding with a static table, sent and counted'
  source: ClassVar[str] = 'Duda 2013'
  examples: ClassVar[tuple[str, ...]] = ('', 'lanes=1')

  lanes: int = 4096

  def __post_init__(self) -> None:
    check(1 <= self.lanes <= 4096 and self.lanes & (self.lanes - 1) == 0,
          f'rans: lanes must be a power of two from 1 to 4096, not {self.lanes}.')

  def _lanes(self, xp: Ops, size: Scalar) -> Scalar:
    """The largest power of two that is at most `lanes` and one lane for 4096 symbols."""
    powers = xp.constant([1 << k for k in range(1, self.lanes.bit_length())], np.int32)
    return xp.integer(xp.power_of_two(xp.integer(xp.total(xp.cast(powers <= size // 4096, np.int32)))))

  def output(self, signal: Integers) -> Bytes:
    check(signal.high - signal.low < 256, 'rans: the alphabet has more than 256 symbols.')
    return Bytes(None)

  def cost(self, xp: Ops, symbols: Array, signal: Integers) -> Scalar:
    """What the frequencies say of the symbols, and of each lane's state the three bytes that hold nothing of them."""
    counts, table = frequencies.of(xp, frequencies.from_zero(xp, symbols, signal), signal)
    information = xp.total(xp.cast(counts, np.int64) * xp.gather(xp.constant(_INFORMATION, np.int64), table))
    head = xp.size(gaps.encode_numbers(xp, table)) + 3 * self._lanes(xp, signal.size)
    return xp.integer(information // (8 << 16)) + head

  def encode(self, xp: Ops, symbols: Array, draws: Draws | None, signal: Integers) -> tuple[Array, Arrays]:
    lanes = self._lanes(xp, signal.size)
    steps = -(-signal.size // lanes)
    symbols = frequencies.from_zero(xp, symbols, signal)
    _, table = frequencies.of(xp, symbols, signal)
    # Lanes without a symbol in the last row code one of the most frequent kind there, which the decoder drops.
    filler = xp.repeat(xp.integers_to_bytes(xp.vector(xp.argmax(table)), 1), steps * lanes - signal.size)
    symbols = xp.concat([symbols, filler])
    if xp.is_few(lanes):
      words, state = _encode_in_python(symbols, table, lanes)
    else:
      words, state = _encode_lanes(xp, xp.reshape(symbols, [steps, lanes]), table)
    return xp.concat([gaps.encode_numbers(xp, table), xp.long_to_bytes(state), xp.integers_to_bytes(words, 2)]), {}

  def decode(self, xp: Ops, values: Array, side: Arrays, draws: Draws | None, signal: Integers) -> Array:
    alphabet = signal.high - signal.low + 1
    lanes = self._lanes(xp, signal.size)
    steps = -(-signal.size // lanes)
    table, values = gaps.decode_numbers(xp, values, alphabet, frequencies.TOTAL)
    xp.require(xp.equal(xp.total(table), frequencies.TOTAL),
               'the frequencies of an entropy-coded tensor do not sum to 4096.')
    head = 4 * lanes
    count = (xp.size(values) - head) // 2
    xp.require((xp.size(values) >= head) & xp.equal(count * 2, xp.size(values) - head) & (count <= steps * lanes),
               'an entropy-coded tensor has an impossible length.')
    state = xp.long_from_bytes(values[:head])
    xp.require((state >= 65536) & (state < 1 << 32), 'a state of an entropy-coded tensor is out of range.')
    words = xp.integers_from_bytes(values[head:], 2)
    # Reads behind the end see zeros and are noticed by the count of words at the end.
    words = xp.concat([words, xp.zeros([lanes], np.int32)])
    symbol_of = xp.search(xp.cumsum(table), xp.iota(frequencies.TOTAL))
    if xp.is_few(lanes):
      symbols, state, used = _decode_in_python(words, state, table, symbol_of, steps * lanes)
    else:
      symbols, state, used = _decode_lanes(xp, words, state, table, symbol_of, steps)
    xp.require(xp.equal(used, count) & xp.all(xp.equal(state, 65536)),
               'an entropy-coded tensor does not end as it should.')
    return xp.cast(symbols[:signal.size], np.int32) + xp.constant(signal.low, np.int32)


def _encode_lanes(xp: Ops, rows: Array, table: Array) -> tuple[Array, Array]:
  """uint8[steps, lanes] symbols -> (int32[n] words in the order of the decoder, int64[lanes] states)."""
  frequency_of = xp.cast(table, np.int64)
  start_of = xp.cast(xp.cumsum(table) - table, np.int64)
  steps, lanes = xp.size(rows), xp.size(rows[0])

  def body(i: Scalar, state: Array) -> tuple[Array, tuple[Array, ...]]:
    row = xp.cast(rows[i], np.int32)
    f = xp.gather(frequency_of, row)
    full = state >= f * (1 << (32 - frequencies.PRECISION))
    # -1 marks a lane that writes no word in this step.
    word = xp.cast(xp.where(full, state % 65536, xp.constant(-1, np.int64)), np.int32)
    state = xp.where(full, state // 65536, state)
    return word, (state // f * frequencies.TOTAL + state % f + xp.gather(start_of, row),)

  # The decoder reads in the opposite order of steps, and within a step in the order of lanes.
  words, (state,) = xp.collect(steps, body, (xp.zeros([lanes], np.int64) + (1 << 16),), backwards=True)
  words = xp.reshape(words, [-1])
  return xp.compress(words, words >= 0), state


def _decode_lanes(xp: Ops, words: Array, state: Array, table: Array, symbol_of: Array,
                  steps: Scalar) -> tuple[Array, Array, Scalar]:
  """Inverse of `_encode_lanes`: (uint8[steps lanes] symbols, int64[lanes] last states, how many words were read)."""
  frequency_of = xp.cast(xp.gather(table, symbol_of), np.int64)
  offset_of = xp.cast(xp.iota(frequencies.TOTAL) - xp.gather(xp.cumsum(table) - table, symbol_of), np.int64)
  symbol_of = xp.integers_to_bytes(symbol_of, 1)
  last = xp.constant(-1, np.int32) + xp.size(words)

  def body(i: Scalar, state: Array, used: Array) -> tuple[Array, tuple[Array, ...]]:
    del i
    slot = xp.cast(state % frequencies.TOTAL, np.int32)
    state = xp.gather(frequency_of, slot) * (state // frequencies.TOTAL) + xp.gather(offset_of, slot)
    low = xp.cast(state < 65536, np.int32)
    ordinal = xp.cumsum(low)
    word = xp.cast(xp.gather(words, xp.minimum(used + ordinal - low, last)), np.int64)
    state = xp.where(low > 0, state * 65536 + word, state)
    return xp.gather(symbol_of, slot), (state, used + ordinal[-1])

  symbols, (state, used) = xp.collect(steps, body, (state, xp.constant(0, np.int32)))
  return xp.reshape(symbols, [-1]), state, used


def _encode_in_python(symbols: np.ndarray, table: np.ndarray, lanes: int) -> tuple[np.ndarray, np.ndarray]:
  """As `_encode_lanes`, in Python, symbol by symbol."""
  frequency_of, start_of = table.tolist(), (np.cumsum(table) - table).tolist()
  states, words = [1 << 16] * lanes, array.array('H')
  lane = lanes - 1
  for symbol in reversed(symbols.tobytes()):
    f, x = frequency_of[symbol], states[lane]
    if x >= f << 32 - frequencies.PRECISION:
      words.append(x & 0xFFFF)
      x >>= 16
    states[lane] = (x // f << frequencies.PRECISION) + x % f + start_of[symbol]
    lane = (lane or lanes) - 1
  return np.asarray(words[::-1], np.int32), np.asarray(states, np.int64)


def _decode_in_python(words: np.ndarray, state: np.ndarray, table: np.ndarray, symbol_of: np.ndarray,
                      size: int) -> tuple[np.ndarray, np.ndarray, int]:
  """As `_decode_lanes`, in Python, symbol by symbol."""
  frequency_of, start_of = table.tolist(), (np.cumsum(table) - table).tolist()
  symbol_at, following = symbol_of.tolist(), array.array('i', np.asarray(words, np.int32).tobytes())
  states, symbols = state.tolist(), bytearray(size)
  lanes, last, lane, used = len(states), len(following) - 1, 0, 0
  for i in range(size):
    x = states[lane]
    slot = x & frequencies.TOTAL - 1
    symbols[i] = symbol = symbol_at[slot]
    x = frequency_of[symbol] * (x >> frequencies.PRECISION) + slot - start_of[symbol]
    if x < 65536:
      x = x << 16 | following[min(used, last)]
      used += 1
    states[lane] = x
    lane = lane + 1 if lane + 1 < lanes else 0
  return np.frombuffer(symbols, np.uint8), np.asarray(states, np.int64), used
