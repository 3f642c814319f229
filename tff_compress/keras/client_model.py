"""The training step of a `Blueprint` in the form that TFF trains, on variables of its own."""

import collections

import tensorflow as tf
import tensorflow_federated as tff

STATISTICS = 'moving_statistics'
"""Name under which clients report how their moving statistics changed."""


def metric_name(index: int) -> str:
  """What TFF calls the metric at a position: Keras has names such as <lambda>, and the same name twice."""
  return f'metric_{index}'


class ClientModel(tff.learning.models.VariableModel):
  """The training step of a Keras model, in the form that TFF trains.

  Args:
    blueprint: what to train.
  """

  def __init__(self, blueprint):
    self._blueprint = blueprint
    self._trainable = [_blank(v, trainable=True) for v in blueprint.trainable]
    self._statistics = [_blank(v) for v in blueprint.statistics]
    self._starts = [_blank(v) for v in blueprint.statistics]
    self._metrics = [[tf.Variable(tf.constant(value), trainable=False) for value in values]
                     for values in blueprint.metric_starts]
    self._examples = tf.Variable(tf.zeros([], tf.int64), trainable=False)
    self._clients = tf.Variable(tf.zeros([], tf.int64), trainable=False)
    own = [*zip(blueprint.trainable, self._trainable), *zip(blueprint.statistics, self._statistics)]
    for metric, variables in zip(blueprint.metrics, self._metrics):
      own += zip(metric.variables, variables)
    self._step = blueprint.step.bind(own)

  @property
  def trainable_variables(self):
    return self._trainable

  @property
  def non_trainable_variables(self):
    return self._statistics

  @property
  def local_variables(self):
    return [v for variables in self._metrics for v in variables] + self._starts + [self._examples, self._clients]

  @property
  def input_spec(self):
    return self._blueprint.input_spec

  def predict_on_batch(self, batch_input, training=True):
    raise NotImplementedError('clients train this model, and evaluate it with Keras.')

  def forward_pass(self, batch_input, training=True):
    if not training:
      raise NotImplementedError('clients train this model, and evaluate it with Keras.')
    specs = self._blueprint
    x, y, weight = (None if spec is None else tf.nest.pack_sequence_as(spec, batch_input[name])
                    for name, spec in (('x', specs.x_spec), ('y', specs.y_spec), ('w', specs.weight_spec)))
    for start, statistic in zip(self._starts, self._statistics):
      # Not `==`, which compares objects in the graphs that TFF makes.
      start.assign(tf.where(tf.equal(self._examples, 0), statistic, start))
    key = batch_input['key'][0] if 'key' in batch_input else tf.zeros([2], tf.int32)
    loss, gradients, predictions = self._step(key, x, y, weight)
    count = tf.shape(batch_input['x'][0])[0]
    self._examples.assign_add(tf.cast(count, tf.int64))
    self._clients.assign(tf.ones([], tf.int64))

    @tf.custom_gradient
    def with_gradients(loss, *weights):
      del weights
      return tf.identity(loss), lambda upstream: (None, *(upstream * gradient for gradient in gradients))

    loss = with_gradients(loss, *(self._trainable[i].read_value() for i in specs.learned))
    return tff.learning.models.BatchOutput(loss=loss, predictions=predictions, num_examples=count)

  @tf.function
  def reset_metrics(self):
    for variables, values in zip(self._metrics, self._blueprint.metric_starts):
      for variable, value in zip(variables, values):
        variable.assign(value)
    self._examples.assign(tf.zeros([], tf.int64))
    self._clients.assign(tf.zeros([], tf.int64))

  @tf.function
  def report_local_unfinalized_metrics(self):
    values = collections.OrderedDict(
        (metric_name(index), [v.read_value() for v in variables]) for index, variables in enumerate(self._metrics))
    values['num_examples'] = [self._examples.read_value()]
    values['num_clients'] = [self._clients.read_value()]
    if self._statistics:
      values[STATISTICS] = [self._change(start, statistic) for start, statistic in zip(self._starts, self._statistics)]
    return values

  def _change(self, start, statistic):
    """How a statistic changed, times the number of examples; 0 where training failed. Of whole numbers: as float32."""
    kind = statistic.dtype if statistic.dtype.is_floating else tf.float64
    change = tf.cast(statistic, kind) - tf.cast(start, kind)
    usable = tf.logical_and(self._examples > 0, tf.reduce_all(tf.math.is_finite(change)))
    change = tf.where(usable, change * tf.cast(self._examples, kind), tf.zeros_like(change))
    return change if statistic.dtype.is_floating else tf.cast(change, tf.float32)

  def metric_finalizers(self):
    finalizers = collections.OrderedDict(
        (metric_name(index), _finalizer(*pair))
        for index, pair in enumerate(zip(self._blueprint.metrics, self._blueprint.metric_results)))
    finalizers['num_examples'] = finalizers['num_clients'] = lambda values: values[0]
    if self._statistics:
      finalizers[STATISTICS] = lambda values: values
    return finalizers


def _blank(variable, trainable=False):
  return tf.Variable(tf.zeros(variable.shape, variable.dtype), trainable=trainable)


def _finalizer(metric, result):
  """A function from the summed variables of a metric to its result."""

  @tf.function
  def finalize(values):
    # In the graph around: variables of another graph cannot be used in this one.
    with tf.init_scope():
      variables = [_blank(variable) for variable in metric.variables]
      result_of = result.bind(zip(metric.variables, variables))
    for variable, value in zip(variables, values):
      variable.assign(value)
    return result_of()

  return finalize
