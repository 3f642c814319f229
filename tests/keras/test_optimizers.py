"""TFF's optimizers take the steps that Keras's take."""

import numpy as np
import pytest
import tensorflow as tf

from tff_compress.keras import FederateError
from tff_compress.keras import optimizers

pytestmark = pytest.mark.xdist_group('tff')

keras = tf.keras
layers = tf.keras.layers


class Half(layers.Layer):
  """Computes in float16, without weights."""

  def __init__(self):
    super().__init__(dtype='mixed_float16')


def network(*layers_before, **compiled):
  model = keras.Sequential([keras.Input((3,)), *layers_before, layers.Dense(2)])
  model.compile(**compiled)
  return model


def paths(keras_optimizer, tff_optimizer, steps=6):
  """The weight after each step of both, on the same gradients: two arrays [steps, 40]."""
  rng = np.random.default_rng(0)
  start = rng.standard_normal(40).astype(np.float32)
  gradients = rng.standard_normal((steps, 40)).astype(np.float32) * np.geomspace(1e-4, 1, 40).astype(np.float32)
  variable, weights = tf.Variable(start), (tf.constant(start),)
  state = tff_optimizer.initialize((tf.TensorSpec([40]),))
  ours, theirs = [], []
  for gradient in gradients:
    keras_optimizer.apply_gradients([(gradient, variable)])
    state, weights = tff_optimizer.next(state, weights, (tf.constant(gradient),))
    theirs.append(variable.numpy())
    ours.append(weights[0].numpy())
  return np.array(ours), np.array(theirs)


SAME = [
    lambda: keras.optimizers.SGD(0.3),
    lambda: keras.optimizers.SGD(0.3, momentum=0.8),
    lambda: keras.optimizers.legacy.SGD(0.3, momentum=0.8),
    lambda: keras.optimizers.Adam(0.02, beta_1=0.8, beta_2=0.9, epsilon=1e-4),
    lambda: keras.optimizers.legacy.Adam(0.02),
    lambda: keras.optimizers.AdamW(0.02, weight_decay=0.1),
    lambda: keras.optimizers.Adagrad(0.2, initial_accumulator_value=0.05),
]


@pytest.mark.parametrize('make', SAME)
def test_steps_are_those_of_keras(make):
  ours, theirs = paths(make(), optimizers.from_keras(make()))
  np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=2e-7)


def test_rmsprop_steps_are_within_a_factor_of_the_square_root_of_two():
  ours, theirs = paths(keras.optimizers.RMSprop(0.01), optimizers.from_keras(keras.optimizers.RMSprop(0.01)), steps=1)
  start = np.random.default_rng(0).standard_normal(40).astype(np.float32)
  ratio = (theirs - start) / (ours - start)
  assert ratio.min() > 0.999 and ratio.max() < 2**0.5 + 1e-3


def test_another_learning_rate_takes_the_place_of_the_compiled_one():
  ours, theirs = paths(keras.optimizers.SGD(0.5), optimizers.from_keras(keras.optimizers.SGD(0.1), 0.5))
  np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)


class Adam(keras.optimizers.SGD):
  """Of Keras's name and with a rule of its own."""


BAD = {
    'nadam': (keras.optimizers.Nadam(), 'no optimizer like Nadam'),
    'own': (Adam(), 'Adam is a class of .*, not the one of Keras'),
    'nesterov': (keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True), 'nesterov=True'),
    'clipnorm': (keras.optimizers.SGD(0.1, clipnorm=1.0), 'clipnorm=1.0'),
    'amsgrad': (keras.optimizers.Adam(amsgrad=True), 'amsgrad=True'),
    'decay': (keras.optimizers.Adam(weight_decay=0.1), 'weight_decay=0.1'),
    'ema': (keras.optimizers.SGD(use_ema=True), 'use_ema=True'),
    'centered': (keras.optimizers.RMSprop(centered=True), 'centered=True'),
    'rms momentum': (keras.optimizers.RMSprop(momentum=0.5), 'momentum=0.5'),
    'transformers': (keras.optimizers.legacy.SGD(0.1, gradient_transformers=[lambda pairs: pairs]),
                     'gradient_transformers'),
    'aggregator': (keras.optimizers.legacy.Adam(gradient_aggregator=lambda pairs: pairs), 'gradient_aggregator'),
    'schedule': (keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)), 'schedule'),
}


