"""A data set of one's own: images in an .npz file."""

import numpy as np

from tff_compress.simulation.data import DataError
from tff_compress.simulation.data import Dataset
from tff_compress.simulation.datasets import reading
from tff_compress.simulation.datasets.base import holdout
from tff_compress.simulation.datasets.base import Source


class Npz(Source):
  name = 'npz'
  summary = ('the .npz file `--data-dir` with x_train, y_train, and x_test, y_test; without these two, or with x, y '
             'only, a fixed stratified fifth is held out for testing; client_ids (per training example) if there. '
             'Images are [n, h, w] or [n, h, w, c]; integers are intensities 0 to 255 and are divided by 255; floats '
             'must lie in [0, 1]; labels are integers from 0 on')
  files = 'the file'

  def load(self, path, download):
    if path is None:
      raise DataError('npz needs the file to read: pass --data-dir FILE.npz.')
    arrays = reading.npz(path, ('x_train', 'y_train', 'x_test', 'y_test', 'x', 'y', 'client_ids'))
    names = set(arrays) - {'client_ids'}
    layouts = ({'x_train', 'y_train', 'x_test', 'y_test'}, {'x_train', 'y_train'}, {'x', 'y'})
    if names not in layouts:
      raise DataError(
          f'{path} has the arrays {", ".join(sorted(names)) or "(none)"}: '
          'save x_train, y_train, x_test, y_test, or x_train, y_train, or x, y.'
      )
    for array in names:
      convert = _images if array.startswith('x') else _labels
      arrays[array] = convert(f'{path}: {array}', arrays[array])
    ids = arrays.get('client_ids')
    if 'x_test' not in names:
      x, y = (arrays['x'], arrays['y']) if 'x' in names else (arrays['x_train'], arrays['y_train'])
      for what, values in (('labels', y), ('client ids', ids)):
        if values is not None and values.shape != (len(x),):
          raise DataError(f'{path} has {len(x)} examples and {what} of shape {values.shape}: give one per example.')
      train, test = holdout(str(path), y)
      x_train, y_train, x_test, y_test = x[train], y[train], x[test], y[test]
      ids = ids if ids is None else ids[train]
    else:
      x_train, y_train, x_test, y_test = (arrays[array] for array in ('x_train', 'y_train', 'x_test', 'y_test'))
    # The shapes are checked by Dataset; this only has to survive empty arrays.
    num_classes = 1 + max(int(y.max(initial=0)) for y in (y_train, y_test))
    return Dataset(self.name, x_train, y_train, x_test, y_test, num_classes, ids)


def _images(name: str, array: np.ndarray) -> np.ndarray:
  if array.dtype.kind not in 'uif' or array.ndim not in (3, 4) or array.size == 0:
    raise DataError(
        f'{name} is {array.dtype} {array.shape}: give images as a non-empty numeric array [n, h, w] or [n, h, w, c].')
  if array.dtype.kind == 'f':
    # Before the conversion, in which a huge value would overflow with a warning.
    if not (array.min() >= 0 and array.max() <= 1):
      raise DataError(
          f'{name} has values that are NaN or outside [0, 1]: clean or rescale them, or save 0 to 255 as uint8.')
    array = array.astype(np.float32)
  else:
    if array.min() < 0 or array.max() > 255:
      raise DataError(f'{name} has integers outside 0 to 255: save intensities as uint8 or as floats in [0, 1].')
    array = reading.from_bytes(array)
  return array[..., np.newaxis] if array.ndim == 3 else array


def _labels(name: str, array: np.ndarray) -> np.ndarray:
  if array.dtype.kind not in 'ui' or array.ndim != 1 or array.size == 0:
    raise DataError(f'{name} is {array.dtype} {array.shape}: give labels as a non-empty integer array [n].')
  if array.min() < 0 or array.max() >= reading.MAX_CLASSES:
    raise DataError(f'{name} must hold labels between 0 and {reading.MAX_CLASSES - 1}: number the labels from 0.')
  return array.astype(np.int32)
