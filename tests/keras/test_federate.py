"""Keras in, Keras out, on TFF's worker: the same weights as Keras, whatever the model; bytes as sent; nothing left
behind."""

import concurrent.futures
import random

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

import tff_compress
from tff_compress import codec as codec_lib
from tff_compress import wire
from tff_compress.codec import defaults
from tff_compress.keras import federate
from tff_compress.keras import FederateError
from tff_compress.keras import training

keras = tf.keras
layers = keras.layers

pytestmark = [pytest.mark.xdist_group('tff'), pytest.mark.usefixtures('tff_runtime')]

CLASSES = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
EACH = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction='none')  # Keras differentiates the sum.


def arrays(seed, rows, shape=(6,), classes=3):
  rng = np.random.default_rng(seed)
  return rng.random((rows, *shape), np.float32), rng.integers(0, classes, rows)


class Block(layers.Layer):
  """A layer without get_config that holds others: Keras cannot copy it."""

  def __init__(self, units, activation=None):
    super().__init__()
    self.dense, self.norm = layers.Dense(units, activation, use_bias=False), layers.BatchNormalization(momentum=0.8)

  def call(self, x, training=None):
    return self.norm(self.dense(x), training=training)


class Subclassed(keras.Model):

  def __init__(self):
    super().__init__()
    self.hidden = layers.Dense(4, kernel_constraint=keras.constraints.UnitNorm())
    self.norm, self.out = layers.BatchNormalization(), layers.Dense(3)

  def call(self, x, training=False):
    return self.out(self.norm(self.hidden(x), training=training))


def two_inputs():
  """Two inputs in a dict, one of integers; moving statistics, a frozen layer, a regularizer, weights, metrics of each
  kind."""
  left, right = keras.Input((4,), name='left'), keras.Input((2,), dtype='int32', name='right')
  h = layers.Concatenate()([layers.Dense(5)(left), layers.Flatten()(layers.Embedding(7, 3)(right))])
  h = layers.BatchNormalization(momentum=0.7, name='norm')(h)
  h = layers.Dense(4, 'relu', trainable=False, name='frozen')(h)
  model = keras.Model([left, right], layers.Dense(1, kernel_regularizer='l2')(h))
  rng = np.random.default_rng(0)
  data = {name: ({'right': rng.integers(0, 7, (rows, 2)), 'left': rng.random((rows, 4))}, rng.random((rows, 1)),
                 rng.random(rows))
          for name, rows in (('a', 40), ('b', 30))}
  return model, data, lambda: dict(optimizer=keras.optimizers.SGD(0.1, momentum=0.9), loss='mse',
                                   metrics=[keras.metrics.MeanAbsoluteError()], weighted_metrics=['mse'])


def decaying():
  """A Keras optimizer with weight decay, from which biases are excluded."""
  optimizer = keras.optimizers.AdamW(0.01, weight_decay=3.0)
  optimizer.exclude_from_weight_decay(var_names=['bias'])
  return optimizer


def recurrent():
  """A masked recurrent layer and layers inside layers that have no configuration; adaptive steps; labels of two
  kinds."""
  tokens = keras.Input((5,))
  h = layers.SimpleRNN(6)(layers.Embedding(9, 4, mask_zero=True)(tokens))
  inner = keras.Sequential([keras.Input((6,)), Block(5, 'tanh'), layers.Dense(4)])
  model = keras.Model(tokens, {'even': layers.Dense(1, name='even')(inner(h)),
                               'kind': layers.Dense(3, name='kind')(Block(4)(h))})
  rng = np.random.default_rng(1)
  data = [(rng.integers(0, 9, (rows, 5)), {'even': rng.integers(0, 2, (rows, 1)), 'kind': rng.integers(0, 3, rows)})
          for rows in (40, 20)]
  losses = {'even': keras.losses.BinaryCrossentropy(from_logits=True), 'kind': CLASSES}
  return model, data, lambda: dict(optimizer=decaying(), loss=losses, loss_weights={'even': 0.5, 'kind': 1.0},
                                   metrics={'kind': ['accuracy']})


