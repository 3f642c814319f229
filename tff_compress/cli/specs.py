"""Reads a model's spec (names, shapes and dtypes of its variables) from a file. Files are hostile."""

import ast
from collections.abc import Iterable
import json
import os
import stat
import struct
from typing import Any
import zipfile
import zlib

import numpy as np

from tff_compress.codec import files
from tff_compress.codec.errors import SpecError
from tff_compress.codec.spec import Spec
from tff_compress.codec.spec import TensorSpec

MAX_JSON = 16 << 20
"""Largest spec in JSON, in bytes."""

MAX_MODEL = 4 << 30
"""Largest model file, in bytes."""

MAX_VARIABLES = 100_000

_JSON_FORM = '{"variables": [{"name": "dense/kernel", "shape": [784, 10], "dtype": "float32"}, …]}'


def read_spec(path: str) -> Spec:
  """The spec that a file describes.

  Args:
    path: a .json file such as {"variables": [{"name": "dense/kernel", "shape": [784, 10], "dtype": "float32"}]}
      (without a dtype: float32), an .npz file with one array per variable (only the shapes are read), or an .h5 file
      with a whole Keras model (its trainable variables; this imports TensorFlow).

  Returns:
    Spec

  Raises:
    SpecError: the file cannot be read or does not describe a model.
  """
  kind = os.path.splitext(path)[1].lower()
  readers = {'.json': (_from_json, MAX_JSON), '.npz': (_from_npz, MAX_MODEL), '.h5': (_from_h5, MAX_MODEL),
             '.hdf5': (_from_h5, MAX_MODEL)}
  if kind not in readers:
    raise SpecError(f'{path} does not end in .json, .npz or .h5: give the spec as one of these.')
  read, limit = readers[kind]
  try:
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
      raise SpecError(f'{path} is not a file.')
    if status.st_size > limit:
      raise SpecError(f'{path} has {status.st_size} bytes; a {kind} spec has at most {limit}.')
    return read(path)
  except (OSError, ValueError) as error:
    if isinstance(error, SpecError):
      raise
    raise SpecError(f'{path} cannot be read: {files.reason(error)}.') from None


def _spec(path: str, tensors: Iterable[TensorSpec]) -> Spec:
  """A `Spec` of `TensorSpec`s of which there may be too many."""
  result: list[TensorSpec] = []
  for tensor in tensors:
    if len(result) == MAX_VARIABLES:
      raise SpecError(f'{path} has more than {MAX_VARIABLES} variables.')
    result.append(tensor)
  if not result:
    raise SpecError(f'{path} has no variables.')
  return Spec(tuple(result))


def _from_json(path: str) -> Spec:
  with open(path, 'rb') as file:
    data = file.read(MAX_JSON + 1)
  try:
    value = json.loads(data)
    variables = value['variables'] if isinstance(value, dict) else value
    if not isinstance(variables, list):
      raise TypeError
    tensors = []
    for variable in variables:
      extra = set(variable) - {'name', 'shape', 'dtype'}
      name, shape, dtype = variable['name'], variable['shape'], variable.get('dtype', 'float32')
      if extra or not isinstance(name, str) or not isinstance(shape, list) or not isinstance(dtype, str):
        raise TypeError
      tensors.append((name, tuple(shape), dtype))
  except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
    raise SpecError(f'{path} is not a spec in JSON: write {_JSON_FORM}.') from None
  return _spec(path, (TensorSpec(*tensor) for tensor in tensors))


def _from_npz(path: str) -> Spec:
  """Only the headers of the arrays are unpacked, so that a small file cannot ask for much memory."""
  try:
    with zipfile.ZipFile(path) as archive:
      return _spec(path, [_from_npy(path, archive, info) for info in archive.infolist()[:MAX_VARIABLES + 1]])
  except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, struct.error) as error:
    raise SpecError(f'{path} cannot be read as .npz: {files.reason(error)}.') from None


def _from_npy(path: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> TensorSpec:
  name = info.filename.removesuffix('.npy')
  # What else zip files may use can ask for gigabytes before it gives a byte.
  if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
    raise SpecError(f'{path}: {name[:60]!r} is not compressed as numpy.savez_compressed does it.')
  with archive.open(info) as stream:
    length_bytes = {b'\x93NUMPY\x01\x00': 2, b'\x93NUMPY\x02\x00': 4}.get(stream.read(8))
    length = int.from_bytes(stream.read(length_bytes or 0), 'little')
    # NumPy's own reader takes memory for a header of any length before it looks at it.
    if not length_bytes or length > 10_000:
      raise SpecError(f'{path}: {name[:60]!r} is not an array that numpy.savez wrote.')
    try:
      header = ast.literal_eval(stream.read(length).decode('latin1').strip())
      shape, kind = header['shape'], header['descr']
      if not isinstance(kind, str):
        raise TypeError
      dtype = np.dtype(kind)
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError):
      raise SpecError(f'{path}: {name[:60]!r} has a header that describes no array.') from None
  return TensorSpec(name, shape, dtype.name)


def _from_h5(path: str) -> Spec:
  """The trainable variables of a Keras model. Refuses what would run code out of the file."""
  import h5py
  with files.readable(path) as alias, h5py.File(alias, 'r') as file:
    text = file.attrs.get('model_config')
  if text is None:
    raise SpecError(f'{path} has no model in it, at most weights: save the whole model with model.save.')
  try:
    config = json.loads(text)
    code = _first_code(config)
  except (ValueError, TypeError, RecursionError):
    raise SpecError(f'{path} holds a model configuration that cannot be read.') from None
  if code:
    raise SpecError(
        f'{path} has a part of kind {code[:60]!r}, which may run code from the file: give the spec as .json or '
        '.npz.')
  import tensorflow as tf
  try:
    with files.readable(path) as alias:
      model = tf.keras.models.load_model(alias, compile=False)
  except Exception as error:  # Keras raises what it likes on files that are not whole.
    raise SpecError(f'Keras cannot load {path}: {files.reason(error)}.') from None
  return Spec.of(model)


def _first_code(config: Any) -> str:
  """The first part of a model's configuration that is not a class of Keras itself; '' if all are."""
  stack = [config]
  while stack:
    value = stack.pop()
    if isinstance(value, list):
      stack.extend(value)
    elif isinstance(value, dict):
      kind, module = value.get('class_name'), value.get('module')
      if kind in ('Lambda', '__lambda__', 'function', 'TFOpLambda', 'SlicingOpLambda'):
        return str(kind)
      if module is not None and str(module).split('.')[0] != 'keras':
        return f'{module}.{kind}'
      stack.extend(value.values())
  return ''

