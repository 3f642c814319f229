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
  # Layer normalization makes its rows channels, which come second.
  first = op.get_attr('data_format') == b'NCHW'
  axes = [0, 2, 3] if first else [0, 1, 2]

  def spread(statistic):
    return tf.reshape(statistic, [1, x.shape[1], 1, 1]) if first else statistic
  if not op.get_attr('is_training'):
    if not training:
      return None
    gain = _times(tf.math.rsqrt(variance + epsilon), scale)
    return [x * spread(gain) + spread(offset - mean * gain), mean, variance]
  count = np.prod([x.shape[axis] for axis in axes])
  batch_mean = tf.reduce_mean(x, axes)
  centred = x - spread(batch_mean)
  batch_variance = tf.reduce_mean(centred * centred, axes)
  # Constant ones and zeros are those of layer normalization, as many as there are rows: the file need not hold them.
  y = centred * spread(_times(tf.math.rsqrt(batch_variance + epsilon), scale))
  y = y if _is_constant(offset, 0) else y + spread(offset)
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
