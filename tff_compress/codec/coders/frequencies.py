"""Frequencies of symbols with a fixed sum, for coders that send a table of them."""

import numpy as np

from tff_compress.codec.stage import Integers
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops
from tff_compress.codec.table import Scalar

PRECISION = 12
TOTAL = 1 << PRECISION


def from_zero(xp: Ops, symbols: Array, signal: Integers) -> Array:
  """int32[n] symbols of an alphabet of at most 256 -> uint8[n], as numbers from 0 on: they take a quarter of the
  memory.
  """
  return xp.integers_to_bytes(symbols - xp.constant(signal.low, np.int32), 1)


def of(xp: Ops, symbols: Array, signal: Integers) -> tuple[Array, Array]:
  """uint8[n] symbols from 0 on, of an alphabet of A -> (int32[A] how often each occurs, int32[A] their frequencies)."""
  alphabet = signal.high - signal.low + 1
  counts = xp.count(symbols, alphabet)
  return counts, frequencies(xp, counts, alphabet, signal.size)


def frequencies(xp: Ops, counts: Array, alphabet: int, size: Scalar) -> Array:
  """int32[alphabet] counts of `size` symbols -> frequencies that sum to 4096, at least 1 for every symbol that
  occurs."""
  used = xp.cast(counts > 0, np.int32)
  left = xp.long(TOTAL) - xp.total(used)
  share = xp.cast(xp.cast(counts, np.int64) * left // xp.long(size), np.int32) + used
  rest = xp.integer(xp.long(TOTAL) - xp.total(share))
  most = xp.cast(xp.equal(xp.iota(alphabet), xp.argmax(counts)), np.int32)
  return share + most * rest
