"""The table of formulas: how an operator is computed and differentiated with what the built-in runtime has.

TensorFlow differentiates most operators with others that exist in the built-in runtime. Each formula here is for one
where it does not: a *gradient* replaces how the operator is differentiated, a *forward* replaces the operator itself,
which is then differentiated through what it was replaced with. The modules beside this one each hold a family.

Every formula comes with examples, on which tests/tflite_export/test_formulas.py holds it against TensorFlow's own.
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tflite_export.errors import ExportError


class Example:
  """Something that an operator is used for.

  Args:
    function: of float32 tensors to one float32 tensor, computed with the operator.
    shapes: of its inputs, whose values are normal, some of them 0.
  """

  def __init__(self, function: Callable[..., tf.Tensor], *shapes: Sequence[int]):
    self.function = function
    self.specs = [tf.TensorSpec(shape, tf.float32) for shape in shapes]


FORWARD: dict[str, Callable] = {}
"""{operator type: function(op, inputs, training) -> list of outputs, or None to keep the operator}."""

GRADIENTS: dict[str, str] = {}
"""{operator type: name under which TensorFlow knows the gradient}."""

EXAMPLES: dict[str, list[Example]] = {}
"""{operator type: what its formulas are tested on}."""

UNSUPPORTED: dict[str, str] = {}
"""{operator type: what to use instead}."""


def gradient(*types: str, examples: Sequence[Example]) -> Callable[[Callable], Callable]:
  """Registers `function(op, dy) -> gradients of the inputs` for operator types. Only the first output may be used.

  Where the function raises NotImplementedError, the export names the layer and says what the error says.
  """
  def register(function: Callable) -> Callable:
    def adapted(op: tf.Operation, *grads: Any) -> Any:
      try:
        return function(op, tf.convert_to_tensor(grads[0]))
      except NotImplementedError as error:
        raise ExportError(f'{place(op.name)} cannot be trained with the built-in operators: {error}.') from None
    for kind in types:
      GRADIENTS[kind] = f'TfliteExport{kind}'
      tf.RegisterGradient(GRADIENTS[kind])(adapted)
      EXAMPLES.setdefault(kind, []).extend(examples)
    return function
  return register


def forward(*types: str, examples: Sequence[Example]) -> Callable[[Callable], Callable]:
  """Registers `function(op, inputs, training)`: `op` has the attributes, `inputs` are the tensors to compute with."""
  def register(function: Callable) -> Callable:
    for kind in types:
      FORWARD[kind] = function
      EXAMPLES.setdefault(kind, []).extend(examples)
    return function
  return register


def place(name: str) -> str:
  """Where an operator is, from its name in a graph: 'the layer NAME'."""
  parts = [part for part in name.split('/') if part and not part.startswith('gradients')]
  return f'the layer {parts[1]!r}' if len(parts) > 2 else f'the operator {name!r}'
