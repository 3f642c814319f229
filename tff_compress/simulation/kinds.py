"""Kinds of data: what examples and targets are, what is learned of them, and how that is measured.

A data set and a model each say what kind is theirs. Whatever differs between kinds stands here: what arrays a data set
may hold, which data sets and models go together, the loss, and what is measured beside it.

Importing this module needs NumPy only; TensorFlow is imported by the functions that need it.
"""

from __future__ import annotations

from typing import Any
from typing import ClassVar

import numpy as np


class Kind:
  """Base class: targets are labels, and outputs are logits, one per label.

  Class attributes:
    name: the word for it.
    x_dtype, x_shape: what examples are: NumPy's name of the type, and the shape in words.
    y_dtype, y_shape: what targets are, likewise.
    example_shape: the shape of one example, as messages about models have it.
    example_size: what messages call a number in it.
    flexible: whether a model may leave the first dimension of an example open.
    output_shape: what a model returns, in words.
    trained_on: loss and what is measured beside it, in words.
    least_outputs: the least that `Dataset.num_classes` may be: how many values a model returns for each target.
    accuracy: whether there is an accuracy beside the loss: the share of targets whose output is the largest.
  """

  name: ClassVar[str] = ''
  x_dtype: ClassVar[str] = 'float32'
  x_shape: ClassVar[str] = ''
  y_dtype: ClassVar[str] = 'int32'
  y_shape: ClassVar[str] = '[n]'
  example_shape: ClassVar[str] = ''
  example_size: ClassVar[str] = 'Each number in input_shape'
  flexible: ClassVar[bool] = False
  output_shape: ClassVar[str] = '[n, num_classes]'
  trained_on: ClassVar[str] = 'cross-entropy of the logits; accuracy'
  least_outputs: ClassVar[int] = 2
  accuracy: ClassVar[bool] = True

  @property
  def example_rank(self) -> int:
    """Number of dimensions of one example."""
    return self.x_shape.count(',')

  def problem_of_x(self, x: np.ndarray, num_classes: int) -> str | None:
    """What is wrong with the values of examples, as the end of a sentence; None where they are usable.

    Args:
      x: array of `x_dtype` and the rank of `x_shape`, not empty.
      num_classes: as `Dataset` has it.
    """
    raise NotImplementedError

  def problem_of_y(self, y: np.ndarray, num_classes: int) -> str | None:
    """What is wrong with the values of targets, with {y} for the array's name; None where they are usable."""
    if y.min() < 0 or y.max() >= num_classes:
      return f'the labels in {{y}} must lie between 0 and {num_classes - 1}.'
    return None

  def labels(self, y: np.ndarray) -> np.ndarray:
    """One label per example, int [n], by which examples are dealt out to clients and held out for testing."""
    return y

  def compile_arguments(self) -> dict:
    """`loss` and `metrics` for `tf.keras.Model.compile`."""
    import tensorflow as tf
    return {'loss': tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True), 'metrics': ['accuracy']}

  def losses(self, y: Any, outputs: Any) -> Any:
    """float32 tensor of the loss of each target: the loss of a data set is its mean.

    Args:
      y: tensor of targets.
      outputs: what the model returned for their examples.
    """
    import tensorflow as tf
    return tf.nn.sparse_softmax_cross_entropy_with_logits(y, outputs)

  def hits(self, y: Any, outputs: Any) -> Any:
    """bool tensor: for which targets the largest output is the right one; where there is an `accuracy`."""
    import tensorflow as tf
    return tf.equal(tf.argmax(outputs, -1, tf.int32), tf.cast(y, tf.int32))


class Image(Kind):
  """Images with one label each."""

  name = 'image'
  x_shape = '[n, h, w, c]'
  example_shape = '(height, width, channels)'

  def problem_of_x(self, x: np.ndarray, num_classes: int) -> str | None:
    # Written so that NaN fails it too.
    return None if x.min() >= 0 and x.max() <= 1 else (
        'has values that are NaN or outside [0, 1]: clean or rescale them first.')


class Table(Kind):
  """Rows of numbers with one label each. Models learn best where every column is of mean 0 and variance 1."""

  name = 'table'
  x_shape = '[n, features]'
  example_shape = '(features,)'

  def problem_of_x(self, x: np.ndarray, num_classes: int) -> str | None:
    return None if np.isfinite(x).all() else 'has values that are NaN or infinite: clean them first.'


class Regression(Table):
  """Rows of numbers, each with a number to predict: one output per row, and the loss is the squared error."""

  name = 'regression'
  y_dtype = 'float32'
  output_shape = '[n, 1]'
  trained_on = 'squared error; nothing else'
  least_outputs = 1
  accuracy = False

  def problem_of_y(self, y: np.ndarray, num_classes: int) -> str | None:
    if num_classes != 1:
      return f'a number is predicted by one output, not by {num_classes}: leave num_classes at 1.'
    return None if np.isfinite(y).all() else '{y} has values that are NaN or infinite: clean them first.'

  def labels(self, y: np.ndarray) -> np.ndarray:
    # Tenths of the data, from the smallest targets to the largest.
    return np.searchsorted(np.quantile(y, np.arange(1, 10) / 10), y, side='right').astype(np.int32)

  def compile_arguments(self) -> dict:
    import tensorflow as tf
    return {'loss': tf.keras.losses.MeanSquaredError()}

  def losses(self, y: Any, outputs: Any) -> Any:
    import tensorflow as tf
    return tf.square(outputs[:, 0] - y)


class Text(Kind):
  """Texts as tokens, each with the token to predict behind it: the labels are the vocabulary."""

  name = 'text'
  x_dtype = 'int32'
  x_shape = '[n, length]'
  y_shape = '[n, length]'
  example_shape = '(length,) or (None,)'
  example_size = 'The length'
  flexible = True
  output_shape = '[n, length, num_classes]'
  trained_on = 'cross-entropy of the logits, mean over tokens; accuracy, likewise'

  def problem_of_x(self, x: np.ndarray, num_classes: int) -> str | None:
    return None if x.min() >= 0 and x.max() < num_classes else (
        f'has tokens that do not lie between 0 and {num_classes - 1}: number the vocabulary from 0.')

  def labels(self, y: np.ndarray) -> np.ndarray:
    return y[:, 0]


IMAGE, TABLE, REGRESSION, TEXT = Image(), Table(), Regression(), Text()
KINDS = (IMAGE, TABLE, REGRESSION, TEXT)
