"""EF21: each client and the server keep an estimate of its update, and messages say what it is off by.

TensorFlow is imported when the server's part is built.
"""

from __future__ import annotations

import collections
from collections.abc import Sequence
import dataclasses
from typing import Any
from typing import ClassVar

from tff_compress.codec.spec import Spec
from tff_compress.processes import needs
from tff_compress.processes.errors import ProcessError
from tff_compress.processes.protocols import JointMemory
from tff_compress.processes.protocols import ServerFunctions


@dataclasses.dataclass(frozen=True)
class Ef21(JointMemory):
  """Error feedback of differences, around a contractive codec C.

  With u a client's update, g its estimate of it, G the server's mean of all clients' estimates, n their number and c
  what a client's message decodes to, all of 0 at first:

      send C(u - g);  g += c                on each client
      G += (sum of all c) / n               on the server; the model moves by G

  So G is the mean of all g, whatever the updates are. Where C loses at most the share 1 - a of the energy of what it is
  given, as top-k does with a = k / d, an estimate of an update that does not change is off by at most sqrt(1 - a)^t of
  it after t messages. A client whose update is not finite sends nothing: its c is 0.

  Source: Richtárik, Sokolov and Fatkhullin 2021, "EF21: A new, simpler, theoretically better, and practically faster
  error feedback", algorithm 2, with a client's update in place of its gradient.
  """
  slots: ClassVar[tuple[str, ...]] = ('estimate',)
  needs: ClassVar[tuple[needs.Need, ...]] = (needs.ALL_CLIENTS, needs.EQUAL_WEIGHTS)

  def signal(self, xp, memory, update, turn):
    return [u - g for u, g in zip(update, memory['estimate'])]

  def settle(self, xp, memory, update, decoded, turn):
    return {'estimate': [g + c for g, c in zip(memory['estimate'], decoded)]}

  def build(self, steps: Sequence[tuple[int, Any]], spec: Spec, seed: int) -> ServerFunctions:
    """`ServerFunctions`. Raises ProcessError where a codec does not say that it is contractive."""
    from tff_compress.processes.up import messages
    for _, codec in steps:
      for segment in codec.plan(spec).segments:
        bound = segment.pipeline.nmse_bound(segment.size)
        if bound is None or bound >= 1:
          raise ProcessError('EF21 needs a codec that never loses all of what it is given, such as ef-topk; '
                             f'{str(codec)!r} does not say that of itself.')
    return _Server(messages.messages(steps, spec, seed))


class _Server(ServerFunctions):

  def __init__(self, messages):
    self.messages = messages

  def initial(self):
    """OrderedDict of `estimate`, G."""
    import tensorflow as tf
    return collections.OrderedDict(estimate=[tf.zeros(tensor.shape) for tensor in self.messages.spec.tensors])

  def mean(self, total, accumulator, round_number):
    return self.mean_of_all(total, accumulator, round_number)

  def step(self, state, mean, round_number):
    estimate = [g + c for g, c in zip(state['estimate'], mean)]
    return collections.OrderedDict(estimate=estimate), estimate
