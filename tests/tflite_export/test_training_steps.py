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
  file = export_training(model, batch_size=len(x), parity_steps=0)
  with interpreters.quiet():
    run = interpreters.Interpreter(file.data, 'tf.lite')
  weight = np.ones(len(x), np.float32) if weight is None else np.asarray(weight, np.float32)
  kept = weight != 0
  rate = file.learning_rate if rate is None else rate
  for _ in range(steps):
    feeds = dict(x=x, y=y, sample_weight=weight)
    learning_rate = np.full(file.signatures['train']['inputs']['learning_rate'][1], rate, np.float32)
    found = np.ravel(run.run('train', learning_rate=learning_rate, **feeds)['loss'])
    expected = model.train_on_batch(x[kept], y[kept], weight[kept], reset_metrics=True)
    np.testing.assert_allclose(found, [expected], rtol=1e-5, atol=1e-6)
    weights = run.run('get_weights', unused=np.zeros(1, np.int32))
    for name, v in zip(file.weights, model.trainable_variables):
      np.testing.assert_allclose(weights[name], v.numpy(), rtol=1e-4, atol=2e-6, err_msg=name)
  return file


SGD = keras.optimizers.SGD


@pytest.mark.parametrize('make', [
    lambda: SGD(.5, clipnorm=.05), lambda: SGD(.5, clipvalue=.02), lambda: SGD(.5, global_clipnorm=.05),
    lambda: SGD(.5, momentum=.9, nesterov=True, clipvalue=.02, weight_decay=.1),
    lambda: keras.optimizers.Adam(.1, clipnorm=.05),
    lambda: keras.optimizers.legacy.Adam(.1, clipvalue=.02)],
    ids=['clipnorm', 'clipvalue', 'global_clipnorm', 'nesterov', 'adam', 'legacy'])
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
    (keras.optimizers.legacy.Adam(gradient_aggregator=lambda pairs: pairs), 'gradient_aggregator'),
    (keras.optimizers.legacy.SGD(.1, clipvalue=.1, clipnorm=.1), 'clips in two ways'),
    (keras.optimizers.legacy.SGD(.1, momentum=.9), "only the rows of 'table/embeddings'"),
], ids=lambda value: value if isinstance(value, str) else '')
def test_what_an_optimizer_does_besides_is_refused_by_name(optimizer, words):
  with pytest.raises(ExportError, match=words) as caught:
    export_training(embedding(optimizer), batch_size=4, parity_steps=0)
  assert '\n' not in str(caught.value) and str(caught.value).endswith('.')


def crossentropy(**options):
  return keras.losses.SparseCategoricalCrossentropy(from_logits=True, **options)


@pytest.mark.parametrize('reduction', ['none', 'sum', 'auto', 'sum_over_batch_size'])
def test_a_reduction_is_that_of_keras(reduction):
  """For 'none' Keras differentiates the sum and reports the mean."""
  model = dense(loss=keras.losses.MeanSquaredError(reduction=reduction))
  compare(model, numbers(), values(model), weight=[1, .5, 0, 2])


@pytest.mark.parametrize('loss, weights', [('mse', .1), (['mse'], [.1]), ({'last': 'mse'}, {'last': .1})])
def test_a_loss_and_its_weight_are_those_of_compile(loss, weights):
  model = dense(loss=loss, loss_weights=weights)
  compare(model, numbers(), values(model))


def test_an_output_may_have_a_name():
  keras.utils.set_random_seed(1)
  x = keras.Input((5,))
  model = keras.Model(x, {'out': layers.Dense(2)(x)})
  model.compile(SGD(.1), {'out': 'mse'}, loss_weights={'out': .1})
  compare(model, numbers(), np.ones((4, 2), np.float32))


