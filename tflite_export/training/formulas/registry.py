"""The table of formulas: how an operator is computed and differentiated with what the built-in runtime has.

TensorFlow differentiates most operators with others that exist in the built-in runtime. Each formula here is for one where it
does not: a *gradient* replaces how the operator is differentiated, a *forward* replaces the operator itself, which is then
differentiated through what it was replaced with. The modules beside this one each hold a family.
"""

import tensorflow as tf

FORWARD = {}
"""{operator type: function(op, inputs, training) -> list of outputs, or None to keep the operator}."""

GRADIENTS = {}
"""{operator type: name under which TensorFlow knows the gradient}."""

UNSUPPORTED = {}
"""{operator type: what to use instead}."""


def gradient(*types):
  """Registers `function(op, dy) -> gradients of the inputs` for operator types. Only the first output may be used."""
  def register(function):
    def adapted(op, *grads):
      return function(op, grads[0])
    for kind in types:
      GRADIENTS[kind] = f'TfliteExport{kind}'
      tf.RegisterGradient(GRADIENTS[kind])(adapted)
    return function
  return register


def forward(*types):
  """Registers `function(op, inputs, training)`: `op` has the attributes, `inputs` are the tensors to compute with."""
  def register(function):
    for kind in types:
      FORWARD[kind] = function
    return function
  return register
