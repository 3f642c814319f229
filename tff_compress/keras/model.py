"""A compiled Keras model as the program that TFF's clients run.

`Blueprint` reads a compiled model once and refuses what cannot be trained. It traces a training step as Keras's `fit`
would take it, of the user's own objects; `ClientModel` is that step in the form TFF trains, on variables of its own.
Neither runs a user's code in TFF's graphs, nor changes anything that other threads may be using.

What travels between server and clients is what training changes: the trainable weights, and the moving statistics (of
batch normalization, say). Everything else is a constant of the program.
"""

import collections
import contextlib
import dataclasses
import re
import threading

from keras.src import backend
from keras.src.utils import version_utils
import tensorflow as tf
import tensorflow_federated as tff

from tff_compress import codec as codec_lib
from tff_compress.codec import spec as spec_lib
from tff_compress.keras import tracing
from tff_compress.keras.errors import FederateError

STATISTICS = 'moving_statistics'
"""Name under which clients report how their moving statistics changed."""

_METRIC = 'metric_{}'
"""What TFF calls the metric at a position: Keras has names such as <lambda>, and the same name twice."""

_BY_SHAPE = ('accuracy', 'acc', 'crossentropy', 'ce')
"""Metrics that Keras chooses by the shapes of labels and predictions."""

_DRAWING = threading.Lock()
"""Held while layers have other generators: models in several threads may share layers."""

