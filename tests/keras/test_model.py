"""What can be trained, and what a client's copy of a model does. No TFF worker takes part."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from tff_compress.codec.errors import CompressionError
from tff_compress.keras import FederateError
from tff_compress.keras import federate
from tff_compress.keras import training
from tff_compress.keras.model import Blueprint
from tff_compress.keras.model import ClientModel

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


def own_step():
  inputs = keras.Input((6,))
  model = OwnStep(inputs, layers.Dense(3)(inputs))
  model.compile('sgd', CLASSES)
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
    'no model': (lambda: 'model', {}, 'a tf.keras.Model is needed, not str'),
    'not compiled': (lambda: linear(compiled=False), {}, 'not compiled'),
    'train_step': (own_step, {}, 'OwnStep has a train_step of its own'),
    'subclass': (lambda: sub(True), {}, 'pass model_fn='),
    'unbuilt': (lambda: sub(False), dict(model_fn=Sub), 'has no variables yet'),
    'layer': (lambda: with_layers(NeedsArgument(len)), {}, 'cannot be copied .no configuration.'),
    'other model_fn': (linear, dict(model_fn=lambda: keras.Sequential([keras.Input((6,)), layers.Dense(4)])),
                       'has other variables'),
    'no model_fn': (linear, dict(model_fn=lambda: None), 'cannot be copied'),
    'stateful': (stateful, {}, "the layer '.*' is stateful"),
    'frozen': (frozen, {}, 'no trainable weights'),
    'float64': (lambda: with_layers(layers.Dense(3, dtype='float64')), {}, 'has dtype float64'),
    'no loss': (lambda: linear(loss=None), {}, 'without a loss'),
    'captured': (lambda: linear(loss=lambda y, p, c=tf.constant(2.0): tf.reduce_mean(p) * c), {}, 'EagerTensor'),
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
    'rounds 0': (dict(rounds=0), 'rounds must be at least 1'),
    'rounds 1.5': (dict(rounds=1.5), 'rounds must be a whole number'),
    'rounds True': (dict(rounds=True), 'rounds must be a whole number'),
    'epochs': (dict(local_epochs=0), 'local_epochs'),
    'batch': (dict(batch_size=-1), 'batch_size'),
    'clients': (dict(clients_per_round=2), 'there are 1 clients'),
    'rate': (dict(learning_rate=float('nan')), 'learning_rate'),
    'server rate': (dict(server_learning_rate=0), 'server_learning_rate'),
    'server': (dict(server_optimizer='lion'), 'lion'),
    'client optimizer': (dict(client_optimizer=keras.optimizers.SGD()), 'client_optimizer must be'),
    'both rates': (dict(client_optimizer='x', learning_rate=0.1), 'leave learning_rate out'),
    'proximal': (dict(proximal_strength=-1.0), 'proximal_strength'),
    'weighting': (dict(weighting='size'), 'weighting'),
    'ema': (dict(ema_momentum=1.0), 'ema_momentum'),
    'uplink': (dict(uplink='xyzzy'), "there is no stage 'xyzzy'"),
    'uplink number': (dict(uplink=8), 'a codec or method is written as a text'),
    'uplink rule': (dict(uplink='size>1000 => float32'), 'no rule of the codec matches variable .*kernel'),
    'downlink': (dict(downlink='pack'), 'pack takes integer symbols'),
    'downlink rule': (dict(downlink='size>1000 => float32'), 'no rule of the codec matches variable .*kernel'),
    'seed': (dict(seed=-1), 'seed'),
    'validation': (dict(validation_data=3), 'validation_data'),
    'width': (dict(client_data=[data(width=7)]), 'cannot be called on this data'),
    'no labels': (dict(client_data=[data()[:1]]), 'have no y'),
    'labels': (dict(model=linear(loss='mse'), client_data=[(data()[0], np.zeros((20, 5)))]),
               'cannot be trained on this data'),
}


@pytest.mark.parametrize('changes, words', BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS)
def test_arguments_that_cannot_be_used_are_refused_in_one_sentence(changes, words):
  with pytest.raises(CompressionError, match=words) as caught:
    federate(**{**dict(model=linear(), client_data=[data()], rounds=1, progress=False), **changes})
  assert str(caught.value).endswith('.') and '\n' not in str(caught.value)


def copy_in_session(blueprint, run):
  """Runs `run(client_model, session)` on a copy in a graph such as TFF makes, with the user's weights in it."""
  start = blueprint.weights()
  with blueprint.isolated(), tf.Graph().as_default(), tf.compat.v1.Session() as session:
    client_model = ClientModel(blueprint)
    session.run([v.initializer for v in [*client_model._model.variables, *client_model.local_variables]])
    for variable, value in zip(client_model.trainable_variables + client_model.non_trainable_variables,
                               list(start.trainable) + list(start.non_trainable)):
      session.run(variable.assign(value))
    return run(client_model, session)


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
                      layers.BatchNormalization(trainable=False, name='rests'), layers.Normalization(mean=0.0, variance=1.0),
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


def test_copies_hold_frozen_weights_and_no_random_numbers():
  model = with_layers(layers.Dense(4, trainable=False, bias_initializer='ones'), layers.Dense(3))

  def run(client_model, session):
    copy = client_model._model
    initial = client_model.trainable_variables[0].initializer.inputs[1].op.type
    return session.run([copy.layers[0].kernel, copy.layers[0].bias]), initial

  (kernel, bias), initial = copy_in_session(Blueprint(model, SPEC), run)
  np.testing.assert_array_equal(kernel, model.layers[0].kernel.numpy())
  np.testing.assert_array_equal(bias, np.ones(4))
  assert initial in ('Const', 'Fill')


def test_recurrent_weights_are_read_when_they_are_used():
  """Copied in graphs such as TFF's, recurrent cells ask Keras for a cache of what was there before the server's weights."""
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


def test_average_starts_with_the_first_weights_and_forgets_by_its_momentum():
  average = training.Average(0.75)
  for value in (4.0, 8.0, 0.0):
    average.update(_weights(value))
  np.testing.assert_allclose(average.weights.trainable[0], (4 * 0.75 + 8 * 0.25) * 0.75)
  latest = training.Average(None)
  latest.update(_weights(1.0))
  latest.update(_weights(2.0))
  assert latest.weights.trainable[0] == 2.0


def _weights(value):
  import tensorflow_federated as tff
  return tff.learning.models.ModelWeights([np.float32(value)], [])
