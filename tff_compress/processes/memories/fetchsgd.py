"""FetchSGD: clients send sketches, and the server remembers in their stead what is not applied yet."""

import collections
from collections.abc import Sequence
import dataclasses
from typing import Any

import tensorflow as tf

from tff_compress import codec as codec_lib
from tff_compress.codec import checks
from tff_compress.codec import random
from tff_compress.codec.spec import Spec
from tff_compress.processes.errors import ProcessError
from tff_compress.processes.protocols import ServerFunctions
from tff_compress.processes.protocols import ServerMemory
from tff_compress.tensorflow import MessageFunctions


@dataclasses.dataclass(frozen=True)
class FetchSgd(ServerMemory):
  """Momentum and error feedback on the server, in the space of sums of messages, for clients that are seen once.

  With S the mean of the clients' messages before the codec's linear part is undone, such as their sketches, for the
  codec 'countsketch:1/5 | float32':

      U = m U + S;  E += U;  D = top(unsketch(E));  E -= sketch(D);  the model moves by D

  Keys that the messages of a round share are those of round 0 in every round, so that sums of different rounds add up.

  Source: Rothchild et al. 2020, "FetchSGD: communication-efficient federated learning with sketching".

  Attributes:
    keep: `Codec` or its text, top: what a round applies of what has come together.
    momentum: m, 0 … below 1.
    masking: with momentum, whether U is emptied where D is not 0.
  """
  keep: Any
  momentum: float = 0.9
  masking: bool = True

  def __post_init__(self):
    object.__setattr__(self, 'keep', codec_lib(self.keep))
    checks.number('FetchSGD: momentum', self.momentum, ProcessError, least=0, below=1)
    checks.boolean('FetchSGD: masking', self.masking, ProcessError)

  def build(self, steps: Sequence[tuple[int, Any]], spec: Spec, seed: int) -> ServerFunctions:
    """`FetchServer` for a schedule of codecs. Raises ProcessError where there are several."""
    if len(steps) > 1:
      raise ProcessError('FetchSGD adds up messages of different rounds: use one codec for all.')
    return FetchServer(self, MessageFunctions(steps[0][1], spec, seed))


class FetchServer(ServerFunctions):
  """What server and clients compute, in functions to be called while a graph is built.

  Args:
    fetch: `FetchSgd`.
    messages: `MessageFunctions` of the uplink.
  """

  def __init__(self, fetch, messages):
    self._fetch, self.messages = fetch, messages
    self._keep = MessageFunctions(fetch.keep, messages.spec, messages.seed)

  def initial(self):
    """OrderedDict of lists of vectors: momentum (U) and error (E)."""
    zeros = lambda: [tf.zeros([size], tf.as_dtype(dtype)) for size, dtype in self.messages.prefix_types]
    return collections.OrderedDict(momentum=zeros(), error=zeros())

  def message_round(self, round_number):
    # As messages of all rounds are added up, they have the keys of one.
    return tf.zeros_like(round_number)

  def mean(self, total, accumulator, round_number):
    return total.prefixes_mean(accumulator, self.message_round(round_number))

  def step(self, state, mean, round_number):
    """One round.

    Args:
      state: as `initial` gives it.
      mean: S, list of vectors.
      round_number: int32 scalar.

    Returns:
      (state, D as a list of tensors in the order and shapes of the spec).
    """
    fetch = self._fetch
    momentum = [fetch.momentum * u + s for u, s in zip(state['momentum'], mean)]
    error = [e + u for e, u in zip(state['error'], momentum)]
    applied = self._keep.decode(self._keep.encode(self._read(error), round_number, self._shared))
    error = [e - s for e, s in zip(error, self._sketch(applied))]
    if fetch.momentum and fetch.masking:
      found = [tf.where(tf.equal(d, 0), 0.0, u) for d, u in zip(applied, self._read(momentum))]
      momentum = [u - s for u, s in zip(momentum, self._sketch(found))]
    return collections.OrderedDict(momentum=momentum, error=error), applied

  @property
  def _shared(self):
    return tf.constant(random.signed(random.SHARED_CLIENT), tf.int32)

  def _read(self, vectors):
    return self.messages.decode_prefixes(vectors, tf.constant(0, tf.int32))

  def _sketch(self, arrays):
    return self.messages.decode_to_prefixes(self.messages.encode(arrays, tf.constant(0, tf.int32), self._shared))
