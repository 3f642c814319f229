"""SGD of TFF, the one optimizer that moves all weights alike."""

import collections

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff


def constants(optimizer: tff.learning.optimizers.Optimizer) -> tuple[float, float] | None:
  """(learning rate, momentum) of `tff.learning.optimizers.build_sgdm`; None of any other optimizer."""
  state = optimizer.initialize(tf.TensorSpec([1], tf.float32))
  if not isinstance(state, collections.abc.Mapping) or 'learning_rate' not in state:
    return None
  if not set(state) <= {'learning_rate', 'momentum', 'accumulator'}:
    return None
  return float(np.asarray(state['learning_rate'])), float(np.asarray(state.get('momentum', 0.0)))