@pytest.mark.parametrize('optimizer, words', BAD.values(), ids=BAD)
def test_what_tff_does_not_have_is_said_in_one_sentence(optimizer, words):
  with pytest.raises(FederateError, match=words) as caught:
    optimizers.from_keras(optimizer)
  assert str(caught.value).endswith('.') and '\n' not in str(caught.value)


@pytest.mark.parametrize('exclusion', [dict(var_names=['bias']), dict(var_list=[0, 2]), dict(var_names=['.'])])
def test_weights_excluded_from_weight_decay_do_not_decay(exclusion):
  model = network(layers.Dense(4, name='first'), optimizer=keras.optimizers.AdamW(0.02, weight_decay=5.0), loss='mse')
  if 'var_list' in exclusion:
    exclusion = dict(var_list=[model.trainable_variables[n] for n in exclusion['var_list']])
  model.optimizer.exclude_from_weight_decay(**exclusion)
  ours = optimizers.from_keras(model.optimizer, None, model)
  weights = [tf.constant(v) for v in model.trainable_variables]
  state = ours.initialize([tf.TensorSpec(w.shape) for w in weights])
  x, y = tf.random.normal([8, 3], seed=1), tf.ones([8, 2])
  for _ in range(3):
    with tf.GradientTape() as tape:
      tape.watch(weights)
      h = (x @ weights[0] + weights[1]) @ weights[2] + weights[3]
      loss = tf.reduce_mean((h - y)**2)
    state, weights = ours.next(state, weights, tape.gradient(loss, weights))
    model.train_on_batch(x, y)
  for found, expected in zip(weights, model.trainable_variables):
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)
  assert tf.nest.map_structure(float, ours.get_hparams(ours.set_hparams(state, ours.get_hparams(state)))) == (
      tf.nest.map_structure(float, ours.get_hparams(state)))


def test_a_loss_scale_changes_nothing_in_float32_and_is_missed_in_float16():
  scaled = keras.mixed_precision.LossScaleOptimizer
  for make in (lambda: keras.optimizers.Adam(0.02), lambda: keras.optimizers.legacy.SGD(0.3, momentum=0.8)):
    ours, theirs = paths(make(), optimizers.from_keras(scaled(make()), None, network(optimizer='sgd')))
    np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=2e-7)
  whole = network(optimizer='sgd')
  whole._set_dtype_policy('mixed_float16')
  optimizers.from_keras(scaled(keras.optimizers.SGD()), None, whole)
  with pytest.raises(FederateError, match="layer 'half' computes in float16.*mixed_bfloat16"):
    optimizers.from_keras(scaled(keras.optimizers.SGD()), None, network(Half(), optimizer='sgd'))


def test_legacy_momentum_of_embeddings_is_refused():
  model = network(layers.Embedding(5, 2), layers.Flatten(), optimizer=keras.optimizers.legacy.SGD(0.1, momentum=0.9))
  with pytest.raises(FederateError, match='rows of an Embedding'):
    optimizers.from_keras(model.optimizer, None, model)


@pytest.mark.parametrize('rate', [0, -1, float('nan'), float('inf'), '0.1', True, None.__class__])
def test_learning_rates_are_finite_and_positive(rate):
  with pytest.raises(FederateError, match='learning_rate must be'):
    optimizers.from_keras(keras.optimizers.SGD(0.1), rate)


def test_server_optimizers_are_checked():
  with pytest.raises(FederateError, match='there is no server optimizer'):
    optimizers.of_server('lion', 1.0)
  with pytest.raises(FederateError, match='server_momentum'):
    optimizers.of_server('sgd', 1.0, 1.0)
  with pytest.raises(FederateError, match='leave it out'):
    optimizers.of_server('adam', 1.0, 0.5)


def test_constraints_hold_after_every_step():
  plain = optimizers.sgd(0.5)
  variables = [tf.Variable(tf.zeros([4, 2]), constraint=keras.constraints.UnitNorm(axis=0)), tf.Variable(tf.zeros([2]))]
  constrained = optimizers.constrained(plain, variables)
  weights, gradients = (tf.ones([4, 2]), tf.ones([2])), (tf.ones([4, 2]) * 0.1, tf.ones([2]))
  _, (first, second) = constrained.next(constrained.initialize((tf.TensorSpec([4, 2]), tf.TensorSpec([2]))), weights,
                                        gradients)
  np.testing.assert_allclose(np.linalg.norm(first, axis=0), 1.0, rtol=1e-5)
  np.testing.assert_allclose(second, 0.5)
  assert optimizers.constrained(plain, variables[1:]) is plain
