"""CRC-32 of a byte string, in stock TensorFlow operations.

A message is a polynomial over two elements, its CRC the rest after a division by the CRC's polynomial P. A long message
is first reduced by a sparse multiple of P, which takes three shifted exclusive-ors of whole words; what is left is
summed up from tables, as every byte adds a value that depends only on it and on its place.
"""

import numpy as np
import tensorflow as tf

_POLYNOMIAL = 0xEDB88320

# P divides x^7732 + x^1113 + x^138 + 1, found by search; as squaring keeps the number of terms, it also divides the
# same sum with all exponents times 32 scale, for every power of two `scale`: then they count words.
_DEGREE = 7732
_LOWER = (1113, 138, 0)
_LARGEST_SCALE = 1 << 15

# Entries that one step of the summing combines, and steps: together more bytes than the reduction leaves.
_FAN = 64
_LEVELS = 3


def crc32(payload: tf.Tensor) -> tf.Tensor:
  """The CRC-32 of zlib, gzip and java.util.zip of uint8[n], n at least 4, as an int32 scalar."""
  head = tf.bitwise.invert(payload[:4])
  # Zeros before the beginning change nothing.
  payload = tf.concat([tf.zeros([(-tf.size(payload)) % 4], tf.uint8), head, payload[4:]], 0)
  words = _reduced(tf.bitcast(tf.reshape(payload, [-1, 4]), tf.int32))
  values = tf.cast(tf.reshape(tf.bitcast(words, tf.uint8), [-1]), tf.int32)
  levels, reach = 1, _FAN
  while reach < (payload.shape[0] or 4 * _DEGREE) and levels < _LEVELS:
    levels, reach = levels + 1, reach * _FAN
  for level in range(levels):
    values = _summed(values, level)
  return tf.bitwise.invert(values[0])


def _reduced(words: tf.Tensor) -> tf.Tensor:
  """int32 words, the first of the highest degree -> the last _DEGREE words or fewer, with the same remainder."""
  def fold(scale: tf.Tensor, words: tf.Tensor) -> tf.Tensor:
    """Replaces as many of the first words as reach only words behind them."""
    count = tf.minimum(tf.size(words) - _DEGREE * scale, (_DEGREE - _LOWER[0]) * scale)
    first, rest = words[:count], words[count:]
    # The places where they are added lie close together: one window holds them all.
    window = tf.pad(first, [[0, _LOWER[0] * scale]])
    for lower in _LOWER[1:]:
      window = tf.bitwise.bitwise_xor(window, tf.pad(first, [[(_LOWER[0] - lower) * scale, lower * scale]]))
    start = (_DEGREE - _LOWER[0]) * scale - count
    stop = start + tf.size(window)
    return tf.concat([rest[:start], tf.bitwise.bitwise_xor(rest[start:stop], window), rest[stop:]], 0)

  def step(scale: tf.Tensor, words: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.cond(tf.size(words) > _DEGREE * scale, lambda: (scale, fold(scale, words)), lambda: (scale // 2, words))

  scale = _LARGEST_SCALE
  while words.shape[0] is not None and scale > 1 and _DEGREE * scale >= words.shape[0]:
    scale //= 2
  _, words = tf.while_loop(lambda _, words: tf.size(words) > _DEGREE, step, (tf.constant(scale), words),
                           shape_invariants=(tf.TensorShape([]), tf.TensorShape([None])))
  return words


def _advance(values: np.ndarray, zero_bytes: int) -> np.ndarray:
  """uint32 CRC states after `zero_bytes` more zero bytes."""
  for _ in range(8 * zero_bytes):
    values = np.where(values & 1, (values >> 1) ^ np.uint32(_POLYNOMIAL), values >> 1).astype(np.uint32)
  return values


def _build_tables() -> list[np.ndarray]:
  """Per level, int32 [_FAN, digits, 8]: what each bit of byte `digit` adds when the columns behind it follow."""
  def apply(images: np.ndarray, values: np.ndarray) -> np.ndarray:
    bits = (values[..., None] >> np.arange(32, dtype=np.uint32)) & 1
    return np.bitwise_xor.reduce(np.where(bits == 1, images, 0).astype(np.uint32), axis=-1)

  byte = np.uint32(1) << np.arange(8, dtype=np.uint32)
  step = _advance(np.uint32(1) << np.arange(32, dtype=np.uint32), 1)
  tables = []
  for level in range(_LEVELS):
    # At the first level a byte enters the register and is shifted through; higher levels combine registers of 4 bytes.
    columns = [apply(step, byte)[None] if level == 0 else np.stack([byte << np.uint32(8 * k) for k in range(4)])]
    for _ in range(_FAN - 1):
      columns.append(apply(step, columns[-1]))
    tables.append(np.stack(columns[::-1]).view(np.int32))
    images = step
    for _ in range(_FAN - 1):
      images = apply(step, images)
    step = images
  return tables


_tables: list[np.ndarray] = []


def _of_bytes(table: np.ndarray) -> tf.Tensor:
  """int32 [_FAN, digits, 8] of the bits -> int32 [_FAN digits 256] of the values of a byte: made where the graph runs,
  and once there, as whole tables would be sent to TFF's workers in each round."""
  bits = tf.constant(table.reshape(-1, 8))
  values = tf.zeros([bits.shape[0], 1], tf.int32)
  for bit in range(8):
    values = tf.concat([values, tf.bitwise.bitwise_xor(values, bits[:, bit:bit + 1])], 1)
  return tf.reshape(values, [-1])


def _summed(values: tf.Tensor, level: int) -> tf.Tensor:
  """Combines every _FAN entries, counted from the end, to one."""
  if not _tables:
    _tables.extend(_build_tables())
  table = _tables[level]
  values = tf.concat([tf.zeros([(-tf.shape(values)[0]) % _FAN], tf.int32), values], 0)
  rows = tf.reshape(values, [-1, _FAN])
  flat = _of_bytes(table)
  digits = table.shape[1]
  offsets = np.arange(_FAN, dtype=np.int32) * digits * 256
  total = tf.zeros([], tf.int32)
  for digit in range(digits):
    byte = rows
    if digits > 1:
      shifted = tf.bitwise.right_shift(tf.bitcast(rows, tf.uint32), tf.constant(8 * digit, tf.uint32))
      byte = tf.bitcast(tf.bitwise.bitwise_and(shifted, tf.constant(255, tf.uint32)), tf.int32)
    total = tf.bitwise.bitwise_xor(tf.gather(flat, byte + (offsets + digit * 256)), total)
  width = _FAN
  while width > 1:
    width //= 2
    total = tf.bitwise.bitwise_xor(total[:, :width], total[:, width:])
  return total[:, 0]
