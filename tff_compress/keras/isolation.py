"""Keeps users' code and TFF's graphs apart.

TFF writes computations down in graphs of TensorFlow 1. Python code that runs there finds another world: `==` and `!=`
compare objects, and Keras gives every layer, model and metric of the process other base classes. So users' code never
runs there. It is traced as `fit` traces it, and what TFF gets is the finished graph (`Program`). Losses and metrics are
new objects (`fresh_containers`), so that tracing changes none that others may be using, and classes that someone else's
graph has changed get their bases back first (`restore_base_classes`).
"""

from collections.abc import Callable
from collections.abc import Iterable
from typing import Any

from keras.src.utils import version_utils
import tensorflow as tf
from tensorflow.python.eager import record
from tensorflow.python.framework import auto_control_deps_utils

from tff_compress.keras.errors import FederateError
from tff_compress.keras.errors import one_sentence
from tff_compress.keras.layers import all_layers

_BY_SHAPE = ('accuracy', 'acc', 'crossentropy', 'ce')
"""Metrics that Keras chooses by the shapes of labels and predictions."""

_PYTHON = ('PyFunc', 'PyFuncStateless', 'EagerPyFunc')


class Program:
  """A function of tensors, traced once. Other graphs call it with variables of their own.

  Args:
    function: takes tensors in structures like `specs` and returns a structure of tensors. It may use variables and
      lookup tables from around it, and change variables.
    *specs: structures of `tf.TensorSpec`; None stays None.
    variables: those in whose place callers put their own. Others become constants, unless the function changes them.
    others: other variables that it may change.

  Attributes:
    result: `function`'s result, with `tf.TensorSpec` in place of tensors.
    written: the variables that it changes.

  Raises:
    FederateError: the function uses a resource that is neither a known variable nor a lookup table, or calls Python in
      its graph.
  """

  def __init__(self, function: Callable, *specs: Any, variables: Iterable[tf.Variable] = (),
               others: Iterable[tf.Variable] = ()):
    traced = tf.function(function).get_concrete_function(*specs)
    graph, definition = traced.graph, _without_seeds(traced.graph.as_graph_def())
    if any(node.op in _PYTHON for node in _nodes(definition)):
      raise FederateError("the model's code calls Python in every step, with tf.py_function or tf.numpy_function, and "
                          "TFF's workers have no Python: write it with operations of TensorFlow.")
    self.result = traced.structured_outputs
    kept = {identity(variable) for variable in variables}
    known = {identity(variable): variable for variable in (*variables, *others, *graph.variables)}
    read = set(auto_control_deps_utils.get_read_only_resource_input_indices_graph(graph))
    arguments = len(traced.inputs) - len(graph.captures)
    names, constants = [tensor.name for tensor in traced.inputs[:arguments]], {}
    self._resources: list[_Constant | _Table | tf.Variable] = []
    self.written: list[tf.Variable] = []
    for position, (outside, inside) in enumerate(graph.captures, arguments):
      if inside.dtype != tf.resource:
        constants[inside.name] = outside.numpy()
        continue
      names.append(inside.name)
      variable = known.get(id(outside))
      if variable is None:
        self._resources.append(_Table(outside, definition))
      elif position in read and id(outside) not in kept:
        self._resources.append(_Constant(variable))
      else:
        self._resources.append(variable)
        if position not in read:
          self.written.append(variable)
    outputs = [tensor.name for tensor in graph.outputs]

    def carried_over(*inputs):
      mapping = {**dict(zip(names, inputs)), **{name: tf.constant(value) for name, value in constants.items()}}
      return tf.graph_util.import_graph_def(definition, mapping, outputs, name='traced')

    self._function = tf.function(carried_over, autograph=False).get_concrete_function(
        *(tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in traced.inputs[:arguments]),
        *[tf.TensorSpec([], tf.resource)] * len(self._resources))

  def bind(self, pairs: Iterable[tuple[tf.Variable, tf.Variable]] = ()) -> Callable:
    """Makes a function of the current graph.

    Args:
      pairs: (variable, the caller's variable in its place) of all variables that are not constants.

    Returns:
      function that takes tensors in the structures of `specs` and returns the result. Gradients do not pass through it.
    """
    places = {identity(variable): mine for variable, mine in pairs}
    handles = [resource.copy() if isinstance(resource, (_Table, _Constant)) else places[identity(resource)].handle
               for resource in self._resources]

    def call(*arguments):
      with record.stop_recording():
        outputs = self._function(*(tensor for tensor in tf.nest.flatten(arguments) if tensor is not None), *handles)
      for output, spec in zip(outputs, tf.nest.flatten(self.result)):
        output.set_shape(spec.shape)
      return tf.nest.pack_sequence_as(self.result, outputs)

    return call


