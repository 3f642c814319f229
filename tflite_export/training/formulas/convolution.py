"""Convolutions as products of matrices.

Interpreters have fast paths for convolutions whose kernel is a constant. Here kernels change, and then a product of matrices is
faster than CONV_2D, in LiteRT by far: its products go to XNNPACK, its convolutions do not.
"""

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


def kernel_gradient(rows, dy, shape):
  """dL/dW[i, j, a, b] = sum over n, p, q of x[n, p*s + i*d, q*s + j*d, a] dy[n, p, q, b].

  Args:
    rows: what the kernel's rows read, from `Windows.rows`.
    dy: [batch, height, width, outputs].
    shape: of the kernel.
  """
  dy = tf.reshape(dy, [dy.shape[0], -1, dy.shape[3]])
  # Example by example, and dy as the transposed factor: the other ways are up to three times slower.
  products = [tf.reduce_sum(tf.matmul(dy, row, transpose_a=True), 0) for row in rows]
  taps = [tf.reshape(tf.transpose(product), [1, *shape[1:]]) for product in products]
  return tf.concat(taps, 0) if len(taps) > 1 else taps[0]


def input_gradient(shape, w, dy, windows, padding):
  """dL/dx, of the given shape: dy moved back through the kernel."""
  if windows.kernel == windows.strides == (1, 1):
    batch, height, width, channels = dy.shape
    dx = tf.matmul(tf.reshape(dy, [batch, height * width, channels]), w[0], transpose_b=True)
    return tf.reshape(dx, shape)
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


@forward('Conv2D')
def _conv2d(op, inputs, training):
  x, w = inputs
  groups = x.shape[-1] // w.shape[2]
  strides, dilations, padding = op.get_attr('strides'), op.get_attr('dilations'), op.get_attr('padding').decode()
  if groups > 1:
    parts = zip(tf.split(x, groups, -1), tf.split(w, groups, -1))
    return [tf.concat([tf.nn.conv2d(a, b, strides, padding, dilations=dilations) for a, b in parts], -1)]
  if tf.get_static_value(w) is not None:
    return None
  windows = Windows.of(op, x.shape[1:3], w.shape[:2], op.outputs[0].shape[1:3])

  @tf.custom_gradient
  def convolution(x, w):
    rows = windows.rows(windows.columns(windows.pad(x)))
    height, width, channels, outputs = w.shape
    kernels = tf.reshape(w, [height, width * channels, outputs])
    products = [tf.matmul(row, kernels[i]) for i, row in enumerate(rows)]
    y = tf.reshape(tf.add_n(products) if len(products) > 1 else products[0], [x.shape[0], *windows.output, outputs])

    def back(dy):
      return input_gradient(x.shape.as_list(), w, dy, windows, padding), kernel_gradient(rows, dy, w.shape)
    return y, back
  return [convolution(x, w)]


@gradient('Conv2D')
def _conv2d_gradient(op, dy):
  x, w = op.inputs
  windows = Windows.of(op, x.shape[1:3], w.shape[:2], op.outputs[0].shape[1:3])
  return [input_gradient(x.shape.as_list(), w, dy, windows, op.get_attr('padding').decode()),
          kernel_gradient(windows.rows(windows.columns(windows.pad(x))), dy, w.shape)]


@gradient('Conv2DBackpropInput')
def _conv2d_transpose(op, dy):
  _, w, x = op.inputs
  windows = Windows.of(op, dy.shape[1:3], w.shape[:2], x.shape[1:3])
  back = tf.nn.conv2d(dy, w, windows.strides, op.get_attr('padding').decode(), dilations=windows.dilations)
  return [None, kernel_gradient(windows.rows(windows.columns(windows.pad(dy))), x, w.shape), back]
