"""Sparse storage of pruned models."""

import dataclasses
from typing import Any

from tflite_export.errors import ExportError
from tflite_export.inference import parts
from tflite_export.inference.part import Part
from tflite_export.inference.part import ZEROS


@dataclasses.dataclass(frozen=True)
class Sparse(Part):
  name = 'sparse'
  summary = 'stores zeros as gaps, in float32 or float16 files of pruned models'
  position = 60
  examples = ('prune:0.9+sparse',)

  def check(self, recipe: Any) -> None:
    if recipe.storage.bits == 8:
      raise ExportError('8-bit weights cannot be stored sparse: LiteRT 2.3 refuses such files (its XNNPACK delegate '
                        'fails to prepare); leave sparse out and compress the file, where zeros take next to nothing.')
    if ZEROS not in recipe.leaves:
      pruning = ' or '.join(name for name, part in parts.registry().items() if ZEROS in part.leaves)
      raise ExportError(f'sparse storage takes a pruned model: put {pruning} before it.')

  def configure(self, converter: Any, inputs: dict, batches: Any) -> None:
    import tensorflow as tf
    converter.optimizations = [*converter.optimizations, tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
