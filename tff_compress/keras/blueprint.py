"""A compiled Keras model as the program that TFF's clients run.

`Blueprint` reads a compiled model once and refuses what cannot be trained. It traces a training step as Keras's `fit`
would take it, of the user's own objects; `ClientModel` is that step in the form TFF trains, on variables of its own.
Neither runs a user's code in TFF's graphs, nor changes anything that other threads may be using.

What travels between server and clients is what training changes: the trainable weights, and the moving statistics (of
batch normalization, say). Everything else is a constant of the program.
"""

import collections
from collections.abc import Mapping
import dataclasses
from typing import Any

import tensorflow as tf
import tensorflow_federated as tff

from tff_compress import codec as codec_lib
from tff_compress.codec import spec as spec_lib
from tff_compress.keras import isolation
from tff_compress.keras import randomness
from tff_compress.keras.client_model import ClientModel
from tff_compress.keras.client_model import metric_name
from tff_compress.keras.errors import FederateError
from tff_compress.keras.errors import one_sentence
from tff_compress.keras.layers import metrics_of_layers
from tff_compress.keras.model_checks import check_model
from tff_compress.keras.model_checks import check_weights


class Blueprint:
  """What clients need of a compiled Keras model.

  Args:
    model: compiled `tf.keras.Model`. It is read, not changed.
    element_spec: (x, y, sample_weight) structures of `tf.TensorSpec` of one batch, with an unknown first dimension; y
      and sample_weight may be None or ().

  Attributes:
    input_spec: OrderedDict that describes one batch for TFF: x, y, and w (weights) where there are any, as tuples of
      tensors, and key, int32[batch, 2], where layers draw random numbers: the first row is the batch's key.
    metrics: loss and metrics of this training, in the order in which Keras shows them.
    metric_starts: lists of the values that their variables start from.
    metric_results: `Program`s of their results.
    step: `Program` of a training step without the optimizer: (key, x, y, w) -> (loss, gradients, predictions).
    trainable: the model's trainable variables.
    learned: positions in `trainable` of those that have a gradient.
    statistics: its moving statistics: the other variables that a training step changes.
    trainable_spec, statistics_spec: `Spec`s of these, for codecs with rules on names.
    changes_spec: `Spec` of what clients send of moving statistics: float32 for those of whole numbers.

  Raises:
    FederateError: the model cannot be trained federated, or not on such data.
  """

  def __init__(self, model: tf.keras.Model, element_spec: tuple):
    check_model(model)
    check_weights(model)
    if model.loss is not None and element_spec[1] in (None, ()):
      raise FederateError("the clients' data have no y: give (x, y).")
    isolation.restore_base_classes(model)
    self._source = model
    self.x_spec, self.y_spec, self.weight_spec = (None if part == () else part for part in element_spec)
    self.trainable = list(model.trainable_variables)
    self.input_spec = self._input_spec()
    key_spec = tf.TensorSpec([2], tf.int32)
    with one_sentence('the model cannot be called on this data: {}.'):
      forward = isolation.Program(self._forward, key_spec, self.x_spec)
    with one_sentence('the model cannot be trained on this data: {}.'):
      self._losses, self._metrics = isolation.fresh_containers(model, forward.result, self.y_spec)
      self.metrics = self._losses.metrics + self._metrics.metrics + metrics_of_layers(model)
      for metric in self.metrics:
        if not metric.variables:
          raise FederateError(f'the metric {metric.name!r} has no variables before it is used: leave it out of '
                              'compile.')
        metric.reset_state()
      self.metric_starts = [[variable.numpy() for variable in metric.variables] for metric in self.metrics]
      metric_variables = [variable for metric in self.metrics for variable in metric.variables]
      self.step = isolation.Program(self._step, key_spec, self.x_spec, self.y_spec, self.weight_spec,
                                  variables=self.trainable + metric_variables, others=self._other_variables())
      self.metric_results = [isolation.Program(metric.result, variables=metric.variables) for metric in self.metrics]
    if self.step.result is None:
      raise FederateError('the model was compiled without a loss: pass loss= to compile.')
    if not self.learned:
      raise FederateError('the loss depends on no trainable weight, so there is nothing to learn: look at the loss, '
                          'and for layers that have no gradient.')
    self.statistics = self._moving_statistics(metric_variables)
    self.trainable_spec = _spec(self.trainable)
    self.statistics_spec = _spec(self.statistics)
    self.changes_spec = codec_lib.Spec(tuple(t if t.is_float else dataclasses.replace(t, dtype='float32')
                                             for t in self.statistics_spec.tensors))

  # -- what is traced

  def _forward(self, key, x):
    with randomness.keyed(self._source, key):
      return self._source(x, training=True)

  def _step(self, key, x, y, weight):
    """As `tf.keras.Model.train_step`, but for the optimizer."""
    with tf.GradientTape() as tape:
      predictions = self._forward(key, x)
      loss = self._losses(y, predictions, weight, regularization_losses=self._source.losses)
    if loss is None:
      return None
    gradients = tape.gradient(loss, self.trainable)
    self.learned = [position for position, gradient in enumerate(gradients) if gradient is not None]
    if y is not None:
      self._metrics.update_state(y, predictions, weight)
    # Of a loss per example, gradients are those of the sum.
    return tf.reduce_sum(loss), [tf.convert_to_tensor(gradients[i]) for i in self.learned], predictions

  def _moving_statistics(self, metric_variables):
    """The moving statistics; refuses what a step changes that cannot be sent."""
    expected = {isolation.identity(v) for v in self.trainable + metric_variables}
    changed = {isolation.identity(v): v for v in self.step.written if isolation.identity(v) not in expected}
    statistics = [v for v in self._other_variables() if changed.pop(isolation.identity(v), None) is not None]
    for variable in changed.values():
      raise FederateError(f'training changes the variable {variable.name!r}, which is no weight of the model, so '
                          'clients cannot send it: make it a weight of a layer, with add_weight; for random numbers '
                          'use tf.random.normal and the like instead of a tf.random.Generator.')
    for variable in statistics:
      if not (variable.dtype.is_floating or variable.dtype.is_integer):
        raise FederateError(f'training changes the weight {variable.name!r}, whose values of dtype '
                            f'{variable.dtype.name} have no mean over clients: give it a numeric dtype.')
    return statistics

  def _other_variables(self):
    # Keras lists the vocabularies of text layers among the variables.
    return [v for v in self._source.non_trainable_variables if isinstance(v, tf.Variable)]

  def named(self, results: Mapping[str, Any]) -> dict[str, Any]:
    """{name as Keras shows it: result} of the loss and all metrics, from the finalized metrics of a `ClientModel`."""
    return {metric.name: results[metric_name(index)] for index, metric in enumerate(self.metrics)}

  def client_model(self) -> ClientModel:
    """The `model_fn` of TFF's algorithms: makes a `ClientModel`."""
    return ClientModel(self)

  # -- the model's weights

  def weights(self) -> tff.learning.models.ModelWeights:
    """The current weights of the user's model as `tff.learning.models.ModelWeights` of arrays."""
    return tff.learning.models.ModelWeights([v.numpy() for v in self.trainable], [v.numpy() for v in self.statistics])

  def assign(self, weights: tff.learning.models.ModelWeights) -> None:
    """Gives weights as returned by `weights` to the user's model."""
    for variable, value in zip(self.trainable + self.statistics, list(weights.trainable) + list(weights.non_trainable)):
      variable.assign(value)

  @property
  def weights_spec(self) -> spec_lib.Spec:
    """`Spec` of trainable weights and moving statistics, in this order: what the server sends."""
    return codec_lib.Spec(_distinct(self.trainable_spec.tensors + self.statistics_spec.tensors))

  def variances(self) -> list[int]:
    """Positions in `statistics` of those that must not fall below 0."""
    names = ('moving_variance', 'moving_stddev')
    return [i for i, t in enumerate(self.statistics_spec.tensors) if t.name.rpartition('/')[2].startswith(names)]

  def _input_spec(self):
    draws = tf.TensorSpec([None, 2], tf.int32) if randomness.random_layers(self._source) else None
    parts = {'key': draws, 'w': self.weight_spec, 'x': self.x_spec, 'y': self.y_spec}
    # In the order of the names: the only one that TFF and tf.data agree on.
    return collections.OrderedDict((name, part if name == 'key' else tuple(tf.nest.flatten(part)))
                                   for name, part in parts.items() if part is not None)


def _spec(variables):
  return codec_lib.Spec(_distinct([
      codec_lib.TensorSpec(v.name.split(':')[0], tuple(v.shape.as_list()), v.dtype.name) for v in variables]))


def _distinct(tensors):
  """The specs with _1, _2, … behind names that are there already."""
  names = spec_lib.unique_names([tensor.name for tensor in tensors])
  return tuple(dataclasses.replace(tensor, name=name) for tensor, name in zip(tensors, names))
