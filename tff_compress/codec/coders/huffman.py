"""Canonical Huffman code, with the lengths of its words sent."""

import dataclasses
from typing import ClassVar

import numpy as np

from tff_compress.codec import bits
from tff_compress.codec.coders import frequencies
from tff_compress.codec.stage import Bytes
from tff_compress.codec.stage import check
from tff_compress.codec.stage import Integers
from tff_compress.codec.stage import Stage

LONGEST = 16
"""Bits of the longest word. A word of length L needs frequencies that sum to at least the (L + 2)-th Fibonacci number, which
is 4181 for 17: more than the 4096 that they sum to."""

_NEVER = 1 << 30


@dataclasses.dataclass(frozen=True)
class Huffman(Stage):
  """The best code of whole bits per symbol, for alphabets of at most 256 symbols.

  No symbol takes less than one bit, so for alphabets of which one symbol is nearly all (ternary at a density of 1 % costs 11
  times its entropy) rice or rans belongs in its place.

  Layout: lengths of the symbols' words, 0 for those that do not occur, 5 bits each, packed | the words, first bit first.

  Decoding is vector code: the symbol and the length that would start at every bit are looked up at once, and which bits do
  start one is found by doubling: where 2 n words lead, two leaps of n words lead.
  """
  name: ClassVar[str] = 'huffman'
  domain: ClassVar[type] = Integers
  codomain: ClassVar[type] = Bytes
  summary: ClassVar[str] = 'Huffman code with its table, sent and counted'
  source: ClassVar[str] = 'Huffman 1952'
  unbiased: ClassVar[bool] = True

  def output(self, signal):
    check(signal.high - signal.low < 256, 'huffman: the alphabet has more than 256 symbols.')
    return Bytes(None)

  def nmse_bound(self, signal):
    return 0.0

  def encode(self, xp, symbols, draws, signal):
    if not signal.size:
      return xp.zeros([0], np.uint8), {}
    alphabet = signal.high - signal.low + 1
    symbols = symbols - xp.constant(signal.low, np.int32)
    lengths = _lengths(xp, frequencies.frequencies(xp, xp.count(symbols, alphabet), alphabet, signal.size), alphabet)
    _, starts = _canonical(xp, lengths, alphabet)
    place = xp.reshape(xp.iota(LONGEST), [1, LONGEST])
    # Words stand at the top of 16 bits; bit j is the lowest of the word shifted down by 15 - j.
    words = xp.stack_last([xp.shift_right(starts, LONGEST - 1 - j) % xp.constant(2, np.int32) for j in range(LONGEST)])
    flags = xp.gather(words, symbols)
    inside = place < xp.reshape(xp.gather(lengths, symbols), [-1, 1])
    sent = xp.compress(xp.reshape(flags, [-1]), xp.reshape(inside, [-1]))
    return xp.concat([bits.pack(xp, lengths, 5), bits.pack(xp, sent, 1)]), {}

  def decode(self, xp, values, side, draws, signal):
    if not signal.size:
      xp.static_bytes(values, 0)
      return xp.zeros([0], np.int32)
    alphabet, size = signal.high - signal.low + 1, signal.size
    head = bits.packed_size(alphabet, 5)
    longest = bits.packed_size(size, LONGEST)
    xp.require((xp.size(values) > head) & (xp.size(values) - head <= longest),
               'a Huffman-coded tensor has an impossible length.')
    lengths = bits.unpack(xp, values[:head], alphabet, 5)
    xp.require(lengths <= LONGEST, 'a word of a Huffman code is too long.')
    order, starts = _canonical(xp, lengths, alphabet)
    room = _room(xp, lengths)
    occurring = xp.total(xp.cast(lengths > 0, np.int32))
    lonely = xp.equal(occurring, 1) & xp.equal(xp.total(lengths), 1)
    xp.require(xp.equal(xp.total(room), 1 << LONGEST) | lonely, 'the word lengths of a Huffman code do not make a code.')
    # Cut to what is allowed before anything of that size is made.
    payload = values[head:head + longest]
    count = xp.size(payload) * 8
    flags = bits.unpack(xp, payload, count, 1)
    window, width = flags, 1
    while width < LONGEST:  # The 16 bits that start at every bit, zeros behind the end.
      window = window * xp.constant(1 << width, np.int32) + xp.concat([window[width:], xp.zeros([width], np.int32)])
      width *= 2
    ends = xp.cumsum(xp.gather(room, order))
    rank = xp.minimum(xp.search(ends, window), xp.integer(occurring) - xp.constant(1, np.int32))
    symbol = xp.gather(order, rank)
    # One more place, behind the end, from which every leap leads to itself.
    following = xp.minimum(xp.iota(count) + xp.gather(lengths, symbol), xp.constant(0, np.int32) + count)
    leap = xp.concat([following, xp.vector(count)])
    starting = xp.zeros([1], np.int32)
    while int(starting.shape[0]) < size:
      starting = xp.concat([starting, xp.gather(leap, starting)])
      leap = xp.gather(leap, leap)
    starting = starting[:size]
    xp.require(starting < count, 'a Huffman-coded tensor is cut short.')
    last = xp.minimum(starting[-1:], xp.constant(-1, np.int32) + count)
    taken = xp.gather(lengths, xp.gather(symbol, last)) + last
    xp.require((taken <= count) & (taken > count - 8), 'a Huffman-coded tensor does not end as it should.')
    xp.require(xp.equal(flags, 0) | (xp.iota(count) < taken), 'unused bits at the end of a bit string are not zero.')
    # Where there is a single word, the bits in it are zeros.
    xp.require(xp.equal(flags, 0) | (occurring > 1), 'a Huffman-coded tensor holds a word that is not in the code.')
    return xp.gather(symbol, xp.minimum(starting, last)) + xp.constant(signal.low, np.int32)


def _lengths(xp, weights, alphabet):
  """int32[A] frequencies -> int32[A] lengths of the words of a Huffman code; 0 where the frequency is.

  The two groups of least weight become one, again and again; of equal ones the group of the lowest symbol comes first. A group goes
  by its first symbol's place in the table; the words of both lengthen by a bit.
  """
  places = xp.iota(alphabet)
  if alphabet == 1:
    return xp.cast(weights > 0, np.int32)

  def body(i, length, group, weight):
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


def _room(xp, lengths):
  """int32[A]: how many of the 2^16 strings of 16 bits start with each symbol's word."""
  table = xp.constant([0] + [1 << (LONGEST - n) for n in range(1, LONGEST + 1)] + [0] * (31 - LONGEST), np.int32)
  return xp.gather(table, lengths)


def _canonical(xp, lengths, alphabet):
  """(int32[A] symbols by length and number, those without a word last; int32[A] each symbol's word, at the top of 16 bits)."""
  key = xp.where(lengths > 0, lengths, xp.constant(32, np.int32)) * xp.constant(256, np.int32) + xp.iota(alphabet)
  before = xp.cast(xp.reshape(key, [1, -1]) < xp.reshape(key, [-1, 1]), np.int32)
  order = xp.scatter(xp.sum_last(before), xp.iota(alphabet), alphabet)
  return order, xp.sum_last(before * xp.reshape(_room(xp, lengths), [1, -1]))
