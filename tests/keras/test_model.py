"""What can be trained, and what a client's copy of a model does. No TFF worker takes part."""

import collections
import random

import numpy as np
import pytest
import tensorflow as tf

from tff_compress import codec as codec_lib
from tff_compress.codec.errors import CompressionError
from tff_compress.keras import federate
from tff_compress.keras import FederateError
from tff_compress.keras.blueprint import Blueprint
from tff_compress.keras.client_model import ClientModel
from tff_compress.keras.links import Links

pytestmark = pytest.mark.xdist_group('tff')

keras = tf.keras
layers = keras.layers
CLASSES = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
SPEC = (tf.TensorSpec([None, 6]), tf.TensorSpec([None], tf.int32), None)


def data(rows=20, width=6):
  return np.zeros((rows, width), np.float32), np.zeros(rows, int)


def linear(compiled=True, **settings):
  model = keras.Sequential([keras.Input((6,)), layers.Dense(3)])
  if compiled:
    model.compile(**{**dict(optimizer='sgd', loss=CLASSES, metrics=['accuracy']), **settings})
  return model


def with_layers(*middle, loss=CLASSES, shape=(6,)):
  model = keras.Sequential([keras.Input(shape), *middle])
  model.compile('sgd', loss)
  return model


class OwnStep(keras.Model):

  def train_step(self, data):
    return {}


class OwnFunction(keras.Model):

  def make_train_function(self, force=False):
    return super().make_train_function(force)


class Sub(keras.Model):

  def __init__(self):
    super().__init__()
    self.out = layers.Dense(3)

  def call(self, x):
    return self.out(x)


class NeedsArgument(layers.Layer):
  """Has no configuration that it could be made from again."""

  def __init__(self, function):
    super().__init__()
    self.function, self.inner = function, layers.Dense(3)

  def get_config(self):
    raise NotImplementedError('no configuration')

  def call(self, x):
    return self.inner(x)


class Stateful(layers.Layer):
  """Adds up, in a variable that may be no weight, or no number."""

  def __init__(self, make, change):
    super().__init__()
    self.make, self.change = make, change

  def build(self, shape):
    self.held = self.make(self)

  def call(self, x, training=None):
    if training:
      self.change(self.held)
    return x


def own(kind):
  inputs = keras.Input((6,))
  model = kind(inputs, layers.Dense(3)(inputs))
  model.compile('sgd', CLASSES)
  return model


def variable_elsewhere():
  elsewhere = tf.Variable(0.0, name='elsewhere')
  return with_layers(Stateful(lambda layer: None, lambda held: elsewhere.assign_add(1)), layers.Dense(3))


def own_loss_of_one_object():
  model = linear()
  model.compute_loss = lambda x, y, y_pred, sample_weight: tf.reduce_sum(y_pred)
  return model


def sub(built):
  model = Sub()
  if built:
    model(np.zeros((1, 6), np.float32))
  model.compile('sgd', CLASSES)
  return model


def stateful():
  model = keras.Sequential([keras.Input((5, 4), batch_size=20), layers.LSTM(3, stateful=True)])
  model.compile('sgd', 'mse')
  return model


def frozen():
  model = linear()
  model.trainable = False
  model.compile('sgd', CLASSES)
  return model


class Late(keras.metrics.Metric):
  """Makes its variables when it is first used."""

  def update_state(self, y_true, y_pred, sample_weight=None):
    self.total = self.add_weight('total')

  def result(self):
    return self.total


