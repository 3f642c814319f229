"""Canonical Huffman code, with the lengths of its words sent."""

import dataclasses
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

LONGEST = 16
"""Bits of the longest word. A word of length L needs frequencies that sum to at least the (L + 2)-th Fibonacci number,
which is 4181 for 17: more than the 4096 that they sum to."""

_LANE = 2048
"""Symbols of a lane."""

_NEVER = 1 << 30

_REVERSED = [int(f'{i:08b}'[::-1], 2) for i in range(256)]
"""Each byte with its bits in the opposite order."""


@dataclasses.dataclass(frozen=True)
class Huffman(Coder):
  """The best code of whole bits per symbol, for alphabets of at most 256 symbols.

  No symbol takes less than one bit, so for alphabets of which one symbol is nearly all (ternary at a density of 1 %
  costs 11 times its entropy) rice or rans belongs in its place.

  Symbol i belongs to lane i mod L, of one lane for every 2048 symbols. The words of a lane are a bit string of its own,
  so that the lanes are decoded side by side in at most 2048 steps.

  Layout: lengths of the symbols' words, 0 for those that do not occur, as differences from one to the next, Rice-coded
  (gaps.py) | bits of each lane but the last, 2 bytes each, little endian | the lanes' words, one lane behind the other,
  first bit first.
  """
  name: ClassVar[str] = 'huffman'
  summary: ClassVar[str] = 'Huffman code with its table, sent and counted'
  source: ClassVar[str] = 'Huffman 1952'

  def output(self, signal: Integers) -> Bytes:
    check(signal.high - signal.low < 256, 'huffman: the alphabet has more than 256 symbols.')
    return Bytes(None)

  def cost(self, xp: Ops, symbols: Array, signal: Integers) -> Scalar:
    alphabet, lanes = signal.high - signal.low + 1, _lanes(signal.size)
    counts, table = frequencies.of(xp, frequencies.from_zero(xp, symbols, signal), signal)
    lengths = _lengths(xp, table, alphabet)
    words = xp.total(xp.cast(counts, np.int64) * xp.cast(lengths, np.int64))
    return xp.integer((words + 7) // 8) + xp.size(_write_lengths(xp, lengths)) + 2 * (lanes - 1)

  def encode(self, xp: Ops, symbols: Array, draws: Draws | None, signal: Integers) -> tuple[Array, Arrays]:
    alphabet, lanes = signal.high - signal.low + 1, _lanes(signal.size)
    symbols = frequencies.from_zero(xp, symbols, signal)
    lengths = _lengths(xp, frequencies.of(xp, symbols, signal)[1], alphabet)
    _, starts = _canonical(xp, lengths)
    words = _reversed(xp, starts % xp.constant(1 << LONGEST, np.int32))  # Those of no symbol begin behind the end.
    rest = signal.size % lanes
    rows = xp.reshape(symbols[:signal.size - rest], [-1, lanes])
    last = xp.reshape(symbols[signal.size - rest:], [1, -1])
    # Lanes with one symbol more, and the others.
    lanes_of = [xp.transpose(part, [1, 0]) for part in (xp.concat([rows[:, :rest], last]), rows[:, rest:])]
    bits_of = [xp.by_rows(lambda part: (xp.sum_last(xp.gather(lengths, xp.cast(part, np.int32))),), part)[0]
               for part in lanes_of]
    stream = xp.bit_string(words, lengths, xp.concat([xp.reshape(part, [-1]) for part in lanes_of]))
    return xp.concat([_write_lengths(xp, lengths), xp.integers_to_bytes(xp.concat(bits_of)[:-1], 2), stream]), {}

  def decode(self, xp: Ops, values: Array, side: Arrays, draws: Draws | None, signal: Integers) -> Array:
    alphabet, lanes, size = signal.high - signal.low + 1, _lanes(signal.size), signal.size
    lengths, values = _read_lengths(xp, values, alphabet)
    order, starts = _canonical(xp, lengths)
    room = _room(xp, lengths)
    occurring = xp.total(xp.cast(lengths > 0, np.int32))
    lonely = xp.equal(occurring, 1) & xp.equal(xp.total(lengths), 1)
    xp.require(xp.equal(xp.total(room), 1 << LONGEST) | lonely,
               'the word lengths of a Huffman code do not make a code.')
    head = 2 * (lanes - 1)
    xp.require(xp.size(values) > head, 'a Huffman-coded tensor is cut short.')
    lane_bits = xp.integers_from_bytes(values[:head], 2)
    payload = values[head:]
    # Where there is a single word, the bits in it are zeros.
    xp.require(xp.equal(payload, 0) | (occurring > 1), 'a Huffman-coded tensor holds a word that is not in the code.')
    count = xp.size(payload)
    firsts = xp.concat([xp.zeros([1], np.int32), xp.cumsum(lane_bits)])
    fits = (firsts <= count * 8) & (xp.total(lane_bits) <= xp.long(count * 8))
    xp.require(fits, 'a Huffman-coded tensor is cut short.')
    # For as many bits as the longest word has, the symbol whose word they start with, and above it the length of that.
    longest = xp.reduce_max(lengths)[0]
    order = order[:xp.integer(occurring)]
    behind = xp.shift_right(xp.gather(starts, order[1:]), LONGEST - longest)
    ones = xp.constant(0, np.int32) * behind + xp.constant(1, np.int32)
    rank = xp.cumsum(xp.scatter(behind, ones, xp.power_of_two(longest)))
    table = xp.gather(xp.gather(lengths, order) * xp.constant(256, np.int32) + order, rank)
    # The 24 bits that start at every byte, the first one highest; a lane that goes on behind the end finds zeros there.
    data = xp.concat([xp.gather(xp.constant(_REVERSED, np.int32), xp.cast(payload, np.int32)),
                      xp.zeros([_LANE * LONGEST // 8 + 3], np.int32)])
    windows = data[:-2] * xp.constant(1 << 16, np.int32) + data[1:-1] * xp.constant(1 << 8, np.int32) + data[2:]

    def body(i: Scalar, place: Array) -> tuple[Array, tuple[Array, ...]]:
      del i
      window = xp.gather(windows, xp.shift_right(place, 3))
      shift = xp.constant(24, np.int32) - longest - place % xp.constant(8, np.int32)
      entry = xp.gather(table, xp.shift_right(window, shift) % xp.power_of_two(longest))
      return entry % xp.constant(256, np.int32), (place + xp.shift_right(entry, 8),)

    rows = size // lanes
    symbols, (place,) = xp.collect(rows, body, (firsts,))
    rest = size - rows * lanes
    last, (following,) = body(0, place[:rest])
    symbols, place = xp.concat([xp.reshape(symbols, [-1]), last]), xp.concat([following, place[rest:]])
    xp.require(xp.equal(place[:-1], firsts[1:]), 'a lane of a Huffman-coded tensor does not end as it should.')
    end = place[-1:]
    xp.require((end <= count * 8) & (end > count * 8 - 8), 'a Huffman-coded tensor does not end as it should.')
    unused = xp.gather(windows, xp.shift_right(end, 3)) * xp.power_of_two((end % xp.constant(8, np.int32))[0])
    xp.require(xp.equal(unused % xp.constant(1 << 24, np.int32), 0),
               'unused bits at the end of a bit string are not zero.')
    return symbols + xp.constant(signal.low, np.int32)


def _lanes(size: Scalar) -> Scalar:
  return -(-size // _LANE)


def _write_lengths(xp: Ops, lengths: Array) -> Array:
  """int32[A] -> uint8[n]: differences d as 2 d for those from 0 on and -2 d - 1 for those below."""
  steps = lengths - xp.concat([xp.zeros([1], np.int32), lengths[:-1]])
  return gaps.encode_numbers(xp, xp.where(steps < 0, steps * -2 - 1, steps * 2))


def _read_lengths(xp: Ops, values: Array, alphabet: int) -> tuple[Array, Array]:
  """Inverse of `_write_lengths`: (int32[A], the bytes that follow)."""
  numbers, values = gaps.decode_numbers(xp, values, alphabet, 2 * LONGEST * alphabet)
  half = xp.shift_right(numbers + xp.constant(1, np.int32), 1)
  lengths = xp.cumsum(xp.where(xp.equal(numbers % xp.constant(2, np.int32), 1), -half, half))
  xp.require((lengths >= 0) & (lengths <= LONGEST), 'a word of a Huffman code is too long.')
  return lengths, values


def _reversed(xp: Ops, words: Array) -> Array:
  """int32[n] of 16 bits -> the same bits in the opposite order."""
  table = xp.constant(_REVERSED, np.int32)
  low, high = words % xp.constant(256, np.int32), xp.shift_right(words, 8)
  return xp.gather(table, low) * xp.constant(256, np.int32) + xp.gather(table, high)


def _lengths(xp: Ops, weights: Array, alphabet: int) -> Array:
  """int32[A] frequencies -> int32[A] lengths of the words of a Huffman code; 0 where the frequency is.

  The two groups of least weight become one, again and again; of equal ones the group of the lowest symbol comes first.
  A group goes by its first symbol's place in the table; the words of both lengthen by a bit.
  """
  places = xp.iota(alphabet)
  if alphabet == 1:
    return xp.cast(weights > 0, np.int32)

  def body(i: Scalar, length: Array, group: Array, weight: Array) -> tuple[Array, tuple[Array, ...]]:
    del i
    first = xp.argmax(-weight)
    without = xp.where(xp.equal(places, first), xp.constant(_NEVER, np.int32), weight)
    second = xp.argmax(-without)
    low, high = xp.gather(weight, first), xp.gather(without, second)
    # Groups that are left alone have weight _NEVER, as have symbols that do not occur.
    joins = xp.cast(high < _NEVER, np.int32)
    length = length + joins * xp.cast(xp.equal(group, first) | xp.equal(group, second), np.int32)
    merged = xp.where(xp.equal(group, second), places * xp.constant(0, np.int32) + first, group)
    together = xp.where(xp.equal(places, first), low + high,
                        xp.where(xp.equal(places, second), xp.constant(_NEVER, np.int32), weight))
    return joins, (length, xp.where(joins > 0, merged, group), xp.where(joins > 0, together, weight))

  state = (places * xp.constant(0, np.int32), places, xp.where(weights > 0, weights, xp.constant(_NEVER, np.int32)))
  _, (length, _, _) = xp.collect(alphabet - 1, body, state)
  # A symbol that occurs alone gets a word of one bit.
  return xp.maximum(length, xp.cast(weights > 0, np.int32))


def _room(xp: Ops, lengths: Array) -> Array:
  """int32[A]: how many of the 2^16 strings of 16 bits start with each symbol's word."""
  table = xp.constant([0] + [1 << (LONGEST - n) for n in range(1, LONGEST + 1)] + [0] * (31 - LONGEST), np.int32)
  return xp.gather(table, lengths)


def _canonical(xp: Ops, lengths: Array) -> tuple[Array, Array]:
  """(int32[A] symbols by length and number, those without a word last; int32[A] each symbol's word, at the top of 16
  bits)."""
  key = (xp.where(lengths > 0, lengths, xp.constant(32, np.int32)) * xp.constant(256, np.int32)
         + xp.iota(xp.size(lengths)))
  before = xp.cast(xp.reshape(key, [1, -1]) < xp.reshape(key, [-1, 1]), np.int32)
  order = xp.scatter(xp.sum_last(before), xp.iota(xp.size(lengths)), xp.size(lengths))
  return order, xp.sum_last(before * xp.reshape(_room(xp, lengths), [1, -1]))
