"""Small networks as data, their local training and evaluation in TensorFlow, without Keras and TFF.

A network's weights are one float32 vector: its variables one behind the other, each kernel before its bias, as Keras
has them. A round's clients are trained in one call, so that small tasks are not spent on calls. On one core graphs of
TensorFlow were faster than XLA and `tf.vectorized_map` for each of these networks, and than NumPy for those with
convolutions.
"""

from collections.abc import Sequence
import dataclasses
import functools
import math

import numpy as np

from tff_compress.codec.spec import Spec
from tff_compress.codec.spec import TensorSpec
from tff_compress.simulation import splits


@dataclasses.dataclass(frozen=True)
class Conv:
  """A convolution of 3 x 3 with bias and ReLU; `same`: with zeros around the image."""
  filters: int
  stride: int = 1
  same: bool = False

  def side(self, size: int) -> int:
    """Height or width of what it gives, from that of what it is given."""
    return size if self.same else (size - 3) // self.stride + 1


@dataclasses.dataclass(frozen=True)
class Pool:
  """The largest of 2 x 2 places."""


@dataclasses.dataclass(frozen=True)
class Dropout:
  """In training a share `rate` of the values becomes zero, and the others are divided by what is left."""
  rate: float


@dataclasses.dataclass(frozen=True)
class Dense:
  """Flattened examples times a matrix, with bias, and ReLU unless it is the last."""
  units: int


