"""Batch normalization, which Keras uses for layer normalization too."""

import numpy as np
import tensorflow as tf

from tflite_export.training.formulas.registry import Example
from tflite_export.training.formulas.registry import forward


def _normalized(training):
  """Of a batch, plus the new averages: averages are no variables that are trained, and have no gradients."""
  def function(x, scale, offset, mean, root):
    mean, variance = tf.stop_gradient(mean), tf.stop_gradient(root * root + .1)
    y, *averages = tf.compat.v1.nn.fused_batch_norm(x, scale, offset, mean, variance, is_training=training,
                                                    exponential_avg_factor=.1)
    return y + tf.stop_gradient(tf.add_n(averages))
  return Example(function, (4, 3, 2, 5), (5,), (5,), (5,), (5,))


def _unscaled(x):
  return tf.compat.v1.nn.fused_batch_norm(x, tf.ones([5]), tf.zeros([5]))[0]


@forward('FusedBatchNormV3', examples=[_normalized(True), _normalized(False), Example(_unscaled, (4, 3, 2, 5))])
def _batch_normalization(op, inputs, training):
  """Normalizes [batch, height, width, channels] per channel.

  Outputs: the normalized values, and the moving mean and variance after this batch. The variance that goes into those
  is the unbiased one, as in TensorFlow, while values are normalized with the biased one.
  """
  x, scale, offset, mean, variance = inputs
  # Layer normalization makes its rows channels, which come second.
  channels = Channels(1 if op.get_attr('data_format') == b'NCHW' else 3, x.shape)
  epsilon = op.get_attr('epsilon')
  if not op.get_attr('is_training'):
    if not training:
      return None
    gain = tf.math.rsqrt(variance + epsilon) * scale
    return [x * channels.spread(gain) + channels.spread(offset - mean * gain), mean, variance]
  # Its scale and offset are constant, as many as there are rows: the file need not hold them.
  constant = _is_constant(scale, 1) and _is_constant(offset, 0)
  y, batch_mean, batch_variance = _normalize(x, None if constant else scale, None if constant else offset, channels,
                                             epsilon)
  factor = op.get_attr('exponential_avg_factor')
  unbiased = batch_variance * (float(channels.count) / max(float(channels.count) - 1, 1.))
  if factor == 1 or mean.shape.num_elements() == 0:
    return [y, batch_mean, unbiased]
  return [y, mean + factor * (batch_mean - mean), variance + factor * (unbiased - variance)]


class Channels:
  """Sums per channel of a tensor with four axes, and the way back.

  Args:
    axis: of the channels.
    shape: of the tensor.
  """

  def __init__(self, axis, shape):
    self._inner = [other for other in (1, 2, 3) if other != axis]
    self._spread = [1] * 4
    self._spread[axis] = shape[axis]
    self.count = np.prod([shape[other] for other in (0, *self._inner)])

  def mean(self, x):
    # In two steps: interpreters add one number after the other, which over a whole batch loses digits.
    return tf.reduce_mean(tf.reduce_mean(x, self._inner), 0)

  def spread(self, x):
    return tf.reshape(x, self._spread)


def _normalize(x, scale, offset, channels, epsilon):
  """(normalized x, mean, variance), with the gradient in closed form; without scale and offset if they are None.

  With n = (x - mean) / deviation: dL/dx = scale / deviation (dy - mean(dy) - n mean(dy n)).
  """
  @tf.custom_gradient
  def normalize(*arguments):
    x = arguments[0]
    mean = channels.mean(x)
    centred = x - channels.spread(mean)
    variance = channels.mean(centred * centred)
    inverse = tf.math.rsqrt(variance + epsilon)
    n = centred * channels.spread(inverse)
    y = n if scale is None else n * channels.spread(arguments[1]) + channels.spread(arguments[2])

    def back(dy, *unused):
      del unused
      mean_dy, mean_dyn = channels.mean(dy), channels.mean(dy * n)
      gain = inverse if scale is None else inverse * arguments[1]
      dx = (dy - channels.spread(mean_dy) - n * channels.spread(mean_dyn)) * channels.spread(gain)
      return dx if scale is None else (dx, mean_dyn * float(channels.count), mean_dy * float(channels.count))
    return (y, mean, variance), back
  return normalize(x) if scale is None else normalize(x, scale, offset)


def _is_constant(tensor, value):
  static = tf.get_static_value(tensor)
  return static is not None and np.all(static == value)
