"""Models from files: what Keras 2 saves, and what newer Keras exports for inference."""

from collections.abc import Callable
import dataclasses
import json
import os
import pathlib
import re
from typing import Any
import zipfile

import tensorflow as tf

from tff_compress.codec import files
from tflite_export import interpreters
from tflite_export.errors import ExportError
from tflite_export.errors import FileError
from tflite_export.errors import reason

LARGEST_CONFIG = 1 << 26
"""Bytes of the largest description of a model that is read."""

_WAY = ("either export it there with model.export('folder') and give that folder, which is enough for inference "
        'without further training, or rebuild the same layers here and carry the weights over as NumPy arrays')


@dataclasses.dataclass(frozen=True)
class Exported:
  """A SavedModel without Keras layers, such as newer Keras exports: it predicts, and cannot be trained or taken apart.

  Attributes:
    name: what messages call it.
    module: the loaded object, which holds the variables.
    function: takes the inputs by name and returns a dict of outputs.
    inputs: {name: tf.TensorSpec}
  """
  name: str
  module: Any
  function: Callable
  inputs: dict


def load(path: str | os.PathLike, layers: bool = True) -> Any:
  """Reads a model.

  Code in files is never run: a Lambda layer of Python code is refused, and so is any layer that is not Keras's own.

  Args:
    path: a .keras or .h5 file, or the folder of a SavedModel.
    layers: whether Keras layers are needed. Otherwise a SavedModel without them is good too.

  Returns:
    `tf.keras.Model`, or `Exported`.

  Raises:
    FileError: there is no such file, or it is no model.
    ExportError: it is the model of a newer Keras, or has parts that cannot be loaded; the message says what works.
  """
  path = pathlib.Path(path)
  if '\0' in str(path):
    raise FileError(f'{str(path)!r} cannot be read: it is no path.')
  if path.is_dir():
    return _folder(path, layers)
  if not path.is_file():
    raise FileError(f'{path} {"is not a file" if path.exists() else "does not exist"}: name a .keras or .h5 file, or '
                    'the folder of a SavedModel.')
  if path.name.endswith('.weights.h5'):
    raise ExportError(f'{path} holds weights without a model: save the whole model with model.save.')
  if path.suffix == '.keras':
    config, version = _keras_config(path)
  elif path.suffix in ('.h5', '.hdf5'):
    config, version = _h5_config(path)
  else:
    raise FileError(f'{path} is neither a .keras file, an .h5 file nor the folder of a SavedModel: save the model as '
                    'one of them.')
  if version >= 3:
    raise ExportError(f'{path} was saved by Keras {version}, and TensorFlow {tf.__version__} has Keras 2: {_WAY}.')
  _refuse_code(path, config)
  return _loaded(path)


def _loaded(path):
  """What Keras makes of a file that has been looked at."""
  try:
    with interpreters.quiet(), files.readable(str(path)) as alias:
      try:
        return tf.keras.models.load_model(alias)
      except (ValueError, TypeError, KeyError, AttributeError):
        # The model may be fine, and only what it was compiled with unknown here.
        return tf.keras.models.load_model(alias, compile=False)
  except Exception as error:
    raise ExportError(f'{path} cannot be loaded: {reason(error)}.') from None


def _major(version):
  match = re.match(r'(\d+)', str(version))
  return int(match[1]) if match else 0


def _keras_config(path):
  """(configuration, major version of Keras) of a .keras file."""
  try:
    with zipfile.ZipFile(path) as archive:
      texts = {}
      for name in ('config.json', 'metadata.json'):
        if archive.getinfo(name).file_size > LARGEST_CONFIG:
          raise FileError(f'{path} has a description of more than {LARGEST_CONFIG} bytes: it is no model for a device.')
        texts[name] = json.loads(archive.read(name))
    return texts['config.json'], _major(texts['metadata.json']['keras_version'])
  except FileError:
    raise
  except Exception as error:
    # Whatever a hostile archive leads zipfile and json to.
    raise FileError(f'{path} is not a whole .keras file ({reason(error)}): save the model again.') from None


def _h5_config(path):
  """(configuration, major version of Keras) of an .h5 file."""
  import h5py
  try:
    with files.readable(str(path)) as alias, h5py.File(alias, 'r') as file:
      if 'model_config' not in file.attrs:
        raise ExportError(f'{path} holds no model, only arrays: save the whole model with model.save.')
      return json.loads(file.attrs['model_config']), _major(file.attrs.get('keras_version', '2'))
  except ExportError:
    raise
  except Exception as error:
    raise FileError(f'{path} is not a whole .h5 file ({reason(error)}): save the model again.') from None


def _refuse_code(path, config):
  """Refuses what Keras would import or run because a file says so: Lambda layers, and whatever is not Keras's own."""
  todo = [config]
  while todo:
    part = todo.pop()
    if isinstance(part, dict):
      kind, module = part.get('class_name'), part.get('module')
      if kind in ('Lambda', '__lambda__'):
        raise ExportError(f'{path} has a Lambda layer, whose Python code is not run from a file: replace it by a layer '
                          'of Keras, or build the model in Python and call the export there.')
      if isinstance(kind, str) and module and not _is_keras(module, kind):
        raise ExportError(f'{path} has {kind[:60]!r} of the module {str(module)[:60]!r}, which is not Keras\'s own, '
                          'and whose code is not run from a file: build the model in Python and call the export there.')
      todo.extend(part.values())
    elif isinstance(part, list):
      todo.extend(part)


def _is_keras(module, kind):
  return module == 'keras' or str(module).startswith('keras.') or (module == 'builtins' and kind == 'function')


def _folder(path, layers):
  """A SavedModel: with its layers where Keras 2 saved it, otherwise its function for serving."""
  if not (path / 'saved_model.pb').is_file():
    raise FileError(f'{path} is a folder without saved_model.pb: name a .keras or .h5 file, or the folder of a '
                    'SavedModel.')
  if (path / 'keras_metadata.pb').is_file():
    for config in _metadata_configs(path):
      _refuse_code(path, config)
    return _loaded(path)
  if layers:
    raise ExportError(f'{path} holds no Keras layers, only a function that predicts, which is good for inference '
                      'without further training: for anything else rebuild the layers here and carry the weights over '
                      'as NumPy arrays.')
  try:
    with interpreters.quiet(), files.readable(str(path)) as alias:
      module = tf.saved_model.load(alias)
    functions = dict(module.signatures)
    name = 'serving_default' if 'serving_default' in functions else sorted(functions)[0]
    function = functions[name]
    inputs = dict(function.structured_input_signature[1])
  except Exception as error:
    raise ExportError(f'{path} has no function that predicts ({reason(error)}): save it with '
                      'model.export.') from None
  return Exported(str(path), module, function, inputs)


def _metadata_configs(path):
  """The configurations of all Keras objects of a SavedModel."""
  from keras.protobuf import saved_metadata_pb2
  metadata = saved_metadata_pb2.SavedMetadata()
  try:
    if (path / 'keras_metadata.pb').stat().st_size > LARGEST_CONFIG:
      raise ValueError('it is too large')
    metadata.ParseFromString((path / 'keras_metadata.pb').read_bytes())
    return [json.loads(node.metadata) for node in metadata.nodes if node.metadata]
  except Exception as error:
    raise FileError(f'{path} has a keras_metadata.pb that cannot be read ({reason(error)}): save the model '
                    'again.') from None
