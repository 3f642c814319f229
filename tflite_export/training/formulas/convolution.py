"""Convolutions as products of matrices.

Interpreters have fast paths for convolutions whose kernel is a constant. Here kernels change, and then a product of
matrices is faster than CONV_2D, in LiteRT by far: its products go to XNNPACK, its convolutions do not.
"""

import tensorflow as tf

from tflite_export.training.formulas.registry import Example
from tflite_export.training.formulas.registry import forward
from tflite_export.training.formulas.registry import gradient
from tflite_export.training.formulas.registry import UNSUPPORTED
from tflite_export.training.formulas.windows import Windows

UNSUPPORTED.update({
    'Conv3D': 'use Conv2D over slices',
    'Conv3DBackpropInputV2': 'use Conv2DTranspose over slices',
})


NARROW = 4
"""With as few input channels, as in a first layer, there is too little in a row of the kernel for a product of
matrices."""


def add(tensors):
  """The sum, one by one: interpreters are slower at ADD_N."""
  total = tensors[0]
  for tensor in tensors[1:]:
    total = total + tensor
  return total


def kernel_gradient(x, dy, windows, shape, rows=None):
  """dL/dW[i, j, a, b] = sum over n, p, q of x[n, p*s + i*d, q*s + j*d, a] dy[n, p, q, b].

  Args:
    x: [batch, height, width, inputs].
    dy: [batch, height, width, outputs].
    windows: `Windows` of the kernel.
    shape: of the kernel.
    rows: what the kernel's rows read, if that is known already.
  """
  if shape[2] <= NARROW:
    # A convolution of x with dy when channels take the place of the batch, and stride and dilation trade places.
    dw = tf.nn.conv2d(tf.transpose(windows.pad(x), [3, 1, 2, 0]), tf.transpose(dy, [1, 2, 0, 3]), windows.dilations,
                      'VALID',
                      dilations=windows.strides)
    return tf.transpose(dw, [1, 2, 0, 3])
  rows = windows.rows(windows.columns(windows.pad(x))) if rows is None else rows
  dy = tf.reshape(dy, [dy.shape[0], -1, dy.shape[3]])
  # Example by example, and dy as the transposed factor: the other ways are up to three times slower.
  products = [tf.reduce_sum(tf.matmul(dy, row, transpose_a=True), 0) for row in rows]
  taps = [tf.reshape(tf.transpose(product), [1, *shape[1:]]) for product in products]
  return tf.concat(taps, 0) if len(taps) > 1 else taps[0]


def input_gradient(shape, w, dy, windows, padding):
  """dL/dx, of the given shape: dy moved back through the kernel."""
  if windows.strides == (1, 1):
    return windows.unpad(_spread(w, dy, windows))
  if padding == 'EXPLICIT':
    padded = [shape[0], *windows.extent, shape[3]]
    return windows.unpad(tf.raw_ops.Conv2DBackpropInput(
        input_sizes=padded, filter=w, out_backprop=dy, strides=[1, *windows.strides, 1], padding='VALID'))
  return tf.raw_ops.Conv2DBackpropInput(input_sizes=shape, filter=w, out_backprop=dy, strides=[1, *windows.strides, 1],
                                        padding=padding)


def _spread(w, dy, windows):
  """The gradient of the padded input, for stride 1.

  One product gives what each row of the kernel sends back to a row of the input; those are added, each shifted by its
  row.
  """
  (kh, kw, channels, outputs), (dh, dw) = w.shape, windows.dilations
  batch, height = dy.shape[:2]
  width = windows.extent[1]
  if kw > 1:
    border = (kw - 1) * dw
    dy = tf.pad(dy, [[0, 0], [0, 0], [border, border], [0, 0]])
    dy = tf.concat([dy[:, :, border - j * dw:border - j * dw + width] for j in range(kw)], -1)
  kernel = tf.reshape(tf.transpose(w, [1, 3, 0, 2]), [kw * outputs, kh * channels])
  sent = tf.matmul(tf.reshape(dy, [batch, height * width, kw * outputs]), kernel)
  if kh > 1:
    parts = tf.split(sent, kh, -1)
    sent = add([tf.pad(part, [[0, 0], [i * dh * width, (kh - 1 - i) * dh * width], [0, 0]])
                for i, part in enumerate(parts)])
  return tf.reshape(sent, [batch, *windows.extent, channels])


def _convolved(strides, padding, dilations=1, channels=6, groups=1):
  return Example(lambda x, w: tf.nn.conv2d(x, w, strides, padding, dilations=dilations),
                 (2, 6, 5, channels), (3, 2, channels // groups, 4))


@forward('Conv2D', examples=[
    _convolved(1, 'SAME'), _convolved(1, 'VALID', dilations=2), _convolved(1, 'SAME', groups=2)])
def _conv2d(op, inputs, training):
  x, w = inputs
  groups = x.shape[-1] // w.shape[2]
  strides, dilations, padding = op.get_attr('strides'), op.get_attr('dilations'), op.get_attr('padding').decode()
  if groups > 1:
    parts = zip(tf.split(x, groups, -1), tf.split(w, groups, -1))
    return [tf.concat([tf.nn.conv2d(a, b, strides, padding, dilations=dilations) for a, b in parts], -1)]
  if tf.get_static_value(w) is not None or x.shape[-1] <= NARROW:
    return None
  windows = Windows.of(op, x.shape[1:3], w.shape[:2], op.outputs[0].shape[1:3])

  @tf.custom_gradient
  def convolution(x, w):
    rows = windows.rows(windows.columns(windows.pad(x)))
    height, width, channels, outputs = w.shape
    kernels = tf.reshape(w, [height, width * channels, outputs])
    products = [tf.matmul(row, kernels[i]) for i, row in enumerate(rows)]
    y = tf.reshape(add(products), [x.shape[0], *windows.output, outputs])

    def back(dy):
      return input_gradient(x.shape.as_list(), w, dy, windows, padding), kernel_gradient(x, dy, windows, w.shape, rows)
    return y, back
  return [convolution(x, w)]


@gradient('Conv2D', examples=[
    _convolved(2, 'SAME', channels=3), _convolved(2, 'VALID', channels=3),
    _convolved(1, [[0, 0], [1, 2], [0, 1], [0, 0]], channels=3)])
def _conv2d_gradient(op, dy):
  x, w = op.inputs
  windows = Windows.of(op, x.shape[1:3], w.shape[:2], op.outputs[0].shape[1:3])
  return [input_gradient(x.shape.as_list(), w, dy, windows, op.get_attr('padding').decode()),
          kernel_gradient(x, dy, windows, w.shape)]


def _transposed(strides, padding, size):
  return Example(lambda x, w: tf.nn.conv2d_transpose(x, w, [2, *size, 3], strides, padding),
                 (2, 3, 4, 6), (3, 2, 3, 6))


@gradient('Conv2DBackpropInput', examples=[_transposed(2, 'SAME', (6, 8)), _transposed(1, 'VALID', (5, 5))])
def _conv2d_transpose(op, dy):
  _, w, x = op.inputs
  windows = Windows.of(op, dy.shape[1:3], w.shape[:2], x.shape[1:3])
  back = tf.nn.conv2d(dy, w, windows.strides, op.get_attr('padding').decode(), dilations=windows.dilations)
  return [None, kernel_gradient(dy, x, windows, w.shape), back]
