"""The parity gate: files that do not train as `train_on_batch` does are refused, by name, and those that do are not."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tflite_export import interpreters
from tflite_export.errors import ExportError
from tflite_export.errors import ParityError
from tflite_export.training import batches
from tflite_export.training import export_training
from tflite_export.training import losses
from tflite_export.training import optimizers
from tflite_export.training import program
from tflite_export.training import Tolerances

keras = tf.keras
layers = tf.keras.layers

pytestmark = pytest.mark.xdist_group('training_export')


def sequential(*parts, **compiled):
  keras.utils.set_random_seed(0)
  model = keras.Sequential(parts)
  model.compile(**{'optimizer': keras.optimizers.SGD(1.), 'loss': 'mse', **compiled})
  return model


def words(*between, size=9, length=4, **compiled):
  return sequential(keras.Input((length,), dtype='int32'), layers.Embedding(size, 3, mask_zero=True), *between,
                    layers.Dense(2), **compiled)


def check_steps(model, file, x, y, steps=2):
  """Losses of some steps of the file are those of `train_on_batch`."""
  with interpreters.quiet():
    run = interpreters.Interpreter(file.data)
  for _ in range(steps):
    loss = run.run('train', x=x, y=y, sample_weight=np.ones(len(y), np.float32),
                   learning_rate=np.float32([model.optimizer.learning_rate.numpy()]))['loss']
    assert float(loss) == pytest.approx(model.train_on_batch(x, y), rel=1e-5)


def test_steps_that_a_mask_hides_do_not_count_in_the_loss():
  """Keras's loss is the mean over the entries that the mask keeps."""
  model = words()
  x = np.array([[5, 0, 0, 0], [6, 7, 0, 0]], np.int32)
  y = np.random.default_rng(0).standard_normal((2, 4, 2)).astype(np.float32)
  kept = np.mean(np.square(model.predict_on_batch(x) - y), 2)[x != 0]
  assert model.test_on_batch(x, y) == pytest.approx(np.mean(kept), rel=1e-5)
  check_steps(model, export_training(model, batch_size=2, parity_steps=1), x, y)


def test_it_does_not_matter_what_fills_a_batch_up():
  """The mean of words that are all padding is 0/0."""
  model = words(layers.GlobalAveragePooling1D())
  file = export_training(model, batch_size=5, parity_steps=0)
  x, y = np.zeros((5, 4), np.int32), np.float32([[np.nan, 0], [1, 2], [np.nan, 0], [3, -1], [-1, 0]])
  weight = np.float32([0, 1, 0, 2, .5])
  x[weight > 0] = [[1, 2, 2, 0], [3, 0, 0, 0], [4, 1, 0, 0]]
  with interpreters.quiet():
    run = interpreters.Interpreter(file.data)
  for _ in range(2):
    loss = run.run('train', x=x, y=y, sample_weight=weight, learning_rate=np.ones(1, np.float32))['loss']
    expected = model.train_on_batch(x[weight > 0], y[weight > 0], weight[weight > 0])
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def keeps_its_order(layer):
  """What Keras's unrolled loop does: it zeroes outputs by the mask in its original order."""
  forward = layer.call

  def call(inputs, **options):
    object.__setattr__(layer, 'go_backwards', True)
    return forward(inputs, **options)
  return call


def without_mask(monkeypatch):
  right = losses.Loss.__call__
  monkeypatch.setattr(losses.Loss, '__call__', lambda self, labels, output, weight: right(
      self, labels, tf.identity(output), weight))


def without_weight(monkeypatch):
  right = losses.of
  monkeypatch.setattr(losses, 'of', lambda *arguments: dataclasses.replace(right(*arguments), weight=1.))


def added_first(monkeypatch):
  right = optimizers.Clipping.__call__
  monkeypatch.setattr(optimizers.Clipping, '__call__', lambda self, gradients: right(
      self, list(map(tf.convert_to_tensor, gradients))))


