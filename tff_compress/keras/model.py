"""A compiled Keras model as the program that TFF's clients run.

`Blueprint` reads a compiled model once, refuses what cannot be trained, and makes fresh copies; `ClientModel` is such a
copy in the form TFF trains. Copies share nothing with the user's model: variables, metrics and random numbers are new.

What travels between server and clients is what training changes: the trainable weights, and the moving statistics (of
batch normalization, say). Frozen weights are constants of the program.
"""

import collections
import contextlib
import copy as copy_lib
import dataclasses
import functools
import logging
import random
import re

from keras.src import backend
from keras.src.utils import version_utils
import tensorflow as tf
import tensorflow_federated as tff

from tff_compress import codec as codec_lib
from tff_compress.keras.errors import FederateError

STATISTICS = 'moving_statistics'
"""Name under which clients report how their moving statistics changed."""

_COUNTERS = ('num_examples', 'num_clients')


class Blueprint:
  """What it takes to make copies of a compiled Keras model.

  Args:
    model: compiled `tf.keras.Model`. It is read, not changed.
    element_spec: (x, y, sample_weight) structures of `tf.TensorSpec` of one batch, with an unknown first dimension; y and
      sample_weight may be None or ().
    model_fn: function without arguments that makes an uncompiled model of the same architecture, for models that Keras
      cannot clone; None for `tf.keras.models.clone_model`.

  Attributes:
    input_spec: OrderedDict that describes one batch for TFF: x, y, and w (weights) where there are any, as tuples of
      tensors, and key, int32[batch, 2], where layers draw random numbers: the first row is the batch's key.
    metric_names: names of loss and metrics as Keras shows them.
    trainable: the model's trainable variables.
    statistics: its moving statistics: the other variables that a training step changes.
    trainable_spec, statistics_spec: `Spec`s of these, for codecs with rules on names.

  Raises:
    FederateError: the model cannot be trained federated, or not on such data.
  """

  def __init__(self, model, element_spec, model_fn=None):
    check_model(model, model_fn)
    if not model.built:
      raise FederateError('the model has no variables yet: call it on a batch, or model.build(input_shape), first.')
    if not model.trainable_variables:
      raise FederateError('the model has no trainable weights: set trainable=True for the layers to train.')
    for variable in model.trainable_variables:
      if variable.dtype != tf.float32:
        raise FederateError(f'the weight {variable.name!r} has dtype {tf.as_dtype(variable.dtype).name}: federated training '
                            'needs float32 weights.')
    self._source, self._model_fn = model, model_fn
    self.x_spec, self.y_spec, self.weight_spec = (None if part == () else part for part in element_spec)
    self.trainable = list(model.trainable_variables)
    self.statistics = _moving_statistics(model)
    self._statistic_positions = [_position(model.non_trainable_variables, v) for v in self.statistics]
    self.trainable_spec = _spec(self.trainable)
    self.statistics_spec = _spec(self.statistics)
    self._values = None
    with _one_sentence('the model cannot be copied ({}): give each of its layers a get_config, or pass model_fn= with a '
                       'function that makes an uncompiled copy.'):
      self._configs = {} if model_fn else _configs(model)
      with self.isolated():
        self._record()
    with self.isolated():
      self._read()

  def _read(self):
    with tf.Graph().as_default():
      copy = self.make()
      self.draws = bool(_random_layers(copy))
      with _one_sentence('the model cannot be called on this data: {}.'):
        self.output_spec = tf.function(functools.partial(copy, training=True)).get_concrete_function(
            self.x_spec).structured_outputs
    self.input_spec = self._input_spec()
    with tf.Graph().as_default(), _one_sentence('the model cannot be trained on this data: {}.'):
      client_model = ClientModel(self)
      batch = tf.nest.map_structure(lambda s: tf.compat.v1.placeholder(s.dtype, s.shape), self.input_spec)
      loss = tf.function(client_model.forward_pass)(batch).loss
      self.metric_names = client_model.metric_names
    if loss is None and self.y_spec is None and self._source.loss is not None:
      raise FederateError("the clients' data have no y: give (x, y).")
    if loss is None:
      raise FederateError('the model was compiled without a loss: pass loss= to compile.')

  # -- copies

  def make(self):
    """Makes an uncompiled copy of the model in the current graph. Its weights are zeros, except frozen ones."""
    return self._make(_Creations(self._values))

  def _make(self, creations):
    with tf.variable_creator_scope(creations):
      if self._model_fn is not None:
        copy = self._model_fn()
        if not copy.built:
          copy(tf.nest.map_structure(lambda s: tf.zeros([1, *s.shape[1:]], s.dtype), self.x_spec))
      elif id(self._source) in self._configs:
        copy = self._copy_of(self._source)
      else:
        copy = tf.keras.models.clone_model(self._source, clone_function=self._copy_of)
    return copy

  def _copy_of(self, layer):
    if id(layer) not in self._configs:
      return tf.keras.models.clone_model(layer, clone_function=self._copy_of)
    return type(layer).from_config(copy_lib.deepcopy(self._configs[id(layer)]))

  def _record(self):
    """Makes a copy once to learn in which order its variables are made, and so which one takes which constant."""
    with tf.Graph().as_default():
      creations = _Creations(None)
      copy = self._make(creations)
    for ours, theirs in ((copy.trainable_variables, self.trainable),
                         (copy.non_trainable_variables, self._source.non_trainable_variables)):
      if [(v.shape, v.dtype) for v in ours] != [(v.shape, v.dtype) for v in theirs]:
        raise FederateError('a copy of the model has other variables than the model: pass model_fn= with a function that '
                            'makes an uncompiled copy with the same layers, in the same order and with the same ones frozen.')
    values = []
    moving = set(self._statistic_positions)
    for variable in creations.variables:
      position = _position(copy.non_trainable_variables, variable)
      if position is not None and position not in moving:
        values.append(self._source.non_trainable_variables[position].numpy())
      elif position is not None or _position(copy.trainable_variables, variable) is not None:
        values.append(_Zeros(tuple(variable.shape), variable.dtype))
      else:
        values.append(None)  # Not a weight; it keeps its own initial value.
    self._values = values

  def isolated(self):
    """A `with` block in which copies may be made without a trace in the user's process; see the function of this name."""
    return isolated(self._source)

  def statistics_of(self, copy):
    """The moving statistics of a copy, in the order of `statistics`."""
    return [copy.non_trainable_variables[i] for i in self._statistic_positions]

  def containers(self):
    """Makes new loss and metric objects, as `compile` would: (losses, metrics), built for the model's outputs."""
    losses, metrics = self._source.compiled_loss, self._source.compiled_metrics
    names = getattr(self._source, 'output_names', None)
    loss_container = type(losses)(losses._user_losses, losses._user_loss_weights, output_names=names)
    metric_container = type(metrics)(_fresh_metrics(metrics._user_metrics), _fresh_metrics(metrics._user_weighted_metrics),
                                     output_names=names)
    loss_container.build(self.output_spec)
    if self.y_spec is not None:
      metric_container.build(self.output_spec, metric_container._conform_to_outputs(self.output_spec, self.y_spec))
    return loss_container, metric_container

  def metrics(self):
    """Makes new metric objects, in the order in which Keras shows them."""
    losses, metrics = self.containers()
    return losses.metrics + metrics.metrics

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
    parts = {'key': tf.TensorSpec([None, 2], tf.int32) if self.draws else None, 'w': self.weight_spec, 'x': self.x_spec,
             'y': self.y_spec}
    # In the order of the names: the only one that TFF and tf.data agree on.
    return collections.OrderedDict((name, part if name == 'key' else tuple(tf.nest.flatten(part)))
                                   for name, part in parts.items() if part is not None)


