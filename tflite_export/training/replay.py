"""Recording what a Keras model computes, and computing it again from other tensors and with other formulas.

A model is called once in a graph of its own. Its operators are then repeated, one by one, in the graph that becomes
the file: variables are read where the caller says, and operators with a formula (formulas/) are replaced. So the model
needs no change, and every operator still carries the name of its layer.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import dataclasses
import re
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import function_def_to_graph

from tflite_export.errors import ExportError
from tflite_export.errors import reason
from tflite_export.training import formulas
from tflite_export.training.formulas.registry import place

_CALLS = ('PartitionedCall', 'StatefulPartitionedCall')
_LOOPS = ('While', 'StatelessWhile', 'If', 'StatelessIf', 'Case', 'StatelessCase')
_RANDOM = re.compile('(Stateless|Parameterized)?(Random|Truncated|Multinomial|Binomial)'
                     '|Stateful(Uniform|Standard|Trunc)|Rng')
_WRITES = {
    'AssignVariableOp': lambda old, new: new,
    'AssignAddVariableOp': lambda old, new: old + new,
    'AssignSubVariableOp': lambda old, new: old - new,
}
_DROPPED_ATTRIBUTES = ('_class', '_gradient_op_type', '_output_shapes', '_xla_inferred_shapes')


@dataclasses.dataclass(frozen=True)
class Recording:
  """A function as a graph.

  Attributes:
    graph: `FuncGraph`.
    outputs: list of tensors of the graph.
    inputs: list of its placeholders.
    variables: {id of a placeholder: the variable whose handle it stands for}.
  """
  graph: Any
  inputs: list
  outputs: list
  variables: dict

  @classmethod
  def of(cls, concrete: Any, count: int, variables: Iterable) -> 'Recording':
    """Of a concrete function with so many inputs, which may use these variables."""
    handles = {id(v.handle): v for v in variables}
    known = {id(inside): handles[id(outside)] for outside, inside in concrete.graph.captures if id(outside) in handles}
    return cls(concrete.graph, list(concrete.inputs)[:count], list(concrete.outputs), known)

  def random(self) -> list:
    """Its operators that draw random numbers, themselves or in functions that they call."""
    library = {f.signature.name: f.node_def for f in self.graph.as_graph_def().library.function}

    def draws(kind, attributes):
      called = library.get(attributes['f'].func.name, ()) if kind in _CALLS else ()
      return bool(_RANDOM.match(kind)) or any(draws(node.op, node.attr) for node in called)
    return [op for op in self.graph.get_operations() if draws(op.type, op.node_def.attr)]

  def written(self, from_inputs: bool = False) -> list:
    """The variables that it assigns to, in order; or only those that get what depends on its inputs."""
    found = {}
    for op in self.graph.get_operations():
      if op.type in _WRITES and id(op.inputs[0]) in self.variables:
        if not from_inputs or depends(op.inputs[1], self.inputs):
          variable = self.variables[id(op.inputs[0])]
          found[variable.ref()] = variable
    return list(found.values())


def depends(tensor: Any, sources: Iterable, besides: Iterable = ()) -> bool:
  """Whether a tensor of a graph is computed from one of others, otherwise than through the operators `besides`."""
  sources, seen, queue = {source.op for source in sources}, set(besides), [tensor.op]
  while queue:
    op = queue.pop()
    if op in sources:
      return True
    if op not in seen:
      seen.add(op)
      queue.extend(i.op for i in op.inputs)
  return False


def trace(function: Callable, specs: Any) -> Any:
  """The concrete function of a function of tensors.

  Raises:
    ExportError: it fails.
  """
  try:
    return tf.function(function, input_signature=specs, autograph=False).get_concrete_function()
  except ExportError:
    raise
  except Exception as error:
    # Whatever a layer of the user's may do.
    raise ExportError(f'the model cannot be called with fixed shapes in a graph: {reason(error)}.') from error


def record(function: Callable, specs: Any, variables: Iterable) -> Recording:
  """Calls a function of tensors in a graph.

  Args:
    function: takes a tensor for each spec and returns a flat list of tensors.
    specs: list of `tf.TensorSpec`.
    variables: the variables that it may use.

  Raises:
    ExportError: it uses others, or tables, or captures tensors.
  """
  concrete = trace(function, specs)
  recording = Recording.of(concrete, len(specs), variables)
  for _, inside in concrete.graph.captures:
    if inside.dtype == tf.resource and id(inside) not in recording.variables:
      raise ExportError(f'{place(inside.name)} {_foreign(inside)}.')
  return recording


def _foreign(resource):
  """What is wrong with a resource that is no variable of the model, and what to do."""
  kinds = ' '.join(op.type for op in resource.consumers())
  if _RANDOM.search(kinds):
    return ('draws random numbers from a generator of its own, which the file does not have: change the data at random '
            'before they go into the model')
  if 'Table' in kinds:
    return ('looks values up in a table, which the file does not have: look them up in the app, and give the model '
            'numbers')
  return 'uses a variable that is none of the model: make it an attribute of a layer'


def replay(recording: Recording, inputs: Any, values: dict, training: bool) -> list:
  """Repeats a recording in the current graph.

  Args:
    recording: `Recording`.
    inputs: tensors for its inputs.
    values: {variable.ref(): tensor}; where the recording assigns to a variable, the entry is replaced.
    training: whether what comes out is to be differentiated.

  Returns:
    List of tensors, the outputs.

  Raises:
    ExportError: an operator has no equivalent in the built-in runtime.
  """
  known = {id(a): b for a, b in zip(recording.inputs, inputs)}
  for outside, inside in recording.graph.captures:
    if id(inside) not in recording.variables:
      known[id(inside)] = tf.constant(outside.numpy())
  with overridden_gradients():
    _replay(recording.graph, known, dict(recording.variables), values, training)
  return [known[id(output)] for output in recording.outputs]


@contextlib.contextmanager
def overridden_gradients() -> Iterator[None]:
  """Where operators are made whose gradients the formulas shall give."""
  with tf.compat.v1.get_default_graph().gradient_override_map(formulas.GRADIENTS):
    yield


def _replay(graph, known, variables, values, training):
  for op in graph.get_operations():
    if op.type == 'Placeholder' or op.type == 'NoOp':
      continue
    if op.type == 'ReadVariableOp':
      known[id(op.outputs[0])] = values[_variable(op, variables).ref()]
      continue
    if op.type == 'ResourceGather':
      known[id(op.outputs[0])] = tf.gather(values[_variable(op, variables).ref()], known[id(op.inputs[1])])
      continue
    if op.type in _WRITES:
      ref = _variable(op, variables).ref()
      values[ref] = _WRITES[op.type](values[ref], known[id(op.inputs[1])])
      continue
    if op.type in _CALLS:
      _inline(op, known, variables, values, training)
      continue
    if op.type in _LOOPS:
      raise ExportError(
          f'{place(op.name)} loops or branches inside the graph ({op.type}), which cannot be trained on a '
          'device: use a layer that does not.')
    if op.type in formulas.UNSUPPORTED:
      raise ExportError(f'{place(op.name)} needs {op.type}, which the built-in runtime cannot train: '
                        f'{formulas.UNSUPPORTED[op.type]}.')
    if any(i.dtype == tf.resource for i in op.inputs):
      raise ExportError(f'{place(op.name)} uses a variable through {op.type}, which cannot be exported.')
    if op.type == 'Identity' and id(op.inputs[0]) in variables:
      variables[id(op.outputs[0])] = variables[id(op.inputs[0])]
      continue
    arguments = [known[id(i)] for i in op.inputs]
    outputs = None
    if op.type in formulas.FORWARD:
      with tf.name_scope(op.name):
        outputs = formulas.FORWARD[op.type](op, arguments, training)
    if outputs is None:
      outputs = _copy(op, arguments)
    known.update((id(old), new) for old, new in zip(op.outputs, outputs) if new is not None)


def _variable(op, variables):
  if id(op.inputs[0]) not in variables:
    raise ExportError(f'{place(op.name)} uses a variable that is not one of the model: make it one.')
  return variables[id(op.inputs[0])]


def _copy(op, arguments):
  if op.type == 'IdentityN':
    # What tf.custom_gradient leaves. Its gradient function belongs to the recorded graph; what it wraps is
    # differentiated.
    return arguments
  attributes = {name: value for name, value in op.node_def.attr.items() if name not in _DROPPED_ATTRIBUTES}
  made = tf.compat.v1.get_default_graph().create_op(
      op.type, arguments, [o.dtype for o in op.outputs], name=op.name, attrs=attributes, op_def=op.op_def)
  return made.outputs


def _inline(op, known, variables, values, training):
  function = op.graph._get_function(op.get_attr('f').name)
  definition = getattr(function, 'cached_definition', None) or function.definition
  inner = function_def_to_graph.function_def_to_graph(definition)
  inside, handles = {}, {}
  for outer, placeholder in zip(op.inputs, inner.inputs):
    if id(outer) in variables:
      handles[id(placeholder)] = variables[id(outer)]
    else:
      inside[id(placeholder)] = known[id(outer)]
  with tf.name_scope(op.name):
    _replay(inner, inside, handles, values, training)
  known.update((id(old), inside[id(new)]) for old, new in zip(op.outputs, inner.outputs) if id(new) in inside)
