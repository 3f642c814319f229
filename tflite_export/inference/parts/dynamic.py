"""Weights in 8 bits, without looking at activations."""

import dataclasses
from typing import Any

from tflite_export.inference.part import Storage


@dataclasses.dataclass(frozen=True)
class Dynamic(Storage):
  name = 'dynamic'
  summary = 'stores weights in 8 bits; inputs and outputs stay float32'
  position = 52
  bits = 8
  tolerance = 1.  # Rounding to 8 bits costs what it costs, which `compare` shows.
  advice = 'choose float16 or float32'
  examples = ('dynamic',)

  def configure(self, converter: Any, inputs: dict, batches: Any) -> None:
    import tensorflow as tf
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
