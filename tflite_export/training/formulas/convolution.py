"""Convolutions: gradients of kernels and inputs, written as convolutions."""

import tensorflow as tf

from tflite_export.training.formulas.registry import UNSUPPORTED
from tflite_export.training.formulas.registry import forward
from tflite_export.training.formulas.registry import gradient
from tflite_export.training.formulas.windows import Windows
from tflite_export.training.formulas.windows import flip

UNSUPPORTED.update({
    'Conv3D': 'use Conv2D over slices',
    'Conv3DBackpropInputV2': 'use Conv2DTranspose over slices',
})


def kernel_gradient(x, dy, windows):
  """dL/dW[i, j, a, b] = sum over n, p, q of x[n, p*s + i*d, q*s + j*d, a] dy[n, p, q, b].

  That is a convolution of x with dy when channels take the place of the batch, and the batch that of channels, and stride
  and dilation trade places.
  """
  padded = windows.pad(x)
  dw = tf.nn.conv2d(tf.transpose(padded, [3, 1, 2, 0]), tf.transpose(dy, [1, 2, 0, 3]), windows.dilations, 'VALID',
                    dilations=windows.strides)
  return tf.transpose(dw, [1, 2, 0, 3])


def input_gradient(shape, w, dy, windows, padding):
  """dL/dx, of the given shape: dy moved back through the kernel."""
  if windows.strides == (1, 1) and windows.dilations != (1, 1):
    # dy with a border on all sides, convolved with the turned kernel, covers each padded input once.
    borders = [[(k - 1) * d] * 2 for k, d in zip(windows.kernel, windows.dilations)]
    dx = tf.nn.conv2d(tf.pad(dy, [[0, 0], *borders, [0, 0]]), tf.transpose(flip(w), [0, 1, 3, 2]), 1, 'VALID',
                      dilations=windows.dilations)
    return windows.unpad(dx)
  if padding == 'EXPLICIT':
    whole = [shape[0], *windows.extent, shape[3]]
    return windows.unpad(tf.raw_ops.Conv2DBackpropInput(
        input_sizes=whole, filter=w, out_backprop=dy, strides=[1, *windows.strides, 1], padding='VALID'))
  return tf.raw_ops.Conv2DBackpropInput(input_sizes=shape, filter=w, out_backprop=dy, strides=[1, *windows.strides, 1],
                                        padding=padding)


@gradient('Conv2D')
def _conv2d(op, dy):
  x, w = op.inputs
  windows = Windows.of(op, x.shape[1:3], w.shape[:2], op.outputs[0].shape[1:3])
  padding = op.get_attr('padding').decode()
  return [input_gradient(x.shape.as_list(), w, dy, windows, padding), kernel_gradient(x, dy, windows)]


@gradient('Conv2DBackpropInput')
def _conv2d_transpose(op, dy):
  _, w, x = op.inputs
  windows = Windows.of(op, dy.shape[1:3], w.shape[:2], x.shape[1:3])
  back = tf.nn.conv2d(dy, w, windows.strides, op.get_attr('padding').decode(), dilations=windows.dilations)
  return [None, kernel_gradient(dy, x, windows), back]


@forward('Conv2D')
def _grouped(op, inputs, training):
  """Splits a convolution with groups into one for each."""
  del training
  x, w = inputs
  groups = x.shape[-1] // w.shape[2]
  if groups == 1:
    return None
  parts = zip(tf.split(x, groups, -1), tf.split(w, groups, -1))
  strides, dilations = op.get_attr('strides')[1:3], op.get_attr('dilations')[1:3]
  padding = op.get_attr('padding').decode()
  return [tf.concat([tf.nn.conv2d(a, b, strides, padding, dilations=dilations) for a, b in parts], -1)]
