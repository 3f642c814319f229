"""The table of operations in NumPy. What each operation is for stands in `table.py`.

Processors differ in the order of the bytes of a number. So whatever looks at the memory of an array first says what
lies there (a dtype with its byte order), and no result depends on the byte order of the arrays that come in.
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from typing import Literal
import zlib

import numpy as np
import numpy.typing as npt

from tff_compress.codec import table
from tff_compress.codec.errors import PayloadError
from tff_compress.codec.errors import SpecError

SIGNS_OF_BYTES = np.where(np.arange(256)[:, None] >> np.arange(7, -1, -1) & 1, np.float32(-1), np.float32(1))
"""float32 [256, 8]: what `signs` gives for each byte."""


class NumpyOps:
  """`table.Ops` in NumPy. Stateless; use the module's `numpy_ops`."""

  # Large element-wise work is done in slices of this many elements so that it stays in the processor's cache.
  slice_size = 1 << 16

  # -- making and shaping -------------------------------------------------------------------------------------------

  def constant(self, value: npt.ArrayLike, dtype: npt.DTypeLike) -> np.ndarray:
    return np.asarray(value, dtype)

  def iota(self, size: int) -> np.ndarray:
    return np.arange(size, dtype=np.int32)

  def zeros(self, shape: Sequence[int], dtype: npt.DTypeLike) -> np.ndarray:
    return np.zeros(shape, dtype)

  def reshape(self, x: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    return np.reshape(x, shape)

  def transpose(self, x: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    return np.transpose(x, axes)

  def concat(self, parts: Sequence[np.ndarray]) -> np.ndarray:
    filled = [part for part in parts if len(part)]
    return filled[0] if len(filled) == 1 else np.concatenate(parts, axis=0)

  def stack_last(self, parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack(parts, axis=-1)

  def repeat(self, x: np.ndarray, times: int) -> np.ndarray:
    return np.broadcast_to(x, (times,))

  def size(self, x: np.ndarray) -> int:
    return int(x.shape[0])

  def vector(self, scalar: int) -> np.ndarray:
    return np.asarray([scalar], np.int32)

  def integer(self, scalar: int) -> int:
    return int(scalar)

  def long(self, scalar: int) -> int:
    return int(scalar)

  def opaque(self, value: np.ndarray) -> np.ndarray:
    return value

  # -- element-wise -------------------------------------------------------------------------------------------------

  def cast(self, x: np.ndarray, dtype: npt.DTypeLike) -> np.ndarray:
    return np.asarray(x).astype(dtype)

  def floor(self, x: np.ndarray) -> np.ndarray:
    return np.floor(x)

  def abs(self, x: np.ndarray) -> np.ndarray:
    return np.abs(x)

  def minimum(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.minimum(a, b)

  def maximum(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.maximum(a, b)

  def equal(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.equal(a, b)

  def all(self, condition: np.ndarray) -> np.bool_:
    return np.all(condition)

  def where(self, condition: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(condition, a, b)

  def bits_of(self, x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x, np.float32).view(np.int32)

  def float_of(self, bits: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(bits, np.int32).view(np.float32)

  def shift_right(self, x: np.ndarray, n: np.ndarray) -> np.ndarray:
    return (np.asarray(x, np.int32).view(np.uint32) >> np.asarray(n).astype(np.uint32)).view(np.int32)

  def power_of_two(self, n: int) -> np.int32:
    return np.int32(1 << int(n))

  def xor(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.bitwise_xor(a, b)

  def halves(self, words: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(words, '<i4').view('<u2').astype(np.float32)

  def signs(self, words: np.ndarray) -> np.ndarray:
    return np.take(SIGNS_OF_BYTES, words.astype('>i4').view(np.uint8), axis=0).reshape(-1)

  def to_float16_bits(self, x: np.ndarray) -> np.ndarray:
    return x.astype(np.float16).view(np.uint16).astype(np.int32)

  def from_float16_bits(self, bits: np.ndarray) -> np.ndarray:
    return bits.astype(np.uint16).view(np.float16).astype(np.float32)

  def generate(self, function: Callable[[np.ndarray, np.int32, np.int32], np.ndarray], key: np.ndarray, start: int,
               stop: int) -> np.ndarray:
    out = np.empty(stop - start, np.int32)
    with np.errstate(over='ignore'):  # Words wrap around.
      for first in range(start, stop, self.slice_size):
        last = min(first + self.slice_size, stop)
        out[first - start:last - start] = function(np.arange(first, last, dtype=np.int32), key[0], key[1])
    return out

  def by_rows(self, function: Callable[..., tuple[np.ndarray, ...]], *arrays: Any) -> tuple[np.ndarray, ...]:
    # The results lie in memory as the first array does, so that those for a transposed view can be transposed back
    # without a copy.
    rows = arrays[0].shape[0]
    step = max(1, self.slice_size * rows // max(arrays[0].size, 1))
    order: Literal['C', 'F'] = 'C' if arrays[0].flags.c_contiguous else 'F'
    results: tuple[np.ndarray, ...] = ()
    for start in range(0, max(rows, 1), step):
      parts = function(*(np.ascontiguousarray(a[start:start + step]) for a in arrays))
      results = results or tuple(np.empty((rows,) + part.shape[1:], part.dtype, order) for part in parts)
      for result, part in zip(results, parts):
        result[start:start + step] = part
    return results

  # -- reductions and matrices --------------------------------------------------------------------------------------

  def reduce_max(self, x: np.ndarray) -> np.ndarray:
    return np.max(x, axis=-1, keepdims=True)

  def reduce_min(self, x: np.ndarray) -> np.ndarray:
    return np.min(x, axis=-1, keepdims=True)

  def reduce_sum(self, x: np.ndarray) -> np.ndarray:
    return np.sum(x, axis=-1, keepdims=True, dtype=x.dtype)

  def total(self, x: np.ndarray) -> int:
    return int(np.sum(x, dtype=np.int64))

  def totals(self, x: np.ndarray) -> np.ndarray:
    return np.sum(x, axis=-1, dtype=np.int64)

  def sum_last(self, x: np.ndarray) -> np.ndarray:
    return np.sum(x, axis=-1, dtype=np.int32)

  def argmin(self, x: np.ndarray) -> int:
    return int(np.argmin(x))

  def argmax(self, x: np.ndarray) -> int:
    return int(np.argmax(x))

  def matmul(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.matmul(a, b)

  # -- indices ------------------------------------------------------------------------------------------------------

  def gather(self, x: np.ndarray, index: np.ndarray) -> np.ndarray:
    return np.take(x, index, axis=0)

  def scatter(self, index: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    out = np.zeros(size, values.dtype)
    out[index] = values
    return out

  def where_nonzero(self, x: np.ndarray) -> np.ndarray:
    return np.flatnonzero(x).astype(np.int32)

  def compress(self, x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return x[mask]

  def cumsum(self, x: np.ndarray) -> np.ndarray:
    return np.cumsum(x, dtype=np.int32)

  def search(self, ends: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.searchsorted(ends, values, side='right').astype(np.int32)

  def largest(self, x: np.ndarray, k: int) -> np.ndarray:
    if k == 0:
      return np.zeros(0, np.int32)
    threshold = np.partition(x, x.size - k)[x.size - k]
    above = np.flatnonzero(x > threshold)
    ties = np.flatnonzero(x == threshold)[:k - above.size]
    return np.sort(np.concatenate([above, ties])).astype(np.int32)

  def count(self, symbols: np.ndarray, size: int) -> np.ndarray:
    counts = np.zeros(size, np.int32)
    for start in range(0, symbols.size, self.slice_size):
      counts += np.bincount(symbols[start:start + self.slice_size], minlength=size).astype(np.int32)
    return counts

  # -- bytes --------------------------------------------------------------------------------------------------------

  def integers_to_bytes(self, x: np.ndarray, width: int) -> np.ndarray:
    if width == 1:
      return x.astype(np.uint8)
    return np.ascontiguousarray(x, '<i4').view(np.uint8).reshape(-1, 4)[:, :width].reshape(-1)

  def integers_from_bytes(self, payload: np.ndarray, width: int) -> np.ndarray:
    if width == 1:
      return payload.astype(np.int32)
    if width == 4:
      return np.ascontiguousarray(payload).view('<i4').astype(np.int32, copy=False)
    parts = payload.reshape(-1, width)
    full = np.zeros((parts.shape[0], 4), np.uint8)
    full[:, :width] = parts
    return full.view('<i4').reshape(-1).astype(np.int32, copy=False)

  def bits_at(self, positions: np.ndarray, size: int) -> np.ndarray:
    out = np.zeros(size, np.uint8)
    for first in range(0, positions.size, self.slice_size):
      part = positions[first:first + self.slice_size]
      base = int(part[0]) >> 3
      found = np.bincount((part >> 3) - base, np.left_shift(1, part & 7))
      out[base:base + found.size] += found.astype(np.uint8)
    return out

  def where_bits(self, payload: np.ndarray) -> np.ndarray:
    step = self.slice_size // 8
    found = [np.flatnonzero(np.unpackbits(payload[first:first + step], bitorder='little')).astype(np.int32)
             + np.int32(8 * first) for first in range(0, payload.size, step)]
    return np.concatenate([np.zeros(0, np.int32), *found])

  def bit_string(self, words: np.ndarray, lengths: np.ndarray, symbols: np.ndarray) -> np.ndarray:
    total = int(np.dot(self.count(symbols, lengths.size).astype(np.int64), lengths))
    out = np.zeros((total + 7) // 8 + 3, np.uint8)
    start = 0
    step = self.slice_size // 4
    for first in range(0, symbols.size, step):
      part = symbols[first:first + step]
      length = lengths[part]
      ends = np.cumsum(length) + start % 8
      places = ends - length
      # Words that start in one byte share no bit, so their sum is exact, and fits 24 bits.
      joined = np.bincount(places >> 3, words[part] << (places & 7)).astype(np.int64)
      base = start // 8
      for k in range(3):
        out[base + k:base + k + joined.size] += (joined >> 8 * k).astype(np.uint8)
      start = base * 8 + int(ends[-1])
    return out[:(total + 7) // 8]

  def long_to_bytes(self, x: np.ndarray) -> np.ndarray:
    return x.astype('<u4').view(np.uint8)

  def long_from_bytes(self, payload: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(payload).view('<u4').astype(np.int64)

  def raw_bytes(self, x: np.ndarray) -> np.ndarray:
    x = np.ascontiguousarray(x)
    return x.astype(x.dtype.newbyteorder('<')).reshape(-1).view(np.uint8)

  def raw_values(self, payload: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == 'bool':
      self.require(payload <= 1, 'a boolean is neither 0 nor 1.')
    return np.ascontiguousarray(payload).view(np.dtype(dtype).newbyteorder('<')).astype(np.dtype(dtype))

  def dtype(self, name: str) -> Any:
    try:
      return np.dtype(name)
    except TypeError:
      raise SpecError(f'NumPy knows {name} only once TensorFlow or ml_dtypes is imported: import one first.') from None

  def crc32(self, payload: np.ndarray) -> np.int32:
    return np.uint32(zlib.crc32(np.ascontiguousarray(payload).data)).view(np.int32)

  # -- control ------------------------------------------------------------------------------------------------------

  def collect(self, steps: int, body: Callable[..., tuple[np.ndarray, tuple[np.ndarray, ...]]],
              state: tuple[np.ndarray, ...], backwards: bool = False) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    outputs: np.ndarray | None = None
    for i in reversed(range(steps)) if backwards else range(steps):
      output, state = body(i, *state)
      if outputs is None:
        outputs = np.empty((steps, *np.shape(output)), output.dtype)
      outputs[i] = output
    assert outputs is not None, 'there is at least one step'
    return outputs, state

  def is_few(self, count: int) -> bool:
    return count <= 32

  def cond(self, condition: int, one: Callable[[], Any], other: Callable[[], Any]) -> Any:
    return one() if condition else other()

  def loop(self, condition: Callable[..., Any], body: Callable[..., tuple[Any, ...]],
           state: tuple[Any, ...]) -> tuple[Any, ...]:
    while condition(*state):
      state = tuple(body(*state))
    return state

  def apart(self, function: Callable[..., Any], static: tuple[Any, ...], *arrays: np.ndarray) -> Any:
    return function(self, *static, *arrays)

  def split(self, x: np.ndarray, sizes: np.ndarray) -> list[np.ndarray]:
    places = np.cumsum([0, *sizes], dtype=np.int64).tolist()
    return [x[start:stop] for start, stop in zip(places[:-1], places[1:])]

  def each(self, function: Callable[..., Any], static: tuple[Any, ...], *columns: np.ndarray) -> list[Any]:
    return [function(self, *static, *entry) for entry in zip(*columns)]

  def segments(self, segments: Sequence[Any], method: str, values: Sequence[Any], keys: Any) -> list[Any]:
    return [getattr(segment.pipeline, method)(self, value, segment.size, keys, segment.name)
            for segment, value in zip(segments, values)]

  def require(self, condition: npt.ArrayLike, message: str) -> None:
    if not np.all(condition):
      raise PayloadError(message)

  def static_bytes(self, payload: np.ndarray, size: int) -> np.ndarray:
    self.require(payload.shape[0] == size, f'expected {size} bytes but the payload holds {payload.shape[0]}.')
    return payload


numpy_ops: table.Ops = NumpyOps()
