"""tf.functions to .tflite bytes: built-in operators only, the same bytes every time, for any processor, without memory.

Every file comes from here, so what holds for all of them is looked at here:

- An input without axes is refused: LiteRT for Python ends the process on 64-bit ARM when it is given one. A number is
  an array of shape [1].
- What a call leaves behind is refused, except the variables of a file that trains, which its signatures name. The
  runtime's own LSTM operator, above all, goes on from the state that the last call ended with.
"""

from collections.abc import Callable
import pathlib
import re
import tempfile
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tff_compress.codec import files
from tflite_export import flatbuffer
from tflite_export import interpreters
from tflite_export.errors import ExportError
from tflite_export.errors import FileError


def convert(module: Any, signatures: dict, configure: Callable | None = None, variables: bool = False) -> bytes:
  """Converts functions of a module.

  Args:
    module: `tf.Module` that owns the variables.
    signatures: {name: tf.function or concrete function with an input signature}; each returns a dict of tensors.
    configure: function that sets options of the `tf.lite.TFLiteConverter` before it runs.
    variables: whether the variables are the file's, which its signatures read and write; otherwise they are constants.

  Returns:
    bytes

  Raises:
    ExportError: something in them has no built-in operator, an input has no axes, or a call would depend on earlier
      ones.
  """
  concrete = {name: f if not hasattr(f, 'get_concrete_function') else f.get_concrete_function()
              for name, f in signatures.items()}
  with tempfile.TemporaryDirectory() as folder, interpreters.quiet():
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    try:
      tf.saved_model.save(module, folder, signatures=concrete, options=options)
      _take_apart(pathlib.Path(folder, 'saved_model.pb'))
    except (OSError, tf.errors.OpError) as error:
      raise FileError(f'the temporary folder {folder} cannot be written: {files.reason(error)}.') from error
    converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=sorted(concrete))
    converter.experimental_enable_resource_variables = variables
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if configure:
      configure(converter)
    try:
      data = converter.convert()
    except Exception as error:
      raise ExportError(f'this cannot be converted to built-in operators: {_reason(error)}') from error
  _check(flatbuffer.load(data), variables)
  return data


def _take_apart(path):
  """Takes off functions the names by which the converter knows layers, to put one operator with a state in their place.
  """
  saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
  for graph in saved.meta_graphs:
    for function in graph.graph_def.library.function:
      for mark in ('api_implements', '_implements'):
        if mark in function.attr:
          del function.attr[mark]
  path.write_bytes(saved.SerializeToString(deterministic=True))


def _check(model, variables):
  """Raises ExportError unless every interpreter on every device can run a `ModelT`, each time as if for the first."""
  foreign = flatbuffer.operators(model).foreign
  if foreign:
    raise ExportError(f'this needs operators outside the built-in runtime: {", ".join(foreign)}.')
  scalars = [f'{signature}/{name}' for signature, sides in flatbuffer.signatures(model).items()
             for name, tensor in sides['inputs'].items() if not tensor['shape']]
  if scalars:
    raise ExportError(f'the input {scalars[0]} has no axes, which LiteRT cannot run on 64-bit ARM: give it the shape '
                      '[1].')
  remembering = flatbuffer.remembering(model, variables)
  if remembering:
    raise ExportError(f'{", ".join(remembering)} would go on from what the last call left: use layers that keep '
                      'nothing between calls.')


def _reason(error):
  """What the converter's report says in the end."""
  missing = sorted(set(re.findall(r"'(tf\.\w+)' op is neither", str(error))))
  if missing:
    return f'there is none for {", ".join(missing)}'
  lines = [line.strip() for line in str(error).splitlines() if line.strip()]
  named = [line for line in lines if line.startswith(('tf.', 'TF Select ops:', 'Flex ops:', 'Custom ops:'))
           or 'error:' in line]
  return (named or lines or [type(error).__name__])[0][:300]
