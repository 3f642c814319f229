"""Federated dropout: in each round, each client trains a model with fewer units in its hidden layers than the server's.

Which units it keeps is drawn from a key, so that nothing is sent but the sub-model's variables, packed: down, the
weights that join units that are kept, and up, what training changed in them. Inputs and outputs stay.

No second architecture is needed. A client trains the model as it is, with 0 in all places that belong to a unit left
out, and leaves these as they are. Such a unit passes on nothing, as the weights that read it are 0, and no gradient
reaches what is before it. So the rest trains exactly as a model of the smaller size would.

Source: Caldas et al. 2018, "Expanding the reach of federated learning by reducing client resource requirements".
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any
from typing import ClassVar

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_compress import codec as codec_lib
from tff_compress.codec import checks
from tff_compress.codec import keys as keys_lib
from tff_compress.codec import random
from tff_compress.codec.spec import Spec
from tff_compress.processes.confinement.units import ALWAYS
from tff_compress.processes.confinement.units import Units
from tff_compress.processes.errors import ProcessError
from tff_compress.processes.protocols import ConfinedTraining
from tff_compress.processes.protocols import Confinement
from tff_compress.processes.up import messages as messages_lib
from tff_compress.tensorflow import MessageFunctions
from tff_compress.tensorflow.keys import GraphKeys
from tff_compress.tensorflow.messages import numbers_of
from tff_compress.tensorflow.ops import TensorFlowOps


def _one_model_in_all_rounds(name):
  return ('federated dropout gives a client another sub-model in every round, which does not go with '
          f'{name}: leave one of the two out.')


@dataclasses.dataclass(frozen=True)
class FederatedDropout(Confinement):
  """Sub-models for `build_fed_avg(structured=…)`.

  A hidden layer of n units keeps max(1, round(keep n)) of them, another uniform choice for every round and client. The
  server divides what it receives for a coordinate by the weight of the clients that had it; a coordinate that nobody
  had stays.

  Attributes:
    units: `Units`, or the Keras model that clients train, of which they are found. Its weights do not matter.
    keep: share of the units that is kept, above 0, at most 1.
    whole: names of layers whose units are all kept. Layers that mix their units (softmax, normalization over units,
      attention) need those before them to be.
  """
  conflicts: ClassVar[Mapping[str, str]] = {
      'error_feedback': _one_model_in_all_rounds('error_feedback'),
      'relevance': _one_model_in_all_rounds('relevance'),
      'server': _one_model_in_all_rounds('server'),
      'changes': _one_model_in_all_rounds('downlink=Changes(…)')}
  own_downlink: ClassVar[bool] = True

  units: Any
  keep: float = 0.75
  whole: tuple = ()

  def __post_init__(self):
    checks.number('federated dropout: keep', self.keep, ProcessError, above=0, most=1)
    if not isinstance(self.whole, (tuple, list)) or not all(isinstance(name, str) for name in self.whole):
      raise ProcessError(f'federated dropout: whole must be a tuple of names of layers, not {self.whole!r}.')
    object.__setattr__(self, 'whole', tuple(self.whole))
    if isinstance(self.units, Units):
      if self.whole:
        raise ProcessError('federated dropout: whole is for units that are to be found: give the Keras model.')
    else:
      object.__setattr__(self, 'units', Units.of(self.units, self.whole))
    if not self.units.sizes:
      raise ProcessError('federated dropout: the model has no hidden layer of which units may be left out.')

  def kept(self, size: int) -> int:
    """How many of `size` units of a layer are kept."""
    return max(1, round(self.keep * size))

  def confine(self, spec: Spec, trainable: int, steps: Sequence[tuple[int, Any]], downlink: Any,
              seed: int) -> ConfinedTraining:
    return SubModels(self, spec, trainable, steps, downlink, seed)


class SubModels(ConfinedTraining):
  """The functions of federated dropout, to be called while a graph is built.

  For the uplink it has the methods of `MessageFunctions`, which take and give tensors of the whole model's shapes.

  Args:
    dropout: `FederatedDropout`.
    spec: `Spec` of all variables, the trainable ones first.
    trainable: number of trainable variables.
    uplink: schedule of codecs, as `steps.schedule` gives it.
    downlink: `Codec` or its text, of a sub-model's variables.
    seed: session seed.

  Raises:
    ProcessError: the units are those of another model.
    CodecError: a codec does not fit the sub-model.
  """

  def __init__(self, dropout, spec, trainable, uplink, downlink, seed):
    shapes = tuple(tensor.shape for tensor in spec.tensors)
    if dropout.units.shapes != shapes:
      raise ProcessError('federated dropout: the units are those of a model with other variables than the clients '
                         f'train: {dropout.units.shapes[:5]} and {shapes[:5]}.')
    self._sizes, self._kept = dropout.units.sizes, tuple(map(dropout.kept, dropout.units.sizes))
    self._axes = dropout.units.axes
    self._shapes = shapes
    self.sub_shapes = tuple(tuple(map(self._kept_along, axes)) for axes in dropout.units.axes)
    self.sub_spec = codec_lib.Spec(tuple(codec_lib.TensorSpec(tensor.name, shape, tensor.dtype)
                                         for tensor, shape in zip(spec.tensors, self.sub_shapes)))
    self.spec, self.seed = codec_lib.Spec(spec.tensors[:trainable]), seed
    self._up = messages_lib.messages(uplink, codec_lib.Spec(self.sub_spec.tensors[:trainable]), seed)
    self._down = MessageFunctions(downlink, self.sub_spec, seed)
    self.messages = self

  def _kept_along(self, axis):
    """Number of places along an axis that are kept."""
    ends = np.cumsum(self._sizes)
    count = np.bincount(np.searchsorted(ends, axis[axis != ALWAYS], side='right'), minlength=len(ends))
    # Every unit of a group stands in an axis as often as any other.
    places = sum(int(c) // size * kept for c, size, kept in zip(count, self._sizes, self._kept))
    return places + int(np.sum(axis == ALWAYS))

  # -- which units

  def choice(self, round_number, client):
    """Boolean [units + 1]: whether a client keeps each unit in a round, and True for what is `ALWAYS` kept.

    Args:
      round_number, client: int32 scalars with the 32 bits of the numbers.
    """
    xp = TensorFlowOps()
    keys = GraphKeys([('client', '', int(random.Purpose.UNITS), 0)], self.seed, round_number, client)
    stream = keys_lib.Draws(xp, keys, '', 0).client(random.Purpose.UNITS)
    kept, start = [], 0
    for size, count in zip(self._sizes, self._kept):
      index = xp.largest(stream.words(size, start), count)
      kept.append(xp.scatter(index, tf.ones([count], tf.int32), size) > 0)
      start += size
    return tf.concat(kept + [[True]], 0)

  def places(self, round_number, client):
    """Where a client's sub-model is in the model: for each variable a list with an entry for each axis that is shorter,

      axis: its number.
      kept: int32 [places kept], those along the axis that the sub-model has.
      back: int32 [places], where each is among them; behind the last, where it is not.
    """
    choice = self.choice(round_number, client)
    found: list[list[tuple[int, tf.Tensor, tf.Tensor]]] = []
    for axes, shape, sub_shape in zip(self._axes, self._shapes, self.sub_shapes):
      found.append([])
      for number, (units, size, count) in enumerate(zip(axes, shape, sub_shape)):
        if count < size:
          # The unit of `ALWAYS`, -1, is the last entry.
          has = tf.gather(choice, np.where(units == ALWAYS, sum(self._sizes), units))
          kept = tf.ensure_shape(tf.cast(tf.where(has)[:, 0], tf.int32), [count])
          found[-1].append((number, kept, tf.where(has, tf.cumsum(tf.cast(has, tf.int32)) - 1, count)))
    return found

  def gather(self, tensors, places):
    """Variables of the model -> those of the sub-model, of the spec's first variables."""
    gathered = []
    for tensor, axes in zip(tensors, places):
      for axis, kept, _ in axes:
        tensor = tf.gather(tensor, kept, axis=axis)
      gathered.append(tensor)
    return gathered

  def scatter(self, tensors, places):
    """Inverse of `gather`, with 0 in the places that belong to units that are left out."""
    scattered = []
    for tensor, axes in zip(tensors, places):
      for axis, _, back in axes:
        # With zeros behind the end, for all that is left out.
        padded = tf.pad(tensor, [(0, i == axis) for i in range(len(tensor.shape))])
        tensor = tf.gather(padded, back, axis=axis)
      scattered.append(tensor)
    return scattered

  def optimizer(self, optimizer, round_number, client):
    return _OfSubModel(optimizer, self, self.places(round_number, client))

  def masks(self, round_number, client):
    """Of each trainable variable, 1 in the places that the client trains, and 0 elsewhere: list of float32 tensors."""
    ones = [tf.ones(shape) for shape in self.sub_shapes[:len(self.spec.tensors)]]
    return self.scatter(ones, self.places(round_number, client))

  # -- down

  def download(self, weights, round_number, client):
    """What a client receives: (list of tensors of the whole model's shapes, number of bytes as int64 scalar)."""
    places = self.places(round_number, client)
    frame = self._down.encode(self.gather(weights, places), round_number, client)
    return self.scatter(self._down.decode(frame, round_number, client), places), tf.size(frame, out_type=tf.int64)

  # -- up

  @property
  def prefix_types(self):
    return [(tensor.size, tensor.dtype) for tensor in self.spec.tensors]

  def encode(self, arrays, round_number, client):
    return self._up.encode(self.gather(arrays, self.places(round_number, client)), round_number, client)

  def decode(self, frame):
    return self.scatter(self._up.decode(frame), self.places(*numbers_of(frame)))

  def decode_to_prefixes(self, frame):
    return [tf.reshape(array, [-1]) for array in self.decode(frame)]

  def decode_prefixes(self, values, round_number):
    del round_number
    return [tf.reshape(value, tensor.shape) for value, tensor in zip(values, self.spec.tensors)]

  def coverage(self, frame):
    return [tf.reshape(mask, [-1]) for mask in self.masks(*numbers_of(frame))]


class _OfSubModel(tff.learning.optimizers.Optimizer):
  """An optimizer that sees the sub-model's variables and gradients alone. The rest of the variables stays 0."""

  def __init__(self, optimizer, sub_models, places):
    self._optimizer, self._sub_models, self._places = optimizer, sub_models, places

  def initialize(self, specs):
    shapes = self._sub_models.sub_shapes
    return self._optimizer.initialize(tuple(tf.TensorSpec(shape, spec.dtype)
                                            for spec, shape in zip(tf.nest.flatten(specs), shapes)))

  def next(self, state, weights, gradients):
    packed = lambda structure: tuple(self._sub_models.gather(tf.nest.flatten(structure), self._places))
    state, moved = self._optimizer.next(state, packed(weights), packed(gradients))
    return state, tf.nest.pack_sequence_as(weights, self._sub_models.scatter(moved, self._places))

  def get_hparams(self, state):
    return self._optimizer.get_hparams(state)

  def set_hparams(self, state, hparams):
    return self._optimizer.set_hparams(state, hparams)
