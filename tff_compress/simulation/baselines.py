"""TFF's own update compression, to compare with. Its encoders come from tensorflow-model-optimization.

TFF reports no bytes for these. What is known is the size of what the encoder returns for one update on one client: its
tensors, without what it takes to send tensors. That is an estimate of what a client would send, and is called so.
"""

import logging

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff
from tensorflow_model_optimization.python.core.internal import tensor_encoding as te

# Said once per tensor and function, to no avail for the reader.
logging.getLogger().addFilter(lambda record: 'different bitpacking method' not in str(record.msg))

_QUANTIZED_ABOVE, _QUANTIZATION_BITS = 20000, 8  # What tff.learning.compression_aggregator does.


def aggregator(hadamard_bits):
  """A weighted aggregation factory for `model_aggregator=`.

  Args:
    hadamard_bits: bits of the quantizer behind a Hadamard transform; None for `tff.learning.compression_aggregator`.
  """
  if hadamard_bits is None:
    return tff.learning.compression_aggregator(weighted=True)
  return tff.aggregators.MeanFactory(tff.aggregators.EncodedSumFactory(lambda spec: _hadamard(spec, hadamard_bits)))


def bytes_estimate(hadamard_bits, update):
  """Size of what the encoder of `aggregator(hadamard_bits)` returns for one update.

  Args:
    hadamard_bits: as for `aggregator`.
    update: list of float32 arrays, one per variable.

  Returns:
    int, bytes. It depends on the shapes only.
  """
  total = 0
  with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    for array in update:
      spec = tf.TensorSpec(array.shape, tf.float32)
      encoder = _quantizer(spec) if hadamard_bits is None else _hadamard(spec, hadamard_bits)
      parameters, _, _ = encoder.get_params(encoder.initial_state())
      encoded, _ = encoder.encode(tf.constant(array, tf.float32), parameters)
      total += sum(np.asarray(value).nbytes for value in session.run(tf.nest.flatten(encoded)))
  return total


def _quantizer(spec):
  if spec.shape.num_elements() > _QUANTIZED_ABOVE:
    return te.encoders.as_gather_encoder(te.encoders.uniform_quantization(_QUANTIZATION_BITS), spec)
  return te.encoders.as_gather_encoder(te.encoders.identity(), spec)


def _hadamard(spec, bits):
  """Flatten, Hadamard transform with random signs, uniform quantization, bit packing (Suresh et al. 2017; tfmot)."""
  if not spec.shape.num_elements():
    return te.encoders.as_gather_encoder(te.encoders.identity(), spec)
  return te.encoders.as_gather_encoder(te.encoders.hadamard_quantization(bits), spec)
