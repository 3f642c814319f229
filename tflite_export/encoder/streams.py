"""The streams of random numbers that a file draws from, in graphs; requests.py is what the app computes for them."""

from typing import Any

import numpy as np
import tensorflow as tf

from tff_compress.codec import random
from tflite_export.encoder.requests import Request


class Key:
  """What takes the place of a key while a graph is built.

  Attributes:
    words: int32[n], the first words of its stream; None while it is found out how many there must be.
    used: how many words were drawn.
  """

  def __init__(self, words: Any = None) -> None:
    self.words = words
    self.used = 0

  def draw(self, start: int, stop: int) -> Any:
    """int32[stop - start]: words start … stop - 1."""
    self.used = max(self.used, stop)
    if self.words is None:
      return tf.zeros([stop - start], tf.int32)
    return self.words if (start, stop) == (0, self.words.shape[0]) else self.words[start:stop]


class Recorder:
  """Finds out what a graph draws: answers every request with a key of its own."""

  def __init__(self) -> None:
    self._keys: dict[tuple[str, str, int, int], Key] = {}

  def key(self, scope: str, name: str, purpose: Any, chunk: Any) -> Any:
    return self._keys.setdefault((scope, name, purpose, chunk), Key())

  @property
  def requests(self) -> tuple:
    """Tuple of `Request`, in the order in which they came up; those that drew nothing are left out."""
    return tuple(Request(*request, key.used) for request, key in self._keys.items() if key.used)


class Words:
  """Answers the requests of a graph.

  Args:
    requests: tuple of `Request`.
    words: int32[request.words] for each of them.
  """

  def __init__(self, requests: Any, words: Any) -> None:
    self._keys = {(r.scope, r.name, r.purpose, r.chunk): Key(w) for r, w in zip(requests, words)}

  def key(self, scope: str, name: str, purpose: Any, chunk: Any) -> Any:
    # What nothing is drawn from has no words.
    return self._keys.get((scope, name, purpose, chunk)) or Key(tf.zeros([0], tf.int32))


def generate(xp: Any, requests: Any, keys: Any) -> list:
  """The words of all requests, computed at once.

  Each request takes whole rows of a matrix, so that the file holds the generator once and not once per stream.

  Args:
    xp: `TFLiteOps`.
    requests: tuple of `Request`.
    keys: int32[2 len(requests)], k0 and k1 of each.

  Returns:
    List with int32[request.words] for each request.
  """
  if not requests:
    return []
  longest = max(request.words for request in requests)
  columns = min(_COLUMNS, longest)
  rows = [-(-request.words // columns) for request in requests]
  # The request that each row belongs to (looked up, so that it stays as small a constant as it is), and the index of
  # the row's first word.
  owners = np.repeat(np.arange(len(requests)), rows).astype(np.uint8 if len(requests) <= 256 else np.int32)
  row = xp.iota(len(owners))
  owner = tf.cast(tf.gather(tf.constant(owners), row), tf.int32)
  starts = tf.constant(np.cumsum([0, *rows[:-1]]), tf.int32)
  first = (row - tf.gather(starts, owner)) * tf.constant(columns, tf.int32)
  pairs = tf.gather(tf.reshape(keys, [len(requests), 2]), owner)
  index = first[:, np.newaxis] + xp.iota(columns)[np.newaxis, :]
  words = tf.reshape(random.x5(xp, index, pairs[:, :1], pairs[:, 1:]), [-1])
  sizes = [size for count, request in zip(rows, requests) for size in (request.words, count * columns - request.words)]
  return tf.split(words, sizes)[::2]


_COLUMNS = 1024
