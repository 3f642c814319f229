"""What the tests of single stages measure: errors and sizes of encoded vectors."""

import numpy as np

from tff_compress import codec as codec_lib
from tff_compress.codec.keys import Draws
from tff_compress.codec.keys import MessageKeys
from tff_compress.codec.ops import numpy_ops

NAME = 'x'


def decodes(text, x, draws, same_round=False):
  """Yields (decoded float64 vector, payload bytes) for clients 0 … draws - 1, a round each unless `same_round`."""
  codec = codec_lib(text)
  update = {NAME: x}
  for i in range(draws):
    keys = dict(seed=1, round=0 if same_round else i, client=i)
    payload = codec.encode(update, **keys)
    yield codec.decode(payload, update, **keys)[NAME].astype(np.float64), len(payload)


def nmse(text, x, draws=1):
  """Mean of ||x^ - x||^2 / ||x||^2 over keys."""
  norm = np.sum(x.astype(np.float64)**2)
  return np.mean([np.sum((decoded - x)**2) for decoded, _ in decodes(text, x, draws)]) / norm


def bits_per_value(text, x, draws=1):
  """Payload bits per value."""
  return np.mean([8 * length for _, length in decodes(text, x, draws)]) / x.size


def bias_ratio(text, x, draws):
  """n ||mean of n decodes - x||^2 / mean ||x^ - x||^2.

  1 where the errors are independent and unbiased, n where all are alike.
  """
  results = [decoded for decoded, _ in decodes(text, x, draws)]
  single = np.mean([np.sum((decoded - x)**2) for decoded in results])
  return draws * np.sum((np.mean(results, axis=0) - x)**2) / single


def draws_of(seed=1, round=0, client=0, name=NAME, occurrence=0, xp=numpy_ops):
  """The random streams of one stage."""
  return Draws(xp, MessageKeys(seed, round, client), name, occurrence)


def gaussian(size, seed=0):
  return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


def lognormal(size, seed=0, sigma=1.5):
  """Random signs, magnitudes exp(sigma N(0, 1)): heavy tails."""
  rng = np.random.default_rng(seed)
  return (np.exp(sigma * rng.standard_normal(size)) * rng.choice([-1, 1], size)).astype(np.float32)


def spikes(size):
  """Two values, the rest zero."""
  x = np.zeros(size, np.float32)
  x[size // 7], x[size // 2] = 1, -0.7
  return x
