"""A step of the training file is a step of `train_on_batch` of the compiled model itself."""

import numpy as np
import pytest
import tensorflow as tf

from tflite_export import interpreters
from tflite_export.errors import ExportError
from tflite_export.training import export_training

keras = tf.keras
layers = tf.keras.layers

pytestmark = pytest.mark.xdist_group('training_export')

WORDS = np.array([[3, 3, 3], [3, 1, 1], [0, 1, 6], [3, 3, 1]], np.int32)


def dense(*, rows=5, **compiled):
  """[rows] -> 2 values."""
  keras.utils.set_random_seed(1)
  model = keras.Sequential([keras.Input((rows,)), layers.Dense(4, 'tanh', name='first'), layers.Dense(2, name='last')])
  model.compile(**{'optimizer': keras.optimizers.SGD(.1), 'loss': 'mse', **compiled})
  return model


def embedding(optimizer, **options):
  """3 words -> 2 values; words repeat."""
  keras.utils.set_random_seed(1)
  model = keras.Sequential([keras.Input((3,), dtype=tf.int32), layers.Embedding(7, 2, name='table', **options),
                            layers.Flatten(), layers.Dense(2, name='head')])
  model.compile(optimizer, 'mse')
  return model


def values(model):
  generator = np.random.default_rng(0)
  return generator.standard_normal((4, *model.output_shape[1:])).astype(np.float32)


def numbers(width=5):
  return np.random.default_rng(1).standard_normal((4, width)).astype(np.float32)


def compare(model, x, y, weight=None, steps=2, rate=None):
  """Takes steps in the file and in Keras, and asserts that losses and weights are the same. Returns the file.

  Rows of weight 0 are left out of Keras's batch.
  """
  file = export_training(model, batch_size=len(x), parity_steps=1)
  with interpreters.quiet():
    run = interpreters.Interpreter(file.data, 'tf.lite')
  weight = np.ones(len(x), np.float32) if weight is None else np.asarray(weight, np.float32)
  kept = weight != 0
  rate = file.learning_rate if rate is None else rate
  for _ in range(steps):
    feeds = dict(x=x, y=y, sample_weight=weight)
    learning_rate = np.full(file.signatures['train']['inputs']['learning_rate'][1], rate, np.float32)
    found = np.ravel(run.run('train', learning_rate=learning_rate, **feeds)['loss'])
    expected = model.train_on_batch(x[kept], y[kept], reset_metrics=True)
    np.testing.assert_allclose(found, [expected], rtol=1e-5, atol=1e-6)
    weights = run.run('get_weights', unused=np.zeros(1, np.int32))
    for name, v in zip(file.weights, model.trainable_variables):
      np.testing.assert_allclose(weights[name], v.numpy(), rtol=1e-4, atol=2e-6, err_msg=name)
  return file


SGD = keras.optimizers.SGD


@pytest.mark.parametrize('make', [
    lambda: SGD(.5, clipnorm=.05), lambda: SGD(.5, clipvalue=.02), lambda: SGD(.5, global_clipnorm=.05),
    lambda: SGD(.5, momentum=.9, nesterov=True, clipvalue=.02, weight_decay=.1), lambda: keras.optimizers.Adam(.1, clipnorm=.05),
    lambda: SGD(.5, momentum=.9), lambda: keras.optimizers.legacy.Adam(.1, clipvalue=.02)],
    ids=['clipnorm', 'clipvalue', 'global_clipnorm', 'nesterov', 'adam', 'momentum', 'legacy'])
def test_gradients_of_words_are_clipped_before_those_of_repeated_words_are_added(make):
  model = embedding(make())
  compare(model, WORDS, values(model))


def test_words_of_a_table_that_is_read_and_regularized_are_clipped_as_a_whole():
  """Keras adds the regularizer's gradient, which is of the whole table, to that of the words before it clips."""
  model = embedding(SGD(.5, clipvalue=.02), embeddings_regularizer='l2')
  compare(model, WORDS, values(model))


def test_variables_excluded_from_weight_decay_do_not_decay():
  for chosen in (dict(var_names=['bias', 'first']), dict(var_list='last/bias')):
    optimizer = SGD(.5, weight_decay=.1)
    model = dense(optimizer=optimizer)
    if 'var_list' in chosen:
      chosen = dict(var_list=[model.get_layer('last').bias])
    optimizer.exclude_from_weight_decay(**chosen)
    for v in model.trainable_variables:
      v.assign(tf.ones_like(v))
    compare(model, numbers(), values(model))


def test_a_loss_scale_changes_nothing_in_float32():
  compare(dense(optimizer=keras.mixed_precision.LossScaleOptimizer(keras.optimizers.Adam(.01))), numbers(),
          values(dense()))


def test_under_a_schedule_the_app_gives_the_rate_of_each_step():
  schedule = keras.optimizers.schedules.InverseTimeDecay(.1, 1, 0.)
  model = dense(optimizer=SGD(schedule, weight_decay=.1))
  assert compare(model, numbers(), values(model), rate=.1).learning_rate is None


class Own(SGD):
  """Of another rule."""


Own.__name__ = 'SGD'


@pytest.mark.parametrize('optimizer, words', [
    (Own(.1), 'test_training_steps.SGD cannot be exported'),
    (keras.optimizers.RMSprop(), 'the optimizer RMSprop cannot be exported'),
    (SGD(.1, use_ema=True), 'option use_ema'), (keras.optimizers.AdamW(amsgrad=True), 'option amsgrad'),
    (keras.optimizers.legacy.SGD(.1, decay=.1), 'option decay'),
    (keras.optimizers.legacy.SGD(.1, gradient_transformers=[lambda pairs: pairs]), 'gradient_transformers'),
    (keras.optimizers.legacy.SGD(.1, clipvalue=.1, clipnorm=.1), 'clips in two ways'),
    (keras.optimizers.legacy.SGD(.1, momentum=.9), "only the rows of 'table/embeddings'"),
], ids=lambda value: value if isinstance(value, str) else '')
def test_what_an_optimizer_does_besides_is_refused_by_name(optimizer, words):
  with pytest.raises(ExportError, match=words) as caught:
    export_training(embedding(optimizer), batch_size=4, parity_steps=0)
  assert '\n' not in str(caught.value) and str(caught.value).endswith('.')
