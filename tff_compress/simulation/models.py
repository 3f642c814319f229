"""Keras models for simulations, by name, with initial weights that depend on the seed alone.

The architectures are those of the papers whose results are reproduced here, with exactly their numbers of parameters,
plus small ones for tests. All models return logits: train them with `from_logits=True`. They are not compiled.

Importing this module does not import TensorFlow; `build` does.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import functools
import hashlib
import math
import operator
import types

from tff_compress.codec.errors import CompressionError

__all__ = ['ARCHITECTURES', 'Architecture', 'ModelError', 'build']

# With these, the largest dense layer of any model here stays below 2**29 parameters.
MAX_INPUT_VALUES = 2**17
MAX_CLASSES = 2**20


class ModelError(CompressionError):
  """A model that cannot be built; the message is one sentence that says what to change."""


@dataclasses.dataclass(frozen=True)
class Architecture:
  """What is known of a model without building it.

  Attributes:
    input_shape: the shape of one example it was published with, (h, w, c), or (None,) for any number of tokens.
    num_classes: the number of outputs it was published with (the vocabulary, for a language model).
    parameters: how many parameters it has with this shape and these classes, all of them trainable.
    smallest: the least height and width that its convolutions and poolings leave something of.
    dropout: whether it has dropout layers that `build(dropout=True)` puts in.
    source: where it comes from.
  """

  input_shape: tuple[int | None, ...]
  num_classes: int
  parameters: int
  smallest: int
  dropout: bool
  source: str


ARCHITECTURES: Mapping[str, Architecture] = types.MappingProxyType({
    'mnist_cnn': Architecture((28, 28, 1), 10, 1_199_882, 6, True,
                              'the MNIST example of Keras; Huang et al., "RPN", table 1'),
    'digits_cnn': Architecture((8, 8, 1), 10, 38_282, 2, False,
                               'ours: small enough to train in seconds, one tensor above 20,000'),
    'small_cnn': Architecture((28, 28, 1), 10, 130_414, 7, False,
                              'ours: the small model of the bytes-to-accuracy benchmark'),
    'small_all_cnn': Architecture((28, 28, 1), 10, 14_378, 1, False,
                                  'ours: nothing but convolutions, for residual pooling'),
    'all_cnn_c': Architecture((32, 32, 3), 10, 1_369_738, 1, True,
                              'Springenberg et al. 2015, model C; Konecny et al. 2016, section 4'),
    'cifar_cnn': Architecture((32, 32, 3), 10, 550_570, 8, False, 'Chandar et al. 2021, section 4, for CIFAR-10'),
    'cifar_small': Architecture((32, 32, 3), 10, 34_930, 8, False,
                                'ours: a quarter of the filters and units of cifar_cnn'),
    'tied_lstm': Architecture((None,), 10_017, 1_347_776, 1, False,
                              'Konecny et al. 2016, section 4: next-word prediction'),
    'mlp': Architecture((28, 28, 1), 10, 15_910, 1, False, 'Chandar et al., autoencoder-compressed updates: 784-20-10'),
    'logistic': Architecture((28, 28, 1), 10, 7_850, 1, False, 'logistic regression; Sattler et al. 2020 (STC)'),
})


def build(
    name: str,
    *,
    input_shape: tuple[int | None, ...] | None = None,
    num_classes: int | None = None,
    seed: int = 0,
    dropout: bool = False,
):
  """Builds a Keras model.

  | name            | layers (stride after the slash)                                                                 |
  |-----------------|-------------------------------------------------------------------------------------------------|
  | `mnist_cnn`     | conv 3x3x32, conv 3x3x64, max-pool 2, (dropout .25), dense 128, (dropout .5), dense; no padding |
  | `digits_cnn`    | conv 3x3x16, conv 3x3x32, max-pool 2, dense 64, dense; padding keeps the size                   |
  | `small_cnn`     | conv 3x3x16/2, conv 3x3x32/2, dense 108, dense; no padding                                      |
  | `all_cnn_c`     | (dropout .2), 3x3 conv 96, 96, 96/2, (dropout .5), 192, 192, 192/2, (dropout .5), 192, 1x1 conv |
  |                 | 192, 1x1 conv to the classes, mean over the positions; padding keeps the size                   |
  | `small_all_cnn` | conv 3x3x16/2, 3x3x32/2, 3x3x32, 1x1 conv to the classes, mean over the positions; padding      |
  |                 | keeps the size                                                                                  |
  | `cifar_cnn`     | conv 3x3x32 twice, max-pool 2, conv 3x3x64 twice, max-pool 2, conv 3x3x128 twice, max-pool 2,   |
  |                 | dense 128, dense; padding keeps the size                                                        |
  | `cifar_small`   | the same with 8, 16 and 32 filters and 32 units                                                 |
  | `tied_lstm`     | embedding 96, LSTM 256, dense 96, times the transposed embedding; the rows of the embedding     |
  |                 | have L2 norm 1, at the start and, through a constraint that Keras's own optimizers apply, after |
  |                 | each step                                                                                       |
  | `mlp`           | flatten, dense 20, dense                                                                        |
  | `logistic`      | flatten, dense                                                                                  |

  Hidden activations are ReLU (the LSTM has its own). The layers have fixed names, so that a variable is called the same
  in every model built, for example `conv1/kernel:0`. The same seed gives the same initial weights, bit for bit on one
  machine; every tensor has its own seed derived from `seed`, and no global generator is read or set.

  Args:
    name: a key of `ARCHITECTURES`.
    input_shape: of one example: (h, w, c), or (length,) or (None,) for `tied_lstm`, whose input is int32 tokens; None:
      as published.
    num_classes: how many outputs; None: as published.
    seed: a whole number >= 0.
    dropout: whether to put in the dropout layers (in parentheses above) of a model that has them.

  Returns:
    A `tf.keras.Model` with float32 logits [batch, num_classes], or [batch, length, num_classes] for `tied_lstm`.

  Raises:
    ModelError: there is no such model, or it cannot have this shape, number of classes, seed or dropout.
  """
  if name not in ARCHITECTURES:
    raise ModelError(f'There is no model {str(name)[:40]!r}: use one of {", ".join(ARCHITECTURES)}.')
  architecture = ARCHITECTURES[name]
  if dropout and not architecture.dropout:
    raise ModelError(f'{name} has no dropout layers: leave dropout out.')
  shape = _checked_shape(name, architecture, input_shape)
  classes = architecture.num_classes if num_classes is None else _whole(num_classes, 'num_classes', 2)
  seed = _whole(seed, 'seed', 0)
  if math.prod(n or 1 for n in shape) > MAX_INPUT_VALUES:
    raise ModelError(f'input_shape {shape} has more than {MAX_INPUT_VALUES} values: use smaller examples.')
  if classes > MAX_CLASSES:
    raise ModelError(f'num_classes must be at most {MAX_CLASSES}, not {classes}.')
  return _BUILDERS[name](_Layers(name, seed, dropout), shape, classes)


def _checked_shape(name: str, architecture: Architecture, input_shape) -> tuple[int | None, ...]:
  if input_shape is None:
    return architecture.input_shape
  try:
    shape = tuple(input_shape)
  except TypeError:
    raise ModelError(f'input_shape must be a tuple, not {input_shape!r}.') from None
  if name == 'tied_lstm':
    if len(shape) != 1:
      raise ModelError(f'tied_lstm takes the shape (length,) or (None,), not {shape}.')
    return shape if shape[0] is None else (_whole(shape[0], 'The length', 1),)
  if len(shape) != 3:
    raise ModelError(f'{name} takes the shape (height, width, channels), not {shape}.')
  shape = tuple(_whole(n, 'Each number in input_shape', 1) for n in shape)
  if min(shape[:2]) < architecture.smallest:
    least = architecture.smallest
    raise ModelError(f'{name} needs images of at least {least}x{least}, not {shape[0]}x{shape[1]}: use another model.')
  return shape


def _whole(value, what: str, least: int) -> int:
  try:
    if isinstance(value, bool):
      raise TypeError
    number = operator.index(value)
  except TypeError:
    raise ModelError(f'{what} must be a whole number, not {value!r}.') from None
  if number < least:
    raise ModelError(f'{what} must be at least {least}, not {number}.')
  return number


class _Layers:
  """Makes the layers of one model: each with a fixed name and with seeds of its own."""

  def __init__(self, model: str, seed: int, dropout: bool):
    from tensorflow import keras

    self.keras = keras
    self._model = model
    self._seed = seed
    self._dropout = dropout

  def seed(self, tensor: str) -> int:
    """31 bits for one tensor: layers of the same shape must not start out equal."""
    digest = hashlib.sha256(f'models/{self._model}/{self._seed}/{tensor}'.encode()).digest()
    return int.from_bytes(digest[:4], 'little') >> 1

  def glorot(self, tensor: str):
    return self.keras.initializers.GlorotUniform(seed=self.seed(tensor))

  def conv(self, name: str, filters: int, size: int = 3, *, strides: int = 1, padding: str = 'valid',
           activation: str | None = 'relu'):
    # He et al.: the variance that keeps a deep stack of ReLUs from fading.
    initializers = self.keras.initializers
    initializer = initializers.HeNormal if 'all_cnn' in self._model else initializers.GlorotUniform
    return self.keras.layers.Conv2D(
        filters, size, strides, padding, activation=activation, name=name,
        kernel_initializer=initializer(seed=self.seed(f'{name}/kernel')),
    )

  def dense(self, name: str, units: int, activation: str | None = None):
    return self.keras.layers.Dense(
        units, activation=activation, name=name, kernel_initializer=self.glorot(f'{name}/kernel')
    )

  def dropout(self, name: str, rate: float) -> list:
    return [self.keras.layers.Dropout(rate, seed=self.seed(name), name=name)] if self._dropout else []

  def sequential(self, shape, *layers):
    return self.keras.Sequential([self.keras.Input(shape, name='image'), *layers], name=self._model)


def _mnist_cnn(make: _Layers, shape, classes: int):
  layers = make.keras.layers
  return make.sequential(
      shape,
      make.conv('conv1', 32),
      make.conv('conv2', 64),
      layers.MaxPooling2D(2, name='pool'),
      *make.dropout('dropout1', 0.25),
      layers.Flatten(name='flatten'),
      make.dense('dense1', 128, 'relu'),
      *make.dropout('dropout2', 0.5),
      make.dense('logits', classes),
  )


def _digits_cnn(make: _Layers, shape, classes: int):
  layers = make.keras.layers
  return make.sequential(
      shape,
      make.conv('conv1', 16, padding='same'),
      make.conv('conv2', 32, padding='same'),
      layers.MaxPooling2D(2, name='pool'),
      layers.Flatten(name='flatten'),
      make.dense('dense1', 64, 'relu'),
      make.dense('logits', classes),
  )


def _small_cnn(make: _Layers, shape, classes: int):
  return make.sequential(
      shape,
      make.conv('conv1', 16, strides=2),
      make.conv('conv2', 32, strides=2),
      make.keras.layers.Flatten(name='flatten'),
      make.dense('dense1', 108, 'relu'),
      make.dense('logits', classes),
  )


def _all_cnn_c(make: _Layers, shape, classes: int):
  conv = functools.partial(make.conv, padding='same')
  return make.sequential(
      shape,
      *make.dropout('dropout1', 0.2),
      conv('conv1', 96),
      conv('conv2', 96),
      conv('conv3', 96, strides=2),
      *make.dropout('dropout2', 0.5),
      conv('conv4', 192),
      conv('conv5', 192),
      conv('conv6', 192, strides=2),
      *make.dropout('dropout3', 0.5),
      conv('conv7', 192),
      conv('conv8', 192, 1),
      # No ReLU here: logits that cannot be negative train badly.
      conv('conv9', classes, 1, activation=None),
      make.keras.layers.GlobalAveragePooling2D(name='logits'),
  )


def _small_all_cnn(make: _Layers, shape, classes: int):
  conv = functools.partial(make.conv, padding='same')
  return make.sequential(
      shape,
      conv('conv1', 16, strides=2),
      conv('conv2', 32, strides=2),
      conv('conv3', 32),
      conv('conv4', classes, 1, activation=None),
      make.keras.layers.GlobalAveragePooling2D(name='logits'),
  )


def _cifar_cnn(make: _Layers, shape, classes: int, width: int = 32):
  layers = []
  for stage in range(3):
    for number in (2 * stage + 1, 2 * stage + 2):
      layers.append(make.conv(f'conv{number}', width << stage, padding='same'))
    layers.append(make.keras.layers.MaxPooling2D(2, name=f'pool{stage + 1}'))
  return make.sequential(shape, *layers, make.keras.layers.Flatten(name='flatten'),
                         make.dense('dense1', 4 * width, 'relu'), make.dense('logits', classes))


def _mlp(make: _Layers, shape, classes: int):
  return make.sequential(
      shape, make.keras.layers.Flatten(name='flatten'), make.dense('dense1', 20, 'relu'), make.dense('logits', classes)
  )


def _logistic(make: _Layers, shape, classes: int):
  return make.sequential(shape, make.keras.layers.Flatten(name='flatten'), make.dense('logits', classes))


def _tied_lstm(make: _Layers, shape, classes: int):
  keras = make.keras
  embedding = _tied_embedding_class()(
      classes, 96, name='embedding',
      embeddings_initializer=_unit_rows_class()(seed=make.seed('embedding')),
      embeddings_constraint=keras.constraints.UnitNorm(axis=1),
  )
  tokens = keras.Input(shape, dtype='int32', name='tokens')
  state = keras.layers.LSTM(
      256, return_sequences=True, name='lstm',
      kernel_initializer=make.glorot('lstm/kernel'),
      recurrent_initializer=keras.initializers.Orthogonal(seed=make.seed('lstm/recurrent_kernel')),
  )(embedding(tokens))
  logits = embedding(make.dense('projection', 96)(state), transpose=True)
  return keras.Model(tokens, logits, name='tied_lstm')


# The two classes below derive from Keras classes, so they are made when TensorFlow is first needed, and then only once.


@functools.cache
def _tied_embedding_class():
  import tensorflow as tf

  @tf.keras.utils.register_keras_serializable('tff_compress')
  class TiedEmbedding(tf.keras.layers.Embedding):
    """An embedding whose transpose is also the output layer: one variable in both places."""

    def call(self, inputs, transpose=False):
      return tf.matmul(inputs, self.embeddings, transpose_b=True) if transpose else super().call(inputs)

  return TiedEmbedding


@functools.cache
def _unit_rows_class():
  import tensorflow as tf

  @tf.keras.utils.register_keras_serializable('tff_compress')
  class UnitRows(tf.keras.initializers.RandomNormal):
    """Random directions: rows of L2 norm 1."""

    def __call__(self, shape, dtype=None, **kwargs):
      return tf.math.l2_normalize(super().__call__(shape, dtype, **kwargs), axis=1)

  return UnitRows


_BUILDERS = {
    'mnist_cnn': _mnist_cnn,
    'digits_cnn': _digits_cnn,
    'small_cnn': _small_cnn,
    'small_all_cnn': _small_all_cnn,
    'cifar_cnn': _cifar_cnn,
    'cifar_small': functools.partial(_cifar_cnn, width=8),
    'all_cnn_c': _all_cnn_c,
    'tied_lstm': _tied_lstm,
    'mlp': _mlp,
    'logistic': _logistic,
}