@dataclasses.dataclass(frozen=True)
class Network:
  """A network for images, whose last layer gives the logits.

  Attributes:
    shape: of an image: height, width, channels.
    layers: one behind the other.
  """
  shape: tuple[int, int, int]
  layers: tuple[Conv | Pool | Dropout | Dense, ...]

  @functools.cached_property
  def spec(self) -> Spec:
    """Of the variables."""
    tensors: list[TensorSpec] = []
    shape: tuple[int, ...] = self.shape
    for place, layer in enumerate(self.layers):
      kernel: tuple[int, ...] = ()
      if isinstance(layer, Conv):
        kernel = (3, 3, shape[-1], layer.filters)
        shape = (layer.side(shape[0]), layer.side(shape[1]), layer.filters)
      elif isinstance(layer, Pool):
        shape = (shape[0] // 2, shape[1] // 2, shape[2])
      elif isinstance(layer, Dense):
        kernel = (math.prod(shape), layer.units)
        shape = (layer.units,)
      if kernel:
        tensors += [TensorSpec(f'{place}/kernel', kernel), TensorSpec(f'{place}/bias', kernel[-1:])]
    return Spec(tuple(tensors))

  def initial_weights(self, seed: int) -> list[np.ndarray]:
    """Glorot-uniform kernels and zero biases, as Keras has them: float32 arrays."""
    rng, weights = splits.generator('benchmarks/weights', seed), []
    for tensor in self.spec.tensors:
      fans = math.prod(tensor.shape[:-2]) * sum(tensor.shape[-2:]) if len(tensor.shape) > 1 else 0
      limit = math.sqrt(6 / fans) if fans else 0.0
      weights.append(rng.uniform(-limit, limit, tensor.shape).astype(np.float32))
    return weights

  def logits(self, weights, x, dropout=None):
    """Tensors: list of the variables, float32[n, height, width, channels] -> float32[n, classes].

    `dropout` is an int32[2] seed, or None for inference.
    """
    import tensorflow as tf
    weights = iter(weights)
    for place, layer in enumerate(self.layers):
      if isinstance(layer, Conv):
        x = tf.nn.conv2d(x, next(weights), layer.stride, 'SAME' if layer.same else 'VALID')
        x = tf.nn.relu(tf.nn.bias_add(x, next(weights)))
      elif isinstance(layer, Pool):
        x = tf.nn.max_pool2d(x, 2, 2, 'VALID')
      elif isinstance(layer, Dense):
        kernel = next(weights)
        x = tf.nn.bias_add(tf.matmul(tf.reshape(x, [-1, kernel.shape[0]]), kernel), next(weights))
        x = tf.nn.relu(x) if place < len(self.layers) - 1 else x
      elif dropout is not None:
        drawn = tf.random.stateless_uniform(tf.shape(x), dropout + place * (1 << 24))
        x = tf.where(drawn < layer.rate, 0.0, x / (1 - layer.rate))
    return x


class Trainer:
  """Local training by plain SGD, and evaluation.

  Args:
    network: `Network`.
    dataset: `Dataset` of images of its shape.
    epochs: of a client's local training.
    batch: examples of a step; the last of an epoch may have fewer.
    learning_rate: of SGD.
  """

  def __init__(self, network, dataset, *, epochs, batch, learning_rate):
    import tensorflow as tf

    from tff_compress.tensorflow.ops import TensorFlowOps
    self._tf, self._xp, self._network = tf, TensorFlowOps(), network
    self._epochs, self._batch, self._rate = epochs, batch, learning_rate
    self._x, self._y = tf.constant(dataset.x_train), tf.constant(dataset.y_train, tf.int32)
    self._tests = dataset.x_test, dataset.y_test
    vector = tf.TensorSpec([network.spec.parameters], tf.float32)
    numbers = tf.TensorSpec([None], tf.int32)
    self._train = tf.function(self._clients, [vector, numbers, numbers, tf.TensorSpec([None, 2], tf.int32)])
    images = tf.TensorSpec([None, *network.shape], tf.float32)
    self._predict = tf.function(lambda vector, x: tf.argmax(network.logits(self._split(vector), x), -1),
                                [vector, images])

  def updates(self, vector: np.ndarray, orders: Sequence[np.ndarray], keys: np.ndarray) -> np.ndarray:
    """float32[m, d]: for each of m clients, the weights before training less those after.

    Args:
      vector: float32[d].
      orders: for each client, its examples' indices in the order of training, all epochs one behind the other.
      keys: int32[m, 2], seeds of dropout, each below 2^24.
    """
    ends = np.cumsum([0, *map(len, orders)]).astype(np.int32)
    return self._train(vector, np.concatenate(orders).astype(np.int32), ends, keys).numpy()

  def accuracy(self, vector: np.ndarray) -> float:
    """Share of the test images that are classified correctly."""
    x, y = self._tests
    right = sum(int(np.sum(self._predict(vector, x[i:i + 500]).numpy() == y[i:i + 500])) for i in range(0, len(x), 500))
    return right / len(x)

  def _split(self, vector):
    return self._network.spec.split(self._xp, vector)

  def _clients(self, vector, order, ends, keys):
    tf = self._tf

    def client(arguments):
      first, last, key = arguments
      trained = self._trained(self._split(vector), order[first:last], key)
      return vector - self._network.spec.join(self._xp, trained)

    return tf.map_fn(client, (ends[:-1], ends[1:], keys), parallel_iterations=1,
                     fn_output_signature=tf.TensorSpec(vector.shape, tf.float32))

  def _trained(self, weights, order, key):
    tf = self._tf
    size = tf.size(order) // self._epochs
    steps = -(-size // self._batch)

    def step(number, *weights):
      epoch, place = number // steps, number % steps * self._batch
      chosen = order[epoch * size:][place:tf.minimum(place + self._batch, size)]
      with tf.GradientTape() as tape:
        tape.watch(weights)
        logits = self._network.logits(weights, tf.gather(self._x, chosen), key + tf.stack([epoch, place]))
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(tf.gather(self._y, chosen), logits))
      gradients = tape.gradient(loss, weights)
      return number + 1, *(w - self._rate * g for w, g in zip(weights, gradients))

    return tf.while_loop(lambda number, *_: number < steps * self._epochs, step, (tf.constant(0), *weights),
                         parallel_iterations=1)[1:]
