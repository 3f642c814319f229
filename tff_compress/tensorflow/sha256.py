"""SHA-256 of many short messages at once, in stock TensorFlow operations.

Keys are derived with SHA-256. On a phone or a server the host does that; a simulated client has only its graph. All
messages of a client are hashed side by side, so the cost is that of one.
"""

import math

import numpy as np
import numpy.typing as npt
import tensorflow as tf


def _fractional_bits(root: int) -> list[int]:
  """First 32 bits of the fractional parts of the roots of the first 64 primes."""
  primes = [n for n in range(2, 312) if all(n % k for k in range(2, n))]
  if root == 2:
    return [math.isqrt(p << 64) & 0xFFFFFFFF for p in primes]
  values = []
  for prime in primes:
    low, high = 0, 1 << 40
    while high - low > 1:
      middle = (low + high) // 2
      low, high = (middle, high) if middle**3 <= prime << 96 else (low, middle)
    values.append(low & 0xFFFFFFFF)
  return values


_INITIAL = np.asarray(_fractional_bits(2)[:8], np.uint32)
_ROUND = np.asarray(_fractional_bits(3), np.uint32)


def digest_words(messages: tf.Tensor, lengths: npt.ArrayLike) -> tf.Tensor:
  """First two words of SHA-256.

  Args:
    messages: uint8 [n, longest], each zero-filled behind its end.
    lengths: numpy int [n], bytes of each message.

  Returns:
    int32 [n, 2]: digest bytes 0–3 and 4–7 read as little-endian integers.
  """
  lengths = np.asarray(lengths)
  blocks = (lengths + 8) // 64 + 1
  padding = np.zeros((len(lengths), int(blocks.max()) * 64), np.uint8)
  for row, (length, count) in enumerate(zip(lengths, blocks)):
    padding[row, length] = 0x80
    padding[row, count * 64 - 8:count * 64] = np.frombuffer(int(length * 8).to_bytes(8, 'big'), np.uint8)
  filled = tf.pad(messages, [[0, 0], [0, padding.shape[1] - int(messages.shape[1])]])
  filled = tf.bitwise.bitwise_or(filled, tf.constant(padding))
  big_endian = tf.reverse(tf.reshape(filled, [len(lengths), -1, 4]), [-1])
  words = tf.transpose(tf.bitcast(big_endian, tf.uint32))
  state = [tf.fill([len(lengths)], value) for value in _INITIAL]
  for block in range(int(blocks.max())):
    following = _compress(state, words[16 * block:16 * block + 16])
    state = [tf.where(tf.constant(blocks > block), new, old) for new, old in zip(following, state)]
  result = tf.bitcast(tf.stack(state[:2], axis=-1), tf.uint8)
  return tf.bitcast(tf.reverse(result, [-1]), tf.int32)


# With x written twice side by side and shifted right, the low 32 bits are x rotated right.
def _shifts(*pairs: tuple[int, int, int]) -> tf.Tensor:
  """uint64 [3, pairs, 1] from one triple of rotations per stacked word."""
  return tf.constant(np.asarray(pairs, np.uint64).T[:, :, None])


def _rotations(x: tf.Tensor, shifts: tf.Tensor) -> tf.Tensor:
  """Exclusive-or of three rotations of each word of uint32 [k, n]; one operation serves all words and rotations."""
  doubled = tf.cast(x, tf.uint64) * tf.constant((1 << 32) + 1, tf.uint64)
  one, two, three = tf.unstack(tf.bitwise.right_shift(doubled, shifts))
  return tf.cast(tf.bitwise.bitwise_xor(tf.bitwise.bitwise_xor(one, two), three), tf.uint32)


def _schedule(x: tf.Tensor, first: int, second: int, shift: int) -> tf.Tensor:
  """Exclusive-or of two rotations and a shift of uint32 [k, n]."""
  doubled = tf.cast(x, tf.uint64) * tf.constant((1 << 32) + 1, tf.uint64)
  one, two = tf.unstack(tf.bitwise.right_shift(doubled, tf.constant([[[first]], [[second]]], tf.uint64)))
  rotated = tf.cast(tf.bitwise.bitwise_xor(one, two), tf.uint32)
  return tf.bitwise.bitwise_xor(rotated, tf.bitwise.right_shift(x, tf.constant(shift, tf.uint32)))


# Rounds that one pass of the loop holds: a graph of all 64 would take seconds to build and to optimise.
_UNROLLED = 8


def _compress(state: list[tf.Tensor], words: tf.Tensor) -> list[tf.Tensor]:
  """One block: state is a list of 8 uint32 [n], words uint32 [16, n]."""
  constants = tf.constant(_ROUND[:, None])
  both = _shifts((2, 13, 22), (6, 11, 25))

  def body(i: tf.Tensor, window: tf.Tensor, *state: tf.Tensor) -> tuple[tf.Tensor, ...]:
    a, b, c, d, e, f, g, h = state
    for word in tf.unstack(window[:_UNROLLED] + constants[i:i + _UNROLLED], num=_UNROLLED):
      of_a, of_e = tf.unstack(_rotations(tf.stack([a, e]), both))
      choose = tf.bitwise.bitwise_xor(g, tf.bitwise.bitwise_and(e, tf.bitwise.bitwise_xor(f, g)))
      majority = tf.bitwise.bitwise_xor(
          tf.bitwise.bitwise_and(a, b), tf.bitwise.bitwise_and(c, tf.bitwise.bitwise_xor(a, b)))
      one = h + of_e + choose + word
      a, b, c, d, e, f, g, h = one + of_a + majority, a, b, c, d + one, e, f, g
    # A word depends on the one two places before it: two can be made at once.
    known = window[:_UNROLLED] + _schedule(window[1:_UNROLLED + 1], 7, 18, 3)
    for j in range(0, _UNROLLED, 2):
      pair = known[j:j + 2] + window[j + 9:j + 11] + _schedule(window[j + 14:j + 16], 17, 19, 10)
      window = tf.concat([window, pair], 0)
    return (i + _UNROLLED, window[_UNROLLED:], a, b, c, d, e, f, g, h)

  result = tf.while_loop(lambda i, *_: i < 64, body, (tf.constant(0), words, *state))
  return [old + new for old, new in zip(state, result[2:])]
