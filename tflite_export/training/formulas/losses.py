"""Operators of losses and regularizers."""

import tensorflow as tf

from tflite_export.training.formulas.registry import forward


@forward('SparseSoftmaxCrossEntropyWithLogits')
def _sparse_crossentropy(op, inputs, training):
  del op, training
  logits, labels = inputs
  chosen = tf.one_hot(tf.cast(labels, tf.int32), logits.shape[-1])
  return [tf.nn.softmax_cross_entropy_with_logits(chosen, logits), None]


@forward('L2Loss')
def _half_square(op, inputs, training):
  del op, training
  return [0.5 * tf.reduce_sum(inputs[0] * inputs[0])]