class ClientModel(tff.learning.models.VariableModel):
  """A copy of a Keras model with its loss and metrics, in the form that TFF trains.

  Args:
    blueprint: what to copy.
  """

  def __init__(self, blueprint):
    self._blueprint = blueprint
    self._model = blueprint.make()
    self._losses, self._metric_container = blueprint.containers()
    self._statistics = blueprint.statistics_of(self._model)
    self._starts = [tf.Variable(tf.zeros(v.shape, v.dtype), trainable=False) for v in self._statistics]
    self._examples = tf.Variable(tf.zeros([], tf.int64), trainable=False)
    self._clients = tf.Variable(tf.zeros([], tf.int64), trainable=False)
    self._generators = []
    for index, layer in enumerate(_random_layers(self._model)):
      layer._random_generator = _KeyedGenerator(index)
      self._generators.append(layer._random_generator)
    for metric in self._metrics:
      if not metric.variables:
        raise FederateError(f'the metric {metric.name!r} has no variables before it is used: leave it out of compile.')

  @property
  def _metrics(self):
    return self._losses.metrics + self._metric_container.metrics

  @property
  def metric_names(self):
    return [metric.name for metric in self._metrics]

  @property
  def trainable_variables(self):
    return list(self._model.trainable_variables)

  @property
  def non_trainable_variables(self):
    return list(self._statistics)

  @property
  def local_variables(self):
    return [v for metric in self._metrics for v in metric.variables] + self._starts + [self._examples, self._clients]

  @property
  def input_spec(self):
    return self._blueprint.input_spec

  def predict_on_batch(self, batch_input, training=True):
    return self._model(batch_input, training=training)

  def forward_pass(self, batch_input, training=True):
    specs = self._blueprint
    x = tf.nest.pack_sequence_as(specs.x_spec, batch_input['x'])
    y = None if specs.y_spec is None else tf.nest.pack_sequence_as(specs.y_spec, batch_input['y'])
    weight = None if specs.weight_spec is None else tf.nest.pack_sequence_as(specs.weight_spec, batch_input['w'])
    for start, statistic in zip(self._starts, self._statistics):
      # Not `==`, which compares objects in the graphs that TFF makes.
      start.assign(tf.where(tf.equal(self._examples, 0), statistic, start))
    for generator in self._generators:
      generator.start(batch_input['key'][0])
    predictions = self._model(x, training=training)
    for generator in self._generators:
      generator.start(None)
    loss = self._losses(y, predictions, weight, regularization_losses=self._model.losses)
    if y is not None:
      self._metric_container.update_state(y, predictions, weight)
    count = tf.shape(batch_input['x'][0])[0]
    self._examples.assign_add(tf.cast(count, tf.int64))
    self._clients.assign(tf.ones([], tf.int64))
    return tff.learning.models.BatchOutput(loss=loss, predictions=predictions, num_examples=count)

  @tf.function
  def reset_metrics(self):
    for metric in self._metrics:
      metric.reset_state()
    self._examples.assign(tf.zeros([], tf.int64))
    self._clients.assign(tf.zeros([], tf.int64))

  @tf.function
  def report_local_unfinalized_metrics(self):
    values = collections.OrderedDict((metric.name, [v.read_value() for v in metric.variables]) for metric in self._metrics)
    values['num_examples'] = [self._examples.read_value()]
    values['num_clients'] = [self._clients.read_value()]
    if self._statistics:
      values[STATISTICS] = [self._change(start, statistic) for start, statistic in zip(self._starts, self._statistics)]
    return values

  def _change(self, start, statistic):
    """How a statistic changed, times the number of examples; 0 where training failed."""
    change = statistic - start
    usable = tf.logical_and(self._examples > 0, tf.reduce_all(tf.math.is_finite(change)))
    return tf.where(usable, change * tf.cast(self._examples, change.dtype), tf.zeros_like(change))

  def metric_finalizers(self):
    finalizers = collections.OrderedDict(
        (name, _finalizer(self._blueprint, index)) for index, name in enumerate(self.metric_names))
    finalizers['num_examples'] = finalizers['num_clients'] = lambda values: values[0]
    if self._statistics:
      finalizers[STATISTICS] = lambda values: values
    return finalizers