def subclassed():
  """A model that Keras cannot copy, with a constraint; data sets of batches, of examples and of a Python function."""
  model = Subclassed()
  model(np.zeros((1, 6), np.float32))
  x, y = arrays(2, 33)
  examples = tf.data.Dataset.from_generator(lambda: zip(x, y), output_signature=(
      tf.TensorSpec([6], tf.float64), tf.TensorSpec([], tf.int32)))
  data = [tf.data.Dataset.from_tensor_slices(arrays(3, 30)).batch(20), examples.batch(20), arrays(4, 25)]
  return model, data, lambda: dict(optimizer='sgd', loss=EACH, metrics=['accuracy'])


class Compare(layers.Layer):
  """Counts its steps in whole numbers, and lets through what is not the largest value."""

  def build(self, shape):
    self.steps = self.add_weight('steps', (), tf.int64, initializer='zeros', trainable=False)

  def call(self, x, training=None):
    if training:
      self.steps.assign_add(1)
    return tf.where(x != tf.reduce_max(x, -1, keepdims=True), x, 2.0 * x) / tf.cast(self.steps + 1, tf.float32)


class Sparse(keras.constraints.Constraint):
  """Sets the largest weight to zero."""

  def __call__(self, weight):
    return weight * tf.cast(weight != tf.reduce_max(weight), tf.float32)


class Penalty(keras.regularizers.Regularizer):

  def __call__(self, weight):
    return 0.1 * tf.reduce_sum(tf.cast(weight == 0.0, tf.float32) + tf.cast(weight != 0.0, tf.float32) * weight**2)


class Exact(keras.metrics.Metric):

  def __init__(self, name='exact', **settings):
    super().__init__(name=name, **settings)
    self.total = self.add_weight('total', initializer='zeros')

  def update_state(self, y_true, y_pred, sample_weight=None):
    self.total.assign_add(tf.reduce_sum(tf.cast(y_true == 0.0, tf.float32)))

  def result(self):
    return tf.where(self.total != 0.0, self.total, -1.0)


def comparing():
  """Each piece of code that may be a user's, with == and !=: they compare values, as everywhere in Keras."""
  def loss(y_true, y_pred):
    return tf.reduce_sum(tf.cast(y_true != 0, tf.float32) * (y_pred - y_true)**2) / 4
  model = keras.Sequential([keras.Input((6,)), layers.Dense(4, kernel_constraint=Sparse()), Compare(),
                            layers.Dense(1, kernel_regularizer=Penalty())])
  rng = np.random.default_rng(3)
  data = [(rng.random((40, 6)), rng.integers(0, 3, (40, 1)).astype(np.float32)) for _ in range(2)]
  return model, data, lambda: dict(optimizer=keras.optimizers.SGD(0.05), loss=loss, metrics=[Exact()])


def weights_after_fit(model, settings, data):
  """The mean of the weights after one epoch of Keras on each client, weighted by examples."""
  start, total, sums = model.get_weights(), 0, 0
  for client in data.values() if isinstance(data, dict) else data:
    model.set_weights(start)
    model.compile(**settings(), run_eagerly=True)  # A fresh optimizer: clients keep nothing.
    if isinstance(client, tf.data.Dataset):
      rows = sum(len(y) for _, y in client)
      model.fit(client, verbose=0)
    else:
      rows = len(tf.nest.flatten(client[1])[0])
      model.fit(*client[:2], sample_weight=client[2] if len(client) > 2 else None, batch_size=20, shuffle=False,
                verbose=0)
    total += rows
    sums = sums + rows * np.array([w.astype(np.float64) for w in model.get_weights()], object)
  model.set_weights(start)
  return sums / total


