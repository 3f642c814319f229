"""The server's step: TFF's optimizers, run eagerly on a mean of updates as on a negative gradient.

TensorFlow and TFF are imported when an optimizer is made.
"""

import collections
from typing import Any

import numpy as np

from tff_compress.codec import files
from tff_compress.codec.errors import CompressionError
from tff_compress.codec.spec import Spec


class OptimizerError(CompressionError):
  """The state of an optimizer is not one of this optimizer and model."""


class ServerOptimizer:
  """Args:
    spec: of the model's variables, all float32.
    name, learning_rate, momentum: as for `keras.optimizers.of_server`.
  """

  def __init__(self, spec: Spec, name: str, learning_rate: float, momentum: float = 0.0) -> None:
    import tensorflow as tf

    from tff_compress.keras import optimizers
    self._tf, self._spec = tf, spec
    self._optimizer = optimizers.of_server(name, learning_rate, momentum)
    self._first = self._optimizer.initialize(
        collections.OrderedDict((t.name, tf.TensorSpec(t.shape, t.dtype)) for t in spec.tensors))

  def initialize(self) -> bytes:
    """The state before the first step, for `step`."""
    return self._to_bytes(self._first)

  def step(self, state: bytes, weights: dict[str, np.ndarray],
           update: dict[str, np.ndarray]) -> tuple[bytes, dict[str, np.ndarray]]:
    """(the next state, the next weights). Raises OptimizerError for a state of another optimizer."""
    tensors = [collections.OrderedDict((t.name, self._tf.constant(sign * values[t.name])) for t in self._spec.tensors)
               for sign, values in ((1, weights), (-1, update))]
    state_after, weights_after = self._optimizer.next(self._from_bytes(state), *tensors)
    return self._to_bytes(state_after), {name: np.asarray(value) for name, value in weights_after.items()}

  def _to_bytes(self, state: Any) -> bytes:
    leaves = self._tf.nest.flatten(state)
    return files.packed({str(place): np.asarray(leaf) for place, leaf in enumerate(leaves)})

  def _from_bytes(self, state: bytes) -> Any:
    wanted = self._tf.nest.flatten(self._first)
    leaves = list(files.unpacked(state, OptimizerError, 'the state of the optimizer').values())
    if [(leaf.dtype, leaf.shape) for leaf in leaves] != [(np.asarray(w).dtype, np.shape(w)) for w in wanted]:
      raise OptimizerError('the state of the optimizer is of another optimizer or model.')
    # What TFF has as a number of Python stays one: as an array it would have another precision.
    leaves = [type(w)(leaf) if isinstance(w, (int, float)) else self._tf.constant(leaf)
              for w, leaf in zip(wanted, leaves)]
    return self._tf.nest.pack_sequence_as(self._first, leaves)
