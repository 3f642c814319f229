"""What benchmarks of rounds train: 10 clients with 100 images each and the 1,199,882-parameter CNN, in TFF."""

import numpy as np


def model():
  """The Keras model."""
  from tff_compress.simulation import models
  return models.build('mnist_cnn', input_shape=(28, 28, 1), num_classes=10, seed=0)


def model_fn():
  """The model as TFF wants it."""
  import tensorflow as tf
  import tensorflow_federated as tff
  return tff.learning.models.from_keras_model(
      model(), loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
      input_spec=(tf.TensorSpec([None, 28, 28, 1]), tf.TensorSpec([None], tf.int32)))


def datasets():
  """Ten clients with 100 images of noise each."""
  import tensorflow as tf
  rng = np.random.Generator(np.random.Philox(0))
  return [tf.data.Dataset.from_tensor_slices((rng.random((100, 28, 28, 1), np.float32),
                                              rng.integers(0, 10, 100).astype(np.int32))).batch(20) for _ in range(10)]


def optimizer():
  """That of the clients."""
  import tensorflow_federated as tff
  return tff.learning.optimizers.build_sgdm(0.05)


def fed_avg(aggregator, loop):
  """TFF's process with an uplink; None for its own."""
  import tensorflow_federated as tff
  return tff.learning.algorithms.build_weighted_fed_avg(
      model_fn, client_optimizer_fn=optimizer(), model_aggregator=aggregator, loop_implementation=loop)
