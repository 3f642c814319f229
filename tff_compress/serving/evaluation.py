"""The Keras model of a task: its first weights, and how good weights are on a data set."""

from collections.abc import Mapping

import numpy as np

from tff_compress.codec.spec import Spec
from tff_compress.simulation import datasets

_BATCH = 500


class Model:
  """Args:
    path: of the Keras model.
    data: name of a data set whose test examples it is evaluated on; None: it is not.

  Raises:
    FileError, ExportError: there is no model there, or not one that can be loaded.
    DataError: there is no such data set.
  """

  def __init__(self, path: str, data: str | None = None) -> None:
    from tflite_export import models
    self._data = None if data is None else datasets.load(data)
    self._model = models.load(path)
    self._names = [tensor.name for tensor in Spec.of(self._model).tensors]

  @property
  def weights(self) -> dict[str, np.ndarray]:
    """{variable: array} of the file."""
    return {name: variable.numpy() for name, variable in zip(self._names, self._model.trainable_variables)}

  def evaluate(self, weights: Mapping[str, np.ndarray]) -> dict[str, float]:
    """{'loss': …, 'accuracy': …} on the test examples, the second where the data have one."""
    assert self._data is not None
    for name, variable in zip(self._names, self._model.trainable_variables):
      variable.assign(weights[name])
    x, y, kind = self._data.x_test, self._data.y_test, self._data.kind
    loss = hits = 0.0
    for start in range(0, len(x), _BATCH):
      outputs, targets = self._model(x[start:start + _BATCH], training=False), y[start:start + _BATCH]
      loss += float(np.sum(kind.losses(targets, outputs)))
      hits += float(np.sum(kind.hits(targets, outputs))) if kind.accuracy else 0.0
    return {'loss': loss / y.size, **({'accuracy': hits / y.size} if kind.accuracy else {})}