def _finalizer(blueprint, index):
  """A function from the summed variables of the metric at a position to its result."""

  @tf.function
  def finalize(values):
    # In the graph around: variables of another graph cannot be used in this one.
    with tf.init_scope():
      metric = blueprint.metrics()[index]
    for variable, value in zip(metric.variables, values):
      variable.assign(value)
    return metric.result()

  return finalize


class _KeyedGenerator(backend.RandomGenerator):
  """Random numbers of a layer as a function of the batch's key, so that a run can be repeated bit for bit.

  The layer's own generators would differ from worker to worker, and give every client of a round the same masks, as each
  starts from the layer's seed.
  """

  def __init__(self, index):
    super().__init__(seed=0, rng_type='stateless')
    self._index = index
    self.start(None)

  def start(self, key):
    """Begins a batch with this key, int32[2]; with None there are no numbers to come but those of layers being built."""
    self._key, self._draws = key, 0

  def make_seed_for_stateless_op(self):
    self._maybe_init()
    self._draws += 1
    if self._key is None:
      return tf.zeros([2], tf.int32)
    return tf.random.experimental.stateless_fold_in(self._key, self._index * 65536 + self._draws)

  def make_legacy_seed(self):
    return None


@dataclasses.dataclass(frozen=True)
class _Zeros:
  """An initial value."""
  shape: tuple
  dtype: tf.DType

  def __call__(self):
    return tf.zeros(self.shape, self.dtype)