def test_a_loss_that_is_given_does_not_take_the_weight_of_another():
  model = dense(loss='mae', loss_weights=[.1])
  file = export_training(model, batch_size=4, loss={'last': 'mse'}, parity_steps=0)
  model.compile('sgd', 'mse')
  x, y = numbers(), values(model)
  with interpreters.quiet():
    run = interpreters.Interpreter(file.data, 'tf.lite')
  rate = np.zeros(file.signatures['train']['inputs']['learning_rate'][1], np.float32)
  found = run.run('train', x=x, y=y, sample_weight=np.ones(4, np.float32), learning_rate=rate)['loss']
  np.testing.assert_allclose(np.ravel(found), [model.train_on_batch(x, y)], rtol=1e-5)


@pytest.mark.parametrize('loss', [crossentropy(ignore_class=-1), crossentropy(ignore_class=1, reduction='sum'),
                                  crossentropy(ignore_class=-1, reduction='none')], ids=['mean', 'sum', 'none'])
def test_a_class_that_is_ignored_does_not_count(loss):
  keras.utils.set_random_seed(1)
  model = keras.Sequential([keras.Input((3, 5)), layers.Dense(4)])
  model.compile(SGD(.3), loss)
  labels = np.array([[0, -1, 1], [-1, -1, -1], [3, 2, 1], [2, 0, -1]], np.int32)
  labels[labels < 0] = loss._fn_kwargs['ignore_class']
  x = np.random.default_rng(0).standard_normal((4, 3, 5)).astype(np.float32)
  compare(model, x, labels, weight=[1, 1, 0, .5])


def test_rows_of_weight_zero_do_not_count_in_regularizers_of_activities():
  keras.utils.set_random_seed(1)
  model = keras.Sequential([
      keras.Input((5,)), Counting(), layers.Dense(4, 'tanh', activity_regularizer='l2'),
      layers.Dense(3, kernel_regularizer='l2'),
      layers.ActivityRegularization(l1=.1), layers.Reshape((3, 1)), layers.LSTM(2, activity_regularizer='l1_l2')])
  model.compile(SGD(.1), 'mse')
  assert compare(model, numbers(), values(model), weight=[1, .5, 0, 2]).notes == ()
  assert all(model.layers[n]._activity_regularizer(tf.ones([2, 2])) > 0 for n in (1, 3, 5))


class Counting(layers.Layer):

  def build(self, shape):
    self.steps = self.add_weight('steps', (), initializer='zeros', trainable=False)

  def call(self, inputs, training=None):
    if training:
      self.steps.assign_add(1.)
    return inputs / (1. + self.steps)


def divergence(t):
  return tf.reduce_mean(tf.square(t))


class Adding(layers.Layer):

  def call(self, inputs):
    self.add_loss(divergence(inputs))
    return inputs


@pytest.mark.parametrize('layer, place', [
    (lambda: layers.BatchNormalization(name='odd'), "the layer 'odd'"), (lambda: Adding(name='odd'), "the layer 'odd'"),
    (lambda: layers.Dense(5, activity_regularizer=divergence, name='odd'), "the layer 'odd'"),
    (lambda: keras.Sequential([layers.Reshape((5, 1)),
                               layers.TimeDistributed(layers.Dense(1, activity_regularizer='l2')),
                               layers.Flatten()], name='odd'), "the layer 'odd'")],
    ids=['batch normalization', 'add_loss', 'own regularizer', 'rows that are steps'])
def test_where_rows_of_weight_zero_count_all_the_same_is_said(layer, place):
  keras.utils.set_random_seed(1)
  model = keras.Sequential([keras.Input((5,)), layer(), layers.Dense(2)])
  model.compile(SGD(.1), 'mse')
  file = compare(model, numbers(), values(model), weight=[1, .5, 1, 2])
  [note] = file.notes
  assert note.startswith(f'Rows whose sample_weight is 0 count in what {place} computes')


class OwnLoss(keras.losses.MeanSquaredError):

  def __call__(self, y_true, y_pred, sample_weight=None):
    return 2 * super().__call__(y_true, y_pred, sample_weight)


