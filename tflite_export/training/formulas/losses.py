"""Operators of losses and regularizers."""

import tensorflow as tf

from tflite_export.training.formulas.registry import Example
from tflite_export.training.formulas.registry import forward


def _of_classes(logits):
  return tf.nn.sparse_softmax_cross_entropy_with_logits(tf.constant([2, 0, 1, 2]), logits)


@forward('SparseSoftmaxCrossEntropyWithLogits', examples=[Example(_of_classes, (4, 3))])
def _sparse_crossentropy(op, inputs, training):
  del op, training
  logits, labels = inputs
  chosen = tf.one_hot(tf.cast(labels, tf.int32), logits.shape[-1])
  return [tf.nn.softmax_cross_entropy_with_logits(chosen, logits), None]


@forward('L2Loss', examples=[Example(lambda x: tf.nn.l2_loss(x)[None], (4, 5))])
def _half_square(op, inputs, training):
  del op, training
  return [0.5 * tf.reduce_sum(inputs[0] * inputs[0])]