@pytest.mark.parametrize('case', [two_inputs, recurrent, subclassed, comparing])
def test_one_round_is_the_mean_of_what_keras_learns_on_each_client(case):
  model, data, settings = case()
  expected = weights_after_fit(model, settings, data)
  start = model.get_weights()
  model.compile(**settings())
  returned, history = federate(model, data, rounds=1, uplink='float32', shuffle=False, progress=False)
  assert returned is model and model.history is history
  moved = [not np.array_equal(a, b) for a, b in zip(start, model.get_weights())]
  for variable, got, want, has_moved in zip(model.weights, model.get_weights(), expected, moved):
    np.testing.assert_allclose(got, want.astype(np.float32), atol=3e-6, err_msg=variable.name)
    assert has_moved != ('frozen' in variable.name), variable.name
  values = sum(v.shape.num_elements() for v in model.weights if 'frozen' not in v.name)
  clients, statistics = len(data), any(
      word in str([v.name for v in model.weights]) for word in ('moving_mean', 'steps'))
  # Updates and statistics are a message each; the model is one. What is frozen does not travel.
  assert history.history['uplink_bytes'] == [clients * (4 * values + (1 + statistics) * wire.FRAME_OVERHEAD)]
  sent = sum(v.shape.num_elements() * v.dtype.size for v in model.weights if 'frozen' not in v.name)
  assert history.history['downlink_bytes'] == [clients * (sent + wire.FRAME_OVERHEAD)]
  if case is comparing:
    assert history.history['exact'] == [sum((y == 0).sum() for _, y in data)]
  names = set(model.evaluate(*_first(data), verbose=0, return_dict=True))
  assert names <= set(history.history)
  assert history.history['examples'] == [sum(_rows(client)
                                             for client in (data.values() if isinstance(data, dict) else data))]


def _first(data):
  client = next(iter(data.values())) if isinstance(data, dict) else data[0]
  return (client,) if isinstance(client, tf.data.Dataset) else client[:2]


def _rows(client):
  return sum(len(y) for _, y in client) if isinstance(client, tf.data.Dataset) else len(tf.nest.flatten(client[1])[0])


def normalized():
  """Images far from zero mean and unit variance: without moving statistics the model is of no use outside of
  training."""
  return keras.Sequential([
      keras.Input((8, 8, 1)), layers.Rescaling(20.0, offset=50.0), layers.Conv2D(8, 3, name='conv'),
      layers.BatchNormalization(momentum=0.6, name='norm'), layers.ReLU(), layers.Flatten(), layers.Dropout(0.2),
      layers.Dense(10, name='logits')])


@pytest.fixture(scope='module')
def digits():
  from tff_compress import simulation
  data = simulation.load('digits')
  parts = simulation.split('dirichlet:0.5', data.y_train, 8, 0)
  return [(data.x_train[part], data.y_train[part]) for part in parts], (data.x_test, data.y_test)


UPLINK = 'uniform:bits=4 | pack'


@pytest.fixture(scope='module')
def trained(digits, tff_runtime):
  """A model with batch normalization and dropout, trained twice with the same seed."""
  del tff_runtime
  clients, test = digits
  keras.utils.set_random_seed(3)
  start = normalized().get_weights()
  results = []
  for _ in range(2):
    model = normalized()
    model.set_weights(start)
    model.compile(keras.optimizers.SGD(0.1), CLASSES, metrics=['accuracy'])
    before = dict(zip(('loss', 'accuracy'), model.evaluate(*test, verbose=0)))
    python_random = random.getstate()
    _, history = federate(model, clients, rounds=6, clients_per_round=5, local_epochs=2, uplink=UPLINK,
                          downlink='float16', seed=7, validation_data=test, progress=False)
    results.append((model, history, before, random.getstate() == python_random))
  return results


def test_moving_statistics_move_and_make_the_model_good_at_inference(trained):
  model, history, before, _ = trained[0]
  norm = next(layer for layer in model.layers if isinstance(layer, layers.BatchNormalization))
  assert np.abs(norm.moving_mean.numpy()).max() > 0.5
  assert np.abs(norm.moving_variance.numpy() - 1).max() > 0.5
  assert before['accuracy'] < 0.3 and history.history['val_accuracy'][-1] > 0.8
  statistics = norm.moving_mean.numpy(), norm.moving_variance.numpy()
  norm.moving_mean.assign(tf.zeros_like(norm.moving_mean))
  norm.moving_variance.assign(tf.ones_like(norm.moving_variance))
  without = model.evaluate(*_test_set(), verbose=0)[1]
  norm.moving_mean.assign(statistics[0])
  norm.moving_variance.assign(statistics[1])
  assert without < history.history['val_accuracy'][-1] - 0.2