BAD_MODELS = {
    'no model': (lambda: 'model', {}, 'a tf.keras.Model is needed, not str\\.'),
    'not compiled': (lambda: linear(compiled=False), {}, 'not compiled'),
    'train_step': (lambda: own(OwnStep), {}, 'OwnStep has a train_step of its own'),
    'train_function': (lambda: own(OwnFunction), {}, 'OwnFunction has a make_train_function of its own'),
    'compute_loss': (own_loss_of_one_object, {}, 'Sequential has a compute_loss of its own'),
    'unbuilt': (lambda: sub(False), {}, 'has no variables yet'),
    'no weight': (variable_elsewhere, {}, "changes the variable 'elsewhere:0', which is no weight"),
    'generator': (lambda: with_layers(Stateful(lambda layer: tf.random.Generator.from_seed(1),
                                               lambda held: held.normal([])),
                                      layers.Dense(3)), {}, "StateVar:0', which is no weight.*tf.random.normal"),
    'flag': (lambda: with_layers(Stateful(lambda layer: layer.add_weight('seen', (), tf.bool, trainable=False),
                                          lambda held: held.assign(True)), layers.Dense(3)),
             {}, 'seen:0.*dtype bool have no mean'),
    'no gradient': (lambda: with_layers(layers.Dense(3), layers.Lambda(tf.stop_gradient)), {},
                    'depends on no trainable weight'),
    'stateful': (stateful, {}, "the layer '.*' is stateful"),
    'frozen': (frozen, {}, 'no trainable weights'),
    'float64': (lambda: with_layers(layers.Dense(3, dtype='float64')), {}, 'has dtype float64'),
    'no loss': (lambda: linear(loss=None), {}, 'without a loss'),
    'late metric': (lambda: linear(metrics=[Late()]), {}, 'has no variables before it is used'),
    'optimizer': (lambda: linear(optimizer='nadam'), {}, 'no optimizer like Nadam'),
}


@pytest.mark.parametrize('make, changes, words', BAD_MODELS.values(), ids=BAD_MODELS)
def test_models_that_cannot_be_trained_are_refused_in_one_sentence(make, changes, words):
  with pytest.raises(FederateError, match=words) as caught:
    federate(make(), [data()], rounds=1, progress=False, **changes)
  assert isinstance(caught.value, ValueError)
  assert str(caught.value).endswith('.') and '\n' not in str(caught.value)


BAD_ARGUMENTS = {
    'rounds 0': (dict(rounds=0), 'rounds must be a whole number of at least 1, not 0'),
    'rounds 1.5': (dict(rounds=1.5), 'rounds must be a whole number'),
    'rounds True': (dict(rounds=True), 'rounds must be a whole number'),
    'epochs': (dict(local_epochs=0), 'local_epochs'),
    'batch': (dict(batch_size=-1), 'batch_size'),
    'clients': (dict(clients_per_round=2), 'more than the number of clients, 1:'),
    'rate': (dict(learning_rate=float('nan')), 'learning_rate'),
    'server rate': (dict(server_learning_rate=0), 'server_learning_rate'),
    'server': (dict(server_optimizer='lion'), 'lion'),
    'client optimizer': (dict(client_optimizer=keras.optimizers.SGD()), 'client_optimizer must be'),
    'both rates': (dict(client_optimizer='x', learning_rate=0.1), 'leave learning_rate out'),
    'proximal': (dict(proximal_strength=-1.0), 'proximal_strength'),
    'weighting': (dict(weighting='size'), 'weighting'),
    'ema': (dict(ema=1.0), 'ema must be'),
    'uplink': (dict(uplink='xyzzy'), "there is no stage 'xyzzy'"),
    'uplink number': (dict(uplink=8), 'a codec or method is written as a text'),
    'uplink rule': (dict(uplink='size>1000 => float32'), 'no rule of the codec matches variable .*kernel'),
    'downlink': (dict(downlink='pack'), 'pack takes integer symbols'),
    'downlink rule': (dict(downlink='size>1000 => float32'), 'no rule of the codec matches variable .*kernel'),
    'downlink of auto': (dict(uplink='auto', downlink='int8'), "'auto' has a downlink of its own: leave downlink"),
    'seed': (dict(seed=-1), 'seed'),
    'validation': (dict(validation_data=3), 'validation_data'),
    'width': (dict(client_data=[data(width=7)]), 'cannot be called on this data'),
    'no labels': (dict(client_data=[data()[:1]]), 'have no y'),
    'metric': (dict(model=linear(metrics=['accuraccy'])), "no metric 'accuraccy'"),
    'python': (dict(model=with_layers(layers.Lambda(lambda x: tf.ensure_shape(
        tf.numpy_function(np.abs, [x], x.dtype), x.shape)), layers.Dense(3))), 'calls Python in every step'),
    'no labels but a penalty': (dict(model=with_layers(layers.Dense(3, kernel_regularizer='l2')),
                                     client_data=[data()[:1]]), 'have no y'),
    'labels': (dict(model=linear(loss='mse'), client_data=[(data()[0], np.zeros((20, 5)))]),
               'are 3 and 5 for SquaredDifference with input shapes'),
}


