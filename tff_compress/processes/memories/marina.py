"""MARINA: messages say how a client's update differs from its last one, and now and then all of it.

TensorFlow is imported when the server's part is built.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
import dataclasses
from typing import Any
from typing import ClassVar

import numpy as np

from tff_compress.codec import checks
from tff_compress.codec.codec import Codec
from tff_compress.codec.spec import Spec
from tff_compress.processes import coins
from tff_compress.processes import needs
from tff_compress.processes.errors import ProcessError
from tff_compress.processes.protocols import JointMemory
from tff_compress.processes.protocols import ServerFunctions


@dataclasses.dataclass(frozen=True)
class Marina(JointMemory):
  """Compressed differences of updates, around an unbiased codec C.

  With u a client's update, v its update of the round before, n the number of clients, and G what the server keeps:

      in the first round, and where the round's coin shows heads:  send u as float32;  G = mean of all u
      in other rounds:                                             send C(u - v);      G += (sum of what arrives) / n

  The model moves by G. Given all that was before, the mean of G over the codec's random numbers is, in a round of
  differences, G before plus the mean of all u - v. So what G is off by stays until the next whole round, and each round
  of differences adds to its mean square at most w / n^2 times the sum of all ||u - v||^2, where ||C(x) - x||^2 is at
  most w ||x||^2 in the mean, and clients draw random numbers of their own.

  A client whose update is not finite sends nothing and keeps v: what it sends next is the difference to that. Where it
  misses a whole round, the mean is that of the others, and until the next whole round G is also off by the 1/n-th of
  how its v differs from theirs.

  Source: Gorbunov, Burlachenko, Li and Richtárik 2021, "MARINA: Faster non-convex distributed learning with
  compression", algorithm 1, with a client's update in place of its gradient.

  Attributes:
    p: probability of heads, above 0 and at most 1.
  """
  slots: ClassVar[tuple[str, ...]] = ('last',)
  needs: ClassVar[tuple[needs.Need, ...]] = (needs.ALL_CLIENTS, needs.EQUAL_WEIGHTS)
  conflicts = {**JointMemory.conflicts,
               'relevance': 'MARINA needs every difference: leave relevance out, or use another method.'}

  p: float = 1 / 16

  def __post_init__(self):
    checks.number('marina: p', self.p, ProcessError, above=0, most=1)

  def signal(self, xp, memory, update, turn):
    kept = np.float32(1) - xp.cast(_is_whole(xp, turn.coin(self.p), turn.number), np.float32)
    return [u - kept * v for u, v in zip(update, memory['last'])]

  def settle(self, xp, memory, update, decoded, turn):
    return {'last': update}

  def build(self, steps: Sequence[tuple[int, Any]], spec: Spec, seed: int) -> ServerFunctions:
    """`ServerFunctions`. Raises ProcessError where `codec_of` does."""
    return _Server(self.p, self.codec_of(steps), spec, seed)

  def codec_of(self, steps: Sequence[tuple[int, Any]]) -> Codec:
    """The one `Codec` of a schedule. Raises ProcessError where there are several, or it is biased."""
    if len(steps) > 1:
      raise ProcessError('MARINA has one codec for differences, not a schedule.')
    codec = steps[0][1]
    if not all(rule.pipeline.unbiased for rule in codec.rules):
      raise ProcessError(f'MARINA needs an unbiased codec, such as qsgd or int8; {str(codec)!r} is biased.')
    return codec


def _is_whole(xp, heads, number):
  """int32 scalar, 1 in rounds in which updates are sent as they are, else 0."""
  return xp.maximum(xp.cast(heads, np.int32), xp.cast(xp.equal(number, 0), np.int32))


class _Server(ServerFunctions):

  def __init__(self, p, codec, spec, seed):
    from tff_compress.processes.up.messages import ChosenMessages
    from tff_compress.tensorflow.ops import TensorFlowOps
    self._is_whole = lambda number: _is_whole(TensorFlowOps(), coins.coin_in_graph(seed, number, p), number)
    self.messages = ChosenMessages([codec, 'float32'], spec, seed, self._is_whole)

  def initial(self):
    """OrderedDict of `mean`, G."""
    import tensorflow as tf
    return collections.OrderedDict(mean=[tf.zeros(tensor.shape) for tensor in self.messages.spec.tensors])

  def mean(self, total, accumulator, round_number):
    """The mean of the updates that arrived, or of the differences of all."""
    import tensorflow as tf
    return tf.cond(self._is_whole(round_number) > 0, lambda: total.mean(accumulator, round_number),
                   lambda: self.mean_of_all(total, accumulator, round_number))

  def step(self, state, mean, round_number):
    import tensorflow as tf
    kept = 1 - tf.cast(self._is_whole(round_number), tf.float32)
    mean = [kept * before + x for before, x in zip(state['mean'], mean)]
    return collections.OrderedDict(mean=mean), mean
