"""Activations."""

import math

import tensorflow as tf

from tflite_export.training.formulas.registry import Example
from tflite_export.training.formulas.registry import forward
from tflite_export.training.formulas.registry import gradient


@gradient('Relu', examples=[Example(tf.nn.relu, (4, 5))])
def _relu(op, dy):
  # The sign of y is 1 or 0. It takes a sixth of the time of comparing and casting.
  return dy * tf.sign(op.outputs[0])


@gradient('Relu6', examples=[Example(lambda x: tf.nn.relu6(5 * x), (4, 5))])
def _relu6(op, dy):
  y = op.outputs[0]
  return dy * (tf.sign(y) * tf.sign(6 - y))


@gradient('LeakyRelu', examples=[Example(tf.nn.leaky_relu, (4, 5))])
def _leaky_relu(op, dy):
  alpha = op.get_attr('alpha')
  return dy * (alpha + (1 - alpha) * tf.sign(tf.nn.relu(op.inputs[0])))


@gradient('Elu', examples=[Example(tf.nn.elu, (4, 5))])
def _elu(op, dy):
  # y = exp(x) - 1 below zero, so its derivative there is y + 1.
  return dy * (1 + tf.minimum(op.outputs[0], 0))


SELU_SCALE = 1.0507009873554804934193349852946
SELU_ALPHA = 1.6732632423543772848170429916717


@tf.custom_gradient
def _selu_value(x):
  y = SELU_SCALE * (tf.nn.relu(x) + SELU_ALPHA * (tf.exp(tf.minimum(x, 0)) - 1))

  def back(dy):
    below = tf.sign(tf.nn.relu(-y))
    return dy * (SELU_SCALE + below * (y + SELU_SCALE * (SELU_ALPHA - 1)))
  return y, back


@forward('Selu', examples=[Example(tf.nn.selu, (4, 5))])
def _selu(op, inputs, training):
  del op, training
  return [_selu_value(inputs[0])]


@tf.custom_gradient
def _softplus_value(x):
  # log(1 + e^x) without overflow. Differentiating this term by term would give 0 at 0, where the slope is a half.
  return tf.nn.relu(x) + tf.math.log(1 + tf.exp(-tf.abs(x))), lambda dy: dy * tf.sigmoid(x)


@forward('Softplus', examples=[Example(lambda x: tf.nn.softplus(50 * x), (4, 5))])
def _softplus(op, inputs, training):
  del op, training
  return [_softplus_value(inputs[0])]


@forward('Softsign', examples=[Example(tf.nn.softsign, (4, 5))])
def _softsign(op, inputs, training):
  del op, training
  x, = inputs
  return [x / (1 + tf.abs(x))]


# Numerator and denominator of the rational approximation x P(x^2) / Q(x^2) of erf on [-4, 4] that Eigen, and so
# TensorFlow, uses for float32; highest power first.
_ERF_P = (-2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05,
          -7.34990630326855e-04,
          -2.95459980854025e-03, -1.60960333262415e-02)
_ERF_Q = (-1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03,
          -1.42647390514189e-02)


def _polynomial(coefficients, x):
  value = coefficients[0] * x + coefficients[1]
  for coefficient in coefficients[2:]:
    value = value * x + coefficient
  return value


@tf.custom_gradient
def _erf_value(x):
  bounded = tf.clip_by_value(x, -4., 4.)
  square = bounded * bounded
  value = bounded * _polynomial(_ERF_P, square) / _polynomial(_ERF_Q, square)
  return value, lambda dy: dy * (2 / math.sqrt(math.pi)) * tf.exp(-x * x)


@forward('Erf', examples=[Example(lambda x: tf.math.erf(2 * x), (4, 5))])
def _erf(op, inputs, training):
  del op, training
  return [_erf_value(inputs[0])]


@gradient('Sqrt', examples=[Example(lambda x: tf.sqrt(x * x + .1), (4, 5))])
def _sqrt(op, dy):
  return dy * 0.5 / op.outputs[0]


@gradient('Rsqrt', examples=[Example(lambda x: tf.math.rsqrt(x * x + .1), (4, 5))])
def _rsqrt(op, dy):
  y = op.outputs[0]
  return dy * -0.5 * y * y * y


def _clip(a, b):
  """Equal where `b` is 0, and where both are."""
  return tf.maximum(tf.minimum(a, a + b), b)


@gradient('Maximum', 'Minimum', examples=[Example(_clip, (4, 5), (5,)), Example(_clip, (5,), (4, 1))])
def _extremum(op, dy):
  # TensorFlow gives the gradient of equal inputs to the first one.
  a, b = op.inputs
  first = tf.cast(a >= b if op.type == 'Maximum' else a <= b, dy.dtype)
  return [reduce_to(dy * first, a.shape), reduce_to(dy * (1 - first), b.shape)]


def reduce_to(x, shape):
  """Sums over what broadcasting from `shape` has repeated."""
  extra = len(x.shape) - len(shape)
  axes = [*range(extra), *(extra + i for i, n in enumerate(shape) if n == 1 and x.shape[extra + i] != 1)]
  return tf.reshape(tf.reduce_sum(x, axes), shape) if axes else x