@pytest.mark.parametrize('changes, words', BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS)
def test_arguments_that_cannot_be_used_are_refused_in_one_sentence(changes, words):
  with pytest.raises(CompressionError, match=words) as caught:
    federate(**{**dict(model=linear(), client_data=[data()], rounds=1, progress=False), **changes})
  assert str(caught.value).endswith('.') and '\n' not in str(caught.value)


def test_a_rule_that_fits_no_variable_is_told():
  blueprint = Blueprint(linear(), SPEC)
  with pytest.warns(codec_lib.UnmatchedRuleWarning, match="'\\*/bais' fits no variable, as there are only 'dense"):
    Links('*/bais => float32; * => uniform | pack', None).check_rules(blueprint)


def copy_in_session(blueprint, run):
  """Runs `run(client_model, session)` on a client's model in a graph such as TFF makes, with the user's weights in it.
  """
  start = blueprint.weights()
  with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    client_model = ClientModel(blueprint)
    session.run([tf.compat.v1.global_variables_initializer(), tf.compat.v1.tables_initializer()])
    for variable, value in zip(client_model.trainable_variables + client_model.non_trainable_variables,
                               list(start.trainable) + list(start.non_trainable)):
      session.run(variable.assign(value))
    return run(client_model, session)


def step_in_session(blueprint, *parts):
  """One step of gradient descent at rate 1 as TFF takes it: (weights after it, {metric: result})."""

  def run(client_model, session):

    @tf.function
    def step():
      one = collections.OrderedDict(
          (name, tuple(tf.constant(part, spec.dtype)
                       for part, spec in zip(tf.nest.flatten(part), blueprint.input_spec[name])))
          for name, part in zip(('x', 'y', 'w'), parts))
      if 'key' in blueprint.input_spec:
        one['key'] = tf.zeros([len(one['x'][0]), 2], tf.int32)
      with tf.GradientTape() as tape:
        loss = client_model.forward_pass(one).loss
      gradients = tape.gradient(loss, client_model.trainable_variables)
      return ([v if g is None else v - g for v, g in zip(client_model.trainable_variables, gradients)],
              client_model.report_local_unfinalized_metrics())

    weights, report = step()
    finalizers = client_model.metric_finalizers()
    # TFF finalizes in another graph.
    return *session.run([weights, report]), finalizers

  weights, report, finalizers = copy_in_session(blueprint, run)
  with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    results = {name: finalizer([tf.constant(value) for value in report[name]])
               for name, finalizer in finalizers.items()}
    session.run([tf.compat.v1.global_variables_initializer(), tf.compat.v1.tables_initializer()])
    results = session.run(results)
    return weights, blueprint.named(results)


def step_of_keras(model, *parts):
  """The same with Keras's own step; the model is compiled with gradient descent at rate 1, and has its weights back
  after.
  """
  start = [v.numpy() for v in model.trainable_variables]
  metrics = model.train_on_batch(*parts, return_dict=True)
  weights = [v.numpy() for v in model.trainable_variables]
  for variable, value in zip(model.trainable_variables, start):
    variable.assign(value)
  return weights, metrics


def batch(keys, rows=4, width=6):
  x = np.ones((rows, width), np.float32)
  return [collections.OrderedDict(key=tf.constant([key] * rows, tf.int32), x=(tf.constant(x),),
                                  y=(tf.zeros([rows], tf.int32),)) for key in keys]


@pytest.mark.parametrize('layer', [layers.Dropout(0.5), layers.GaussianNoise(1.0), layers.AlphaDropout(0.5)])
def test_random_layers_depend_on_the_key_of_the_batch_alone(layer):
  blueprint = Blueprint(with_layers(layers.Dense(50), layer, layers.Dense(3)), SPEC)
  assert 'key' in blueprint.input_spec

  def run(client_model, session):
    outputs = [client_model.forward_pass(b).predictions for b in batch([(1, 2), (1, 3), (1, 2)])]
    return session.run(outputs)

  first, other, again = copy_in_session(blueprint, run)
  np.testing.assert_array_equal(first, again)
  assert np.abs(first - other).max() > 1e-3
  # Each row has a mask of its own.
  assert np.abs(first[0] - first[1]).max() > 1e-3