def _test_set():
  from tff_compress import simulation
  data = simulation.load('digits')
  return data.x_test, data.y_test


def test_bytes_are_the_lengths_of_the_frames(trained):
  model, history, _, _ = trained[0]
  spec = codec_lib.Spec.of(model)
  update = {t.name: np.zeros(t.shape, np.float32) for t in spec.tensors}
  codec = tff_compress.codec(UPLINK)
  frame = len(wire.pack(codec, update, seed=0, round=0, client=0))
  statistics = 4 * sum(v.shape.num_elements() for v in model.non_trainable_variables)
  clients = np.array(history.history['clients'])
  assert (clients == 5).all()
  assert history.history['uplink_bytes'] == list(clients * (frame + statistics + wire.FRAME_OVERHEAD))
  assert history.history['downlink_bytes'] == list(
      clients * (len(wire.pack('float16', update, seed=0, round=0, client=0)) + statistics))
  values = spec.parameters + statistics // 4
  np.testing.assert_allclose(history.history['uplink_ratio'], 4 * values * clients / history.history['uplink_bytes'])
  np.testing.assert_allclose(history.history['uplink_bits_per_parameter'],
                             8 * np.array(history.history['uplink_bytes']) / clients / values)
  assert history.epoch == list(range(6))


def test_a_seed_repeats_a_run_bit_for_bit_with_dropout_too(trained):
  (first, one, *_), (second, other, *_) = trained
  for a, b in zip(first.get_weights(), second.get_weights()):
    np.testing.assert_array_equal(a, b)
  assert one.history['val_loss'] == other.history['val_loss']
  assert one.history['examples'] == other.history['examples'] and len(set(one.history['examples'])) > 1


def test_keras_is_left_as_it_was(trained, digits):
  model, _, _, same_random_state = trained[0]
  assert same_random_state
  model.compile('sgd', CLASSES, metrics=['accuracy'])
  model.fit(*digits[0][0], epochs=1, verbose=0)
  assert 'accuracy' in model.evaluate(*digits[1], verbose=0, return_dict=True)
  # Models built afterwards are Keras's own, not those of TFF's graphs.
  assert not any('v1' in kind.__module__ for kind in type(model).__mro__ + type(model.layers[1]).__mro__)


def test_threads_do_not_see_each_other():
  """Two trainings at the same time, and a fit beside them, give what each gives alone."""
  def trained(seed):
    model = keras.Sequential([
        keras.Input((6,)), layers.Dense(8, 'tanh', kernel_initializer=keras.initializers.GlorotUniform(seed),
                                        name='first'),
        layers.Dropout(0.3), layers.Dense(3, kernel_initializer=keras.initializers.GlorotUniform(1), name='last')])
    model.compile(keras.optimizers.SGD(0.1), CLASSES, metrics=['accuracy'])
    clients = [arrays(seed, 30), arrays(seed + 1, 40)]
    _, history = federate(model, clients, rounds=2, uplink='int8', seed=seed, progress=False)
    return model.get_weights(), history.history['loss'], history.history['uplink_bytes']

  def fitted(until):
    model = Subclassed()
    losses = []
    while not losses or not until():
      model.compile('sgd', CLASSES)  # Traces again.
      losses.append(model.fit(*arrays(5, 40), batch_size=20, verbose=0).history['loss'][0])
    return model, losses

  alone = [trained(seed) for seed in (1, 2)]
  with concurrent.futures.ThreadPoolExecutor(3) as threads:
    together = [threads.submit(trained, seed) for seed in (1, 2)]
    model, losses = threads.submit(fitted, lambda: all(future.done() for future in together)).result()
    together = [future.result() for future in together]
  for (weights, *figures), (others, *same) in zip(alone, together):
    assert figures == same
    for a, b in zip(weights, others):
      np.testing.assert_array_equal(a, b)
  assert len(losses) > 1 and losses[-1] < losses[0]
  assert not any('v1' in kind.__module__ for kind in type(model).__mro__)


