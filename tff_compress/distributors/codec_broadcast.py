"""A broadcast of model weights that travel as a frame."""

import collections
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_compress import codec as codec_lib
from tff_compress.aggregators import accounting
from tff_compress.aggregators.codec_sum import checked_seed
from tff_compress.aggregators.codec_sum import spec_of_structure
from tff_compress.codec import defaults
from tff_compress.codec import meaning
from tff_compress.codec import random
from tff_compress.codec.codec import Codec
from tff_compress.codec.spec import SpecSource
from tff_compress.runtime import compat
from tff_compress.tensorflow import messages as messages_lib


def downlink(codec: Codec | str = defaults.DOWNLINK, model: Any = None, *, residual: bool = False,
             seed: int | None = None, spec: SpecSource | None = None) -> tff.learning.templates.DistributionProcess:
  """A distribution process for `model_distributor=` of TFF's learning algorithms: the model is sent encoded.

  One round:
    1. The server encodes the weights (with the residual added, if there is one) and frames them.
    2. The frame, a `uint8[None]`, is broadcast. Every client receives the same bytes.
    3. Each client decodes them and trains from the result.

  Clients keep nothing, so every message holds the whole model: choose a codec of several bits per value, such as
  `hadamard | uniform:bits=6 | pack`. Messages that hold changes only need clients with memory.

  Args:
    codec: `Codec` or its text; by default 8 bits per value. A preset that is meant for what changes in a model is
      refused.
    model: what TFF's algorithm is built with: a function that makes a `tff.learning.models.VariableModel`, or a
      `tff.learning.models.FunctionalModel`; or the TFF type of the weights.
    residual: whether the server remembers what its last message lost and adds it to the next one.
    seed: whole number for reproducible runs; None draws one.
    spec: what to take the variables' names from, as for `uplink`.

  Returns:
    `tff.learning.templates.DistributionProcess`; its measurements are those of
    `accounting.measurements('downlink', …)`.

  Raises:
    CodecError: the codec is not valid, does not match a variable, or needs clients that remember.
  """
  if not isinstance(codec, (str, codec_lib.Codec)):
    raise codec_lib.CodecError(
        f'a downlink is a codec or its text, not {type(codec).__name__}; for a downlink of changes, use '
        'tff_compress.build_fed_avg(model_fn, downlink=…).')
  if model is None:
    raise codec_lib.CodecError('a downlink is for a model: give model=, the function that the algorithm is built with.')
  codec = meaning.of_whole_models(
      codec, 'use tff_compress.build_fed_avg(model_fn, downlink=…), whose clients keep a model')
  seed = checked_seed(seed)
  weights_type = _weights_type(model)
  structure = compat.tensor_specs(weights_type)
  spec = spec_of_structure(structure, None if spec is None else codec_lib.Spec.of(spec))
  messages = messages_lib.MessageFunctions(codec, spec, seed)
  kept = [tensor for tensor in spec.tensors if residual and tensor.is_float]

  def shared() -> tf.Tensor:
    return tf.constant(random.signed(random.SHARED_CLIENT), tf.int32)

  @tff.tensorflow.computation
  def initial_state():
    return collections.OrderedDict(round=tf.constant(0, tf.int32),
                                   residual=[tf.zeros(t.shape, tf.as_dtype(t.dtype)) for t in kept])

  state_type = initial_state.type_signature.result

  @tff.tensorflow.computation(state_type, weights_type)
  def encode(state, weights):
    tensors = tf.nest.flatten(weights)
    lost = iter(state['residual'])
    if kept:
      tensors = [t + next(lost) if s.is_float else t for t, s in zip(tensors, spec.tensors)]
    frame = messages.encode(tensors, state['round'], shared())
    following = []
    if kept:
      decoded = messages.decode(frame, state['round'], shared())
      following = [t - d for t, d, s in zip(tensors, decoded, spec.tensors) if s.is_float]
    return collections.OrderedDict(round=state['round'] + 1, residual=following), frame

  @tff.tensorflow.computation(tff.TensorType(np.uint8, [None]))
  def decode(frame):
    return tf.nest.pack_sequence_as(structure, messages.decode(frame, client=shared()))

  @tff.tensorflow.computation(tff.TensorType(np.uint8, [None]), np.int64)
  def measure(frame, clients):
    return accounting.measurements('downlink', tf.size(frame, out_type=tf.int64) * clients, clients, spec)

  @tff.federated_computation
  def init():
    return tff.federated_eval(initial_state, tff.SERVER)

  @tff.federated_computation(init.type_signature.result, tff.FederatedType(weights_type, tff.SERVER))
  def next_fn(state, weights):
    following, frame = tff.federated_map(encode, (state, weights))
    received = tff.federated_map(decode, tff.federated_broadcast(frame))
    clients = tff.federated_sum(tff.federated_value(np.int64(1), tff.CLIENTS))
    measured = tff.federated_map(measure, (frame, clients))
    return tff.templates.MeasuredProcessOutput(following, received, measured)

  return tff.learning.templates.DistributionProcess(init, next_fn)


def _weights_type(model: Any) -> tff.Type:
  if isinstance(model, tff.Type):
    return model
  if isinstance(model, tff.learning.models.FunctionalModel):
    return tff.learning.models.weights_type_from_model(model)
  with tf.Graph().as_default():
    return tff.learning.models.weights_type_from_model(model())
