"""Every layer of the guide trains without Flex, with Keras's gradients, in both interpreters.

Exporting compares the loss, each gradient and the output with Keras; here the tolerances are tight.
"""

import pathlib
import re

import numpy as np
import pytest
import tensorflow as tf

from tflite_export import interpreters
from tflite_export.errors import ExportError
from tflite_export.errors import ParityError
from tflite_export.training import export_training
from tflite_export.training import formulas
from tflite_export.training import replay
from tflite_export.training import Tolerances

keras = tf.keras
layers = tf.keras.layers
TIGHT = Tolerances(loss=1e-5, gradient=1e-4, average=1e-5, output=1e-5, rounding=0)


def images(*between, shape=(8, 8, 3)):
  keras.utils.set_random_seed(1)
  return keras.Sequential([keras.Input(shape), *between, layers.Flatten(), layers.Dense(3)])


def sequences(*between):
  return images(*between, shape=(6, 4))


def words(*between):
  keras.utils.set_random_seed(1)
  return keras.Sequential([keras.Input((6,), dtype='int32'), layers.Embedding(10, 4, mask_zero=True), *between,
                           layers.Dense(3)])


def attention():
  keras.utils.set_random_seed(1)
  x = keras.Input((6, 4))
  y = layers.LayerNormalization()(layers.Add()([x, layers.MultiHeadAttention(2, 3, dropout=.1)(x, x)]))
  joined = layers.Concatenate()([layers.Multiply()([x, y]), layers.Subtract()([x, y]), layers.Maximum()([x, y]),
                                 layers.Average()([x, y])])
  return keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling1D()(joined)))


def inverted_residual():
  """The block that MobileNetV2 is made of."""
  keras.utils.set_random_seed(1)
  x = keras.Input((8, 8, 3))
  y = start = layers.Conv2D(4, 3, padding='same', use_bias=False)(x)
  for layer in (layers.Conv2D(8, 1, use_bias=False), layers.DepthwiseConv2D(3, padding='same', use_bias=False)):
    y = layers.ReLU(6.)(layers.BatchNormalization()(layer(y)))
  y = layers.Add()([start, layers.BatchNormalization()(layers.Conv2D(4, 1, use_bias=False)(y))])
  y = layers.DepthwiseConv2D(3, strides=2, use_bias=False)(layers.ZeroPadding2D(((0, 1), (0, 1)))(y))
  return keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling2D()(y)))


MODELS = {
    'convolutions': lambda: images(
        layers.Conv2D(5, 3, 2, 'same'), layers.Conv2D(6, 3, padding='same'),
        layers.Conv2D(6, 3, padding='same', dilation_rate=2),
        layers.Conv2D(6, 3, (2, 1), 'same', groups=2), layers.Conv2D(5, 1)),
    'transposed convolutions': lambda: images(
        layers.Conv2DTranspose(5, 3, 2, 'same'), layers.Conv2D(5, 3, 3, 'same'), layers.Conv2DTranspose(3, 3)),
    'depthwise convolutions': lambda: images(
        layers.Conv2D(4, 1), layers.DepthwiseConv2D(3, padding='same'),
        layers.DepthwiseConv2D(3, 2, padding='same', depth_multiplier=2),
        layers.DepthwiseConv2D(2, dilation_rate=2, depth_multiplier=2), layers.SeparableConv2D(5, 3, padding='same')),
    'convolutions in one dimension': lambda: sequences(
        layers.Conv1D(5, 3, padding='same'), layers.Conv1D(5, 2, padding='causal', dilation_rate=2),
        layers.Conv1D(4, 3, strides=2, padding='same'), layers.SeparableConv1D(4, 2)),
    'pooling': lambda: images(
        layers.Conv2D(4, 1), layers.MaxPooling2D(3, 1, 'same'), layers.AveragePooling2D(3, 1, 'same'),
        layers.MaxPooling2D(2),
        layers.UpSampling2D(2), layers.AveragePooling2D(2), layers.UpSampling2D((2, 3), interpolation='bilinear'),
        layers.Conv2D(4, 1), layers.GlobalMaxPooling2D()),
    'pooling in one dimension': lambda: sequences(
        layers.Conv1D(4, 1), layers.MaxPooling1D(2, 1), layers.AveragePooling1D(2), layers.ZeroPadding1D(1),
        layers.Cropping1D((1, 0)), layers.SpatialDropout1D(.1), layers.TimeDistributed(layers.Dense(4)),
        layers.GlobalMaxPooling1D()),
    'batch normalization': lambda: images(
        layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU(), layers.Flatten(), layers.Dense(5),
        layers.BatchNormalization(momentum=.9, scale=False)),
    'other normalization': lambda: images(
        layers.Conv2D(4, 3), layers.LayerNormalization(), layers.GroupNormalization(2), layers.Conv2D(4, 1),
        layers.UnitNormalization()),
    'activations': lambda: images(
        layers.Conv2D(4, 1, activation='elu'), layers.ReLU(6.), layers.Conv2D(4, 1), layers.LeakyReLU(),
        layers.Conv2D(4, 1, activation='gelu'),
        layers.Conv2D(4, 1, activation='selu'), layers.Conv2D(4, 1, activation='softplus'), layers.Softmax(),
        shape=(3, 3, 2)),
    'more activations': lambda: images(
        layers.Conv2D(4, 1, activation='swish'), layers.Conv2D(4, 1, activation='tanh'),
        layers.Conv2D(4, 1, activation='sigmoid'),
        layers.Conv2D(4, 1, activation='hard_sigmoid'), layers.Conv2D(4, 1), layers.PReLU(),
        layers.Conv2D(4, 1, activation='relu'),
        shape=(3, 3, 2)),
    'shapes': lambda: images(
        layers.Conv2D(4, 3), layers.ZeroPadding2D(1), layers.Cropping2D(2), layers.Rescaling(.5),
        layers.SpatialDropout2D(.2),
        layers.GaussianNoise(.2), layers.Permute((3, 1, 2)), layers.Reshape((4, -1)), layers.Dropout(.3),
        layers.Lambda(lambda x: x * x)),
    'recurrent': lambda: sequences(
        layers.Bidirectional(layers.LSTM(3, return_sequences=True)), layers.GRU(3, return_sequences=True),
        layers.SimpleRNN(3)),
    'embedding': lambda: words(layers.GRU(3, reset_after=False)),
    'attention': attention,
    'an inverted residual': inverted_residual,
}


