"""Random numbers of layers, such as dropout's masks, as a function of a batch's key."""

from collections.abc import Iterator
import contextlib
import threading

from keras.src import backend
import tensorflow as tf

from tff_compress.keras.layers import all_layers

_DRAWING = threading.Lock()
"""Held while layers have other generators: models in several threads may share layers."""


def random_layers(model: tf.keras.Model) -> list[tf.keras.layers.Layer]:
  """The layers of a Keras model that draw random numbers."""
  return [layer for layer in all_layers(model)
          if isinstance(getattr(layer, '_random_generator', None), backend.RandomGenerator)]


class _KeyedGenerator(backend.RandomGenerator):
  """Random numbers of a layer as a function of the batch's key, so that a run can be repeated bit for bit.

  The layer's own generators would differ from worker to worker, and give every client of a round the same masks, as
  each starts from the layer's seed.
  """

  def __init__(self, index, key):
    super().__init__(seed=0, rng_type='stateless')
    self._index, self._key, self._draws = index, key, 0

  def make_seed_for_stateless_op(self):
    self._maybe_init()
    self._draws += 1
    return tf.random.experimental.stateless_fold_in(self._key, self._index * 65536 + self._draws)

  def make_legacy_seed(self):
    return None


@contextlib.contextmanager
def keyed(model: tf.keras.Model, key: tf.Tensor) -> Iterator[None]:
  """A block in which the random numbers of the model's layers depend on the key alone, int32[2]."""
  with _DRAWING:
    layers = random_layers(model)
    before = [layer._random_generator for layer in layers]
    try:
      for index, layer in enumerate(layers):
        # Past Keras, which takes note of what is assigned to a layer.
        object.__setattr__(layer, '_random_generator', _KeyedGenerator(index, key))
      yield
    finally:
      for layer, generator in zip(layers, before):
        object.__setattr__(layer, '_random_generator', generator)