_STEP = ('train_step', 'compute_loss', 'compute_metrics', 'make_train_function')


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
    starts: lists of the values that their variables start from.
    results: `Program`s of their results.
    step: `Program` of a training step without the optimizer: (key, x, y, w) -> (loss, gradients, predictions).
    trainable: the model's trainable variables.
    learned: positions in `trainable` of those that have a gradient.
    statistics: its moving statistics: the other variables that a training step changes.
    trainable_spec, statistics_spec: `Spec`s of these, for codecs with rules on names.
    changes_spec: `Spec` of what clients send of moving statistics: float32 for those of whole numbers.

  Raises:
    FederateError: the model cannot be trained federated, or not on such data.
  """

  def __init__(self, model, element_spec):
    check_model(model)
    if not model.built:
      raise FederateError('the model has no variables yet: call it on a batch, or model.build(input_shape), first.')
    if not model.trainable_variables:
      raise FederateError('the model has no trainable weights: set trainable=True for the layers to train.')
    for variable in model.trainable_variables:
      if variable.dtype != tf.float32:
        raise FederateError(
            f'the weight {variable.name!r} has dtype {tf.as_dtype(variable.dtype).name}: federated training '
            'needs float32 weights.')
    if model.loss is not None and element_spec[1] in (None, ()):
      raise FederateError("the clients' data have no y: give (x, y).")
    _mend(model)
    self._source = model
    self.x_spec, self.y_spec, self.weight_spec = (None if part == () else part for part in element_spec)
    self.trainable = list(model.trainable_variables)
    self.input_spec = self._input_spec()
    key_spec = tf.TensorSpec([2], tf.int32)
    with _one_sentence('the model cannot be called on this data: {}.'):
      forward = tracing.Program(self._forward, key_spec, self.x_spec)
    with _one_sentence('the model cannot be trained on this data: {}.'):
      self._losses, self._metrics = self._containers(forward.result)
      self.metrics = self._losses.metrics + self._metrics.metrics + _metrics_of_layers(model)
      for metric in self.metrics:
        if not metric.variables:
          raise FederateError(f'the metric {metric.name!r} has no variables before it is used: leave it out of '
                              'compile.')
        metric.reset_state()
      self.starts = [[variable.numpy() for variable in metric.variables] for metric in self.metrics]
      counted = [variable for metric in self.metrics for variable in metric.variables]
      self.step = tracing.Program(self._step, key_spec, self.x_spec, self.y_spec, self.weight_spec,
                                  variables=self.trainable + counted, others=self._others())
      self.results = [tracing.Program(metric.result, variables=metric.variables) for metric in self.metrics]
    if self.step.result is None:
      raise FederateError('the model was compiled without a loss: pass loss= to compile.')
    if not self.learned:
      raise FederateError('the loss depends on no trainable weight, so there is nothing to learn: look at the loss, '
                          'and for layers that have no gradient.')
    self.statistics = self._changing(counted)
    self.trainable_spec = _spec(self.trainable)
    self.statistics_spec = _spec(self.statistics)
    self.changes_spec = codec_lib.Spec(tuple(t if t.is_float else dataclasses.replace(t, dtype='float32')
                                             for t in self.statistics_spec.tensors))

  # -- what is traced

  def _forward(self, key, x):
    with _keyed(self._source, key):
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

  def _containers(self, output_spec):
    """Makes new loss and metric objects, as `compile` would: (losses, metrics), built for the model's outputs."""
    losses, metrics = self._source.compiled_loss, self._source.compiled_metrics
    names = getattr(self._source, 'output_names', None)
    loss_container = type(losses)(losses._user_losses, losses._user_loss_weights, output_names=names)
    metric_container = type(metrics)(_fresh_metrics(metrics._user_metrics),
                                     _fresh_metrics(metrics._user_weighted_metrics),
                                     output_names=names)
    loss_container.build(output_spec)
    if self.y_spec is not None:
      metric_container.build(output_spec, metric_container._conform_to_outputs(output_spec, self.y_spec))
    return loss_container, metric_container

  def _changing(self, counted):
    """The moving statistics; refuses what a step changes that cannot be sent."""
    expected = {tracing.identity(v) for v in self.trainable + counted}
    changed = {tracing.identity(v): v for v in self.step.written if tracing.identity(v) not in expected}
    statistics = [v for v in self._others() if changed.pop(tracing.identity(v), None) is not None]
    for variable in changed.values():
      raise FederateError(f'training changes the variable {variable.name!r}, which is no weight of the model, so '
                          'clients could not send it: make it a weight of a layer, with add_weight; for random numbers '
                          'use tf.random.normal and the like in place of a tf.random.Generator.')
    for variable in statistics:
      if not (variable.dtype.is_floating or variable.dtype.is_integer):
        raise FederateError(f'training changes the weight {variable.name!r}, whose values of dtype '
                            f'{variable.dtype.name} have no mean over clients: make it one of numbers.')
    return statistics

  def _others(self):
    # Keras lists the vocabularies of text layers among the variables.
    return [v for v in self._source.non_trainable_variables if isinstance(v, tf.Variable)]

  def named(self, results):
    """{name as Keras shows it: result} of the loss and all metrics, from the finalized metrics of a `ClientModel`."""
    return {metric.name: results[_METRIC.format(index)] for index, metric in enumerate(self.metrics)}

  def client_model(self):
    """The `model_fn` of TFF's algorithms: makes a `ClientModel`."""
    return ClientModel(self)

  # -- the model's weights

  def weights(self):
    """The current weights of the user's model as `tff.learning.models.ModelWeights` of arrays."""
    return tff.learning.models.ModelWeights([v.numpy() for v in self.trainable], [v.numpy() for v in self.statistics])

  def assign(self, weights):
    """Gives weights as returned by `weights` to the user's model."""
    for variable, value in zip(self.trainable + self.statistics, list(weights.trainable) + list(weights.non_trainable)):
      variable.assign(value)

  @property
  def weights_spec(self):
    """`Spec` of trainable weights and moving statistics, in this order: what the server sends."""
    return codec_lib.Spec(_distinct(self.trainable_spec.tensors + self.statistics_spec.tensors))

  def variances(self):
    """Positions in `statistics` of those that must not fall below 0."""
    names = ('moving_variance', 'moving_stddev')
    return [i for i, t in enumerate(self.statistics_spec.tensors) if t.name.rpartition('/')[2].startswith(names)]

  def _input_spec(self):
    draws = tf.TensorSpec([None, 2], tf.int32) if _random_layers(self._source) else None
    parts = {'key': draws, 'w': self.weight_spec, 'x': self.x_spec, 'y': self.y_spec}
    # In the order of the names: the only one that TFF and tf.data agree on.
    return collections.OrderedDict((name, part if name == 'key' else tuple(tf.nest.flatten(part)))
                                   for name, part in parts.items() if part is not None)


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
                     for values in blueprint.starts]
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
    for variables, values in zip(self._metrics, self._blueprint.starts):
      for variable, value in zip(variables, values):
        variable.assign(value)
    self._examples.assign(tf.zeros([], tf.int64))
    self._clients.assign(tf.zeros([], tf.int64))

  @tf.function
  def report_local_unfinalized_metrics(self):
    values = collections.OrderedDict(
        (_METRIC.format(index), [v.read_value() for v in variables]) for index, variables in enumerate(self._metrics))
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
        (_METRIC.format(index), _finalizer(*pair))
        for index, pair in enumerate(zip(self._blueprint.metrics, self._blueprint.results)))
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


class _KeyedGenerator(backend.RandomGenerator):
  """Random numbers of a layer as a function of the batch's key, so that a run can be repeated bit for bit.

  The layer's own generators would differ from worker to worker, and give every client of a round the same masks, as
  each starts from the layer's seed.
  """

  def __init__(self, index, key):
    super().__init__(seed=0, rng_type='stateless')
    self._index, self._key, self._draws = index, key, 0

  def make_seed_for_stateless_op(self):
    self._maybe_init()
    self._draws += 1
    return tf.random.experimental.stateless_fold_in(self._key, self._index * 65536 + self._draws)

  def make_legacy_seed(self):
    return None