@pytest.mark.parametrize('fault, expected, model', [
    (lambda monkeypatch: monkeypatch.setattr(program, '_reversing', keeps_its_order), 'the (loss|gradient)',
     lambda: words(layers.Bidirectional(layers.SimpleRNN(3, return_sequences=True)),
                   layers.Lambda(lambda steps: steps[:, 0]))),
    (without_mask, 'the loss', words),
    (without_weight, 'the loss', lambda: words(loss_weights=[.1])),
    (added_first, "the gradient of 'embedding.*/embeddings'",
     lambda: words(layers.Flatten(), optimizer=keras.optimizers.SGD(1., clipnorm=.01))),
], ids=['unrolled mask', 'mask of the output', 'loss_weights', 'clipping'])
def test_what_the_file_does_otherwise_than_train_on_batch_is_found(fault, expected, model, monkeypatch):
  fault(monkeypatch)
  with pytest.raises(ParityError, match=f'in tf.lite, {expected} is off by'):
    export_training(model(), batch_size=4)


def test_the_allowance_for_rounding_holds_for_losses_averages_and_outputs():
  """Rounding moves Keras's own values: where no error is allowed for itself, some times as far is."""
  model = sequential(keras.Input((3,)), layers.Dense(40), layers.BatchNormalization(), layers.Dense(40, 'relu'),
                     layers.BatchNormalization(), layers.Dense(2))
  export_training(model, batch_size=4, parity_steps=1, tolerances=Tolerances(loss=0., average=0., output=0.))
  for kind, what in (('loss', 'the loss'), ('average', 'the new'), ('output', 'the output')):
    with pytest.raises(ParityError, match=what):
      export_training(model, batch_size=4, parity_steps=1, tolerances=Tolerances(**{kind: 0.}, rounding=0.))


class Counter(layers.Layer):
  """Divides by the number of batches so far, with a weight and a state that have the same name."""

  def build(self, shape):
    self.scale = self.add_weight('scale', (shape[-1],), initializer='ones')
    self.mean = self.add_weight('scale', (shape[-1],), initializer='zeros', trainable=False)
    self.batches = self.add_weight('iterations', (), dtype='int64', initializer='zeros', trainable=False)

  def call(self, x, training=None):
    if training:
      self.batches.assign_add(1)
      self.mean.assign(.9 * self.mean + .1 * tf.reduce_mean(x, 0))
    return x * self.scale / tf.cast(self.batches + 1, tf.float32) + self.mean


def test_state_of_whole_numbers_and_of_the_name_of_a_weight_is_carried():
  model = sequential(keras.Input((4,)), Counter(name='counter'), layers.Dense(2), optimizer=keras.optimizers.Adam(.1))
  file = export_training(model, batch_size=4)
  assert {'counter/scale_1', 'counter/iterations', 'iterations'} < set(file.state) and 'counter/scale' in file.weights
  generator = np.random.default_rng(0)
  check_steps(model, file, *(generator.standard_normal((4, n)).astype(np.float32) for n in (4, 2)), steps=3)


def test_optimizer_and_metrics_of_the_model_stay_as_they_were():
  model = sequential(keras.Input((3,)), layers.Dense(2), layers.GaussianNoise(0.), optimizer='adam', metrics=['mae'],
                     weighted_metrics=['mse'])
  model.train_on_batch(np.ones((4, 3), np.float32), np.ones((4, 2), np.float32))

  def everything():
    kept = [*model.variables, *model.optimizer.variables, *(v for m in model.metrics for v in m.variables)]
    return [v.numpy() for v in kept]
  before, function = everything(), model.train_function
  export_training(model, batch_size=4)
  assert all(map(np.array_equal, before, everything())) and len(before) == len(everything())
  assert model.train_function is function


def drawn(model, steps=4):
  """The gate's random batches for a model."""
  loss = losses.of(model, losses.compiled(model, None), tf.TensorSpec((4, *model.output_shape[1:])))
  specs = tuple(tf.TensorSpec((4, *i.shape[1:]), i.dtype) for i in model.inputs)
  output = (4, *model.output_shape[1:])
  shapes = program.Shapes(specs, loss.label_spec(output), output, len(specs) > 1)
  made = batches.Batches(program.Program(model, loss, optimizers.of(model.optimizer), shapes), loss, shapes)
  return [made(n)[0] for n in range(steps)]


def test_random_words_repeat_and_end_in_padding():
  x = np.concatenate([inputs[0] for inputs in drawn(words(size=2000, length=6))])
  assert np.all((0 <= x) & (x < 2000)) and np.any(x >= 256)
  assert np.all(x[:, 0] > 0) and np.any(x[:, -1] == 0)
  assert any(len(set(row[row > 0])) < np.sum(row > 0) for row in x)


