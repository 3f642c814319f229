"""Losses: which are supported, and what their labels look like."""

import dataclasses

import tensorflow as tf

from tflite_export.errors import ExportError

_LABELS = {
    'sparse_categorical_crossentropy': 'classes',
    'categorical_crossentropy': 'one-hot',
    'binary_crossentropy': 'bits',
    'mean_squared_error': 'values',
    'mean_absolute_error': 'values',
}
_SHORT = {'mse': 'mean_squared_error', 'mae': 'mean_absolute_error'}


@dataclasses.dataclass(frozen=True)
class Loss:
  """A loss of Keras.

  Attributes:
    name: 'sparse_categorical_crossentropy', …
    function: (labels, output) -> loss per example, [batch] or [batch, …].
  """
  name: str
  function: object

  def label_spec(self, output):
    """`tf.TensorSpec` of the labels for a model's output of this shape."""
    if _LABELS[self.name] == 'classes':
      return tf.TensorSpec(output[:-1], tf.int32)
    return tf.TensorSpec(output, tf.float32)

  def draw(self, generator, output):
    """Random labels (NumPy) for an output of this shape."""
    kind = _LABELS[self.name]
    if kind == 'values':
      return generator.standard_normal(output).astype('float32')
    if kind == 'bits':
      return generator.integers(0, 2, output).astype('float32')
    classes = generator.integers(0, output[-1], output[:-1]).astype('int32')
    return classes if kind == 'classes' else (classes[..., None] == range(output[-1])).astype('float32')


def of(loss):
  """The loss that a model was compiled with, or that was given: a name, a function or a `tf.keras.losses.Loss`.

  Raises:
    ExportError: it is none of the supported ones.
  """
  if loss is None:
    raise ExportError('there is no loss: compile the model with one, or give loss=.')
  if isinstance(loss, (dict, list, tuple)):
    raise ExportError('a model with several losses cannot be exported: give one loss for its one output.')
  try:
    found = tf.keras.losses.get(loss)
  except (ValueError, TypeError):
    found = loss
  name = getattr(found, 'name', None) or getattr(found, '__name__', str(found))
  if isinstance(found, tf.keras.losses.Loss):
    function = found.call
    name = getattr(getattr(found, 'fn', None), '__name__', name)
    if found.reduction == tf.keras.losses.Reduction.SUM:
      raise ExportError('a loss that sums over the batch cannot be exported: use the mean, which is the default reduction.')
  else:
    function = found
  name = _SHORT.get(name, name)
  if name not in _LABELS or not callable(function):
    raise ExportError(f'the loss {name[:60]!r} cannot be exported: use one of {", ".join(_LABELS)}.')
  return Loss(name, function)
