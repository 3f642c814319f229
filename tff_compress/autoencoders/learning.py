"""Learning an autoencoder inside a graph, so that a client can do it in a round of training."""

from collections.abc import Sequence
import dataclasses
import math
from typing import Any
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from tff_compress.autoencoders.architectures import Architecture
from tff_compress.codec import network
from tff_compress.codec.table import Scalar
from tff_compress.tensorflow.ops import TensorFlowOps

_BATCH = 256

Layers: TypeAlias = list[tuple[tf.Tensor, tf.Tensor]]
"""[(kernel, bias)]: float32[inputs, outputs] and float32[outputs] of each layer."""


class Learner:
  """Functions that learn one architecture from snapshots, to be called while a graph is built or eagerly.

  Args:
    architecture: `Architecture`.
    size: number of values of a snapshot.
    sizes: numbers of values of the variables in it that have a normalisation of their own; () for none.
    learning_rate: of Adam, where layers are learned by gradients.
    seed: whole number, for initial weights and the order of pieces.
    center: whether means are taken out.
  """

  def __init__(self, architecture: Architecture, size: int, sizes: tuple[int, ...] = (), learning_rate: float = 1e-3,
               seed: int = 0, center: bool = True) -> None:
    self._architecture, self._size, self._sizes, self._seed = architecture, size, sizes, seed
    self._rate, self._center = learning_rate, center

  def steps_per_epoch(self, pieces: tf.Tensor) -> tf.Tensor:
    """Batches in as many examples as there are pieces: int32 scalar."""
    return -(-tf.shape(pieces)[0] // _batch(pieces))

  def learn(self, snapshots: tf.Tensor, epochs: int) -> network.Autoencoder:
    """float32[n, d] -> `network.Autoencoder` of tensors; n need not be known while a graph is built."""
    pieces, means, deviations = self.prepared(snapshots)
    if self._architecture.kind == 'linear':
      layers = self.components(pieces)
    else:
      pieces, mean, scale = self.standardised(pieces)
      layers = self.steps(pieces, self.initial(), 0, epochs * self.steps_per_epoch(pieces))[0]
      layers = self.restored(layers, mean, scale)
    return self.made(layers, means, deviations)

  def prepared(self, snapshots: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """float32[n, d] -> (float32[m, length] pieces of them, normalised; means and deviations, float32[v])."""
    means, deviations = [], []
    for part in tf.split(snapshots, self._sizes, axis=1) if self._sizes else ():
      mean = variance = tf.zeros([], tf.float64)
      if part.shape[1]:
        values = tf.cast(part, tf.float64)
        mean, variance = tf.nn.moments(values, [0, 1]) if self._center else (mean, tf.reduce_mean(values**2))
      deviation = tf.cast(tf.sqrt(variance), tf.float32)
      means.append(tf.cast(mean, tf.float32))
      deviations.append(tf.where(deviation > 1e-30, deviation, 1.0))
    if self._sizes:
      means, deviations = tf.stack(means), tf.stack(deviations)
      snapshots = (snapshots - tf.repeat(means, self._sizes)) / tf.repeat(deviations, self._sizes)
    else:
      means = deviations = tf.zeros([0])
    padded = tf.pad(snapshots, [[0, 0], [0, -self._size % self._architecture.length]])
    return tf.reshape(padded, [-1, self._architecture.length]), means, deviations

  def standardised(self, pieces: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """float32[m, length] -> (the same as Adam is given them; float32[length] mean and float32 scale that were taken
    out).

    Snapshots of one training are nearly alike. A dense network that sees them whole learns to be constant before
    anything else, and its ReLUs die of it; so it sees what they differ by. Convolutions share weights between places,
    and cannot give back a mean of each.
    """
    mean, scale = tf.zeros([pieces.shape[1]]), tf.ones([])
    if self._architecture.kind == 'dense':
      mean = tf.reduce_mean(pieces, 0) if self._center else mean
      pieces -= mean
      scale = tf.sqrt(tf.reduce_mean(pieces**2))
      scale = tf.where(scale > 1e-30, scale, 1.0)
    return pieces / scale, mean, scale

  def restored(self, layers: Layers, mean: tf.Tensor, scale: tf.Tensor) -> Layers:
    """[(kernel, bias)] for pieces of which nothing was taken out."""
    if self._architecture.kind != 'dense':
      return layers
    (first, bias), (last, end) = layers
    first = first / scale
    return [(first, bias + _centering(first, mean)), (last * scale, end * scale + mean)]

  def made(self, layers: Layers, means: tf.Tensor, deviations: tf.Tensor) -> network.Autoencoder:
    """The `network.Autoencoder` of [(kernel, bias)], its weights rounded."""
    found = []
    for (kernel, bias), shape in zip(layers, (*self._architecture.encoder, *self._architecture.decoder)):
      weights, scale = network.rounded(TensorFlowOps(), kernel)
      found.append(network.Layer(weights, scale, bias, shape.positions, shape.activation))
    count = len(self._architecture.encoder)
    return network.Autoencoder(self._architecture.length, tuple(found[:count]), tuple(found[count:]), self._sizes,
                               means, deviations)

  def components(self, pieces: tf.Tensor) -> Layers:
    """[(kernel, bias)] of the principal components. There are no more than pieces; other latent values are always 0."""
    latent = self._architecture.latent
    x = tf.cast(pieces, tf.float64)
    mean = tf.reduce_mean(x, 0) if self._center else tf.zeros_like(x[0])
    x -= mean

    def of_values() -> tf.Tensor:
      return tf.linalg.eigh(tf.matmul(x, x, transpose_a=True))[1][:, ::-1][:, :latent]

    def of_pieces() -> tf.Tensor:
      values, vectors = tf.linalg.eigh(tf.matmul(x, x, transpose_b=True))
      values, vectors = values[::-1][:latent], vectors[:, ::-1][:, :latent]
      lengths = tf.where(values > 1e-12 * values[0], tf.math.rsqrt(tf.maximum(values, 1e-300)), 0.0)
      found = tf.matmul(x, vectors, transpose_a=True) * lengths
      return tf.pad(found, [[0, 0], [0, latent - tf.shape(found)[1]]])

    # The smaller of the two matrices that have the same eigenvalues.
    basis = tf.cond(tf.shape(x)[0] >= tf.shape(x)[1], of_values, of_pieces)
    basis = tf.cast(tf.ensure_shape(basis, [pieces.shape[1], latent]), tf.float32)
    mean = tf.cast(mean, tf.float32)
    return [(basis, _centering(basis, mean)), (tf.transpose(basis), mean)]

  def initial(self) -> Layers:
    """[(kernel, bias)] to begin with (He et al. 2015)."""
    layers = []
    for i, shape in enumerate((*self._architecture.encoder, *self._architecture.decoder)):
      limit = math.sqrt((3 if shape.activation == network.NONE else 6) / shape.inputs)
      # Residual layers begin near the identity.
      limit = limit / 10 if shape.activation == network.RESIDUAL else limit
      kernel = tf.random.stateless_uniform([shape.inputs, shape.outputs], [self._seed, i], -limit, limit, alg='philox')
      layers.append((kernel, tf.zeros([shape.outputs])))
    return layers

  def steps(self, pieces: tf.Tensor, layers: Layers, start: Scalar, stop: Scalar,
            state: Any = None) -> tuple[Layers, Any, tf.Tensor]:
    """Steps of Adam with the mean squared error as loss, on pieces that are drawn at random.

    Args:
      pieces: float32[m, length].
      layers: [(kernel, bias)].
      start, stop: whole numbers, the steps' numbers.
      state: of Adam, as this returned it; None to begin.

    Returns:
      (layers, state, mean loss of the steps).
    """
    import tensorflow_federated as tff
    adam = tff.learning.optimizers.build_adam(self._rate)
    flat = tuple(tf.nest.flatten(layers))
    if state is None:
      state = adam.initialize(tuple(tf.TensorSpec(x.shape, x.dtype) for x in flat))
    state = tf.nest.map_structure(tf.convert_to_tensor, state)
    size = _batch(pieces)

    def step(number: tf.Tensor, flat: Sequence[tf.Tensor], state: Any, total: tf.Tensor) -> tuple[Any, ...]:
      key = [self._seed, 1000 + number]
      chosen = tf.random.stateless_uniform([size], key, 0, tf.shape(pieces)[0], tf.int32, alg='philox')
      batch = tf.gather(pieces, chosen)
      with tf.GradientTape() as tape:
        tape.watch(flat)
        loss = tf.reduce_mean(tf.square(self._forward(batch, flat) - batch))
      state, flat = adam.next(state, flat, tape.gradient(loss, flat))
      return number + 1, tuple(flat), tf.nest.map_structure(tf.convert_to_tensor, state), total + loss

    _, flat, state, total = tf.while_loop(lambda number, *_: number < stop, step,
                                          (tf.convert_to_tensor(start), flat, state, tf.zeros([])))
    return tf.nest.pack_sequence_as(layers, flat), state, total / tf.cast(stop - start, tf.float32)

  def _forward(self, x: tf.Tensor, flat: Sequence[tf.Tensor]) -> tf.Tensor:
    shapes = (*self._architecture.encoder, *self._architecture.decoder)
    for kernel, bias, shape in zip(flat[::2], flat[1::2], shapes):
      rows = tf.reshape(x, [-1, shape.inputs])
      y = tf.matmul(rows, kernel) + bias
      if shape.activation == network.RESIDUAL:
        y += rows
      if shape.activation != network.NONE:
        y = tf.nn.relu(y)
      x = tf.reshape(y, [-1, shape.positions * shape.outputs])
    return x


def _batch(pieces: tf.Tensor) -> tf.Tensor:
  """Pieces of one step: with enough of them, an epoch has at least 32 steps."""
  return tf.minimum(_BATCH, tf.maximum(8, tf.shape(pieces)[0] // 32))


def _centering(kernel: tf.Tensor, mean: tf.Tensor) -> tf.Tensor:
  """The bias with which a layer takes a mean from its inputs: of the rounded weights, by which it will be
  multiplied."""
  whole, scale = network.rounded(TensorFlowOps(), kernel)
  return -tf.linalg.matvec(whole * scale, mean, transpose_a=True)


def numbers_of(autoencoder: network.Autoencoder) -> network.Autoencoder:
  """A `network.Autoencoder` of tensors, which are not symbolic, as one of arrays."""
  def arrays(layer: network.Layer) -> network.Layer:
    return dataclasses.replace(layer, weights=np.asarray(layer.weights).astype(np.int8), scale=np.asarray(layer.scale),
                               bias=np.asarray(layer.bias))

  return dataclasses.replace(
      autoencoder, encoder=tuple(map(arrays, autoencoder.encoder)), decoder=tuple(map(arrays, autoencoder.decoder)),
      means=np.asarray(autoencoder.means), deviations=np.asarray(autoencoder.deviations))
