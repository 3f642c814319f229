"""A model as a function of fixed shapes that can be converted."""

import tensorflow as tf

from tflite_export import models
from tflite_export.errors import ExportError

SIGNATURE = 'infer'


def specs(model):
  """What a model takes: {name: tf.TensorSpec}; 'x', or 'x_0', 'x_1', … as in training exports.

  Raises:
    ExportError: it is no model, was never built, is not of float32, or has sizes that are not fixed.
  """
  if isinstance(model, models.Exported):
    given = list(model.inputs.values())
  else:
    if not isinstance(model, tf.keras.Model):
      raise ExportError(f'a Keras model of TensorFlow {tf.__version__} is needed, not {type(model).__name__}.')
    if not model.built:
      raise ExportError('the model has no weights yet: give it an Input layer, or call it once on data.')
    for layer in model.submodules:
      if isinstance(layer, tf.keras.layers.Layer) and layer.compute_dtype in ('float16', 'bfloat16', 'float64'):
        raise ExportError(f'the layer {layer.name!r} computes in {layer.compute_dtype}: only float32 models can be '
                          'exported.')
    for variable in model.variables:
      if variable.dtype.is_floating and variable.dtype != tf.float32:
        raise ExportError(f'the variable {variable.name!r} is {variable.dtype.name}: only float32 models can be '
                          'exported.')
    given = model.inputs or tf.nest.flatten(getattr(model, '_saved_model_inputs_spec', None))
    if not given or given[0] is None:
      raise ExportError('this subclassed model does not say what its input looks like: call it once on data.')
  found = {}
  for number, spec in enumerate(given):
    if spec.shape.rank in (None, 0) or None in spec.shape[1:]:
      raise ExportError(f'the input {spec.name!r} has shape {spec.shape}: all sizes but that of the batch must be '
                        'fixed.')
    if spec.dtype.is_floating and spec.dtype != tf.float32:
      raise ExportError(f'the input {spec.name!r} is {spec.dtype.name}: only float32 models can be exported.')
    name = 'x' if len(given) == 1 else f'x_{number}'
    found[name] = tf.TensorSpec([None, *spec.shape[1:]], spec.dtype, name)
  return found


class Program(tf.Module):
  """A model with what belongs to it, for the converter.

  Args:
    model: Keras model or `models.Exported`.
    batch_size: the first size of inputs and outputs.
  """

  def __init__(self, model, batch_size):
    super().__init__()
    self._model = model
    self._owner = model.module if isinstance(model, models.Exported) else model
    self._specs = [tf.TensorSpec([batch_size, *spec.shape[1:]], spec.dtype, name)
                   for name, spec in specs(model).items()]

  def signature(self):
    """tf.function of the inputs to {'output': tensor}, or 'output_0', … of several."""
    def infer(*inputs):
      if isinstance(self._model, models.Exported):
        outputs = self._model.function(**dict(zip(self._model.inputs, inputs)))
        outputs = [outputs[name] for name in sorted(outputs)]
      else:
        outputs = tf.nest.flatten(self._model(list(inputs) if len(inputs) > 1 else inputs[0], training=False))
      if len(outputs) == 1:
        return {'output': outputs[0]}
      return {f'output_{number}': tensor for number, tensor in enumerate(outputs)}
    return tf.function(infer, input_signature=self._specs, autograph=False)