def test_layers_draw_independently_of_each_other():
  inputs = keras.Input((6,))
  wide = layers.Dense(100, kernel_initializer='ones')(inputs)
  model = keras.Model(inputs, layers.Concatenate()([layers.Dropout(0.5)(wide), layers.Dropout(0.5)(wide)]))
  model.compile('sgd', 'mse')
  blueprint = Blueprint(model, (tf.TensorSpec([None, 6]), tf.TensorSpec([None, 200]), None))

  def run(client_model, session):
    [one] = batch([(1, 2)])
    one['y'] = (tf.zeros([4, 200]),)
    return session.run(client_model.forward_pass(one).predictions) > 0

  kept = copy_in_session(blueprint, run)
  # Independent halves agree in half of their 400 places: 200 with a standard deviation of 10.
  assert 140 < (kept[:, :100] == kept[:, 100:]).sum() < 260


def test_models_that_draw_nothing_get_no_keys():
  assert list(Blueprint(linear(), SPEC).input_spec) == ['x', 'y']


def test_statistics_are_reported_as_changes_times_examples_and_only_those_that_move():
  model = with_layers(layers.Dense(5, trainable=False), layers.BatchNormalization(momentum=0.5, name='moves'),
                      layers.BatchNormalization(trainable=False, name='rests'),
                      layers.Normalization(mean=0.0, variance=1.0),
                      layers.Dense(3))
  blueprint = Blueprint(model, SPEC)
  assert [t.name for t in blueprint.statistics_spec.tensors] == ['moves/moving_mean', 'moves/moving_variance']
  assert blueprint.variances() == [1]
  x = np.random.default_rng(0).random((8, 6), np.float32)
  hidden = x @ model.layers[0].get_weights()[0]

  # Through tf.function, as clients do: there every assignment takes place, in the order of the code.
  def run(client_model, session):
    @tf.function
    def train():
      client_model.forward_pass(collections.OrderedDict(x=(tf.constant(x),), y=(tf.zeros([8], tf.int32),)))
      return client_model.report_local_unfinalized_metrics()

    return session.run(train())

  report = copy_in_session(blueprint, run)
  assert report['num_examples'] == [8] and report['num_clients'] == [1]
  mean, variance = report['moving_statistics']
  np.testing.assert_allclose(mean, 8 * 0.5 * hidden.mean(0), rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(variance, 8 * 0.5 * (hidden.var(0) - 1), rtol=1e-4, atol=1e-5)


def test_frozen_weights_are_constants_and_no_initializer_runs():
  model = with_layers(layers.Dense(4, trainable=False, bias_initializer='ones'), layers.Dense(3))
  blueprint = Blueprint(model, SPEC)

  def run(client_model, session):
    initial = client_model.trainable_variables[0].initializer.inputs[1].op.type
    one = collections.OrderedDict(x=(tf.ones([2, 6]),), y=(tf.zeros([2], tf.int32),))
    return session.run(client_model.forward_pass(one).predictions), initial

  predictions, initial = copy_in_session(blueprint, run)
  np.testing.assert_allclose(predictions, model(np.ones((2, 6))), atol=1e-6)
  assert initial in ('Const', 'Fill')
  assert len(blueprint.weights_spec.tensors) == 2


def test_weights_are_read_when_they_are_used():
  """What arrives from the server counts, not what was there when the step was traced; recurrent layers like to keep
  copies.
  """
  model = keras.Sequential([keras.Input((4, 2)), layers.LSTM(3), layers.Dense(3)])
  model.compile('sgd', CLASSES)
  blueprint = Blueprint(model, (tf.TensorSpec([None, 4, 2]), tf.TensorSpec([None], tf.int32), None))
  x = np.random.default_rng(0).random((5, 4, 2), np.float32)
  arriving = [2 * weight for weight in blueprint.weights().trainable]

  def run(client_model, session):
    one = collections.OrderedDict(key=tf.zeros([5, 2], tf.int32), x=(tf.constant(x),), y=(tf.zeros([5], tf.int32),))

    @tf.function
    def receive_and_use():
      for variable, value in zip(client_model.trainable_variables, arriving):
        variable.assign(value)
      return client_model.forward_pass(one).predictions

    return session.run(receive_and_use())

  result = copy_in_session(blueprint, run)
  model.set_weights(arriving)
  np.testing.assert_allclose(result, model(x), atol=1e-5)


class Positive(layers.Layer):

  def call(self, x):
    return tf.where(x == tf.nn.relu(x), x, 0.1 * x)


class NotZero(keras.regularizers.Regularizer):

  def __call__(self, weight):
    return tf.reduce_sum(tf.cast(weight != 0.0, tf.float32) * weight)


class Alike(keras.metrics.Metric):
  """How many labels are the first one; None, and so -1, where there are none."""

  def __init__(self, name='alike', **settings):
    super().__init__(name=name, **settings)
    self.count = self.add_weight('count', initializer='zeros')

  def update_state(self, y_true, y_pred, sample_weight=None):
    self.count.assign_add(tf.reduce_sum(tf.cast(y_true == y_true[0], tf.float32)))

  def result(self):
    return tf.where(self.count == 0.0, -1.0, self.count)


def strict(y_true, y_pred):
  return tf.reduce_sum(tf.cast(y_true != 0, tf.float32) * (y_pred - y_true)**2) / 4


class Reporting(layers.Layer):
  """Has a loss and a metric of its own, and neither a get_config nor arguments that could be guessed."""

  def __init__(self, scale):
    super().__init__()
    self.scale = scale

  def call(self, x):
    self.add_loss(self.scale * tf.reduce_mean(x**2))
    self.add_metric(tf.reduce_mean(x, -1), name='height')
    return x


class Untaught(keras.Model):
  """A model that Keras cannot copy, one weight of which has no gradient."""

  def __init__(self):
    super().__init__()
    self.out, self.idle = layers.Dense(1), layers.Dense(1)

  def call(self, x, training=False):
    return self.out(x) + tf.stop_gradient(self.idle(x))


def of(*middle, model=None, shape=(6,), dtype='float32', **settings):
  model = keras.Sequential([keras.Input(shape, dtype=dtype), *middle]) if model is None else model
  model.compile(**{**dict(optimizer=keras.optimizers.SGD(1.0), loss='mse'), **settings})
  return model


RNG = np.random.default_rng(4)
X, Y = RNG.random((4, 6), np.float32) - 0.3, np.array([[1], [0], [2], [0]], np.float32)
TOKENS = np.array([[5, 0, 0, 0], [6, 7, 0, 0], [6, 6, 8, 1], [1, 2, 3, 4]])
STEPS = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 1], [0, 1, 0, 1]])
WEIGHTS = np.array([0.0, 1.0, 2.0, 0.5], np.float32)


