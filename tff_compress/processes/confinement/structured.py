"""Structured updates: training that changes only what will be sent.

The uplink's first stage projects on a random subspace, which is drawn anew for every round, and for every client
where its key says so: some of the coordinates (a mask), or matrices of low rank. Training is confined to that
subspace, so sending its coordinates loses nothing.

Source: Konecny et al. 2016, "Federated learning: strategies for improving communication efficiency", section 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
from typing import Any
from typing import ClassVar

import tensorflow as tf
import tensorflow_federated as tff

from tff_compress import codec as codec_lib
from tff_compress.codec import checks
from tff_compress.codec.spec import Spec
from tff_compress.codec.subspace import Subspace
from tff_compress.codec.transforms.subsample import Subsample
from tff_compress.processes.errors import ProcessError
from tff_compress.processes.protocols import ConfinedTraining
from tff_compress.processes.protocols import Confinement
from tff_compress.processes.up import messages as messages_lib
from tff_compress.tensorflow.messages import numbers_of

NORMALIZE = ('none', 'inverse_p', 'count')


@dataclasses.dataclass(frozen=True)
class Structured(Confinement):
  """Confines training to the random subspace of an uplink that begins with one.

  With 'subsample:1/16,key=client | float32' a client trains the coordinates of a mask, and the others stay as they are,
  exactly. With 'lowrank:1/4,key=client | float32' it trains B in W = W0 + V B from 0, where V has orthonormal columns
  and is fixed; the gradient of B is V^T times that of W. What it sends is B. What follows in the uplink is free.

  With p the share of the dimensions that the subspace has, V V^T is p I in the mean over subspaces.

  Attributes:
    normalize: 'none': the server adds what clients changed, as in the paper: the mean moves 1/p as slowly where each
      client has a subspace of its own. 'inverse_p': what arrives is multiplied by 1/p, as the codec does: one step of
      gradient descent then is the full step in the mean over subspaces. 'count', for masks: each coordinate is averaged
      over the clients that sent it; what nobody sent stays, so that of n clients' mean 1 - (1 - p)^n is expected.
  """
  conflicts: ClassVar[Mapping[str, str]] = {
      'error_feedback': 'structured updates lose nothing that error feedback could keep: leave one of the two out.'}

  normalize: str = 'none'

  def __post_init__(self):
    checks.one_of('structured: normalize', self.normalize, NORMALIZE, ProcessError)

  def confine(self, spec: Spec, trainable: int, steps: Sequence[tuple[int, Any]], downlink: Any,
              seed: int) -> ConfinedTraining:
    del downlink
    update_spec = codec_lib.Spec(spec.tensors[:trainable])
    check_uplink([codec.plan(update_spec) for _, codec in steps], self.normalize)
    return SubspaceTraining(messages_lib.messages(steps, update_spec, seed), self.normalize)


def check_uplink(plans, normalize):
  """Raises ProcessError where training cannot be confined to what is sent.

  Args:
    plans: list of `Plan`, one for each codec of a schedule.
    normalize: that of `Structured`.
  """
  if len(plans) > 1:
    raise ProcessError('structured updates need one uplink for all rounds, not a schedule.')
  stages = [segment.pipeline.stages for segment in plans[0].segments]
  first, later = [s[0] for s in stages], [stage for s in stages for stage in s[1:]]
  if not any(isinstance(s, Subspace) for s in first) or any(isinstance(s, Subspace) for s in later):
    raise ProcessError("structured updates need an uplink that begins with a random subspace, such as "
                       "'subsample:1/16,key=client | float32' or 'lowrank:1/4,key=client | float32', "
                       'and has no second one.')
  if normalize == 'count' and any(isinstance(s, Subspace) and not isinstance(s, Subsample) for s in first):
    raise ProcessError(
        "structured: normalize='count' counts who sent a coordinate, for which the uplink must begin with "
        "a mask, such as 'subsample:1/16,key=client | float32'.")


class SubspaceTraining(ConfinedTraining):
  """Training within the subspaces of an uplink.

  Args:
    messages: `MessageFunctions` of the uplink.
    normalize: that of `Structured`.
  """

  def __init__(self, messages, normalize):
    self.messages, self._normalize = messages, normalize
    self.coverage = functools.partial(coordinates_in, messages) if normalize == 'count' else None

  def optimizer(self, optimizer, round_number, client):
    return Confined(optimizer, self.messages.plan, self.messages.subspaces(round_number, client))

  def signal(self, update):
    if self._normalize == 'inverse_p':
      return update
    # The decoder multiplies by these.
    return [x / scale for x, scale in zip(update, scales(self.messages.plan))]


def coordinates_in(messages, frame):
  """Which coordinates a frame holds, where the subspaces are masks: 1 or 0 for each.

  Args:
    messages: `MessageFunctions` of the uplink.
    frame: uint8[n].

  Returns:
    List of float32 vectors as `messages.decode_to_prefixes` gives them.
  """
  found = []
  subspaces = messages.subspaces(*numbers_of(frame))
  for segment, subspace, (size, _) in zip(messages.plan.segments, subspaces, messages.prefix_types):
    # Where a round's clients share their mask, a prefix has the coordinates in it alone.
    if subspace is None or segment.pipeline.prefix:
      found.append(tf.ones([size]))
    else:
      found.append(subspace[1](tf.ones([segment.pipeline.signals(segment.size)[1].size])))
  return found


def scales(plan):
  """List of float, for each variable of the plan: what its codec multiplies by that lies in the subspace already."""
  found = [1.0] * len(plan.spec.tensors)
  for segment in plan.segments:
    stage = segment.pipeline.stages[0]
    if isinstance(stage, Subspace):
      of_each = stage.scales(segment.pipeline.signals(segment.size)[0])
      for i, position in enumerate(segment.tensors):
        found[position] = of_each[i % len(of_each)]
  return found


class Confined(tff.learning.optimizers.Optimizer):
  """An optimizer that moves weights within a subspace: W + V (b' - b), where it moves the coordinates b = V^T W to b'.

  Momentum, decay, clipping and whatever else it does is done with coordinates and their gradients. So it is the
  optimizer of B in W0 + V B, except that weight decay pulls the weights in the subspace towards 0 and not towards W0.

  Args:
    optimizer: `tff.learning.optimizers.Optimizer`.
    plan: `Plan` of the uplink for the weights.
    subspaces: for each of its segments (project, lift) as `Subspace.maps` gives them, or None for everything.
  """

  def __init__(self, optimizer, plan, subspaces):
    self._optimizer, self._plan, self._subspaces = optimizer, plan, subspaces

  def initialize(self, specs):
    del specs
    coordinates = []
    for segment in self._plan.segments:
      signals = segment.pipeline.signals(segment.size)
      inside = isinstance(segment.pipeline.stages[0], Subspace)
      coordinates.append(tf.TensorSpec([signals[inside].size], tf.float32))
    return self._optimizer.initialize(tuple(coordinates))

  @tf.autograph.experimental.do_not_convert
  def next(self, state, weights, gradients):
    vectors = self._vectors(weights)
    before = self._project(vectors)
    state, after = self._optimizer.next(state, before, self._project(self._vectors(gradients)))
    moved = [b if subspace is None else x + subspace[1](b - a)
             for subspace, x, a, b in zip(self._subspaces, vectors, before, after)]
    return state, tf.nest.pack_sequence_as(weights, self._tensors(moved))

  def _vectors(self, tensors):
    """A structure of tensors in the order of the spec -> list of one vector per segment."""
    flat = [tf.reshape(x, [-1]) for x in tf.nest.flatten(tensors)]
    return [tf.concat([flat[i] for i in segment.tensors], 0) for segment in self._plan.segments]

  def _tensors(self, vectors):
    """Inverse of `_vectors`."""
    tensors = {}
    for segment, vector in zip(self._plan.segments, vectors):
      specs = [self._plan.spec.tensors[i] for i in segment.tensors]
      for i, spec, piece in zip(segment.tensors, specs, tf.split(vector, [spec.size for spec in specs])):
        tensors[i] = tf.reshape(piece, spec.shape)
    return [tensors[i] for i in range(len(tensors))]

  def _project(self, vectors):
    return tuple(x if subspace is None else subspace[0](x) for subspace, x in zip(self._subspaces, vectors))

  def get_hparams(self, state):
    return self._optimizer.get_hparams(state)

  def set_hparams(self, state, hparams):
    return self._optimizer.set_hparams(state, hparams)
