"""Pooling."""

import numpy as np
import tensorflow as tf

from tflite_export.training.formulas.registry import Example
from tflite_export.training.formulas.registry import gradient
from tflite_export.training.formulas.registry import UNSUPPORTED
from tflite_export.training.formulas.windows import Windows

UNSUPPORTED.update({
    'MaxPool3D': 'use MaxPooling2D over slices',
    'AvgPool3D': 'use AveragePooling2D over slices',
})


def _windows(op):
  x, y = op.inputs[0], op.outputs[0]
  return Windows.of(op, x.shape[1:3], op.get_attr('ksize')[1:3], y.shape[1:3])


def _pooled(pool, window, stride, padding):
  return Example(lambda x: pool(x, window, stride, padding), (2, 6, 5, 3))


@gradient('MaxPool', examples=[_pooled(tf.nn.max_pool2d, 2, 2, 'VALID'), _pooled(tf.nn.max_pool2d, 3, 2, 'SAME')])
def _max_pool(op, dy):
  """Each window sends its gradient to its largest value, the first one of several, as TensorFlow does."""
  x, y, windows = op.inputs[0], op.outputs[0], _windows(op)
  free, sent = None, []
  for read in windows.slices(windows.pad(x, float(np.finfo(np.float32).min))):
    chosen = tf.cast(tf.equal(read, y), dy.dtype)
    if free is None:
      # 1 - chosen and not ones - chosen: a constant of the size of y would be stored in the file.
      free = 1 - chosen
    else:
      chosen = chosen * free
      free = free - chosen
    sent.append(chosen * dy)
  return windows.unpad(windows.gather(sent))


@gradient('AvgPool', examples=[_pooled(tf.nn.avg_pool2d, 2, 2, 'VALID'), _pooled(tf.nn.avg_pool2d, 3, 2, 'SAME')])
def _average_pool(op, dy):
  """Each window spreads its gradient evenly over the inputs that it covers; padding is not counted."""
  windows = _windows(op)
  counts = [[sum(0 <= p * s + i - b < n for i in range(k)) for p in range(o)]
            for n, k, s, b, o in zip(windows.size, windows.kernel, windows.strides, windows.before, windows.output)]
  share = 1 / np.outer(*counts).astype(np.float32)[None, :, :, None]
  dy = dy * (float(share.flat[0]) if np.all(share == share.flat[0]) else share)
  return windows.unpad(windows.gather([dy] * len(windows.taps)))
