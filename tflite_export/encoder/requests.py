"""The keys and words that a file asks the app for, in NumPy; streams.py is what the file does with them."""

from collections.abc import Sequence
import dataclasses

import numpy as np
import numpy.typing as npt

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


def derive(requests: Sequence[Request], *, seed: int, round: int, client: int) -> np.ndarray:
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


def draw(request: Request, key: npt.ArrayLike) -> np.ndarray:
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
