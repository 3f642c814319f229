"""Batch normalization, which Keras uses for layer normalization too."""

import numpy as np
import tensorflow as tf

from tflite_export.training.formulas.registry import forward


@forward('FusedBatchNormV3')
def _batch_normalization(op, inputs, training):
  """Normalizes [batch, height, width, channels] per channel.

  Outputs: the normalized values, and the moving mean and variance after this batch. The variance that goes into those is the
  unbiased one, as in TensorFlow, while values are normalized with the biased one.
  """
  x, scale, offset, mean, variance = inputs
  epsilon = op.get_attr('epsilon')
  if not op.get_attr('is_training'):
    if not training:
      return None
    gain = _times(tf.math.rsqrt(variance + epsilon), scale)
    return [x * gain + (offset - mean * gain), mean, variance]
  count = np.prod([x.shape[axis] for axis in (0, 1, 2)])
  batch_mean = tf.reduce_mean(x, [0, 1, 2])
  centred = x - batch_mean
  batch_variance = tf.reduce_mean(centred * centred, [0, 1, 2])
  # Constant ones and zeros are those of layer normalization, as many as there are rows: the file need not hold them.
  y = centred * _times(tf.math.rsqrt(batch_variance + epsilon), scale)
  y = y if _is_constant(offset, 0) else y + offset
  factor = op.get_attr('exponential_avg_factor')
  unbiased = batch_variance * (float(count) / max(float(count) - 1, 1.))
  if factor == 1 or mean.shape.num_elements() == 0:
    return [y, batch_mean, unbiased]
  return [y, mean + factor * (batch_mean - mean), variance + factor * (unbiased - variance)]


def _is_constant(tensor, value):
  static = tf.get_static_value(tensor)
  return static is not None and np.all(static == value)


def _times(x, scale):
  return x if _is_constant(scale, 1) else x * scale
