"""The operation table, `tff_compress.codec.table.Ops`, in TensorFlow: stock operations only, so it runs in any TFF
worker."""

from collections.abc import Callable
from collections.abc import Sequence
import functools
from typing import Any
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tff_compress.codec import ops as codec_ops
from tff_compress.codec import random
from tff_compress.codec.codec import Segment
from tff_compress.codec.pipeline import Pipeline
from tff_compress.codec.table import Scalar
from tff_compress.tensorflow import crc32

_KEPT_FUNCTIONS = 256
"""Of each kind, for further graphs. One takes a megabyte or more; a large model has some dozens of different variables.
"""

Request: TypeAlias = tuple[str, int, int]
"""(scope, purpose, chunk) of a key."""

Function: TypeAlias = Any
"""A concrete function."""

Structure: TypeAlias = Any
"""A tensor, or tuples and lists of tensors."""

Column: TypeAlias = Any
"""What a function is given as one of its arguments in each of several calls: a tensor of entries, or a list."""


class TensorFlowOps:
  """Makes graph operations; see `tff_compress.codec.table.Ops` for what each one means.

  Use a new object for every function that is built. What decoding refuses is collected while the graph is built: pass
  the results through `checked`, which makes them depend on all of it.
  """

  def __init__(self) -> None:
    self._checks: list[tuple[tf.Tensor, str]] = []

  # -- making and shaping -------------------------------------------------------------------------------------------

  def constant(self, value: npt.ArrayLike, dtype: npt.DTypeLike) -> tf.Tensor:
    return tf.constant(value, tf.as_dtype(dtype))

  def iota(self, size: int) -> tf.Tensor:
    return tf.range(size, dtype=tf.int32)

  def zeros(self, shape: Sequence[Scalar], dtype: npt.DTypeLike) -> tf.Tensor:
    return tf.zeros(shape, tf.as_dtype(dtype))

  def reshape(self, x: tf.Tensor, shape: Sequence[Scalar]) -> tf.Tensor:
    return tf.reshape(x, shape)

  def transpose(self, x: tf.Tensor, axes: Sequence[int]) -> tf.Tensor:
    rows, columns = (x.shape[0], x.shape[1]) if list(axes) == [1, 0] else (None, None)
    if rows and columns and columns % 1024 == 0:
      # A column whose values lie a power of two apart misses the processor's cache. In two steps it takes a quarter of
      # the time.
      pieces = tf.transpose(tf.reshape(x, [rows, 32, columns // 32]), [1, 0, 2])
      return tf.reshape(tf.transpose(pieces, [0, 2, 1]), [columns, rows])
    return tf.transpose(x, axes)

  def concat(self, parts: Sequence[tf.Tensor]) -> tf.Tensor:
    return tf.concat(parts, axis=0)

  def stack_last(self, parts: Sequence[tf.Tensor]) -> tf.Tensor:
    return tf.stack(parts, axis=-1)

  def repeat(self, x: tf.Tensor, times: Scalar) -> tf.Tensor:
    return tf.broadcast_to(x, [times])

  def size(self, x: tf.Tensor) -> Scalar:
    known = x.shape[0]
    return tf.shape(x)[0] if known is None else known

  def vector(self, scalar: Scalar) -> tf.Tensor:
    return tf.reshape(tf.cast(scalar, tf.int32), [1])

  def integer(self, scalar: Scalar) -> Scalar:
    return tf.cast(scalar, tf.int32)

  def long(self, scalar: Scalar) -> Scalar:
    return tf.cast(scalar, tf.int64)

  def opaque(self, value: tf.Tensor) -> tf.Tensor:
    # Whoever runs the graph might put another value in its place.
    return tf.raw_ops.PlaceholderWithDefault(input=value, shape=value.shape)

  # -- element-wise -------------------------------------------------------------------------------------------------

  def cast(self, x: tf.Tensor, dtype: npt.DTypeLike) -> tf.Tensor:
    return tf.cast(x, dtype)

  def floor(self, x: tf.Tensor) -> tf.Tensor:
    return tf.floor(x)

  def abs(self, x: tf.Tensor) -> tf.Tensor:
    return tf.abs(x)

  def minimum(self, a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    return tf.minimum(a, b)

  def maximum(self, a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    return tf.maximum(a, b)

  def equal(self, a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    a = tf.convert_to_tensor(a)
    return tf.equal(a, tf.cast(b, a.dtype))

  def all(self, condition: tf.Tensor) -> Scalar:
    return tf.reduce_all(condition, _axes(condition))

  def where(self, condition: tf.Tensor, a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    return tf.where(condition, a, b)

  def bits_of(self, x: tf.Tensor) -> tf.Tensor:
    return tf.bitcast(x, tf.int32)

  def float_of(self, bits: tf.Tensor) -> tf.Tensor:
    return tf.bitcast(bits, tf.float32)

  def shift_right(self, x: tf.Tensor, n: tf.Tensor) -> tf.Tensor:
    n = tf.constant(n, tf.uint32) if isinstance(n, int) else tf.cast(n, tf.uint32)
    return tf.bitcast(tf.bitwise.right_shift(tf.bitcast(x, tf.uint32), n), tf.int32)

  def power_of_two(self, n: Scalar) -> Scalar:
    return tf.bitwise.left_shift(tf.constant(1, tf.int32), n)

  def xor(self, a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    return tf.bitwise.bitwise_xor(a, b)

  def halves(self, words: tf.Tensor) -> tf.Tensor:
    return tf.reshape(tf.cast(tf.bitcast(words, tf.uint16), tf.float32), [-1])

  def signs(self, words: tf.Tensor) -> tf.Tensor:
    most_significant_first = tf.reshape(tf.reverse(tf.bitcast(words, tf.uint8), [1]), [-1])
    table = tf.constant(codec_ops.SIGNS_OF_BYTES)
    return tf.reshape(tf.gather(table, tf.cast(most_significant_first, tf.int32)), [-1])

  def to_float16_bits(self, x: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.bitcast(tf.cast(x, tf.float16), tf.uint16), tf.int32)

  def from_float16_bits(self, bits: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.bitcast(tf.cast(bits, tf.uint16), tf.float16), tf.float32)

  def generate(self, function: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor], key: tf.Tensor, start: int,
               stop: Scalar) -> tf.Tensor:
    return function(tf.range(start, stop, dtype=tf.int32), key[0], key[1])

  def by_rows(self, function: Callable[..., tuple[tf.Tensor, ...]], *arrays: tf.Tensor) -> tuple[tf.Tensor, ...]:
    return function(*(a[:] if isinstance(a, random.Rows) else a for a in arrays))

  # -- reductions and matrices --------------------------------------------------------------------------------------

  def reduce_max(self, x: tf.Tensor) -> tf.Tensor:
    return tf.reduce_max(x, axis=-1, keepdims=True)

  def reduce_min(self, x: tf.Tensor) -> tf.Tensor:
    return tf.reduce_min(x, axis=-1, keepdims=True)

  def reduce_sum(self, x: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(x, axis=-1, keepdims=True)

  def total(self, x: tf.Tensor) -> Scalar:
    return tf.reduce_sum(tf.cast(x, tf.int64), _axes(x))

  def totals(self, x: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(tf.cast(x, tf.int64), axis=-1)

  def sum_last(self, x: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(x, axis=-1)

  def argmin(self, x: tf.Tensor) -> Scalar:
    return tf.argmin(x, output_type=tf.int32)

  def argmax(self, x: tf.Tensor) -> Scalar:
    return tf.argmax(x, output_type=tf.int32)

  def matmul(self, a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    return tf.matmul(a, b)

  # -- indices ------------------------------------------------------------------------------------------------------

  def gather(self, x: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    return tf.gather(x, index)

  def scatter(self, index: tf.Tensor, values: tf.Tensor, size: Scalar) -> tf.Tensor:
    return tf.scatter_nd(index[:, tf.newaxis], values, [size])

  def where_nonzero(self, x: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.where(tf.not_equal(x, 0))[:, 0], tf.int32)

  def compress(self, x: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    return tf.boolean_mask(x, mask)

  def cumsum(self, x: tf.Tensor) -> tf.Tensor:
    return tf.cumsum(x)

  def largest(self, x: tf.Tensor, k: int) -> tf.Tensor:
    return tf.sort(tf.math.top_k(x, k).indices)

  def search(self, ends: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    return tf.searchsorted(ends, values, side='right')

  def count(self, symbols: tf.Tensor, size: int) -> tf.Tensor:
    return tf.math.bincount(tf.cast(symbols, tf.int32), minlength=size, maxlength=size)

  # -- bytes --------------------------------------------------------------------------------------------------------

  def integers_to_bytes(self, x: tf.Tensor, width: int) -> tf.Tensor:
    return tf.reshape(tf.bitcast(x, tf.uint8)[:, :width], [-1])

  def integers_from_bytes(self, payload: tf.Tensor, width: int) -> tf.Tensor:
    parts = tf.reshape(payload, [-1, width])
    return tf.bitcast(parts if width == 4 else tf.pad(parts, [[0, 0], [0, 4 - width]]), tf.int32)

  def bits_at(self, positions: tf.Tensor, size: Scalar) -> tf.Tensor:
    values = tf.bitwise.left_shift(tf.constant(1, tf.int32), positions % 8)
    return tf.cast(tf.math.unsorted_segment_sum(values, positions // 8, size), tf.uint8)

  def where_bits(self, payload: tf.Tensor) -> tf.Tensor:
    places = tf.constant(np.arange(8), tf.uint8)
    bits = tf.bitwise.bitwise_and(tf.bitwise.right_shift(payload[:, tf.newaxis], places), tf.constant(1, tf.uint8))
    return self.where_nonzero(tf.reshape(bits, [-1]))

  def bit_string(self, words: tf.Tensor, lengths: tf.Tensor, symbols: tf.Tensor) -> tf.Tensor:
    symbols = tf.cast(symbols, tf.int32)
    ends = tf.cumsum(tf.gather(lengths, symbols))
    places = ends - tf.gather(lengths, symbols)
    shifted = tf.bitwise.left_shift(tf.gather(words, symbols), places % 8)
    size = (ends[-1] + 7) // 8
    joined = tf.math.unsorted_segment_sum(shifted, places // 8, size + 1)
    parts = [tf.pad(tf.bitwise.right_shift(joined, 8 * k) % 256, [[k, 2 - k]]) for k in range(3)]
    return tf.cast(tf.add_n(parts)[:size], tf.uint8)

  def long_to_bytes(self, x: tf.Tensor) -> tf.Tensor:
    return tf.reshape(tf.bitcast(x, tf.uint8)[:, :4], [-1])

  def long_from_bytes(self, payload: tf.Tensor) -> tf.Tensor:
    return tf.bitcast(tf.pad(tf.reshape(payload, [-1, 4]), [[0, 0], [0, 4]]), tf.int64)

  def raw_bytes(self, x: tf.Tensor) -> tf.Tensor:
    x = tf.reshape(x, [-1])
    if x.dtype == tf.bool:
      return tf.cast(x, tf.uint8)
    return x if x.dtype == tf.uint8 else tf.reshape(tf.bitcast(x, tf.uint8), [-1])

  def raw_values(self, payload: tf.Tensor, dtype: str) -> tf.Tensor:
    kind = tf.as_dtype(dtype)
    if kind == tf.bool:
      self.require(payload <= 1, 'a boolean is neither 0 nor 1.')
      return tf.cast(payload, tf.bool)
    if kind == tf.uint8:
      return payload
    return tf.bitcast(payload if kind.size == 1 else tf.reshape(payload, [-1, kind.size]), kind)

  def dtype(self, name: str) -> Any:
    return tf.as_dtype(name)

  def crc32(self, payload: tf.Tensor) -> Scalar:
    return _crc32_function(payload.shape[0])(payload)

  # -- control ------------------------------------------------------------------------------------------------------

  def collect(self, steps: Scalar, body: Callable[..., tuple[tf.Tensor, tuple[tf.Tensor, ...]]],
              state: tuple[tf.Tensor, ...], backwards: bool = False) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
    def step(i: tf.Tensor, array: tf.TensorArray, *current: tf.Tensor) -> tuple[Any, ...]:
      place = steps - 1 - i if backwards else i
      output, following = body(place, *current)
      return (i + 1, array.write(place, output), *following)

    dtype, shape = _output_of(body, state)
    outputs = tf.TensorArray(dtype, size=steps, element_shape=shape)
    result = tf.while_loop(lambda i, *_: i < steps, step, (tf.constant(0, tf.int32), outputs, *state),
                           parallel_iterations=1)
    return result[1].stack(), tuple(result[2:])

  def is_few(self, count: Scalar) -> bool:
    return False

  def cond(self, condition: Scalar, one: Callable[[], Any], other: Callable[[], Any]) -> Any:
    return tf.cond(condition, one, other)

  def loop(self, condition: Callable[..., Scalar], body: Callable[..., tuple[Any, ...]],
           state: tuple[Any, ...]) -> tuple[Any, ...]:
    # The size of a byte string changes from step to step; that of what else has a known one does not.
    invariants = tf.nest.map_structure(
        lambda x: tf.TensorShape([None]) if x.dtype == tf.uint8 and x.shape.rank == 1 else x.shape, state)
    return tuple(tf.while_loop(condition, body, state, shape_invariants=invariants, parallel_iterations=1))

  def apart(self, function: Callable[..., Any], static: tuple[Any, ...], *arrays: tf.Tensor) -> Any:
    """As in NumPy. The graph is built once per function and static arguments, for arrays of any size, and called from
    all others."""
    tensors = [tf.convert_to_tensor(x) for x in arrays]
    specs = tuple(tf.TensorSpec([None] * x.shape.rank, x.dtype) for x in tensors)
    return _apart_function(function, static, specs)(*tensors)

  def split(self, x: tf.Tensor, sizes: tf.Tensor) -> list[tf.Tensor]:
    count = len(sizes) if isinstance(sizes, (list, tuple)) else sizes.shape[0]
    return [x] if count == 1 else tf.split(x, sizes, num=count)

  def each(self, function: Callable[..., Any], static: tuple[Any, ...], *columns: tf.Tensor) -> list[Any]:
    """As in NumPy, in a loop of the graph."""
    read = [column if tf.is_tensor(column) else [tf.convert_to_tensor(x) for x in column] for column in columns]
    firsts = [(column.shape[1:], column.dtype) if tf.is_tensor(column) else (column[0].shape, column[0].dtype)
              for column in read]
    specs = tuple(tf.TensorSpec([None] * shape.rank, dtype) for shape, dtype in firsts)
    return _each(_apart_function(function, static, specs), *read)

  def segments(self, segments: Sequence[Any], method: str, values: Sequence[Any], keys: Any) -> list[Any]:
    """As in NumPy. The segments of one pipeline and size share one function, which a loop over them calls: a graph
    grows with the number of different segments."""
    places: dict[tuple[Pipeline, int], list[int]] = {}
    for place, segment in enumerate(segments):
      places.setdefault((segment.pipeline, segment.size), []).append(place)
    results: list[Any] = [None] * len(segments)
    for (pipeline, size), alike in places.items():
      function, requests = _segment_function(pipeline, method, size)
      rows = keys.rows([segments[place].name for place in alike], requests)
      for place, result in zip(alike, _each(function, [values[place] for place in alike], rows)):
        results[place] = result
    return results

  def require(self, condition: tf.Tensor | Scalar, message: str) -> None:
    if isinstance(condition, (bool, np.bool_)):
      condition = tf.constant(bool(condition))
    self._checks.append((condition if condition.shape.rank == 0 else self.all(condition), message))

  def static_bytes(self, payload: tf.Tensor, size: int) -> tf.Tensor:
    self.require(tf.equal(tf.shape(payload)[0], size), 'a payload has another length than its codec and spec say.')
    return payload

  def checked(self, values: Structure) -> Structure:
    """The same structure of tensors, which fail to evaluate (InvalidArgumentError) unless every `require` holds."""
    if not self._checks:
      return values
    hold, messages = tf.stack([condition for condition, _ in self._checks]), [message for _, message in self._checks]
    # The message of the first that does not.
    problem = tf.gather(tf.constant(messages), tf.argmin(tf.cast(hold, tf.int32)))
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(hold), [problem])]):
      return tf.nest.map_structure(tf.identity, values)


def of_any_size(vector: tf.Tensor) -> tf.Tensor:
  """The same vector, whose size is not part of its type: it may have another one in the next round."""
  return tf.raw_ops.PlaceholderWithDefault(input=vector, shape=[None])


def _each(function: Function, *columns: Column) -> list[Any]:
  """[function(*entry) for entry in zip(*columns)], as a loop in the graph where there are several.

  Args:
    function: concrete function that gives a structure of tensors of known shape, or of vectors.
    *columns: for each argument, a list of such structures, the same for all entries; or a tensor of entries. One is a
      list.
  """
  count = next(len(column) for column in columns if not tf.is_tensor(column))
  if count == 1:
    return [function(*(column[0] for column in columns))]
  readers = [_reader(column) for column in columns]
  given, specs = function.structured_input_signature[0], tf.nest.flatten(function.structured_outputs)

  def step(i: tf.Tensor, written: list[tf.TensorArray], lengths: tf.TensorArray) -> tuple[Any, ...]:
    read = tuple(reader(i) for reader in readers)
    entry = tf.nest.map_structure(lambda x, spec: tf.ensure_shape(x, spec.shape), read, given)
    outputs = tf.nest.flatten(function(*entry))
    # Vectors of different lengths lie in an array one behind the other.
    return (i + 1, [array.write(i, output) for array, output in zip(written, outputs)],
            lengths.write(i, tf.stack([tf.size(output) for output in outputs])))

  arrays = [tf.TensorArray(spec.dtype, count, element_shape=spec.shape, infer_shape=False) for spec in specs]
  lengths = tf.TensorArray(tf.int32, count, element_shape=[len(specs)])
  _, arrays, lengths = tf.while_loop(lambda i, *_: i < count, step, (tf.constant(0), arrays, lengths))
  lengths = tf.reshape(lengths.stack(), [count, len(specs)])
  results = [tf.unstack(array.stack(), count) if spec.shape.is_fully_defined()
             else tf.split(array.concat(), lengths[:, j], num=count)
             for j, (array, spec) in enumerate(zip(arrays, specs))]
  return [tf.nest.pack_sequence_as(function.structured_outputs, result) for result in zip(*results)]


def _reader(column: Column) -> Callable[[tf.Tensor], Structure]:
  """Function of an int32 scalar i that gives entry i of what `_each` is given."""
  if tf.is_tensor(column):
    return lambda i: column[i]
  readers = [_vector_reader(vectors) for vectors in zip(*map(tf.nest.flatten, column))]
  return lambda i: tf.nest.pack_sequence_as(column[0], [read(i) for read in readers])


def _vector_reader(vectors: Sequence[tf.Tensor]) -> Callable[[tf.Tensor], tf.Tensor]:
  """Function of an int32 scalar i that gives entry i of a list of tensors of one shape, or of vectors."""
  if all(x.shape.is_fully_defined() and x.shape == vectors[0].shape for x in vectors):
    stacked = tf.stack(vectors)
    return lambda i: stacked[i]
  joined = tf.concat(vectors, 0)
  if all(x.shape.is_fully_defined() for x in vectors):
    places = tf.constant(np.cumsum([0] + [x.shape[0] for x in vectors]), tf.int32)
  else:
    places = tf.cumsum(tf.concat([[0], *tf.shape_n(vectors)], 0))
  return lambda i: joined[places[i]:places[i + 1]]


def _axes(x: tf.Tensor) -> list[int]:
  """All axes of a tensor: a reduction that is told them need not find them out when it runs."""
  return list(range(x.shape.rank))


def requests_of(segment: Segment, method: str) -> tuple[Request, ...]:
  """The keys that a segment asks for: tuple of (scope, purpose, chunk)."""
  return _segment_function(segment.pipeline, method, segment.size)[1]


@functools.lru_cache(maxsize=_KEPT_FUNCTIONS)
def _segment_function(pipeline: Pipeline, method: str, size: int) -> tuple[Function, tuple[Request, ...]]:
  """(concrete function of values and int32 [n, 2] keys, the n requests that the keys answer in this order)."""
  requests: list[Request] = []

  class Rows:
    """Answers each request with a row of the function's second argument."""

    def __init__(self, keys: tf.Tensor) -> None:
      self._keys = keys

    def key(self, scope: str, name: str, purpose: int, chunk: int) -> tf.Tensor:
      del name
      if (scope, purpose, chunk) not in requests:
        requests.append((scope, purpose, chunk))
      return self._keys[requests.index((scope, purpose, chunk))]

  def function(values: Structure, keys: tf.Tensor) -> Structure:
    xp = TensorFlowOps()
    return xp.checked(getattr(pipeline, method)(xp, values, size, Rows(keys), ''))

  symbols = pipeline.symbols(size).size if pipeline.entropy_coder else 0
  values_spec = {
      'encode': tf.TensorSpec([size], tf.float32),
      'decode_to_prefix': (tf.TensorSpec([None], tf.uint8), tf.TensorSpec([symbols], tf.int32)),
      'decode_prefix': tf.TensorSpec([pipeline.real(size, pipeline.prefix).size], tf.float32)}[method]
  # Built outside any graph that is being built, so that it can be called from all.
  with tf.init_scope():
    traced = tf.function(function, autograph=False).get_concrete_function(
        values_spec, tf.TensorSpec([None, 2], tf.int32))
  return traced, tuple(requests)


@functools.lru_cache(maxsize=_KEPT_FUNCTIONS)
def _apart_function(function: Callable[..., Any], static: tuple[Any, ...],
                    specs: tuple[tf.TensorSpec, ...]) -> Function:
  """Concrete function of arrays of these specs: `function` over an operation table of its own."""
  def checked(*arrays: tf.Tensor) -> Structure:
    xp = TensorFlowOps()
    return xp.checked(function(xp, *static, *arrays))

  with tf.init_scope():
    made = tf.function(checked, autograph=False, experimental_attributes={'_noinline': True})
    return made.get_concrete_function(*specs)


@functools.lru_cache(maxsize=64)
def _crc32_function(size: int | None) -> Function:
  """Concrete function of uint8[size], size None where it is not known: its tables are in a graph once."""
  with tf.init_scope():
    return tf.function(crc32.crc32, autograph=False).get_concrete_function(tf.TensorSpec([size], tf.uint8))


def _output_of(body: Callable[..., tuple[Any, Any]], state: tuple[tf.Tensor, ...]) -> tuple[tf.DType, tf.TensorShape]:
  """(dtype, shape) of the output that `body` gives for this state."""
  specs = [tf.TensorSpec(x.shape, x.dtype) for x in state]
  traced = tf.function(lambda *s: body(tf.constant(0), *s)[0], autograph=False).get_concrete_function(*specs)
  return traced.outputs[0].dtype, traced.outputs[0].shape
