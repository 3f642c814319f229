"""Counter-based random numbers: generator X5, its key derivation, and what stages draw from it.

Every random choice in a payload is a pure function of (session seed, round, client, tensor, purpose). The full
specification with test vectors is docs/random-numbers.md; the tests hold this file to those vectors.

The generator is not cryptographic: it must never make masks for secure aggregation or noise for privacy.
"""

from collections.abc import Callable
import dataclasses
import enum
import functools
import hashlib
import struct

import numpy as np

from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops
from tff_compress.codec.table import Scalar

SHARED_CLIENT = 0xFFFFFFFF
"""The client number of streams that all clients of a round share."""

WORDS_PER_KEY = 1 << 24
"""No key draws more 32-bit words than this; longer streams continue with the next `chunk` of the derivation."""


class Purpose(enum.IntEnum):
  """What a stream is used for. One key serves one purpose."""
  ROTATION = 1
  MASK = 2
  PRE_ROUNDING = 3
  QUANTIZER = 4
  PERMUTATION = 5
  COUNT_SKETCH = 6
  COUNT_SKETCH_ROUNDING = 7
  BASIS = 8
  BASIS_ROUNDING = 9
  UNITS = 10
  COIN = 11
  WEIGHTS = 12


def derive_key(seed: int, round: int, client: int, name: str, purpose: int, chunk: int = 0) -> np.ndarray:
  """Derives the two key words of a stream (docs/random-numbers.md, "Key derivation").

  Args:
    seed: session seed, 0 … 2^64-1.
    round: round number, 0 … 2^32-1.
    client: client number, 0 … 2^32-1; `SHARED_CLIENT` for a stream that all clients share.
    name: name of the tensor.
    purpose: a `Purpose` (0 … 255).
    chunk: 0 … 2^32-1.

  Returns:
    numpy int32[2]: (k0, k1).
  """
  text = name.encode('utf-8')
  message = b'TFFCPRNG1' + struct.pack('<QIIBIH', seed, round, client, purpose, chunk, len(text)) + text
  return np.frombuffer(hashlib.sha256(message).digest()[:8], '<i4').astype(np.int32)


def signed(word: int) -> int:
  """A 32-bit constant as the int32 with the same bits."""
  return word - (1 << 32) if word >= 1 << 31 else word


def x5(xp: Ops, index: Array, k0: Array, k1: Array) -> Array:
  """Generator X5: int32 indices -> int32 words, element-wise; k0 and k1 are int32 scalars."""
  multiply_a = xp.constant(signed(0x7FEB352D), np.int32)
  multiply_b = xp.constant(signed(0x846CA68B), np.int32)
  k2 = k0 + k1 * xp.constant(signed(0x9E3779B1), np.int32) + xp.constant(signed(0x85EBCA77), np.int32)
  x = xp.xor(index, k0)
  x = xp.xor(x, xp.shift_right(x, 16)) * multiply_a + k1
  x = xp.xor(x, xp.shift_right(x, 15)) * multiply_b + k2
  x = xp.xor(x, xp.shift_right(x, 16)) * multiply_a
  x = xp.xor(x, xp.shift_right(x, 15)) * multiply_b
  return xp.xor(x, xp.shift_right(x, 16))


class Stream:
  """The words of one purpose of one tensor, drawn in order of their index.

  Every method draws `size` numbers from the `start`-th on (counted in numbers of its own kind).

  Args:
    xp: operation table.
    key: function chunk -> int32[2] key.
  """

  def __init__(self, xp: Ops, key: Callable[[int], Array]) -> None:
    self._xp = xp
    self._key = key

  def words(self, size: int, start: int = 0) -> Array:
    """int32[size] words."""
    xp = self._xp
    parts = []
    for chunk in range(start // WORDS_PER_KEY, -(-(start + size) // WORDS_PER_KEY)):
      key, first = self._key(chunk), chunk * WORDS_PER_KEY
      parts.append(xp.generate(functools.partial(x5, xp), key, max(start - first, 0),
                               min(start + size - first, WORDS_PER_KEY)))
    if not parts:
      return xp.zeros([0], np.int32)
    return parts[0] if len(parts) == 1 else xp.concat(parts)

  def _words_of(self, size: int, start: int, each: int) -> tuple[Array, int]:
    """The words that hold numbers start … start + size - 1 when a word holds `each`, and the place of the first in
    them."""
    first = start // each
    return self.words(-(-(start + size) // each) - first, first), start - first * each

  def halves(self, size: int, start: int = 0) -> Array:
    """float32[size] of whole numbers 0 … 65535: two from each word, the low half first."""
    words, skipped = self._words_of(size, start, 2)
    return self._xp.halves(words)[skipped:skipped + size]

  def dither(self, size: int, start: int = 0) -> Array:
    """float32[size], uniform on the open interval (0, 1): (half + 0.5) / 65536."""
    return (self.halves(size, start) + np.float32(0.5)) * np.float32(2.0**-16)

  def signs(self, size: int, start: int = 0) -> Array:
    """float32[size] of fair coins, 1 or -1: 32 from each word, most significant bit first."""
    words, skipped = self._words_of(size, start, 32)
    return self._xp.signs(words)[skipped:skipped + size]

  def few_signs(self, size: Scalar) -> Array:
    """The first `size` of `signs`, where that may be known only when a graph runs; at most 2^29, those of one key."""
    xp = self._xp
    words = xp.generate(functools.partial(x5, xp), self._key(0), 0, (size + 31) // 32)
    return xp.signs(words)[:size]


@dataclasses.dataclass(frozen=True)
class Rows:
  """A matrix of random numbers that are drawn when a slice of its rows is asked for; `by_rows` does that.

  Attributes:
    xp: operation table.
    draw: a method of `Stream`.
    rows, columns: its shape.
    start: position in the stream of its first number.
  """
  xp: Ops
  draw: Callable[[int, int], Array]
  rows: int
  columns: int
  start: int = 0

  def __getitem__(self, rows: slice) -> Array:
    first, stop, _ = rows.indices(self.rows)
    drawn = self.draw((stop - first) * self.columns, self.start + first * self.columns)
    return self.xp.reshape(drawn, [stop - first, self.columns])
