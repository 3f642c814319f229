"""The table of formulas: how an operator is computed and differentiated with what the built-in runtime has.

TensorFlow differentiates most operators with others that exist in the built-in runtime. Each formula here is for one
where it does not: a *gradient* replaces how the operator is differentiated, a *forward* replaces the operator itself,
which is then differentiated through what it was replaced with. The modules beside this one each hold a family.
"""

import tensorflow as tf

from tflite_export.errors import ExportError

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
      try:
        return function(op, tf.convert_to_tensor(grads[0]))
      except NotImplementedError as error:
        raise ExportError(f'{place(op.name)} cannot be trained with the built-in operators: {error}.') from None
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


def place(name):
  """Where an operator is, from its name in a graph: 'the layer NAME'."""
  parts = [part for part in name.split('/') if part and not part.startswith('gradients')]
  return f'the layer {parts[1]!r}' if len(parts) > 2 else f'the operator {name!r}'
