"""TFF's optimizers take the steps that Keras's take."""

import numpy as np
import pytest
import tensorflow as tf

from tff_compress.keras import FederateError
from tff_compress.keras import optimizers

pytestmark = pytest.mark.xdist_group('tff')

keras = tf.keras


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
    'own': (Adam(), 'no optimizer like Adam'),
    'nesterov': (keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True), 'nesterov=True'),
    'clipnorm': (keras.optimizers.SGD(0.1, clipnorm=1.0), 'clipnorm=1.0'),
    'amsgrad': (keras.optimizers.Adam(amsgrad=True), 'amsgrad=True'),
    'decay': (keras.optimizers.Adam(weight_decay=0.1), 'weight_decay=0.1'),
    'ema': (keras.optimizers.SGD(use_ema=True), 'use_ema=True'),
    'centered': (keras.optimizers.RMSprop(centered=True), 'centered=True'),
    'rms momentum': (keras.optimizers.RMSprop(momentum=0.5), 'momentum=0.5'),
    'schedule': (keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)), 'schedule'),
}


@pytest.mark.parametrize('optimizer, words', BAD.values(), ids=BAD)
def test_what_tff_does_not_have_is_said_in_one_sentence(optimizer, words):
  with pytest.raises(FederateError, match=words) as caught:
    optimizers.from_keras(optimizer)
  assert str(caught.value).endswith('.') and '\n' not in str(caught.value)


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
  constrained = optimizers.constrained(plain, [keras.constraints.UnitNorm(axis=0), None])
  weights, gradients = (tf.ones([4, 2]), tf.ones([2])), (tf.ones([4, 2]) * 0.1, tf.ones([2]))
  _, (first, second) = constrained.next(constrained.initialize((tf.TensorSpec([4, 2]), tf.TensorSpec([2]))), weights, gradients)
  np.testing.assert_allclose(np.linalg.norm(first, axis=0), 1.0, rtol=1e-5)
  np.testing.assert_allclose(second, 0.5)
  assert optimizers.constrained(plain, [None, None]) is plain