@contextlib.contextmanager
def _keyed(model, key):
  """A block in which the random numbers of the model's layers depend on the key alone, int32[2]."""
  with _DRAWING:
    layers = _random_layers(model)
    before = [layer._random_generator for layer in layers]
    try:
      for index, layer in enumerate(layers):
        # Past Keras, which takes note of what is assigned to a layer.
        object.__setattr__(layer, '_random_generator', _KeyedGenerator(index, key))
      yield
    finally:
      for layer, generator in zip(layers, before):
        object.__setattr__(layer, '_random_generator', generator)


def check_model(model):
  """Raises FederateError if the model cannot be trained federated, whatever the data."""
  if not isinstance(model, tf.keras.Model):
    kind = type(model)
    raise FederateError('a tf.keras.Model is needed, not '
                        + (kind.__name__ if kind.__module__ == 'builtins' else f'{kind.__module__}.{kind.__name__}')
                        + '.')
  if not getattr(model, '_is_compiled', False) or model.compiled_loss is None:
    raise FederateError('the model is not compiled: call model.compile(optimizer=…, loss=…, metrics=[…]) first.')
  for name in _STEP:
    if getattr(getattr(model, name), '__func__', None) is not getattr(tf.keras.Model, name):
      raise FederateError(
          f'{type(model).__name__} has a {name} of its own, which clients cannot run: use the standard one, '
          'or write a tff.learning.models.VariableModel and train that with TFF.')
  for layer in _layers(model):
    if getattr(layer, 'stateful', False) and isinstance(layer, tf.keras.layers.RNN):
      raise FederateError(
          f'the layer {layer.name!r} is stateful, and clients keep nothing between batches: use stateful=False.')


def _mend(model):
  """Gives the model's classes the bases they had before someone made a Keras model in a graph of TFF."""
  for kind in {type(layer) for layer in _layers(model)}:
    if issubclass(kind, version_utils.base_layer_v1.Layer):
      version_utils.swap_class(kind, version_utils.training.Model, version_utils.training_v1.Model, True)
      version_utils.swap_class(kind, version_utils.base_layer.Layer, version_utils.base_layer_v1.Layer, True)


def _layers(model):
  """The model and all layers in it, at any depth. (`submodules` fails on recurrent layers with dropout.)"""
  return list(model._flatten_layers())


def _random_layers(model):
  return [layer for layer in _layers(model)
          if isinstance(getattr(layer, '_random_generator', None), backend.RandomGenerator)]


def _metrics_of_layers(model):
  return [metric for layer in _layers(model) for metric in layer._metrics]


def _fresh_metrics(metrics):
  """New metric objects in place of those in the structure; names and functions stay as they are."""
  def fresh(metric):
    if isinstance(metric, str) and metric not in _BY_SHAPE and isinstance(tf.keras.metrics.get(metric), str):
      raise FederateError(f'Keras has no metric {metric[:40]!r}: look for its name in tf.keras.metrics.')
    if not isinstance(metric, tf.keras.metrics.Metric):
      return metric
    with _one_sentence(f'the metric {metric.name!r} cannot be copied ({{}}): give it a get_config.'):
      return type(metric).from_config(metric.get_config())
  return tf.nest.map_structure(fresh, metrics)


def _spec(variables):
  return codec_lib.Spec(_distinct([
      codec_lib.TensorSpec(v.name.split(':')[0], tuple(v.shape.as_list()), v.dtype.name) for v in variables]))


def _distinct(tensors):
  """The specs with _1, _2, … behind names that are there already."""
  names = spec_lib.unique_names([tensor.name for tensor in tensors])
  return tuple(dataclasses.replace(tensor, name=name) for tensor, name in zip(tensors, names))


@contextlib.contextmanager
def _one_sentence(text):
  """Turns what TensorFlow raises inside the block into a FederateError with its first meaningful line."""
  try:
    yield
  except FederateError:
    raise
  except Exception as error:  # Keras raises nearly every type here.
    raise FederateError(text.format(first_line(error))) from error


def first_line(error):
  """The line of an error's text that says what is wrong, shortened; of an error that a TFF worker reports, too."""
  text = error.details() if callable(getattr(error, 'details', None)) else str(error)
  text = re.sub(r" for '\{\{node [^}]*\}\} = (\w+)[^']*'", r' for \1', text or '')
  text = re.sub(r'\{\{[^}]*\}\} ?', '', text).replace('Failed to run computation:', '')
  text = re.sub(r'assertion failed: \[(.*?)\]', r'\1', text).replace("\\'", "'")
  lines = [' '.join(line.split()) for line in text.splitlines()]
  lines = [line for line in lines if line and not line.startswith(('File "', 'Call arguments', '•', 'Traceback'))]
  # Where code that was traced fails, the error itself comes behind its traceback.
  named = [line for line in lines if re.match(r'[A-Za-z]+Error: ', line)]
  line = re.sub(r'^[A-Za-z]+Error: ', '', (named or lines or [type(error).__name__])[0])
  return (line if len(line) <= 200 else line[:199] + '…').rstrip('.')