@pytest.mark.parametrize('compiled, words', [
    (dict(loss={'other': 'mse'}), 'Found unexpected losses'), (dict(loss=['mse', 'mse']), 'for several outputs'),
    (dict(loss='mse', loss_weights=[1., 1.]), 'for several outputs'),
    (dict(loss=OwnLoss()), 'cannot be exported: use one of'),
    (dict(loss='mse', loss_weights=[tf.Variable(.1)]), 'that are variables'),
    (dict(loss='no'), 'Unknown loss.*use one of'),
], ids=lambda value: value if isinstance(value, str) else '')
def test_what_compile_says_besides_is_refused_by_name(compiled, words):
  with pytest.raises(ExportError, match=words) as caught:
    export_training(dense(**compiled), batch_size=4, parity_steps=0)
  assert '\n' not in str(caught.value) and str(caught.value).endswith('.')


def test_a_reduction_that_keras_cannot_add_regularizers_to_is_refused():
  model = keras.Sequential([keras.Input((5,)), layers.Dense(2, kernel_regularizer='l2')])
  model.compile(SGD(.1), keras.losses.MeanSquaredError(reduction='none'))
  with pytest.raises(ExportError, match="reduction='none' does not go with regularizers"):
    export_training(model, batch_size=4, parity_steps=0)


def test_the_gate_knows_all_of_this():
  keras.utils.set_random_seed(1)
  model = keras.Sequential([
      keras.Input((3,), dtype=tf.int32), layers.Embedding(7, 2), layers.Dense(4, activity_regularizer='l1'),
      layers.Dense(4)])
  optimizer = SGD(.5, momentum=.9, clipvalue=.02, weight_decay=.1)
  optimizer.exclude_from_weight_decay(var_names=['embeddings'])
  model.compile(optimizer, crossentropy(ignore_class=-1, reduction='sum'), loss_weights=[.3])
  errors = export_training(model, batch_size=4).parity.errors
  assert all(e['update'] < 1e-3 and e['gradient'] < 1e-3 and e['loss'] < 1e-5 for e in errors.values())


class First(layers.Layer):
  """Keeps the first step, and by mistake the mask of all."""

  def call(self, inputs):
    return inputs[:, 0]

  def compute_mask(self, inputs, mask=None):
    return mask


def test_a_mask_that_does_not_fit_the_output_is_refused():
  model = keras.Sequential([keras.Input((3,), dtype=tf.int32), layers.Embedding(7, 2, mask_zero=True), First()])
  model.compile(SGD(.1), 'mse')
  with pytest.raises(ValueError):
    model.train_on_batch(WORDS, values(model))
  with pytest.raises(ExportError, match='mask of the output has more axes'):
    export_training(model, batch_size=4, parity_steps=0)


class Half(keras.Model):
  """Only one of its layers learns."""

  def __init__(self):
    super().__init__()
    self.learns, self.rests = layers.Dense(2), layers.Dense(2, kernel_constraint='non_neg')

  def call(self, inputs):
    return self.learns(inputs) + tf.stop_gradient(self.rests(inputs))


def test_a_variable_without_a_gradient_stays_as_it_is_in_spite_of_decay_and_constraints():
  keras.utils.set_random_seed(1)
  model = Half()
  model(numbers())
  model.compile(SGD(.1, weight_decay=.2, momentum=.9), 'mse')
  before = model.rests.get_weights()
  compare(model, numbers(), np.ones((4, 2), np.float32))
  np.testing.assert_array_equal(before[0], model.rests.get_weights()[0])
  assert export_training(model, batch_size=4).parity.steps == 2


def test_pictures_of_classes_weigh_as_much_as_their_row():
  keras.utils.set_random_seed(1)
  model = keras.Sequential([keras.Input((3, 2, 1)), layers.Conv2D(3, 1)])
  model.compile(SGD(.1), crossentropy(ignore_class=-1))
  assert export_training(model, batch_size=6).parity.steps == 2


def test_layers_of_half_precision_are_named():
  keras.utils.set_random_seed(1)
  model = keras.Sequential([keras.Input((5,)), layers.Dense(2), layers.ReLU(dtype='mixed_float16', name='odd')])
  model.compile(keras.mixed_precision.LossScaleOptimizer(SGD(.1)), 'mse')
  with pytest.raises(ExportError, match="layer 'odd' computes in float16"):
    export_training(model, batch_size=4)