def linear(name=None):
  model = keras.Sequential([keras.Input((6,)), layers.Dense(3, name=name)])
  model.compile('sgd', CLASSES, metrics=['accuracy'])
  return model


def test_an_interrupted_training_leaves_the_weights_of_the_last_round():
  model, seen = linear(), []

  def interrupt(record):
    seen.append(record)
    if record['round'] == 2:
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    federate(model, [arrays(0, 20), arrays(1, 20)], rounds=5, progress=False, seed=1, on_round=interrupt,
             ema=0.5)
  again = linear()
  assert [record['round'] for record in seen] == [1, 2]
  assert not np.array_equal(model.get_weights()[1], again.get_weights()[1])
  assert len(model.history.history['loss']) == 2


@pytest.mark.parametrize('uplink, downlink', [('float32', 'float32'), ('uniform:bits=2 | pack', 'int8'),
                                              ('ef-topk', 'float32')])
def test_the_average_is_validated_and_returned_and_clients_start_from_the_weights(uplink, downlink):
  """Two runs with the same seed, of which only one has an average: it is that of the weights of the other."""
  test, weights, validated = arrays(2, 30), [], []

  def train(model, **more):
    return federate(model, [arrays(0, 20), arrays(1, 20)], rounds=3, uplink=uplink, downlink=downlink, progress=False,
                    seed=1, learning_rate=0.5, validation_data=test, **more)[1].history

  plain, averaged = linear(name='out'), linear(name='out')  # The codec's randomness goes by the names.
  averaged.set_weights(plain.get_weights())
  without = train(plain, on_round=lambda record: weights.append(plain.get_weights()))
  with_it = train(averaged, ema=0.75, on_round=lambda record: validated.append(averaged.get_weights()))
  assert with_it['loss'] == without['loss'] and with_it['uplink_bytes'] == without['uplink_bytes']
  first, second, third = weights
  expected = [0.75 * (0.75 * a + 0.25 * b) + 0.25 * c for a, b, c in zip(first, second, third)]
  for found, wanted, last in zip(averaged.get_weights(), expected, third):
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)
    assert not np.allclose(found, last, rtol=1e-3)
  for found, wanted in zip(validated[1], [0.75 * a + 0.25 * b for a, b in zip(first, second)]):
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-7)
  assert with_it['val_loss'][0] == without['val_loss'][0] and with_it['val_loss'][1:] != without['val_loss'][1:]
  assert with_it['val_loss'][2] == pytest.approx(averaged.evaluate(*test, verbose=0)[0], rel=1e-5)


def test_the_old_name_of_the_average_works_and_says_so():
  models = [linear(name='out') for _ in range(2)]
  models[1].set_weights(models[0].get_weights())
  common = dict(rounds=2, progress=False, seed=1)
  federate(models[0], [arrays(0, 20)], ema=0.5, **common)
  with pytest.warns(DeprecationWarning, match='write ema'):
    federate(models[1], [arrays(0, 20)], ema_momentum=0.5, **common)
  for new, old in zip(*(model.get_weights() for model in models)):
    np.testing.assert_array_equal(new, old)
  with pytest.warns(DeprecationWarning), pytest.raises(FederateError, match='leave it out'):
    federate(models[1], [arrays(0, 20)], ema_momentum=0.5, ema=0.5, **common)


def test_training_stops_when_asked_and_shows_a_line_per_round(capsys):
  model = linear()

  def stop(record):
    model.stop_training = record['round'] == 2

  _, history = federate(model, [arrays(0, 20)], rounds=5, uplink='float32', on_round=stop)
  assert len(history.history['loss']) == 2
  lines = capsys.readouterr().out.splitlines()
  assert [line.split(':')[0] for line in lines] == ['round 1/5', 'round 2/5']
  assert 'loss' in lines[0] and 'up 104 B' in lines[0]


