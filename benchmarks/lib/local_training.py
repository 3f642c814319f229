"""Training of one model epoch by epoch, for benchmarks of what autoencoders learn from its weights.

Weights are one vector, float32[d], in the order of the model's trainable variables: what an autoencoder sees.
"""

import numpy as np

from tff_compress.simulation import models


class Trainer:
  """Local training and evaluation of a model of the simulation, by SGD with momentum.

  Args:
    name: of the model, as in `tff_compress.simulation.models`.
    seed: of its initial weights.
    batch: examples of a step.
    learning_rate, momentum: of SGD. Momentum begins at zero in each call of `epochs`, as it does in each round.

  Attributes:
    start: the initial weights.
    shapes: dict of the variables' shapes by name.
    sizes: tuple of their numbers of values.
  """

  def __init__(self, name, seed, batch, learning_rate, momentum=0.9):
    import tensorflow as tf
    self._tf, self._batch, self._rate, self._momentum = tf, batch, learning_rate, momentum
    self._model = models.build(name, seed=seed)
    self._weights = self._model.trainable_variables
    self._velocity = [tf.Variable(tf.zeros_like(weight)) for weight in self._weights]
    self.shapes = {weight.name.partition(':')[0]: tuple(weight.shape) for weight in self._weights}
    self.sizes = tuple(int(np.prod(shape)) for shape in self.shapes.values())
    self.start = self._vector()
    self._epoch = tf.function(self._steps)
    self._evaluate = tf.function(self._measure, reduce_retracing=True)

  def examples(self, x, y):
    """float32[n, h, w, c] and int32[n] as the tensors that the other methods take."""
    return self._tf.constant(x), self._tf.constant(y)

  def epochs(self, vector, examples, count, rng):
    """Trains from the weights `vector`; yields those after each of `count` epochs, each in an order of its own."""
    self._load(vector)
    for velocity in self._velocity:
      velocity.assign(self._tf.zeros_like(velocity))
    for _ in range(count):
      # Others may evaluate in between.
      self._load(vector)
      self._epoch(*examples, self._tf.constant(rng.permutation(len(examples[1])).astype(np.int32)))
      vector = self._vector()
      yield vector

  def score(self, vector, examples):
    """(accuracy, mean loss) of the weights `vector`."""
    self._load(vector)
    x, y = examples
    sums = [self._evaluate(x[i:i + 1000], y[i:i + 1000]) for i in range(0, len(y), 1000)]
    right, loss = np.sum([[float(value) for value in pair] for pair in sums], axis=0)
    return right / len(y), loss / len(y)

  def variables(self, vector):
    """The vector's parts as a dict of arrays: what codecs take."""
    parts = np.split(vector, np.cumsum(self.sizes)[:-1])
    return {name: part.reshape(shape) for (name, shape), part in zip(self.shapes.items(), parts)}

  def _vector(self):
    return np.concatenate([weight.numpy().ravel() for weight in self._weights])

  def _load(self, vector):
    for weight, value in zip(self._weights, self.variables(vector).values()):
      weight.assign(value)

  def _loss(self, x, y):
    logits = self._model(x, training=True)
    return logits, self._tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)

  def _steps(self, x, y, order):
    tf = self._tf
    for first in tf.range(0, tf.size(order), self._batch):
      chosen = order[first:first + self._batch]
      with tf.GradientTape() as tape:
        loss = tf.reduce_mean(self._loss(tf.gather(x, chosen), tf.gather(y, chosen))[1])
      for weight, velocity, gradient in zip(self._weights, self._velocity, tape.gradient(loss, self._weights)):
        velocity.assign(self._momentum * velocity + gradient)
        weight.assign_sub(self._rate * velocity)

  def _measure(self, x, y):
    logits, losses = self._loss(x, y)
    right = self._tf.equal(self._tf.argmax(logits, -1, self._tf.int32), y)
    return self._tf.reduce_sum(self._tf.cast(right, self._tf.float32)), self._tf.reduce_sum(losses)