def test_random_numbers_have_the_range_that_the_first_layers_expect():
  inputs = [keras.Input((1,), dtype='int32'), keras.Input((), dtype='int64'), keras.Input((8, 8)), keras.Input((5, 3)),
            keras.Input((40,))]
  normal = layers.Normalization(mean=50., variance=4.)
  parts = [layers.Embedding(3, 2)(inputs[0]), tf.one_hot(inputs[1], 5), layers.Rescaling(1 / 127.5, -1)(inputs[2]),
           layers.LSTM(2, unroll=True)(layers.Masking(-1.)(inputs[3])), normal(inputs[4])]
  model = keras.Model(inputs, layers.Dense(1)(layers.Concatenate()([layers.Flatten()(part) for part in parts])))
  model.compile('sgd', 'mse')
  rows, classes, pixels, steps, values = (np.concatenate(x) for x in zip(*drawn(model)))
  assert set(rows.ravel()) == {0, 1, 2} and 0 <= classes.min() and classes.max() < 5
  assert 100 < pixels[pixels != 0].mean() < 155 and 80 < pixels[pixels != 0].std() < 180 and np.any(pixels == 0)
  assert np.any(np.all(steps == -1, 2)) and not np.all(steps[:, 0] == -1)
  assert 49 < values[values != 0].mean() < 51 and 1.5 < values[values != 0].std() < 2.5


class OwnStep(keras.Model):

  def train_step(self, data):
    return super().train_step(data)


class OwnLoss(keras.Sequential):

  def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
    return 2 * super().compute_loss(x, y, y_pred, sample_weight)


def own_step():
  x = keras.Input((3,))
  return OwnStep(x, layers.Dense(2)(x))


def own_function():
  model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
  model.make_train_function = lambda force=False: None
  return model


@pytest.mark.parametrize('model, name', [
    (own_step, 'OwnStep has a train_step'),
    (lambda: OwnLoss([keras.Input((3,)), layers.Dense(2)]), 'OwnLoss has a compute_loss'),
    (own_function, 'Sequential has a make_train_function')], ids=['train_step', 'compute_loss', 'of an instance'])
def test_a_training_step_of_the_users_own_is_refused(model, name):
  model = model()
  model.compile('sgd', 'mse')
  with pytest.raises(ExportError, match=f'{name} of its own'):
    export_training(model, batch_size=4)


class Sampling(layers.Layer):

  def call(self, x):
    return x + tf.random.normal(tf.shape(x))


class Branching(layers.Layer):

  def call(self, x):
    if tf.reduce_sum(x) > 0:
      return x
    return 2 * x


@pytest.mark.parametrize('layer, expected', [
    (lambda: Sampling(name='odd'), "the layer 'odd' draws random numbers itself, .* Dropout or GaussianNoise"),
    (lambda: keras.Sequential([layers.Dropout(.1), Sampling(name='odd')]), "draws random numbers itself"),
    (lambda: layers.SpectralNormalization(layers.Dense(3), name='odd'),
     r"'odd' \(SpectralNormalization\) cannot be trained"),
    (lambda: Branching(name='odd'), "the layer 'odd': Using a symbolic"),
    (lambda: keras.Sequential([layers.Reshape((1, 3)), layers.LSTM(3, stateful=True, name='odd')]),
     "the layer 'odd' is stateful"),
], ids=['random', 'random beside dropout', 'spectral', 'failing', 'stateful'])
def test_layers_that_cannot_be_exported_are_named_with_the_reason(layer, expected):
  x = keras.Input((3,), batch_size=4)
  model = keras.Model(x, layers.Dense(2)(layer()(x)))
  with pytest.raises(ExportError, match=expected) as caught:
    export_training(model, loss='mse', optimizer='sgd', batch_size=4)
  assert '\n' not in str(caught.value) and str(caught.value).endswith('.')


def test_text_is_looked_up_by_the_app():
  lookup = layers.TextVectorization(vocabulary=['a'], output_sequence_length=4, name='odd')
  model = sequential(keras.Input((1,), dtype='string'), lookup, layers.Embedding(3, 2), layers.Flatten(),
                     layers.Dense(2))
  with pytest.raises(ExportError, match=r"'odd' \(TextVectorization\) .*: use numbers that the app looks up as input"):
    export_training(model, batch_size=4)
