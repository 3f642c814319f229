"""A model as a function of fixed shapes that can be converted."""

import contextlib
from typing import Any

import tensorflow as tf

from tflite_export import models
from tflite_export.errors import ExportError
from tflite_export.training.formulas.registry import place
from tflite_export.training.program import exportable
from tflite_export.training.replay import trace

SIGNATURE = 'infer'

_WRITES = ('AssignVariableOp', 'AssignAddVariableOp', 'AssignSubVariableOp')


def specs(model: Any) -> dict[str, tf.TensorSpec]:
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


def traced(model: Any, batch_size: int, unroll: bool = False) -> tuple[tf.Module, Any]:
  """A model as the converter takes it.

  Args:
    model: Keras model or `models.Exported`.
    batch_size: the first size of inputs and outputs.
    unroll: whether recurrent layers become a chain of their steps instead of a loop: for int8, as the converter cannot
      measure activations inside a loop.

  Returns:
    (`tf.Module` that owns the variables, concrete function of the inputs to {'output': tensor}, or 'output_0', … of
    several)

  Raises:
    ExportError: it cannot be called, keeps something from one call to the next, or is to be unrolled and still has a
      loop.
  """
  def infer(*inputs):
    if isinstance(model, models.Exported):
      outputs = model.function(**dict(zip(model.inputs, inputs)))
      outputs = [outputs[name] for name in sorted(outputs)]
    else:
      with exportable(model) if unroll else contextlib.nullcontext():
        outputs = tf.nest.flatten(model(list(inputs) if len(inputs) > 1 else inputs[0], training=False))
    if len(outputs) == 1:
      return {'output': outputs[0]}
    return {f'output_{number}': tensor for number, tensor in enumerate(outputs)}

  inputs = [tf.TensorSpec([batch_size, *spec.shape[1:]], spec.dtype, name) for name, spec in specs(model).items()]
  function = trace(infer, inputs)
  graph = function.graph.as_graph_def()
  for node in [*graph.node, *(node for called in graph.library.function for node in called.node_def)]:
    if node.op in _WRITES:
      raise ExportError(f'{place(node.name)} changes a variable when the model predicts, and what a file answers must '
                        'not depend on earlier calls: build the layer with stateful=False, or without that variable.')
    if unroll and node.op in ('While', 'StatelessWhile'):
      raise ExportError('activations inside a loop cannot be measured for int8: build recurrent layers with '
                        'unroll=True, or choose float32, float16 or dynamic.')
  module = tf.Module()
  # Not the Keras model itself: to save all that belongs to it takes longer than everything else.
  module.variables_of_the_model = function.graph.variables
  module.exported = model.module if isinstance(model, models.Exported) else None
  return module, function