@pytest.mark.parametrize('name', MODELS)
def test_layers_train_as_in_keras(name):
  model = MODELS[name]()
  file = export_training(model, loss=keras.losses.SparseCategoricalCrossentropy(True), optimizer='sgd', batch_size=4,
                         tolerances=TIGHT)
  assert not any(':' in operator for operator in file.operators)
  assert set(file.parity.errors) == set(interpreters.NAMES)
  assert all(errors['loss'] < 1e-5 and errors['gradient'] < 1e-4 for errors in file.parity.errors.values())


def _kinds(model):
  """Names of the classes of layers in a model, but for what other layers are made of."""
  inner = ('InputLayer', 'EinsumDense')
  kinds = {type(layer).__name__ for layer in model._flatten_layers(include_self=False)}
  return {kind for kind in kinds if kind not in inner and not kind.endswith('Cell')}


def test_the_guide_names_the_layers_that_are_trained_here():
  guide = pathlib.Path(__file__).resolve().parents[2] / 'docs' / 'training-on-device.md'
  table = re.search(r'\n\| family \| layers \|\n(.*?)\n\n', guide.read_text(encoding='utf-8'), re.DOTALL)[1]
  named = {word for word in re.findall(r'\w+', table) if isinstance(getattr(layers, word, None), type)}
  assert named == set().union(*(_kinds(model()) for model in MODELS.values()))


@pytest.mark.parametrize('activation', ['relu', 'elu', 'selu', 'softplus', 'softsign', 'gelu', 'relu6', 'leaky_relu',
                                        'mish'])
def test_activations_have_the_slope_of_tensorflow_at_zero(activation):
  """Units whose inputs are all 0 sit exactly at the kink until their bias moves."""
  x = tf.zeros([1, 1])

  def slope(y, x):
    return tf.gradients(y, x)[0]
  function = getattr(tf.nn, activation, None) or getattr(keras.activations, activation)
  expected = tf.function(lambda x: slope(function(x), x))(x)
  recording = replay.record(lambda x: [function(x)], [tf.TensorSpec([1, 1])], [])
  found = tf.function(lambda x: slope(replay.replay(recording, [x], {}, True)[0], x))(x)
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_moving_averages_advance():
  """moving = moving + (1 - momentum) (batch's - moving), with the unbiased variance."""
  x = keras.Input((2, 2, 1))
  model = keras.Model(x, layers.Dense(1)(layers.Flatten()(layers.BatchNormalization(momentum=.9, name='bn')(x))))
  file = export_training(model, loss='mse', optimizer='sgd', batch_size=4, parity_steps=0)
  data = np.arange(16, dtype=np.float32).reshape(4, 2, 2, 1)
  for name in interpreters.NAMES:
    with interpreters.quiet():
      run = interpreters.Interpreter(file.data, name)
      run.run('train', x=data, y=np.zeros((4, 1), np.float32), sample_weight=np.ones(4, np.float32),
              learning_rate=np.float32(0))
    state = run.run('get_state', unused=np.zeros(1, np.int32))
    np.testing.assert_allclose(state['bn/moving_mean'], [.1 * data.mean()], rtol=1e-6)
    np.testing.assert_allclose(state['bn/moving_variance'], [.9 + .1 * data.var(ddof=1)], rtol=1e-6)


