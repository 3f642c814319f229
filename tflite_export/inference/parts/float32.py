"""Weights as they are."""

import dataclasses

from tflite_export.inference.part import Storage


@dataclasses.dataclass(frozen=True)
class Float32(Storage):
  name = 'float32'
  summary = 'stores weights as they are'
  examples = ('float32',)
