"""Examples for training, calibration and validation: reading them from .npz files, and checking that they fit a
model."""

from collections.abc import Iterable
import os
import pathlib
from typing import Any
import zipfile

import numpy as np

from tflite_export.errors import ExportError
from tflite_export.errors import FileError

LARGEST = 4 << 30
"""Bytes that the arrays of a file may take."""


def read(path: str | os.PathLike, names: Iterable[str]) -> dict[str, np.ndarray]:
  """Reads arrays of numbers from an .npz file.

  Args:
    path: the file.
    names: which arrays.

  Returns:
    {name: array} of those that are there.

  Raises:
    FileError: it is missing, no .npz file, too large, or holds something else than numbers.
  """
  path = pathlib.Path(path)
  try:
    if not path.is_file():
      raise FileError(f'{path} {"is not a file" if path.exists() else "does not exist"}: name an .npz file with x and '
                      'y.')
    with zipfile.ZipFile(path) as archive:
      members = {info.filename: info for info in archive.infolist()}
      wanted = {name: members[f'{name}.npy'] for name in names if f'{name}.npy' in members}
      if sum(info.file_size for info in wanted.values()) > LARGEST:
        raise FileError(f'{path} unpacks to more than {LARGEST} bytes: save fewer examples or smaller types.')
      return {name: _array(archive, info) for name, info in wanted.items()}
  except FileError:
    raise
  except Exception as error:
    # Whatever a hostile archive leads zipfile, zlib and NumPy to.
    why = ' '.join(str(error).split())[:150].rstrip('.') or type(error).__name__
    raise FileError(f'{path} cannot be read as .npz ({why}): save arrays of numbers with numpy.savez.') from None


def _array(archive, info):
  """The array of a member."""
  with archive.open(info) as stream:
    version = np.lib.format.read_magic(stream)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = header(stream)
    # NumPy takes the memory that a header asks for before it reads the values.
    count = 1
    for size in shape:
      count *= size
    if dtype.kind not in 'biuf' or count * dtype.itemsize > info.file_size:
      raise ValueError(f'{info.filename} is not a whole array of numbers')
  with archive.open(info) as stream:
    return np.lib.format.read_array(stream, allow_pickle=False)


def inputs(given: Any, specs: dict, what: str) -> dict[str, np.ndarray]:
  """Checks examples against what a model takes.

  Args:
    given: array [n, …], or a list, tuple or dict (by name) of one per input.
    specs: {name: tf.TensorSpec} of the inputs, whose first size is the batch's.
    what: what messages call it.

  Returns:
    {name: array [n, …] in the input's dtype}

  Raises:
    ExportError: the number, shapes or types do not fit, or there are no examples, or values that are not finite.
  """
  if isinstance(given, dict):
    found = given
  elif isinstance(given, (list, tuple)) and len(specs) > 1:
    found = dict(zip(specs, given)) if len(given) == len(specs) else {}
  else:
    found = dict.fromkeys(specs, given) if len(specs) == 1 else {}
  if set(found) != set(specs):
    raise ExportError(f'{what} must be one array per input: {", ".join(specs)}.')
  checked = {}
  for name, spec in specs.items():
    array = numbers(found[name], what)
    if array.ndim != spec.shape.rank or array.shape[1:] != tuple(spec.shape[1:]):
      wanted = ', '.join(['n', *map(str, spec.shape[1:])])
      raise ExportError(f'{what} has the shape {array.shape}: the model takes [{wanted}].')
    kind = spec.dtype.as_numpy_dtype
    if array.dtype.kind == 'f' and np.dtype(kind).kind in 'iu':
      raise ExportError(f'{what} is {array.dtype}: the input {name} of the model takes {np.dtype(kind)}.')
    checked[name] = np.ascontiguousarray(array, kind)
  if len({len(array) for array in checked.values()}) > 1:
    raise ExportError(f'{what} has inputs of different lengths: give one row per example to each.')
  return checked


def numbers(given: Any, what: str) -> np.ndarray:
  """An array of finite numbers with at least one row."""
  try:
    array = np.asarray(given)
  except Exception:
    array = np.asarray(None)
  if array.dtype.kind not in 'biuf' or array.ndim == 0:
    raise ExportError(f'{what} must be an array of numbers with one row per example, not {type(given).__name__}.')
  if not len(array):
    raise ExportError(f'{what} has no examples: give some.')
  if array.dtype.kind == 'f' and not np.isfinite(array).all():
    raise ExportError(f'{what} holds NaN or infinity: remove those examples.')
  return array


def labelled(given: Any, specs: dict, what: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
  """Checks (x, y).

  Returns:
    ({name: array}, array of labels)
  """
  if not isinstance(given, (tuple, list)) or len(given) != 2:
    raise ExportError(f'{what} must be a pair (x, y) of arrays.')
  x = inputs(given[0], specs, f'x of {what}')
  y = numbers(given[1], f'y of {what}')
  if len(y) != len(next(iter(x.values()))):
    raise ExportError(f'{what} has {len(next(iter(x.values())))} examples and {len(y)} labels: give one label per '
                      'example.')
  return x, y
