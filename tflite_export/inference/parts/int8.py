"""Everything in 8 bits."""

import dataclasses
from typing import Any

from tflite_export.inference.part import EXAMPLES
from tflite_export.inference.part import Storage


@dataclasses.dataclass(frozen=True)
class Int8(Storage):
  name = 'int8'
  summary = 'stores weights and computes in 8 bits; inputs and outputs are int8'
  position = 53
  needs = (EXAMPLES,)
  bits = 8
  tolerance = 1.  # Rounding to 8 bits costs what it costs, which `compare` shows.
  advice = 'give examples as the model will see them, or choose dynamic, float16 or float32'
  examples = ('int8',)

  def configure(self, converter: Any, inputs: dict, batches: Any) -> None:
    import tensorflow as tf
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if batches is not None:
      converter.representative_dataset = tf.lite.RepresentativeDataset(batches)
      converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    if all(spec.dtype == tf.float32 for spec in inputs.values()):
      converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
