"""Distillation: a smaller model in the place of the one that was given."""

import dataclasses
from typing import Any

from tflite_export.inference.part import Change
from tflite_export.inference.part import STUDENT
from tflite_export.inference.part import TRAINING_DATA


@dataclasses.dataclass(frozen=True)
class Distill(Change):
  """Teaches the student what the model says: see distillation.py."""
  name = 'distill'
  summary = 'teaches a smaller model what the model says'
  position = 10
  needs = (TRAINING_DATA, STUDENT)
  examples = ('distill+int8',)

  def change(self, model: Any, trainer: Any, student: Any, keep: frozenset[str]) -> Any:
    from tflite_export.inference import distillation
    return distillation.teach(model, student, trainer)