class _Creations:
  """A variable creator that remembers what it makes and gives it constants, so that no initializer runs.

  Initializing a model of a million parameters costs as much as a training step, and would happen for every client.
  """

  def __init__(self, values):
    self._values = values
    self.variables = []

  def __call__(self, next_creator, **arguments):
    value = None
    if self._values is not None:
      if len(self.variables) >= len(self._values):
        raise FederateError('model_fn makes more variables at one time than at another: make it return the same model.')
      value = self._values[len(self.variables)]
    if value is not None:
      arguments['initial_value'] = value if isinstance(value, _Zeros) else functools.partial(tf.constant, value)
    variable = next_creator(**arguments)
    self.variables.append(variable)
    return variable


def check_model(model, model_fn=None):
  """Raises FederateError if the model cannot be trained federated, whatever the data."""
  if not isinstance(model, tf.keras.Model):
    raise FederateError(f'a tf.keras.Model is needed, not {type(model).__name__}.')
  if not getattr(model, '_is_compiled', False) or model.compiled_loss is None:
    raise FederateError('the model is not compiled: call model.compile(optimizer=…, loss=…, metrics=[…]) first.')
  for name in ('train_step', 'compute_loss', 'compute_metrics'):
    if getattr(type(model), name) is not getattr(tf.keras.Model, name):
      raise FederateError(f'{type(model).__name__} has a {name} of its own, which clients cannot run: use the standard one, '
                          'or write a tff.learning.models.VariableModel and train that with TFF.')
  if model_fn is None and not _clonable(model):
    raise FederateError(f'{type(model).__name__} is a subclass of Model without get_config, which Keras cannot copy: pass '
                        'model_fn= with a function that makes an uncompiled copy.')
  for layer in _layers(model):
    if getattr(layer, 'stateful', False) and isinstance(layer, tf.keras.layers.RNN):
      raise FederateError(f'the layer {layer.name!r} is stateful, and clients keep nothing between batches: use stateful=False.')


def _clonable(model):
  if _is_network(model):
    return True
  try:
    model.get_config()
  except NotImplementedError:
    return False
  return type(model).get_config is not tf.keras.Model.get_config


def _moving_statistics(model):
  """The variables that are not trained but change in training: those of layers that are neither frozen nor preprocessing."""
  fixed = set()
  for layer in _layers(model):
    if not layer.trainable or isinstance(layer, tf.keras.layers.experimental.preprocessing.PreprocessingLayer):
      fixed.update(id(v) for v in layer.variables)
  if not model.trainable:
    return []
  return [v for v in model.non_trainable_variables if id(v) not in fixed and v.dtype.is_floating]