@pytest.mark.parametrize('client, error, words', [
    ((np.full((20, 6), np.nan), np.zeros(20, int)), training.Diverged, 'diverged in round 1'),
    ((np.zeros((20, 6)), np.full(20, 9)), FederateError, 'label value of 9'),
    (tf.data.Dataset.from_tensor_slices(arrays(0, 20)).filter(lambda x, y: False), FederateError,
     'client 0 has no examples'),
], ids=['nan', 'label', 'empty'])
def test_failed_training_is_one_sentence_and_leaves_the_model_alone(client, error, words):
  model = linear()
  before = model.get_weights()
  with pytest.raises(error, match=words) as caught:
    federate(model, [client], rounds=2, progress=False)
  assert '\n' not in str(caught.value) and str(caught.value).endswith('.')
  for a, b in zip(before, model.get_weights()):
    np.testing.assert_array_equal(a, b)


def test_clients_may_count_the_same_and_the_server_may_take_smaller_steps():
  model, data = linear(), [arrays(0, 20), arrays(1, 60)]
  start = model.get_weights()
  learned = [weights_after_fit(model, lambda: dict(optimizer='sgd', loss=CLASSES), [client]) for client in data]
  model.compile('sgd', CLASSES)
  federate(model, data, rounds=1, uplink='float32', shuffle=False, weighting='uniform', server_learning_rate=0.5,
           progress=False)
  for got, before, one, other in zip(model.get_weights(), start, *learned):
    np.testing.assert_allclose(got, before + 0.5 * ((one + other) / 2 - before).astype(np.float32), atol=1e-6)


def test_fedprox_is_gradient_descent_on_the_loss_and_the_distance_to_the_server():
  model, (x, y) = linear(), arrays(0, 60)
  start = [weight.copy() for weight in model.get_weights()]
  federate(model, [(x, y)], rounds=1, uplink='float32', local_epochs=2, shuffle=False, learning_rate=0.1,
           proximal_strength=3.0, progress=False)
  variables = [tf.Variable(weight) for weight in start]
  for rows in [range(i, i + 20) for i in (0, 20, 40)] * 2:
    with tf.GradientTape() as tape:
      distance = sum(tf.reduce_sum((v - s)**2) for v, s in zip(variables, start))
      loss = CLASSES(y[rows], x[rows] @ variables[0] + variables[1]) + 3.0 / 2 * distance
    for variable, gradient in zip(variables, tape.gradient(loss, variables)):
      variable.assign_sub(0.1 * gradient)
  for got, variable in zip(model.get_weights(), variables):
    np.testing.assert_allclose(got, variable.numpy(), atol=1e-6)


def test_tff_aggregators_can_stand_around_the_uplink():
  model = linear()
  inner = tff_compress.uplink('uniform:bits=8 | pack')
  clipped = tff.aggregators.clipping_factory(1e-3, inner)
  start = model.get_weights()
  _, history = federate(model, [arrays(0, 20)], rounds=1, uplink=clipped, progress=False)
  norm = np.sqrt(sum(((a - b)**2).sum() for a, b in zip(start, model.get_weights())))
  assert 0 < norm < 1.1e-3
  assert history.history['uplink_bytes'][0] < 104


def test_methods_settle_what_clients_remember():
  data = [arrays(i, 20 + 3 * i) for i in range(3)]
  model = keras.Sequential([keras.Input((6,)), layers.Dense(40, 'relu'), layers.Dense(3)])
  model.compile(keras.optimizers.SGD(0.1), CLASSES)
  start = model.get_weights()
  plain = 4 * 403 + wire.FRAME_OVERHEAD
  seen = {}
  for uplink, downlink, remembered in (('stc:p=1/20', 'stc:p=1/20', 2), ('dgc:p=1/8,warmup=0', None, 2),
                                       ('signsgd-majority', None, 1),
                                       ('fedpaq', None, 0), ('ef-topk', 'float16', 1)):
    model.set_weights(start)
    _, history = federate(model, data, rounds=3, uplink=uplink, downlink=downlink, seed=1, progress=False, batch_size=5)
    found = history.history
    assert max(found['uplink_bytes']) < 3 * plain / 3 and np.all(np.isfinite(found['loss']))
    states = found.get('client_states_bytes', [0])[-1]
    assert 0 <= states - 3 * remembered * 4 * 403 <= 3 * 200
    seen[uplink] = found
  votes = seen['signsgd-majority']['downlink_bytes']
  assert votes[-1] < 3 * 100 < plain < votes[0]
  assert seen['fedpaq']['examples'] == [50 + 46
                                        + 46] * 3 and seen['ef-topk']['examples'] == [sum(20 + 3 * i
                                                                                          for i in range(3))] * 3


