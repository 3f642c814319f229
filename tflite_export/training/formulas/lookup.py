"""Reading rows by number: embeddings.

As in TensorFlow the gradient of the table is `tf.IndexedSlices`: a row for each number that was read, also where
numbers repeat. Keras clips them like that, before it adds them up.
"""

import tensorflow as tf

from tflite_export.training.formulas.registry import Example
from tflite_export.training.formulas.registry import gradient


@gradient('GatherV2', examples=[Example(lambda table: tf.gather(table, [[2, 0], [5, 2]]), (6, 3))])
def _gather(op, dy):
  table, rows, _ = op.inputs
  axis = int(tf.get_static_value(op.inputs[2]))
  if axis != 0 or op.get_attr('batch_dims'):
    raise NotImplementedError('use tf.gather on axis 0')
  flat = tf.reshape(dy, [rows.shape.num_elements(), *table.shape[1:]])
  return [tf.IndexedSlices(flat, tf.reshape(rows, [-1]), tf.constant(table.shape.as_list(), rows.dtype)), None, None]
