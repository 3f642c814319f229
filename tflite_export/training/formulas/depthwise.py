"""Depthwise convolutions: every channel has kernels of its own."""

import tensorflow as tf

from tflite_export.training.formulas.registry import Example
from tflite_export.training.formulas.registry import gradient
from tflite_export.training.formulas.windows import flip
from tflite_export.training.formulas.windows import Windows


def _convolved(strides, padding, dilation, multiplier):
  return Example(lambda x, w: tf.nn.depthwise_conv2d(x, w, [1, strides, strides, 1], padding,
                                                     dilations=[dilation, dilation]),
                 (2, 6, 5, 3), (3, 2, 3, multiplier))


@gradient('DepthwiseConv2dNative',
          examples=[_convolved(1, 'SAME', 1, 1), _convolved(2, 'SAME', 1, 2), _convolved(1, 'VALID', 2, 1)])
def _depthwise(op, dy):
  x, w = op.inputs
  windows = Windows.of(op, x.shape[1:3], w.shape[:2], op.outputs[0].shape[1:3])
  return [_input_gradient(w, dy, windows), _kernel_gradient(x, dy, windows, w.shape)]


def _input_gradient(w, dy, windows):
  kh, kw, channels, multiplier = w.shape
  if windows.strides == (1, 1) and multiplier == 1:
    borders = [[(k - 1) * d] * 2 for k, d in zip(windows.kernel, windows.dilations)]
    dx = tf.nn.depthwise_conv2d(tf.pad(dy, [[0, 0], *borders, [0, 0]]), flip(w), [1, 1, 1, 1], 'VALID',
                                dilations=windows.dilations)
    return windows.unpad(dx)
  taps = tf.reshape(w, [kh * kw, channels * multiplier])
  return windows.unpad(windows.gather([_merge(dy * taps[n], multiplier) for n in range(kh * kw)]))


def _kernel_gradient(x, dy, windows, shape):
  kh, kw, channels, multiplier = shape
  taps = []
  for read in windows.slices(windows.pad(x)):
    if multiplier > 1:
      read = tf.reshape(tf.tile(read[..., None], [1, 1, 1, 1, multiplier]), dy.shape)
    taps.append(tf.reduce_sum(read * dy, [0, 1, 2]))
  return tf.reshape(tf.stack(taps), [kh, kw, channels, multiplier])


def _merge(x, multiplier):
  """Adds up the outputs that come from the same input channel."""
  if multiplier == 1:
    return x
  return tf.reduce_sum(tf.reshape(x, [*x.shape[:3], x.shape[3] // multiplier, multiplier]), -1)