def test_a_wrong_formula_does_not_pass_the_gate(monkeypatch, tmp_path):
  model = images(layers.Conv2D(4, 3, name='first'), layers.BatchNormalization(), shape=(5, 5, 1))
  right = formulas.FORWARD['FusedBatchNormV3']

  def wrong(op, inputs, training):
    found = right(op, inputs, training)
    # The right value, and half of its gradient.
    return [.5 * found[0] + .5 * tf.stop_gradient(found[0]), *found[1:]] if training else found
  monkeypatch.setitem(formulas.FORWARD, 'FusedBatchNormV3', wrong)
  path = tmp_path / 'model.tflite'
  with pytest.raises(ParityError,
                     match=r"in tf\.lite, the gradient of 'first/kernel' is off by 0\.4\d .* nothing was written"):
    export_training(model, loss='mse', optimizer='sgd', batch_size=4, path=path)
  assert not path.exists()


PADDED = np.array([[7, 8, 0], [3, 0, 0]], np.int32)


def check_steps(model, x, y, steps=2):
  """A file predicts and trains, over some steps, as `predict_on_batch` and `train_on_batch` of a compiled model do."""
  file = export_training(model, batch_size=len(y), parity_steps=0)
  with interpreters.quiet():
    run = interpreters.Interpreter(file.data)
  np.testing.assert_allclose(run.run('infer', x=x)['output'], model.predict_on_batch(x), rtol=1e-5, atol=1e-7)
  for _ in range(steps):
    loss = run.run('train', x=x, y=y, sample_weight=np.ones(len(y), np.float32),
                   learning_rate=np.float32([model.optimizer.learning_rate.numpy()]))['loss']
    assert float(loss) == pytest.approx(model.train_on_batch(x, y), rel=1e-5)
  found = run.run('get_weights', unused=np.zeros(1, np.int32))
  for name, v in zip(file.weights, model.trainable_variables):
    np.testing.assert_allclose(found[name].reshape(v.shape), v.numpy(), rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize('kind', [layers.LSTM, layers.GRU, layers.SimpleRNN])
def test_recurrent_layers_read_padded_words_backwards_as_keras_does(kind):
  keras.utils.set_random_seed(0)
  model = keras.Sequential([
      keras.Input((3,), dtype='int32'), layers.Embedding(10, 4, mask_zero=True),
      layers.Bidirectional(kind(3, return_sequences=True)),
      kind(2, return_sequences=True, go_backwards=True), layers.Lambda(lambda steps: steps[:, 0]), layers.Dense(2)])
  model.compile(keras.optimizers.SGD(.5), 'mse')
  check_steps(model, PADDED, np.float32([[1, 0], [0, -1]]))


def gamma(x):
  return tf.math.lgamma(x + 3)


def loop(x):
  return tf.while_loop(lambda n, x: n < 3, lambda n, x: (n + 1, x * 2), (0, x))[1]


@pytest.mark.parametrize('layer, expected', [
    (lambda: layers.Lambda(gamma, name='odd'), "the layer 'odd' needs Digamma, .*: use another layer"),
    (lambda: layers.Lambda(loop, name='odd'), "the layer 'odd' loops or branches"),
    (lambda: layers.AlphaDropout(.1, name='odd'), r"the layer 'odd' \(AlphaDropout\) cannot .*: use Dropout instead"),
    (lambda: layers.Reshape((2, 2, 1, 1), name='last'), None),
    (lambda: layers.RandomFlip(name='odd'), "the layer 'odd' draws random numbers from a generator of its own"),
])
def test_layers_that_cannot_be_expressed_are_named(layer, expected):
  between = [layers.Reshape((2, 2, 1))] if 'Random' in str(layer()) else []
  between += [layer()]
  if expected is None:
    between.append(layers.Conv3D(1, 1, name='odd'))
    expected = "the layer 'odd' needs Conv3D, .*: use Conv2D over slices"
  model = images(layers.Dense(4), *between, shape=(4,))
  with pytest.raises(ExportError, match=expected) as caught:
    export_training(model, loss='mse', optimizer='sgd', batch_size=4)
  assert '\n' not in str(caught.value)
