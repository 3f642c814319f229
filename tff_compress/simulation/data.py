"""Data sets in memory, as plain NumPy arrays that have been checked, and a client's examples in batches.

Where data sets come from stands in datasets/, one file each.

Importing this module needs NumPy only; `batches` imports TensorFlow.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from tff_compress.codec import checks
from tff_compress.codec.errors import CompressionError
from tff_compress.simulation import kinds
from tff_compress.simulation import splits

__all__ = ['DataError', 'Dataset', 'batches']


class DataError(CompressionError):
  """Data that cannot be found or cannot be used; the message is one sentence that says what to do."""


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
  """A data set in memory, checked when it is made and read-only afterwards.

  Attributes:
    name: what `load` was asked for.
    x_train: examples, as `kind` says: of images float32 [n, h, w, c], every value in [0, 1].
    y_train: their targets, as `kind` says: of images int32 [n], every value in [0, num_classes).
    x_test, y_test: likewise.
    num_classes: how many values a model returns for each target: the number of labels, at least 2; of a text the size
      of the vocabulary; 1 where a number is predicted.
    client_ids: who each training example belongs to, integers or strings [n], where the data says so; else None.
    kind: one of `kinds.KINDS`.

  Raises:
    DataError: the arrays are not as described here.
  """

  name: str
  x_train: np.ndarray
  y_train: np.ndarray
  x_test: np.ndarray
  y_test: np.ndarray
  num_classes: int
  client_ids: np.ndarray | None = None
  kind: kinds.Kind = kinds.IMAGE

  def __post_init__(self):
    kind = self.kind
    for part in ('train', 'test'):
      x, y = getattr(self, f'x_{part}'), getattr(self, f'y_{part}')
      for name, array, dtype, shape in ((f'x_{part}', x, kind.x_dtype, kind.x_shape),
                                        (f'y_{part}', y, kind.y_dtype, kind.y_shape)):
        if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != shape.count(',') + 1:
          article = 'an' if dtype.startswith('int') else 'a'
          raise DataError(f'{self.name}: {name} must be {article} {dtype} array of shape {shape}.')
      if x.size == 0:
        raise DataError(f'{self.name}: x_{part} has shape {x.shape} and so no values: give at least one example.')
      if len(x) != len(y):
        raise DataError(f'{self.name}: x_{part} has {len(x)} examples and y_{part} has {len(y)} labels: '
                        'give one label per example.')
      if y.shape != x.shape[:y.ndim]:
        raise DataError(f'{self.name}: x_{part} has shape {x.shape} and y_{part} has shape {y.shape}: '
                        'give one target per token.')
      problem = kind.problem_of_x(x, self.num_classes)
      if problem:
        raise DataError(f'{self.name}: x_{part} {problem}')
      problem = kind.problem_of_y(y, self.num_classes)
      if problem:
        raise DataError(f'{self.name}: {problem.format(y=f"y_{part}")}')
    if self.x_train.shape[1:] != self.x_test.shape[1:]:
      raise DataError(
          f'{self.name}: training examples have shape {self.x_train.shape[1:]} and test examples '
          f'{self.x_test.shape[1:]}: '
          'give both the same shape.'
      )
    if self.num_classes < kind.least_outputs:
      raise DataError(f'{self.name}: all examples have the same label: give at least two labels.')
    if self.client_ids is not None and (
        not isinstance(self.client_ids, np.ndarray)
        or self.client_ids.dtype.kind not in 'iuU'
        or self.client_ids.shape != (len(self.y_train),)
    ):
      raise DataError(f'{self.name}: client_ids must be one integer or string per training example.')
    for field in ('x_train', 'y_train', 'x_test', 'y_test', 'client_ids'):
      array = getattr(self, field)
      if array is not None:
        # A view, so that the caller's own array stays as writeable as it was.
        array = array.view()
        array.flags.writeable = False
        object.__setattr__(self, field, array)

  @property
  def input_shape(self) -> tuple[int, ...]:
    """The shape of one example: (h, w, c) of an image."""
    return self.x_train.shape[1:]

  @property
  def labels(self) -> np.ndarray:
    """One label per training example, int [n], by which `splits.split` deals them out: y_train where it is labels."""
    return self.kind.labels(self.y_train)


def batches(x: npt.ArrayLike, y: npt.ArrayLike, *, batch_size: int, seed: splits.Seed | None, epochs: int = 1) -> Any:
  """A client's examples as a `tf.data.Dataset` of (x, y) batches, ready for TFF or Keras.

  Every epoch goes through all examples once, in an order of its own that depends only on `seed` and the epoch; the last
  batch of an epoch is smaller when batch_size does not divide n. The order is fixed when the data set is made, so going
  through it twice gives the same batches, and no global or stateful generator takes part. A client without examples
  gives no batches.

  Args:
    x: array [n, ...].
    y: array [n, ...].
    batch_size: examples per batch, at least 1.
    seed: see `splits.generator`; None keeps the order of x, for evaluation.
    epochs: how many times to go through the examples, at least 1.

  Returns:
    A `tf.data.Dataset` of (x [b, ...], y [b, ...]) with the dtypes of x and y and an unknown b.

  Raises:
    DataError: x and y differ in length, or batch_size, epochs or seed is not usable.
  """
  for name, value in (('batch_size', batch_size), ('epochs', epochs)):
    checks.whole_number(name, value, DataError, least=1)
  x, y = np.asarray(x), np.asarray(y)
  if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
    raise DataError(f'x has shape {x.shape} and y has shape {y.shape}: give one label per example.')
  if seed is None:
    order = np.tile(np.arange(len(x)), (epochs, 1))
  else:
    try:
      rng = splits.generator('data/batches', seed)
    except ValueError as error:
      raise DataError(str(error)) from None
    order = np.stack([rng.permutation(len(x)) for _ in range(epochs)])

  import tensorflow as tf

  # The order travels inside the data set because tf.data's own shuffle also depends on the global seed, and gives
  # another order each time the data set is gone through.
  def epoch(indices):
    return tf.data.Dataset.from_tensor_slices(indices).batch(batch_size)

  def gather(indices):
    return tf.gather(x, indices), tf.gather(y, indices)

  return tf.data.Dataset.from_tensor_slices(order).flat_map(epoch).map(gather)
