"""Key derivation inside a graph; the keys are those of `tff_compress.codec.random.derive_key`."""

from collections.abc import Sequence
import struct

import numpy as np
import tensorflow as tf

from tff_compress.tensorflow import sha256


class GraphKeys:
  """The keys of one message whose round and client are tensors.

  Args:
    needed: list of (scope, name, purpose, chunk), each once.
    seed: session seed, an int.
    round: int32 scalar tensor holding the 32 bits of the round number.
    client: int32 scalar tensor holding the 32 bits of the client number.

  Attributes:
    words: int32[m, 2], all keys, in the order of `needed`.
  """

  def __init__(self, needed: Sequence[tuple[str, str, int, int]], seed: int, round: tf.Tensor,
               client: tf.Tensor) -> None:
    self._position = {request: i for i, request in enumerate(needed)}
    self.words = tf.zeros([0, 2], tf.int32)
    if not needed:
      return
    count = len(needed)
    head = np.tile(np.frombuffer(b'TFFCPRNG1' + struct.pack('<Q', seed), np.uint8), (count, 1))
    tails = []
    for _, name, purpose, chunk in needed:
      text = name.encode('utf-8')
      tails.append(struct.pack('<BIH', purpose, chunk, len(text)) + text)
    longest = max(map(len, tails))
    tail = np.stack([np.frombuffer(t.ljust(longest, b'\0'), np.uint8) for t in tails])
    own = tf.constant([scope == 'client' for scope, *_ in needed])
    clients = tf.where(own, client, tf.constant(-1, tf.int32))
    messages = tf.concat([tf.constant(head), tf.bitcast(tf.fill([count], round), tf.uint8),
                          tf.bitcast(clients, tf.uint8), tf.constant(tail)], axis=1)
    self.words = sha256.digest_words(messages, [head.shape[1] + 8 + len(t) for t in tails])

  @classmethod
  def of_words(cls, needed: Sequence[tuple[str, str, int, int]], words: tf.Tensor) -> 'GraphKeys':
    """The keys with these `words`, which were derived elsewhere for the same `needed`."""
    keys = cls.__new__(cls)
    keys._position, keys.words = {request: i for i, request in enumerate(needed)}, words
    return keys

  def key(self, scope: str, name: str, purpose: int, chunk: int) -> tf.Tensor:
    """int32[2], one of the needed keys."""
    return self.rows([name], [(scope, purpose, chunk)])[0, 0]

  def rows(self, names: Sequence[str], requests: Sequence[tuple[str, int, int]]) -> tf.Tensor:
    """int32 [m, n, 2]: the keys of n requests (scope, purpose, chunk) for each of m names."""
    if not requests:
      return tf.zeros([len(names), 0, 2], tf.int32)
    return tf.gather(self.words, [[self._position[scope, name, purpose, chunk] for scope, purpose, chunk in requests]
                                  for name in names])
