"""The operation table, `tff_compress.codec.table.Ops`, for .tflite files: operators of the built-in runtime alone.

It is the TensorFlow table with other formulations where one of these holds: TensorFlow Lite has no such operator
(bitwise and, casts to float16), an interpreter is slow at it (`abs`, maxima of one long row), or the converter would
compute it in advance and write the result into the file (ranges, zeros). The last is kept from happening by what the
converter cannot
know: a zero that is computed from an input when the file runs.
"""

from collections.abc import Callable
from collections.abc import Sequence
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tff_compress.codec.ops import SIGNS_OF_BYTES
from tff_compress.codec.table import Scalar
from tff_compress.tensorflow.ops import TensorFlowOps
from tflite_export.errors import ExportError

# Arrays of at most so many entries may become constants in the file.
_SMALL = 1024

_FLOAT16_BIAS = 112 << 23
"""What the exponents of float32 and float16 differ by, in float32's bits."""


class TFLiteOps(TensorFlowOps):
  """Makes graph operations that TensorFlow Lite has.

  Args:
    source: int32[n], n > 0, that is only known when the file runs.
  """

  def __init__(self, source: tf.Tensor) -> None:
    super().__init__()
    # Two logical shifts by 31 leave nothing.
    self._zero = self.shift_right(self.shift_right(source[0], 31), 31)
    self._base = tf.range(_SMALL, dtype=tf.int32) + self._zero

  @property
  def valid(self) -> tf.Tensor:
    """int32[1]: 1 where everything holds that was required so far, otherwise 0."""
    conditions = [tf.reshape(condition, [-1]) for condition, _ in self._checks]
    if not conditions:
      return self._fill([1], 1, tf.int32)
    return tf.reduce_min(tf.cast(tf.concat(conditions, 0), tf.int32), axis=0, keepdims=True)

  def require(self, condition: tf.Tensor | Scalar, message: str) -> None:
    """Collected for `valid`, as the runtime has nothing that stops."""
    if isinstance(condition, (bool, np.bool_)):
      if not condition:
        raise ExportError(message)
      return
    self._checks.append((condition, message))

  def static_bytes(self, payload: tf.Tensor, size: int) -> tf.Tensor:
    self.require(int(payload.shape[0]) == size, f'expected {size} bytes, not {payload.shape[0]}.')
    return payload

  # -- making and shaping -------------------------------------------------------------------------------------------

  def _fill(self, shape: Sequence[int], value: Any, dtype: tf.DType) -> tf.Tensor:
    """An array of one value that does not become a constant."""
    return tf.fill(shape, tf.cast(self._zero, dtype) + tf.constant(value, dtype))

  def constant(self, value: npt.ArrayLike, dtype: npt.DTypeLike) -> tf.Tensor:
    value = np.asarray(value, dtype)
    flat = value.reshape(-1)
    starts: list[int] = []
    if flat.size > _SMALL:
      starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]])).tolist()
    if not 0 < len(starts) <= 4:
      return super().constant(value, dtype)
    # Long runs of one value, such as the counts of values in blocks.
    ends = [*starts[1:], flat.size]
    runs = [self._fill([end - start], flat[start], tf.as_dtype(dtype)) for start, end in zip(starts, ends)]
    return tf.reshape(tf.concat(runs, 0), value.shape)

  def iota(self, size: int) -> tf.Tensor:
    if size <= _SMALL:
      return self._base[:size]
    rows = -(-size // _SMALL)
    firsts = self.iota(rows) * tf.constant(_SMALL, tf.int32)
    return tf.reshape(firsts[:, tf.newaxis] + self._base[tf.newaxis, :], [-1])[:size]

  def repeat(self, x: tf.Tensor, times: Scalar) -> tf.Tensor:
    # A broadcast would be made a product with that many ones.
    return tf.fill([times], tf.reshape(x, []))

  def zeros(self, shape: Sequence[Scalar], dtype: npt.DTypeLike) -> tf.Tensor:
    shape = [int(n) for n in shape]
    dtype = tf.as_dtype(dtype)
    return self._fill(shape, 0, dtype) if math.prod(shape) > _SMALL else tf.zeros(shape, dtype)

  # -- element-wise -------------------------------------------------------------------------------------------------

  def bits_of(self, x: tf.Tensor) -> tf.Tensor:
    return _bitcast(x, tf.int32)

  def float_of(self, bits: tf.Tensor) -> tf.Tensor:
    return _bitcast(bits, tf.float32)

  def shift_right(self, x: tf.Tensor, n: tf.Tensor) -> tf.Tensor:
    return _bitcast(tf.bitwise.right_shift(_bitcast(x, tf.uint32), tf.constant(n, tf.uint32)), tf.int32)

  def abs(self, x: tf.Tensor) -> tf.Tensor:
    return tf.maximum(x, -x)

  def signs(self, words: tf.Tensor) -> tf.Tensor:
    # From a table of bytes: it is in the file.
    table = tf.constant(SIGNS_OF_BYTES.astype(np.int8))
    most_significant_first = tf.reshape(tf.reverse(tf.bitcast(words, tf.uint8), [1]), [-1])
    return tf.reshape(tf.cast(tf.gather(table, tf.cast(most_significant_first, tf.int32)), tf.float32), [-1])

  def to_float16_bits(self, x: tf.Tensor) -> tf.Tensor:
    """For values that are zero or normal as float16, which is what stages give it."""
    bits = self.bits_of(x)
    sign = self.shift_right(bits, 31)
    magnitude = bits - self.shift_left(sign, 31)
    # Half of the last place, and a little less where the last bit is even: ties go to even.
    odd = self.shift_right(self.shift_left(magnitude, 18), 31)
    rounded = self.shift_right(magnitude + tf.constant(0xFFF - _FLOAT16_BIAS, tf.int32) + odd, 13)
    normal = tf.cast(magnitude >= tf.constant(_FLOAT16_BIAS, tf.int32), tf.int32)
    return rounded * normal + self.shift_left(sign, 15)

  def from_float16_bits(self, bits: tf.Tensor) -> tf.Tensor:
    sign = self.shift_right(bits, 15)
    magnitude = bits - self.shift_left(sign, 15)
    # The exponent of infinities and NaNs is the largest in both formats.
    biases = tf.cast(magnitude >= tf.constant(31 << 10, tf.int32), tf.int32) + tf.constant(1, tf.int32)
    normal = self.float_of(self.shift_left(magnitude, 13) + biases * tf.constant(_FLOAT16_BIAS, tf.int32))
    denormal = tf.cast(magnitude, tf.float32) * tf.constant(2.0**-24)
    value = tf.where(magnitude >= tf.constant(1 << 10, tf.int32), normal, denormal)
    return value * (tf.constant(1.0) - tf.constant(2.0) * tf.cast(sign, tf.float32))

  def shift_left(self, x: tf.Tensor, n: int) -> tf.Tensor:
    """int32 shifted by an int n."""
    return x * tf.constant(np.int32(np.uint32(1 << n).view(np.int32)))

  def generate(self, function: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor], key: tf.Tensor, start: int,
               stop: int) -> tf.Tensor:
    """Words of a `streams.Key`, which has them already."""
    del function
    return key.draw(start, stop)

  # -- reductions ---------------------------------------------------------------------------------------------------

  def reduce_max(self, x: tf.Tensor) -> tf.Tensor:
    return self._reduce(tf.reduce_max, x)

  def reduce_min(self, x: tf.Tensor) -> tf.Tensor:
    return self._reduce(tf.reduce_min, x)

  def _reduce(self, reduce: Callable[..., tf.Tensor], x: tf.Tensor) -> tf.Tensor:
    """Over the last axis. One long row is cut up first: some interpreters take it one value after the other."""
    length = int(x.shape[-1])
    if length <= 2 * _SMALL or math.prod(x.shape[:-1]) != 1:
      return reduce(x, axis=-1, keepdims=True)
    flat = tf.reshape(x, [length])
    full_rows = length // _SMALL * _SMALL
    parts = reduce(tf.reshape(flat[:full_rows], [-1, _SMALL]), axis=-1)
    rest = self._reduce(reduce, tf.concat([parts, flat[full_rows:]], 0))
    return tf.reshape(rest, [*x.shape[:-1], 1])

  # -- indices and bytes --------------------------------------------------------------------------------------------

  def where_nonzero(self, x: tf.Tensor) -> tf.Tensor:
    raise ExportError('how many values are not zero is only known when it runs')

  def compress(self, x: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    raise ExportError('how many values are taken is only known when it runs')

  def integers_to_bytes(self, x: tf.Tensor, width: int) -> tf.Tensor:
    if width == 2:
      return tf.reshape(tf.bitcast(tf.cast(x, tf.uint16), tf.uint8), [-1])
    return super().integers_to_bytes(x, width)

  def integers_from_bytes(self, payload: tf.Tensor, width: int) -> tf.Tensor:
    if width == 2:
      return tf.cast(tf.bitcast(tf.reshape(payload, [-1, 2]), tf.uint16), tf.int32)
    return super().integers_from_bytes(payload, width)


def _bitcast(x: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
  """To a dtype of the same size, and in one step where x was cast before."""
  while x.op.type == 'Bitcast' and x.op.inputs[0].shape == x.shape:
    x = x.op.inputs[0]
  return x if x.dtype == dtype else tf.bitcast(x, dtype)
