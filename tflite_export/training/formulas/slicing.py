"""Cutting pieces out of tensors, and choosing between them."""

import tensorflow as tf

from tflite_export.training.formulas.registry import Example
from tflite_export.training.formulas.registry import gradient


@gradient('StridedSlice', examples=[
    Example(lambda x: x[1:-1, ::3], (5, 7)), Example(lambda x: x[::-2, None, 2], (5, 7)),
    Example(lambda x: x[..., 1:], (2, 3, 4))])
def _strided_slice(op, dy):
  """Puts the piece back into zeros."""
  shape = op.inputs[0].shape.as_list()
  begin, end, strides = (tf.get_static_value(i) for i in op.inputs[1:4])
  if begin is None or end is None or strides is None:
    raise NotImplementedError('use slices whose bounds do not depend on the data')
  axes = _axes(op, begin, end, strides, len(shape))
  ranges = [range(n)[index] for n, index in zip(shape, axes)]
  x = tf.reshape(dy, [len(r) for r in ranges])
  for axis, (n, r) in enumerate(zip(shape, ranges)):
    if r.step < 0:
      x, r = tf.reverse(x, [axis]), r[::-1]
    if r.step > 1 and len(r) > 1:
      # Zeros between the values: each becomes the first of r.step.
      spread = [*x.shape[:axis + 1], 1, *x.shape[axis + 1:]]
      pads = [[0, 0]] * len(spread)
      pads[axis + 1] = [0, r.step - 1]
      joined = [*x.shape[:axis], len(r) * r.step, *x.shape[axis + 1:]]
      x = tf.reshape(tf.pad(tf.reshape(x, spread), pads), joined)
      x = tf.gather(x, tf.range((len(r) - 1) * r.step + 1), axis=axis)
    if x.shape[axis] != n:
      pads = [[0, 0]] * len(shape)
      pads[axis] = [r.start, n - r.start - x.shape[axis]]
      x = tf.pad(x, pads)
  return [x, None, None, None]


def _axes(op, begin, end, strides, rank):
  """One slice for each axis of the input."""
  def masked(name, n):
    return bool(op.get_attr(name) >> n & 1)
  given = len(begin) - sum(masked('new_axis_mask', n) or masked('ellipsis_mask', n) for n in range(len(begin)))
  axes = []
  for n, (b, e, s) in enumerate(zip(begin, end, strides)):
    if masked('ellipsis_mask', n):
      axes += [slice(None)] * (rank - given)
    elif masked('shrink_axis_mask', n):
      axes.append(slice(int(b), int(b) + 1 or None))
    elif not masked('new_axis_mask', n):
      axes.append(slice(None if masked('begin_mask', n) else int(b), None if masked('end_mask', n) else int(e), int(s)))
  return axes + [slice(None)] * (rank - len(axes))
