"""Which Keras models can be trained federated."""

import tensorflow as tf

from tff_compress.keras.errors import FederateError
from tff_compress.keras.layers import all_layers

_STEP = ('train_step', 'compute_loss', 'compute_metrics', 'make_train_function')
"""What `fit` runs of a model in each step."""


def check_model(model: object) -> None:
  """Raises FederateError if the model cannot be trained federated, whatever the data."""
  if not isinstance(model, tf.keras.Model):
    kind = type(model)
    raise FederateError('a tf.keras.Model is needed, not '
                        + (kind.__name__ if kind.__module__ == 'builtins' else f'{kind.__module__}.{kind.__name__}')
                        + '.')
  if not getattr(model, '_is_compiled', False) or model.compiled_loss is None:
    raise FederateError('the model is not compiled: call model.compile(optimizer=…, loss=…, metrics=[…]) first.')
  for name in _STEP:
    if getattr(getattr(model, name), '__func__', None) is not getattr(tf.keras.Model, name):
      raise FederateError(
          f'{type(model).__name__} has a {name} of its own, which clients cannot run: use the standard one, '
          'or write a tff.learning.models.VariableModel and train that with TFF.')
  for layer in all_layers(model):
    if getattr(layer, 'stateful', False) and isinstance(layer, tf.keras.layers.RNN):
      raise FederateError(
          f'the layer {layer.name!r} is stateful, and clients keep nothing between batches: use stateful=False.')


def check_weights(model: tf.keras.Model) -> None:
  """Raises FederateError unless the model has weights that can be trained federated."""
  if not model.built:
    raise FederateError('the model has no variables yet: call it on a batch, or model.build(input_shape), first.')
  if not model.trainable_variables:
    raise FederateError('the model has no trainable weights: set trainable=True for the layers to train.')
  for variable in model.trainable_variables:
    if variable.dtype != tf.float32:
      raise FederateError(
          f'the weight {variable.name!r} has dtype {tf.as_dtype(variable.dtype).name}: federated training '
          'needs float32 weights.')