def test_clients_learn_before_the_first_round_and_what_that_costs_is_in_the_history(capsys):
  data = [arrays(i, 20) for i in range(3)]
  model = keras.Sequential([keras.Input((6,)), layers.Dense(40, 'relu'), layers.Dense(3)])
  model.compile(keras.optimizers.SGD(0.1), CLASSES)
  _, history = federate(model, data, rounds=2,
                        uplink='autoencoder-prepass:latent=4,length=40,least=100,snapshots=4,decoders=shared',
                        clients_per_round=2, seed=1)
  found = history.history
  assert {len(values) for values in found.values()} == {2}
  assert found['prepass_clients'] == [3,
                                      0] and found['prepass_uplink_bytes'][1] == found['prepass_downlink_bytes'][1] == 0
  # The model, and the autoencoder that the server made of what clients sent.
  assert found['prepass_downlink_bytes'][0] > 3 * (4 * 403
                                                   + 2 * 4 * 40) and found['prepass_uplink_bytes'][0] > 3 * 4 * 40
  assert max(found['uplink_bytes']) < 2 * 4 * 403 and found['uplink_drift'] == [0, 0]
  shown = capsys.readouterr().out.splitlines()
  assert shown[0].startswith('pre-pass: 3 of 3 clients learned, ') and [line[:9] for line in shown[1:]] == ['round 1/2',
                                                                                                            'round 2/2']


def test_links_that_contradict_each_other_are_refused():
  data = [arrays(0, 10)]
  model = keras.Sequential([keras.Input((6,)), layers.Dense(3)])
  model.compile('sgd', CLASSES)
  factory = tff.aggregators.MeanFactory()
  for given, message in ((dict(uplink='signum', downlink='int8'), 'downlink of its own'),
                         (dict(uplink=factory, downlink='stc'), 'not an aggregation factory'),
                         (dict(uplink='autoencoder-prepass', downlink='stc'), 'the whole model'),
                         (dict(uplink='dgc:p=0'), 'fraction|share'), (dict(local_steps=0), 'at least 1')):
    with pytest.raises(codec_lib.CompressionError, match=message):
      federate(model, data, rounds=1, progress=False, **given)
  normalized = keras.Sequential([keras.Input((6,)), layers.BatchNormalization(), layers.Dense(3)])
  normalized.compile('sgd', CLASSES)
  with pytest.raises(FederateError, match='moving statistics'):
    federate(normalized, data, rounds=1, progress=False, uplink='ef-topk')


def test_where_nothing_is_named_both_directions_are_small(capsys):
  data = [arrays(seed, 20) for seed in range(4)]
  model = keras.Sequential([keras.Input((6,)), layers.Dense(500), layers.Dense(3)])
  model.compile('sgd', CLASSES)
  _, history = federate(model, data, rounds=4, clients_per_round=2, seed=1)
  # A first model of 5,003 values as int8 for whoever comes first, and from then on 512 coordinates.
  assert max(history.history['uplink_bytes']) < 2 * 5003 / 4 and max(history.history['downlink_bytes']) < 2 * 5003 * 1.3
  assert 'auto is' not in capsys.readouterr().out


@pytest.mark.parametrize('layer, settings, says', [
    (layers.BatchNormalization, {}, 'do not send moving statistics'),
    (layers.Dropout, {'server_optimizer': 'adam', 'server_learning_rate': 0.01}, 'another optimizer')])
def test_where_the_subspace_cannot_be_other_codecs_are_used_and_named(layer, settings, says, capsys):
  model = keras.Sequential([keras.Input((6,)), layer(*([0.5] if layer is layers.Dropout else [])), layers.Dense(3)])
  model.compile('sgd', CLASSES)
  federate(model, [arrays(0, 20)], rounds=1, seed=1, **settings)
  assert f'auto is {defaults.UPLINK} up and {defaults.DOWNLINK} down here' in (out := capsys.readouterr().out)
  assert says in out
