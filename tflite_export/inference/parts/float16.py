"""Weights in half the bits."""

import dataclasses
from typing import Any

from tflite_export.inference.part import Storage


@dataclasses.dataclass(frozen=True)
class Float16(Storage):
  name = 'float16'
  summary = 'stores weights in 16 bits, computes in 32'
  position = 51
  bits = 16
  tolerance = 5e-2
  examples = ('float16',)

  def configure(self, converter: Any, inputs: dict, batches: Any) -> None:
    import tensorflow as tf
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
