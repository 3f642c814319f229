"""Reading rows by number: embeddings."""

import tensorflow as tf

from tflite_export.training.formulas.registry import gradient


@gradient('GatherV2')
def _gather(op, dy):
  table, rows, _ = op.inputs
  axis = int(tf.get_static_value(op.inputs[2]))
  if axis != 0 or op.get_attr('batch_dims'):
    raise NotImplementedError('use tf.gather on axis 0')
  flat = tf.reshape(dy, [rows.shape.num_elements(), *table.shape[1:]])
  return [tf.math.unsorted_segment_sum(flat, tf.reshape(rows, [-1]), table.shape[0]), None, None]