def untaught():
  model = Untaught()
  model(X)
  return of(model=model)


def texts():
  vectors = layers.TextVectorization(output_sequence_length=3)
  vectors.adapt(['a b c', 'a d'])
  return of(vectors, layers.Embedding(9, 2), layers.Flatten(), layers.Dense(1), shape=(1,), dtype='string')


STEPS_OF_KERAS = {
    'loss with !=': (lambda: of(layers.Dense(1), loss=strict), X, Y),
    'layer with ==': (lambda: of(layers.Dense(3), Positive(), layers.Dense(1)), X, Y),
    'regularizer with !=': (lambda: of(layers.Dense(1, kernel_regularizer=NotZero())), X, Y),
    'metric with ==': (lambda: of(layers.Dense(1), metrics=[Alike()], weighted_metrics=['mae']), X, Y, WEIGHTS),
    'loss with a tensor from around it': (
        lambda: of(layers.Dense(1), loss=lambda t, p, scale=tf.constant(3.0): scale * tf.reduce_mean((t - p)**2)),
        X, Y),
    'loss of each example': (lambda: of(layers.Dense(1), loss=keras.losses.MeanSquaredError(reduction='none')), X, Y),
    'sum': (lambda: of(layers.Dense(1), loss=keras.losses.MeanSquaredError(reduction='sum')), X, Y),
    'weighted loss': (lambda: of(layers.Dense(1), loss_weights=[0.1]), X, Y, WEIGHTS),
    'mask in the loss': (lambda: of(layers.Embedding(9, 3, mask_zero=True), layers.Dense(2), shape=(4,), dtype='int32',
                                    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)), TOKENS, STEPS),
    'ignored class': (lambda: of(layers.Embedding(9, 3), layers.Dense(2), shape=(4,), dtype='int32',
                                 loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0)),
                      TOKENS, STEPS),
    'mask through layers': (
        lambda: of(layers.Embedding(9, 3, mask_zero=True), layers.Bidirectional(layers.LSTM(3, return_sequences=True)),
                   layers.Lambda(lambda t: t[:, 0]), layers.Dense(1), shape=(4,), dtype='int32'), TOKENS, Y),
    'activity and weight 0': (lambda: of(layers.Dense(3, activity_regularizer='l2'), layers.Dense(1)), X, Y, WEIGHTS),
    'loss and metric of a layer': (lambda: of(Reporting(0.3), layers.Dense(1)), X, Y),
    'no get_config': (lambda: of(NeedsArgument(len), layers.Dense(1)), X, Y),
    'no copy, no gradient': (untaught, X, Y),
    'metric without a name': (lambda: of(layers.Dense(1), metrics=[lambda t, p: tf.reduce_max(t, -1)]), X, Y),
    'texts': (texts, np.array([['a b'], ['c'], ['b'], ['d a']]), Y),
    'words': (lambda: of(layers.StringLookup(vocabulary=['a', 'b']), layers.Embedding(5, 3), layers.Flatten(),
                         layers.Dense(1), shape=(2,), dtype='string'),
              np.array([['a', 'b'], ['c', 'a'], ['b', 'b'], ['z', 'b']]), Y),
}


