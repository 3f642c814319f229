"""tf.functions to .tflite bytes: built-in operators only, the same bytes every time, and for any processor.

Every file comes from here, so what holds for all of them is looked at here. An input without axes is refused: LiteRT for
Python ends the process on 64-bit ARM when it is given one. A number is an array of shape [1].
"""

import re
import tempfile

import tensorflow as tf

from tflite_export import flatbuffer
from tflite_export import interpreters
from tflite_export.errors import ExportError


def convert(module, signatures, configure=None):
  """Converts functions of a module.

  Args:
    module: `tf.Module` that owns the variables.
    signatures: {name: tf.function or concrete function with an input signature}; each returns a dict of tensors.
    configure: function that sets options of the `tf.lite.TFLiteConverter` before it runs.

  Returns:
    bytes

  Raises:
    ExportError: something in them has no built-in operator, or an input has no axes.
  """
  concrete = {name: f if not hasattr(f, 'get_concrete_function') else f.get_concrete_function()
              for name, f in signatures.items()}
  with tempfile.TemporaryDirectory() as folder, interpreters.quiet():
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(module, folder, signatures=concrete, options=options)
    converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=sorted(concrete))
    converter.experimental_enable_resource_variables = True
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if configure:
      configure(converter)
    try:
      data = converter.convert()
    except Exception as error:  # pylint: disable=broad-exception-caught
      raise ExportError(f'this cannot be converted to built-in operators: {_reason(error)}') from error
  _check(flatbuffer.load(data))
  return data


def _check(model):
  """Raises ExportError unless every interpreter on every device can run a `ModelT`."""
  foreign = flatbuffer.operators(model).foreign
  if foreign:
    raise ExportError(f'this needs operators outside the built-in runtime: {", ".join(foreign)}.')
  scalars = flatbuffer.inputs_without_axes(model)
  if scalars:
    raise ExportError(f'the input {scalars[0]} has no axes, which LiteRT cannot run on 64-bit ARM: give it the shape [1].')


def _reason(error):
  """What the converter's report says in the end."""
  missing = sorted(set(re.findall(r"'(tf\.\w+)' op is neither", str(error))))
  if missing:
    return f'there is none for {", ".join(missing)}'
  lines = [line.strip() for line in str(error).splitlines() if line.strip()]
  named = [line for line in lines if line.startswith(('tf.', 'TF Select ops:', 'Flex ops:', 'Custom ops:')) or 'error:' in line]
  return (named or lines or [type(error).__name__])[0][:300]
