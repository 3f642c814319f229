"""Limits of the Edge TPU's documented operator list as functions: a node in, why it is not met (or None) out."""

from typing import Any

from ai_edge_litert import schema_py_generated as schema
import numpy as np

LONGEST_SOFTMAX = 16000
LARGEST_VALUES = 1 << 20
"""Bytes of the largest constant whose values are looked at."""

_DTYPES = {value: name for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
_ACTIVATIONS = {value: name for name, value in vars(schema.ActivationFunctionType).items() if isinstance(value, int)}
_EIGHT_BITS = ('INT8', 'UINT8')
# Element types of constants that can be looked at.
_ARRAYS = {'INT8': 'i1', 'UINT8': 'u1', 'INT16': '<i2', 'INT32': '<i4', 'INT64': '<i8', 'FLOAT32': '<f4'}
# Which inputs hold what was trained: position of the first and of the one after the last.
_WEIGHTS = {'CONV_2D': (1, 3), 'DEPTHWISE_CONV_2D': (1, 3), 'FULLY_CONNECTED': (1, 3), 'TRANSPOSE_CONV': (0, 2),
            'LSTM': (1, 18), 'UNIDIRECTIONAL_SEQUENCE_LSTM': (1, 18)}


class Node:
  """An operator with its tensors.

  Args:
    name: such as 'CONV_2D'.
    model: the schema's `ModelT`, its indices in range (`flatbuffer.load`).
    graph: the `SubGraphT` that the operator is in.
    operator: `OperatorT`.
  """

  def __init__(self, name: str, model: Any, graph: Any, operator: Any) -> None:
    self.name = name
    self._model = model
    self.options = operator.builtinOptions
    self.inputs: list[Any] = [None if i < 0 else graph.tensors[i] for i in _listed(operator.inputs)]
    self.outputs = [graph.tensors[i] for i in _listed(operator.outputs)]

  def option(self, field: str, default: Any = 0) -> Any:
    """A field of the operator's options; the schema's default where a file leaves it, or all options, out."""
    return getattr(self.options, field, default)

  def input(self, position: int) -> Any:
    """The tensor at a position, or None where there is none."""
    return self.inputs[position] if position < len(self.inputs) else None

  def is_constant(self, tensor: Any) -> bool:
    """Whether the file holds the values of a tensor."""
    buffer = self._model.buffers[tensor.buffer]
    return (buffer.data is not None and len(buffer.data) > 0) or (buffer.offset or 0) > 1

  def values(self, tensor: Any) -> np.ndarray | None:
    """Array of a constant; None for what is no constant, is very large, or whose bytes do not fit its shape."""
    kind = _ARRAYS.get(dtype(tensor))
    if tensor is None or kind is None or tensor.sparsity is not None or not self.is_constant(tensor):
      return None
    data = self._model.buffers[tensor.buffer].data
    if data is None or len(data) > LARGEST_VALUES:
      return None
    # Python's integers, as those of a hostile shape may not fit NumPy's.
    count = 1
    for size in shape(tensor):
      count *= size
    if min(shape(tensor), default=1) < 0 or len(data) != count * np.dtype(kind).itemsize:
      return None
    return np.frombuffer(bytes(data), kind).reshape(shape(tensor))


def _listed(vector):
  return [] if vector is None else [int(i) for i in vector]


def shape(tensor: Any) -> list[int]:
  """Sizes of a tensor as a list of Python integers."""
  return _listed(tensor.shape)


def dtype(tensor: Any) -> Any:
  """'INT8' and so on; None where there is no tensor."""
  return None if tensor is None else _DTYPES.get(tensor.type, f'type {tensor.type}')


def _sizes(tensor):
  """'1x28x28x3', for messages."""
  return 'x'.join(map(str, shape(tensor)[:8])) + ('x…' if len(shape(tensor)) > 8 else '')


def _channels_alone(sizes):
  """Whether only the innermost dimension is larger than one."""
  return all(size == 1 for size in sizes[:-1])


# Limits of every operator.


def static_shapes(node: Node) -> str | None:
  """Every size is known when the file is made."""
  for tensor in [*filter(None, node.inputs), *node.outputs]:
    if any(size < 0 for size in _listed(tensor.shapeSignature) + shape(tensor)):
      return 'a size is only known when it runs (-1): export it with a fixed batch size'
  return None


def eight_bits(node: Node) -> str | None:
  """Values are 8-bit integers with a scale; biases are 32-bit constants; shapes and axes are integer constants."""
  for tensor in [*filter(None, node.inputs), *node.outputs]:
    kind = dtype(tensor)
    if kind in _EIGHT_BITS:
      if tensor.quantization is None or not len(_given(tensor.quantization.scale)):
        return f'{kind.lower()} values without a scale: it is not quantized'
    elif node.is_constant(tensor) and kind in ('INT32', 'INT64'):
      continue
    elif kind == 'INT16' and 'LSTM' in node.name and tensor.isVariable:
      continue
    else:
      return f'{kind.lower()} values: only 8-bit quantized tensors map'
  return None


def _given(vector):
  return () if vector is None else vector


def three_dimensions(node: Node) -> str | None:
  """At most the three innermost dimensions of what is computed are larger than one. Constants may have more."""
  for tensor in [*filter(None, node.inputs), *node.outputs]:
    if not node.is_constant(tensor) and any(size != 1 for size in shape(tensor)[:-3]):
      return f'a tensor of {_sizes(tensor)}: only the three innermost dimensions may be larger than 1'
  return None


def dense_constants(node: Node) -> str | None:
  """Constants are stored in full."""
  if any(tensor is not None and tensor.sparsity is not None for tensor in node.inputs):
    return 'weights in sparse storage: export them dense'
  return None


# Limits of single operators.


def no_activation(node: Node) -> str | None:
  """No fused activation."""
  fused = node.option('fusedActivationFunction')
  if not fused:
    return None
  return f'a fused activation ({_ACTIVATIONS.get(fused, fused)}): it has to be an operator of its own'


def listed_activation(node: Node) -> str | None:
  """A fused activation is one that the list has as an operator."""
  fused = _ACTIVATIONS.get(node.option('fusedActivationFunction'), 'UNKNOWN')
  if fused in ('NONE', 'RELU', 'RELU6', 'RELU_N1_TO_1', 'TANH'):
    return None
  return f'the fused activation {fused} is not on the list'


def constant_weights(node: Node) -> str | None:
  """Weights and biases are constants."""
  first, last = _WEIGHTS[node.name]
  if any(tensor is not None and not node.is_constant(tensor) and not tensor.isVariable
         for tensor in node.inputs[first:last]):
    return 'weights that are computed: they have to be constants'
  return None


def equal_dilation(node: Node) -> str | None:
  """The same dilation in x and y."""
  across, down = node.option('dilationWFactor', 1), node.option('dilationHFactor', 1)
  return None if across == down else f'dilations of {down} and {across}: they have to be equal'


def constant_zero_padding(node: Node) -> str | None:
  """Where an input is a constant there are two inputs, and the constant is all zeros."""
  constants = [tensor for tensor in node.inputs if tensor is not None and node.is_constant(tensor)]
  if not constants:
    return None
  if len(node.inputs) != 2:
    return f'a constant among {len(node.inputs)} inputs: beside a constant there may be one other'
  for tensor in constants:
    values, zero = node.values(tensor), _given(tensor.quantization and tensor.quantization.zeroPoint)
    if values is None or np.any(values != (zero[0] if len(zero) else 0)):
      return 'a constant input that is not all zeros'
  return None


def default_weights_format(node: Node) -> str | None:
  """Weights in the default format."""
  return 'weights in a shuffled format' if node.option('weightsFormat') else None


def one_dimensional_output(node: Node) -> str | None:
  """The output is one-dimensional."""
  for tensor in node.outputs:
    if not _channels_alone(shape(tensor)):
      return f'an output of {_sizes(tensor)}: it has to be one-dimensional'
  return None


def _axes(node):
  """(constant axes counted from the front, rank), or None."""
  values = node.values(node.input(1))
  if values is None or node.input(0) is None:
    return None
  rank = len(shape(node.inputs[0]))
  return [int(axis) + rank * (axis < 0) for axis in values.reshape(-1)], rank


def axes_without_batch(node: Node) -> str | None:
  """Reduces other dimensions than that of the batch."""
  found = _axes(node)
  if found is None:
    return 'axes that are computed: they have to be constants'
  return 'it reduces the batch dimension' if 0 in found[0] and found[1] > 1 else None


def channels_multiple_of_four(node: Node) -> str | None:
  """A reduction of the innermost dimension is over a multiple of 4. The axes are constants, which is checked before."""
  axes, rank = _axes(node)
  size = (shape(node.inputs[0]) or [0])[-1]
  if rank - 1 in axes and size % 4:
    return f'it reduces {size} channels: their number has to be a multiple of 4'
  return None


def axis_without_batch(node: Node) -> str | None:
  """Stacks along another dimension than that of the batch."""
  rank = len(shape(node.outputs[0])) if node.outputs else 0
  return 'it packs along the batch dimension' if node.option('axis') in (0, -rank) else None


def padding_without_batch(node: Node) -> str | None:
  """Pads other dimensions than that of the batch."""
  values = node.values(node.input(1))
  if values is None or values.ndim != 2:
    return 'paddings that are computed: they have to be constants'
  return 'it pads the batch dimension' if np.any(values[:1]) else None


def one_dimensional_alpha(node: Node) -> str | None:
  """Alpha is a constant with one value per channel."""
  alpha = node.input(1)
  if alpha is None or not node.is_constant(alpha):
    return 'an alpha that is computed: it has to be a constant'
  return None if _channels_alone(shape(alpha)) else 'an alpha per position: share it over all axes but the last'


def short_softmax(node: Node) -> str | None:
  """One dimension of at most 16,000."""
  for tensor in [tensor for tensor in node.inputs if tensor is not None]:
    if not _channels_alone(shape(tensor)) or (shape(tensor) or [1])[-1] > LONGEST_SOFTMAX:
      return f'a softmax of {_sizes(tensor)}: it has to be one-dimensional, at most {LONGEST_SOFTMAX:,}'
  return None


def split_without_batch(node: Node) -> str | None:
  """Splits another dimension than that of the batch."""
  values = node.values(node.input(0))
  if values is None or values.size != 1 or node.input(1) is None:
    return 'an axis that is computed: it has to be a constant'
  return 'it splits the batch dimension' if values.item() in (0, -len(shape(node.inputs[1]))) else None


def squeeze_of_leading_ones(node: Node) -> str | None:
  """Removes nothing but leading dimensions of 1."""
  sizes = shape(node.inputs[0]) if node.input(0) is not None else []
  axes = {int(axis) + len(sizes) * (axis < 0) for axis in _given(node.option('squeezeDims', None))}
  axes = axes or {i for i, size in enumerate(sizes) if size == 1}
  return None if axes == set(range(len(axes))) else 'it removes more than leading dimensions of 1'


def plain_strides(node: Node) -> str | None:
  """Strides of 1, no ellipsis, no new axis."""
  strides = node.values(node.input(3))
  if strides is None:
    return 'strides that are computed: they have to be constants'
  if np.any(strides != 1):
    return 'strides other than 1'
  if node.option('ellipsisMask') or node.option('newAxisMask'):
    return 'an ellipsis or a new axis'
  return None