@pytest.mark.parametrize('case', STEPS_OF_KERAS.values(), ids=STEPS_OF_KERAS)
def test_a_step_of_a_client_is_a_step_of_keras(case):
  make, *parts = case
  model = make()
  spec = [tf.nest.map_structure(lambda a: tf.TensorSpec([None, *a.shape[1:]], tf.as_dtype(a.dtype.type)), part)
          for part in parts]
  blueprint = Blueprint(model, (*spec, None)[:3])
  expected, metrics = step_of_keras(model, *parts)
  weights, results = step_in_session(blueprint, *parts)
  for variable, got, want in zip(model.trainable_variables, weights, expected):
    np.testing.assert_allclose(got, want, atol=2e-6, err_msg=variable.name)
  assert set(metrics) == set(results)
  for name, value in metrics.items():
    np.testing.assert_allclose(results[name], value, rtol=1e-5, err_msg=name)


def test_the_users_model_is_as_it_was():
  model = with_layers(layers.Dense(4), layers.Dropout(0.5, seed=3), layers.BatchNormalization(), layers.Dense(3))
  weights, bases = model.get_weights(), {kind: kind.__bases__ for kind in (keras.Model, layers.Layer, layers.Dense)}
  dropout = model.layers[1]
  generator, seed = dropout._random_generator, dropout._random_generator._seed
  state = random.getstate()
  copy_in_session(Blueprint(model, SPEC), lambda client_model, session: None)
  assert dropout._random_generator is generator and generator._seed == seed
  assert random.getstate() == state
  assert {kind: kind.__bases__ for kind in bases} == bases
  for a, b in zip(weights, model.get_weights()):
    np.testing.assert_array_equal(a, b)


def test_classes_that_someone_elses_graph_changed_are_mended():
  inputs = keras.Input((6,))
  model = keras.Model(inputs, Positive()(layers.Dense(3)(inputs)))
  model.compile('sgd', CLASSES)
  with tf.Graph().as_default():  # As TFF's own from_keras_model does.
    there = keras.Input((6,))
    keras.Model(there, Positive()(layers.Dense(3)(there)))
  assert any('v1' in kind.__module__ for kind in Positive.__mro__)
  Blueprint(model, SPEC)
  assert not any('v1' in kind.__module__ for kind in Positive.__mro__ + type(model).__mro__)
