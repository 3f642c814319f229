"""Resizing images, as products with constant matrices: every output row is a weighted sum of input rows."""

import numpy as np
import tensorflow as tf

from tflite_export.training.formulas.registry import Example
from tflite_export.training.formulas.registry import forward


def _resized(method):
  return Example(lambda x: tf.image.resize(x, (7, 4), method), (2, 4, 5, 3))


@forward('ResizeBilinear', 'ResizeBicubic', 'ResizeNearestNeighbor',
         examples=[_resized('bilinear'), _resized('bicubic'), _resized('nearest')])
def _resize(op, inputs, training):
  x = inputs[0]
  batch, height, width, channels = x.shape
  new_height, new_width = op.outputs[0].shape[1:3]
  if not training and op.type != 'ResizeBicubic':
    return None
  rows, columns = _weights(op, height, new_height), _weights(op, width, new_width)
  x = tf.matmul(rows, tf.reshape(x, [batch, height, width * channels]))
  x = tf.matmul(columns, tf.reshape(x, [batch * new_height, width, channels]))
  return [tf.reshape(x, [batch, new_height, new_width, channels])]


def _weights(op, size, new_size):
  """[new_size, size]: what the operator makes of each unit vector."""
  compute = getattr(tf.raw_ops, op.type)
  with tf.init_scope():
    units = tf.reshape(tf.eye(size), [size, size, 1, 1])
    weights = compute(images=units, size=[new_size, 1], align_corners=op.get_attr('align_corners'),
                      half_pixel_centers=op.get_attr('half_pixel_centers')).numpy()
  return tf.constant(np.transpose(weights[:, :, 0, 0]))