def identity(variable: tf.Variable) -> int:
  """What tells a variable from all others, also where objects are wrapped around it."""
  return id(variable.handle)


class _Constant:
  """A variable's present value."""

  def __init__(self, variable):
    self._value = variable.numpy()

  def copy(self):
    """A variable of this value in the current graph: its resource."""
    return tf.Variable(lambda: tf.constant(self._value), trainable=False).handle


class _Table:
  """The entries of a lookup table.

  Args:
    handle: the table's resource.
    definition: graph that looks things up in it.
  """

  def __init__(self, handle, definition):
    kinds = {(node.attr['Tin'].type, node.attr['Tout'].type) for node in _nodes(definition)
             if node.op == 'LookupTableFindV2'}
    for kind in sorted(kinds):
      try:
        keys, values = tf.raw_ops.LookupTableExportV2(table_handle=handle, Tkeys=kind[0], Tvalues=kind[1])
      except tf.errors.InvalidArgumentError:
        continue  # A table of other types, or none.
      self._keys, self._values, self._types = keys.numpy(), values.numpy(), [tf.as_dtype(number) for number in kind]
      return
    raise FederateError("the model's code uses a resource that is neither a variable nor a lookup table, and so cannot "
                        'be copied to clients: leave it out.')

  def copy(self):
    """The table again, in the current graph: its resource."""
    entries = tf.lookup.KeyValueTensorInitializer(self._keys, self._values, *self._types)
    # Each query says its own default.
    return tf.lookup.StaticHashTable(entries, tf.zeros([], self._types[1])).resource_handle


def _nodes(definition):
  yield from definition.node
  for function in definition.library.function:
    yield from function.node_def


def _without_seeds(definition):
  """The graph with random operations that draw anew in each run: with seeds, all clients would draw the same numbers.
  """
  for node in _nodes(definition):
    if 'seed' in node.attr and 'seed2' in node.attr:
      node.attr['seed'].i = node.attr['seed2'].i = 0
  return definition


def restore_base_classes(model: tf.keras.Model) -> None:
  """Gives the model's classes the bases they had before someone made a Keras model in a graph of TFF."""
  for kind in {type(layer) for layer in all_layers(model)}:
    if issubclass(kind, version_utils.base_layer_v1.Layer):
      version_utils.swap_class(kind, version_utils.training.Model, version_utils.training_v1.Model, True)
      version_utils.swap_class(kind, version_utils.base_layer.Layer, version_utils.base_layer_v1.Layer, True)


def fresh_containers(model: tf.keras.Model, output_spec: Any, y_spec: Any) -> tuple[Any, Any]:
  """Makes new loss and metric objects, as `compile` would.

  Args:
    model: compiled Keras model.
    output_spec: structure of `tf.TensorSpec` of its outputs.
    y_spec: that of the labels; None where there are none.

  Returns:
    (losses, metrics), Keras's containers, built for the model's outputs.

  Raises:
    FederateError: a metric is not known to Keras, or cannot be copied.
  """
  losses, metrics = model.compiled_loss, model.compiled_metrics
  names = getattr(model, 'output_names', None)
  loss_container = type(losses)(losses._user_losses, losses._user_loss_weights, output_names=names)
  metric_container = type(metrics)(_fresh_metrics(metrics._user_metrics),
                                   _fresh_metrics(metrics._user_weighted_metrics),
                                   output_names=names)
  loss_container.build(output_spec)
  if y_spec is not None:
    metric_container.build(output_spec, metric_container._conform_to_outputs(output_spec, y_spec))
  return loss_container, metric_container


def _fresh_metrics(metrics):
  """New metric objects in place of those in the structure; names and functions stay as they are."""
  def fresh(metric):
    if isinstance(metric, str) and metric not in _BY_SHAPE and isinstance(tf.keras.metrics.get(metric), str):
      raise FederateError(f'Keras has no metric {metric[:40]!r}: look for its name in tf.keras.metrics.')
    if not isinstance(metric, tf.keras.metrics.Metric):
      return metric
    with one_sentence(f'the metric {metric.name!r} cannot be copied ({{}}): give it a get_config.'):
      return type(metric).from_config(metric.get_config())
  return tf.nest.map_structure(fresh, metrics)
