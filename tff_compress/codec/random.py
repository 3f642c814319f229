"""Counter-based random numbers: generator X5, its key derivation, and what stages draw from it.

Every random choice in a payload is a pure function of (session seed, round, client, tensor, purpose). The full
specification with test vectors is docs/random-numbers.md; the tests hold this file to those vectors.

The generator is not cryptographic: it must never make masks for secure aggregation or noise for privacy.
"""

import enum
import hashlib
import struct

import numpy as np

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


def derive_key(seed, round, client, name, purpose, chunk=0):
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


def signed(word):
  """A 32-bit constant as the int32 with the same bits."""
  return word - (1 << 32) if word >= 1 << 31 else word


def x5(xp, index, k0, k1):
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

  Args:
    xp: operation table.
    key: function chunk -> int32[2] key.
  """

  def __init__(self, xp, key):
    self._xp = xp
    self._key = key

  def words(self, size):
    """int32[size]: words 0 … size-1 of the stream."""
    xp = self._xp
    parts = []
    for chunk, start in enumerate(range(0, size, WORDS_PER_KEY)):
      key = self._key(chunk)
      count = min(WORDS_PER_KEY, size - start)
      parts.append(xp.generate(lambda index, key=key: x5(xp, index, key[0], key[1]), count))
    if not parts:
      return xp.zeros([0], np.int32)
    return parts[0] if len(parts) == 1 else xp.concat(parts)

  def halves(self, size):
    """float32[size] of whole numbers 0 … 65535: two from each word, the low half first."""
    return self._xp.halves(self.words((size + 1) // 2))[:size]

  def dither(self, size):
    """float32[size], uniform on the open interval (0, 1): (half + 0.5) / 65536."""
    xp = self._xp
    words = xp.reshape(self.words((size + 1) // 2), [-1, 1])
    dither, = xp.by_rows(lambda words: ((xp.halves(words) + np.float32(0.5)) * np.float32(2.0**-16),), words)
    return xp.reshape(dither, [-1])[:size]

  def signs(self, size):
    """int32[size] whose top bit is a fair coin: 32 from each word, most significant bit first."""
    xp = self._xp
    words = xp.reshape(self.words((size + 31) // 32), [-1, 1])
    powers = xp.constant([signed(1 << j) for j in range(32)], np.int32)
    return xp.reshape(words * powers, [-1])[:size]
