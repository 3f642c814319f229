"""Quantization-aware training."""

import dataclasses
from typing import Any

from tflite_export.errors import ExportError
from tflite_export.inference.part import Change
from tflite_export.inference.part import EXAMPLES
from tflite_export.inference.part import LOSS
from tflite_export.inference.part import SHARED_VALUES
from tflite_export.inference.part import Storage
from tflite_export.inference.part import TRAINING_DATA
from tflite_export.inference.part import ZEROS


@dataclasses.dataclass(frozen=True)
class QuantizationAware(Change):
  """Trains with the rounding of int8 in place, and learns the ranges of activations on the way."""
  name = 'qat'
  summary = 'trains with the rounding of int8 in place; zeros and shared values stay; the file is int8'
  position = 40
  needs = (TRAINING_DATA, LOSS)
  provides = (EXAMPLES,)
  storage = 'int8'
  advice = Storage.advice
  examples = ('qat', 'prune:0.7+qat')

  def check(self, recipe: Any) -> None:
    if recipe.storage.name != self.storage:
      raise ExportError(f'qat makes an int8 file, so {recipe.storage.name} cannot follow it: leave one of them out.')

  def change(self, model: Any, trainer: Any, student: Any, keep: frozenset[str]) -> Any:
    import tensorflow_model_optimization as tfmot
    from tensorflow_model_optimization.quantization import keras as quantization

    from tflite_export.inference import finetuning
    combine = tfmot.experimental.combine
    scheme = {}
    if SHARED_VALUES in keep:
      scheme = {'scheme': combine.Default8BitClusterPreserveQuantizeScheme(preserve_sparsity=ZEROS in keep)}
    elif ZEROS in keep:
      scheme = {'scheme': combine.Default8BitPrunePreserveQuantizeScheme()}
    try:
      annotated = quantization.quantize_annotate_model(finetuning.copy(model))
      aware = quantization.quantize_apply(annotated, **scheme)
    except (ValueError, RuntimeError, AttributeError, TypeError) as error:
      raise ExportError('tensorflow-model-optimization cannot put the rounding of int8 into this model: '
                        f'{finetuning.reason(error)}; use int8 without qat.') from None
    trainer.fit(aware, 'quantization-aware training', later=True)
    return combine.strip_clustering_cqat(aware) if SHARED_VALUES in keep else aware
