"""Batches for the gate: random ones in the range that a model's first layers expect, or of the user's examples."""

import numpy as np
import tensorflow as tf

from tflite_export.errors import ExportError
from tflite_export.training import replay

_SAME = ('Identity', 'Cast', 'Reshape', 'ExpandDims', 'Squeeze', 'StridedSlice', 'Slice', 'Split', 'SplitV', 'Unpack',
         'Pack', 'ConcatV2', 'Transpose', 'Tile')
"""Operators whose outputs hold values of their inputs."""
_SCALING = ('Sub', 'AddV2', 'Mul', 'RealDiv', 'Cast', 'Identity')


class Batches:
  """Function of a step's number that returns (list of inputs, labels, sample weights).

  Random words repeat and end in padding, other numbers are normal after the model's own scaling, and some are 0. Odd
  steps have weights that differ, and are partial where that is possible.

  Args:
    program: `Program` of the model.
    loss: `losses.Loss`.
    shapes: `Shapes`.
    data: (x, y) to choose rows from, or None.

  Raises:
    ExportError: the data do not fit.
  """

  def __init__(self, program, loss, shapes, data=None):
    self._loss, self._shapes = loss, shapes
    self._partial = shapes.free and not program.mixing
    self._x = self._y = None
    if data is None:
      self._draws = [Draw(program.training, number, spec) for number, spec in enumerate(shapes.inputs)]
      return
    x, y = data
    self._x, self._y = [np.asarray(part) for part in (x if isinstance(x, (list, tuple)) else [x])], np.asarray(y)
    wanted, rows = [*shapes.inputs, shapes.labels], shapes.output[0]
    if len(self._x) + 1 != len(wanted) or not all(
        len(a) >= rows and a.shape[1:] == tuple(s.shape[1:]) for a, s in zip([*self._x, self._y], wanted)):
      raise ExportError('parity_data must be (x, y) with at least batch_size rows that fit the model: '
                        + ', '.join(str(tuple(s.shape)) for s in wanted) + '.')

  def __call__(self, step):
    generator, rows = np.random.default_rng(step), self._shapes.output[0]
    if self._x is None:
      inputs = [draw(generator) for draw in self._draws]
      labels = self._loss.draw(generator, self._shapes.output)
    else:
      chosen = generator.choice(len(self._y), rows, replace=False)
      inputs = [part[chosen].astype(s.dtype.as_numpy_dtype) for part, s in zip(self._x, self._shapes.inputs)]
      labels = self._y[chosen].astype(self._shapes.labels.dtype.as_numpy_dtype)
    weights = np.ones(rows, np.float32)
    if step % 2:
      weights = generator.uniform(0.5, 2, rows).astype(np.float32)
      if self._partial:
        weights[(rows + 1) // 2:] = 0
    return inputs, labels, weights


class Draw:
  """Random values of an input, as the operators that it goes into say.

  Args:
    recording: `replay.Recording` of the model.
    number: which of its inputs.
    spec: `tf.TensorSpec` of it.
  """

  def __init__(self, recording, number, spec):
    self._spec = spec
    self._limit, self._padding = None, None
    start = recording.inputs[number]
    for op, tensor in _readers(start):
      limit = _rows(recording, op, tensor)
      if limit:
        self._limit = min(limit, self._limit or limit)
      elif op.type == 'NotEqual':
        other = tf.get_static_value(op.inputs[1] if op.inputs[0] is tensor else op.inputs[0])
        self._padding = other if other is not None and other.size == 1 else self._padding
    self._offset, self._scale = _scaling(recording, start)

  def __call__(self, generator):
    shape, dtype = tuple(self._spec.shape), self._spec.dtype
    if self._limit or not dtype.is_floating:
      # Where the operators do not say how many there are: all pixels, or else two, which every model should know.
      limit = min(self._limit or (256 if dtype.size == 1 else 2), 2 if dtype.is_bool else int(dtype.max) + 1)
      words = generator.integers(0, limit, max(2, np.prod(shape, dtype=int) // 3))
      values = generator.choice(words, shape)
      values[generator.random(shape) < .1] = 0
    else:
      values = generator.standard_normal(shape)
      values = (values - self._offset) / self._scale
      values[generator.random(shape) < .1] = 0
    if self._padding is not None and len(shape) > 1:
      # What is padding from the first step on may have no mean: Keras has 0/0 there.
      first = values[:, 0]
      first[first == self._padding] = 1
      ends = generator.integers(1, shape[1] + 1, shape[0])
      values[np.arange(shape[1]) >= ends[:, None]] = self._padding
    return values.astype(dtype.as_numpy_dtype)


def _readers(start):
  """(operator, input of it) for all that read values of a tensor, unchanged."""
  seen, todo = set(), [start]
  while todo:
    tensor = todo.pop()
    for op in tensor.consumers():
      yield op, tensor
      if op.type in _SAME and op not in seen:
        seen.add(op)
        todo.extend(op.outputs)


def _rows(recording, op, tensor):
  """How many rows there are, if an operator reads rows of the numbers in a tensor; otherwise None."""
  if op.type == 'ResourceGather' and op.inputs[1] is tensor and id(op.inputs[0]) in recording.variables:
    return recording.variables[id(op.inputs[0])].shape[0]
  if op.type == 'GatherV2' and op.inputs[1] is tensor:
    return op.inputs[0].shape[int(tf.get_static_value(op.inputs[2]))]
  if op.type == 'OneHot' and op.inputs[0] is tensor:
    depth = tf.get_static_value(op.inputs[1])
    return None if depth is None else int(depth)
  return None


def _scaling(recording, start):
  """(offset, scale) that a model gives a float input at first: x · scale + offset."""
  end, scaled = start, start
  while len(end.consumers()) == 1:
    [op] = end.consumers()
    others = [t for t in op.inputs if t is not end]
    if op.type not in _SCALING or op.outputs[0].shape != start.shape:
      break
    if (op.type == 'RealDiv' and op.inputs[0] is not end) or any(replay.depends(t, recording.inputs) for t in others):
      break
    end = op.outputs[0]
    scaled = end if others else scaled
  if scaled is start or not start.dtype.is_floating:
    return 0., 1.
  variables = recording.variables
  known = {inside.name: outside.numpy() for outside, inside in recording.graph.captures if id(inside) not in variables}
  known.update((op.outputs[0].name, variables[id(op.inputs[0])].numpy()) for op in recording.graph.get_operations()
               if op.type == 'ReadVariableOp' and id(op.inputs[0]) in variables)
  with tf.compat.v1.Session(graph=recording.graph) as session:
    at = [session.run(scaled, {**known, start.name: np.full(start.shape, x)}).astype(np.float64) for x in (0, 1)]
  scale = at[1] - at[0]
  usable = np.all(np.isfinite(at)) and np.all(scale != 0)
  return (at[0], scale) if usable else (0., 1.)
