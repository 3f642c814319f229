"""Pruning: the smallest weights become zero, more and more of them (Zhu and Gupta 2017)."""

import dataclasses
from typing import Any

from tflite_export.inference.part import Change
from tflite_export.inference.part import LOSS
from tflite_export.inference.part import parameter
from tflite_export.inference.part import TRAINING_DATA
from tflite_export.inference.part import ZEROS


class Pruning(Change):
  """What both kinds have in common: training in which a schedule sets weights to zero."""
  needs = (TRAINING_DATA, LOSS)
  leaves = (ZEROS,)

  def options(self, end: int, frequency: int) -> dict:
    """Of `prune_low_magnitude`, for masks that are found anew every `frequency` steps, and final from step `end` on."""
    raise NotImplementedError

  def change(self, model: Any, trainer: Any, student: Any, keep: frozenset[str]) -> Any:
    from tensorflow_model_optimization.sparsity import keras as pruning

    from tflite_export.inference import finetuning
    steps = trainer.steps * trainer.settings.epochs
    # The last two fifths are trained with the final masks. Masks are found anew some forty times on the way.
    options = self.options(max(1, int(0.6 * steps)), max(1, steps // 40))
    wrapped = finetuning.wrap(model, lambda layer: pruning.prune_low_magnitude(layer, **options), 'pruned')
    trainer.fit(wrapped, 'pruning', callbacks=[pruning.UpdatePruningStep()])
    return finetuning.copy(pruning.strip_pruning(wrapped))


@dataclasses.dataclass(frozen=True)
class Prune(Pruning):
  """Sets the smallest weights of each layer to zero, on a cubic schedule.

  Attributes:
    share: of a layer's weights that are zero in the end.
  """
  name = 'prune'
  summary = 'sets the smallest weights to zero, this share of each layer, more and more of them'
  position = 20
  examples = ('prune:0.7+int8', 'prune:0.7+qat')

  share: float = parameter(0.8, low=0.1, high=0.99, written='SHARE')

  def options(self, end: int, frequency: int) -> dict:
    from tensorflow_model_optimization.sparsity import keras as pruning
    return {'pruning_schedule': pruning.PolynomialDecay(0., self.share, 0, end, frequency=frequency)}