def _configs(model):
  """{id: configuration} of the model's layers, or of the model if it is not made of layers alone, at any depth.

  They are read here as they differ in the graphs that TFF makes, where Keras has other base classes: some layers have none
  there, and recurrent ones then ask for a cache that holds what the weights were before the server's arrived.
  """
  if not _is_network(model):
    return {id(model): model.get_config()}
  configs = {}
  for layer in model.layers:
    configs.update(_configs(layer))
  return configs


def _is_network(layer):
  return isinstance(layer, tf.keras.Sequential) or getattr(layer, '_is_graph_network', False)


def _layers(model):
  """The model and all layers in it, at any depth. (`submodules` fails on recurrent layers with dropout.)"""
  return list(model._flatten_layers())


def _random_layers(model):
  return [layer for layer in _layers(model)
          if isinstance(getattr(layer, '_random_generator', None), backend.RandomGenerator)]


def _position(variables, variable):
  for position, candidate in enumerate(variables):
    if candidate is variable or getattr(candidate, '_variable', None) is variable:
      return position
  return None


def _fresh_metrics(metrics):
  """New metric objects in place of those in the structure; names and functions stay as they are."""
  def fresh(metric):
    if not isinstance(metric, tf.keras.metrics.Metric):
      return metric
    with _one_sentence(f'the metric {metric.name!r} cannot be copied ({{}}): give it a get_config.'):
      return type(metric).from_config(metric.get_config())
  return tf.nest.map_structure(fresh, metrics)


def _spec(variables):
  return codec_lib.Spec(_distinct(tuple(
      codec_lib.TensorSpec(v.name.split(':')[0], tuple(v.shape.as_list()), v.dtype.name) for v in variables)))


def _distinct(tensors):
  """The specs with _1, _2, … behind names that are there already."""
  counts = collections.Counter()
  result = []
  for tensor in tensors:
    count = counts[tensor.name]
    counts[tensor.name] += 1
    result.append(codec_lib.TensorSpec(f'{tensor.name}_{count}' if count else tensor.name, tensor.shape, tensor.dtype))
  return tuple(result)


@contextlib.contextmanager
def isolated(model):
  """A block that makes Keras objects in the graphs of TFF, and leaves Keras as it was.

  Two things would not be as they were: in such graphs Keras gives its layer, model and metric classes other base classes,
  and so to every object there is, after which a user's model has no usable `evaluate` or `fit`. And layers and
  initializers without a seed draw one from Python's generator.
  """
  for kind in {type(layer) for layer in _layers(model)}:
    # Someone else's TFF may have left them so.
    version_utils.swap_class(kind, version_utils.training.Model, version_utils.training_v1.Model, True)
    version_utils.swap_class(kind, version_utils.base_layer.Layer, version_utils.base_layer_v1.Layer, True)
  bases = {kind: kind.__bases__ for kind in _subclasses(version_utils.base_layer.Layer)}
  state = random.getstate()
  logger = tf.get_logger()
  level = logger.level
  logger.setLevel(logging.ERROR)  # Keras calls what TensorFlow has deprecated, and users can do nothing about it.
  try:
    yield
  finally:
    logger.setLevel(level)
    random.setstate(state)
    for kind, before in bases.items():
      if kind.__bases__ != before:
        kind.__bases__ = before


def _subclasses(kind):
  found, queue = set(), [kind]
  while queue:
    for child in queue.pop().__subclasses__():
      if child not in found:
        found.add(child)
        queue.append(child)
  return found


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
  text = re.sub(r'\{\{[^}]*\}\} ?', '', text or '').replace('Failed to run computation:', '')
  text = re.sub(r'assertion failed: \[(.*?)\]', r'\1', text).replace("\\'", "'")
  lines = [' '.join(line.split()) for line in text.splitlines()]
  lines = [line for line in lines if line and not line.startswith(('File "', 'Call arguments', '•', 'Traceback'))]
  # Where code that was traced fails, the error itself comes behind its traceback.
  named = [line for line in lines if re.match(r'[A-Za-z]+Error: ', line)]
  line = re.sub(r'^[A-Za-z]+Error: ', '', (named or lines or [type(error).__name__])[0])
  return (line if len(line) <= 200 else line[:199] + '…').rstrip('.')
