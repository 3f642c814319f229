"""Pruning in a pattern that some processors have instructions for."""

import dataclasses

from tflite_export.inference.parts.prune import Pruning


@dataclasses.dataclass(frozen=True)
class PruneTwoOfFour(Pruning):
  """Sets the two smallest of every four weights to zero."""
  name = 'prune-2:4'
  summary = 'sets the two smallest of every four weights to zero'
  position = 20
  examples = ('prune-2:4+int8',)

  def options(self, end: int, frequency: int) -> dict:
    from tensorflow_model_optimization.sparsity import keras as pruning
    return {'sparsity_m_by_n': (2, 4), 'pruning_schedule': pruning.ConstantSparsity(0.5, 0, end, frequency)}
