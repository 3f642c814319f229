"""The streams of random numbers that an encoder or decoder draws from, and what the app computes for them."""

import dataclasses

import numpy as np
import tensorflow as tf

from tff_compress.codec import keys as keys_lib
from tff_compress.codec import random
from tff_compress.codec.ops import numpy_ops
from tflite_export.errors import ExportError


@dataclasses.dataclass(frozen=True)
class Request:
  """One key that a file asks for.

  Attributes:
    scope: 'round' for a key that all clients of the round share (client number 2^32-1), 'client' for the client's own.
    name: name of the segment.
    purpose: number of the purpose.
    chunk: number of the chunk.
    words: how many words are drawn with it, from word 0 on.
  """
  scope: str
  name: str
  purpose: int
  chunk: int
  words: int = 0


class Key:
  """What takes the place of a key while a graph is built.

  Attributes:
    k0, k1: int32 scalars, or None where words are passed in.
    words: int32[n] where words are passed in, otherwise None.
    used: how many words were drawn.
  """

  def __init__(self, k0=None, k1=None, words=None):
    self.k0, self.k1, self.words = k0, k1, words
    self.used = 0

  def use(self, stop):
    self.used = max(self.used, stop)


class Recorder:
  """Finds out what a graph draws: answers every request with a key of its own."""

  def __init__(self):
    self._keys = {}

  def key(self, scope, name, purpose, chunk):
    zero = tf.zeros([], tf.int32)
    return self._keys.setdefault((scope, name, purpose, chunk), Key(zero, zero))

  @property
  def requests(self):
    """Tuple of `Request`, in the order in which they came up; those that drew nothing are left out."""
    return tuple(Request(*request, words=key.used) for request, key in self._keys.items() if key.used)


class Inputs:
  """Answers the requests of a graph from its inputs.

  Args:
    requests: tuple of `Request`.
    keys: int32 [len(requests), 2], or None where words are passed in.
    words: list with int32[request.words] for each request, or None.
  """

  def __init__(self, requests, keys=None, words=None):
    if words is None:
      scalars = tf.unstack(tf.reshape(keys, [-1])) if requests else []
      made = [Key(k0, k1) for k0, k1 in zip(scalars[::2], scalars[1::2])]
    else:
      made = [Key(words=w) for w in words]
    self._keys = {(r.scope, r.name, r.purpose, r.chunk): key for r, key in zip(requests, made)}

  def key(self, scope, name, purpose, chunk):
    # What was never drawn from has no input.
    return self._keys.get((scope, name, purpose, chunk)) or Key()


def derive(requests, *, seed, round, client):
  """The keys that a file asks for, as an app derives them (docs/random-numbers.md).

  Args:
    requests: sequence of `Request`.
    seed, round, client: as for `Codec.encode`.

  Returns:
    numpy int32 [len(requests), 2]
  """
  keys = keys_lib.MessageKeys(seed, round, client)
  rows = [keys.key(r.scope, r.name, r.purpose, r.chunk) for r in requests]
  return np.stack(rows) if rows else np.zeros((0, 2), np.int32)


def draw(request, key):
  """The words that are passed in for one request.

  Args:
    request: a `Request`.
    key: int32[2], its row of `derive`.

  Returns:
    numpy int32[request.words]
  """
  if not 0 < request.words <= random.WORDS_PER_KEY:
    raise ExportError(f'a key draws 1 … {random.WORDS_PER_KEY} words, not {request.words}.')
  with np.errstate(over='ignore'):
    return numpy_ops.generate(lambda *arguments: random.x5(numpy_ops, *arguments), key, 0, request.words)
