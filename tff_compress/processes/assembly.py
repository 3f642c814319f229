"""What every kind of process is put together with: the model's types, TFF's client work and finalizer, the states of
server and clients."""

import collections
import functools
import hashlib

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_compress import codec as codec_lib
from tff_compress.aggregators.codec_sum import spec_of_structure
from tff_compress.processes.errors import ProcessError
from tff_compress.processes.state import slots as slots_lib
from tff_compress.runtime import compat

LOOP = tff.learning.LoopImplementation.DATASET_ITERATOR
"""Gives bit for bit what DATASET_REDUCE gives, in two thirds of the time."""

FIELDS = collections.OrderedDict(client=tff.TensorType(np.int64), seen=tff.TensorType(np.int32),
                                 version=tff.TensorType(np.int32))
"""The small fields of a client's state, as `ClientStateProcess.client_state_type` says; a process may have more."""


class ModelTypes:
  """What a process knows of the model that clients train.

  Args:
    model_fn: function that makes a `tff.learning.models.VariableModel`.
    names: what to take the variables' names from, as the `spec` of `build_fed_avg`; None for TFF's.
    need: who needs float32 variables, for the error.

  Attributes:
    initial_weights: computation.
    weights_type: its TFF type.
    structure: the same as tensor specs.
    names: `Spec` or None.
    spec, update_spec: `Spec` of all variables, and of the trainable ones.
    vectors, update_vectors: the `Vectors` of these.

  Raises:
    ProcessError: a trainable variable is not float32.
  """

  def __init__(self, model_fn, names, need):

    def initial_weights():
      return tff.learning.models.ModelWeights.from_model(model_fn())

    self.initial_weights = tff.tensorflow.computation(initial_weights)
    self.weights_type = self.initial_weights.type_signature.result
    self.structure = compat.tensor_specs(self.weights_type)
    self.names = None if names is None else codec_lib.Spec.of(names)
    self.spec = spec_of_structure(self.structure, self.names)
    self.trainable = len(tf.nest.flatten(self.structure.trainable))
    if self.names is None:
      self.update_spec = spec_of_structure(self.structure.trainable)
    else:
      self.update_spec = codec_lib.Spec(self.spec.tensors[:self.trainable])
    for tensor in self.update_spec.tensors:
      if tensor.dtype != 'float32':
        raise ProcessError(f'the trainable variable {tensor.name!r} has dtype {tensor.dtype}: {need} need float32 '
                           'variables.')
    self.vectors, self.update_vectors = slots_lib.Vectors(self.spec), slots_lib.Vectors(self.update_spec)

  def trainable_of(self, weights):
    """List of the trainable tensors of a model's weights."""
    return tf.nest.flatten(weights)[:self.trainable]


class LocalTraining:
  """TFF's client work and finalizer.

  Args:
    options: `Options`.
    types: `ModelTypes`.

  Attributes:
    optimizer: of the clients.
    client_work: `tff.learning.templates.ClientWorkProcess`.
    finalizer: `tff.learning.templates.FinalizerProcess`.
    data_type: of all clients' data.
    result_type: of what a client's work gives.
  """

  def __init__(self, options, types):
    optimizers = tff.learning.optimizers
    self._options = options
    self.optimizer = options.client_optimizer_fn or optimizers.build_sgdm(0.1)
    self.client_work = tff.learning.templates.build_model_delta_client_work(
        options.model_fn, self.optimizer, options.client_weighting, options.metrics_aggregator,
        loop_implementation=LOOP)
    self.finalizer = tff.learning.templates.build_apply_optimizer_finalizer(
        options.server_optimizer_fn or optimizers.build_sgdm(1.0), types.weights_type)
    self.data_type = self.client_work.next.type_signature.parameter[2]
    self.result_type = self.client_work.next.type_signature.result.result.member

  @functools.cached_property
  def aggregate_metrics(self):
    """Function of what clients measured, to be called while a federated computation is traced."""
    with tf.Graph().as_default():
      finalizers = self._options.model_fn().metric_finalizers()
    return (self._options.metrics_aggregator or tff.learning.metrics.sum_then_finalize)(finalizers)


def fingerprint(*described):
  """16 bytes of the texts of what a client's state depends on."""
  return hashlib.sha256('\n'.join(map(str, described)).encode('utf-8')).digest()[:16]


def on_values_and_files(build, fields, slots):
  """A process whose clients' slots are values, and that on demand is built again with slots in files.

  Args:
    build: function of (`Values` or `Files`, keyword arguments of `ClientStateProcess`).
    fields, slots: as for `Values`.
  """

  def on_files():
    files = slots_lib.Files(fields, slots)
    # Without slots nothing is in files, and the process is the same.
    return (build(files) if slots else process), files

  process = build(slots_lib.Values(fields, slots), on_files=on_files)
  return process


def initialize(types, downlink, training, initial_uplink):
  """The computation of the server's first state, a `tff.learning.templates.LearningAlgorithmState`.

  Args:
    types: `ModelTypes`.
    downlink: as in `down.downlinks`.
    training: `LocalTraining`.
    initial_uplink: computation of the uplink's first state.
  """

  @tff.federated_computation
  def init():
    weights = tff.federated_eval(types.initial_weights, tff.SERVER)
    return tff.federated_zip(tff.learning.templates.LearningAlgorithmState(
        weights, downlink.initialize(weights), training.client_work.initialize(),
        tff.federated_eval(initial_uplink, tff.SERVER), training.finalizer.initialize()))

  return init


def access_to_weights(state_type, downlink):
  """(`get_model_weights`, `set_model_weights`) of a `ClientStateProcess`.

  Args:
    state_type: TFF type of the server's state.
    downlink: as in `down.downlinks`.
  """

  @tff.tensorflow.computation(state_type)
  def get_model_weights(state):
    return state.global_model_weights

  @tff.tensorflow.computation(state_type, state_type.global_model_weights)
  def set_model_weights(state, weights):
    return tff.learning.templates.LearningAlgorithmState(
        weights, downlink.restarted(state.distributor, weights), state.client_work, state.aggregator, state.finalizer)

  return get_model_weights, set_model_weights
