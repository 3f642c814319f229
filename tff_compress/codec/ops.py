"""The table of array operations that every stage is written over, and its NumPy implementation.

A stage never names an array library: it receives a table `xp` and uses Python's arithmetic operators and the
functions below. `tff_compress.tensorflow.ops` implements the same table for TensorFlow, so one definition of the
maths gives the same payload bits in NumPy, in a TensorFlow graph and in a converted TFLite file.

Processors differ in the order of the bytes of a number. So whatever looks at the memory of an array first says what
lies there (a dtype with its byte order), and no result depends on the byte order of the arrays that come in.

Conventions: real arrays are float32, integers are int32 and wrap modulo 2^32, bytes are uint8. Shapes are static
unless a docstring says otherwise. Nothing here may make payload bits depend on the order of a float sum: see
docs/random-numbers.md, "Exactness".
"""

import zlib

import numpy as np

from tff_compress.codec.errors import PayloadError
from tff_compress.codec.errors import SpecError

SIGNS_OF_BYTES = np.where(np.arange(256)[:, None] >> np.arange(7, -1, -1) & 1, np.float32(-1), np.float32(1))
"""float32 [256, 8]: what `signs` gives for each byte."""


class NumpyOps:
  """The operation table in NumPy. Stateless; use the module's `numpy_ops`."""

  # Large element-wise work is done in slices of this many elements so that it stays in the processor's cache.
  slice_size = 1 << 16

  # -- making and shaping -------------------------------------------------------------------------------------------

  def constant(self, value, dtype):
    return np.asarray(value, dtype)

  def iota(self, size):
    """int32[size]: 0, 1, 2, …"""
    return np.arange(size, dtype=np.int32)

  def zeros(self, shape, dtype):
    return np.zeros(shape, dtype)

  def reshape(self, x, shape):
    return np.reshape(x, shape)

  def transpose(self, x, axes):
    return np.transpose(x, axes)

  def concat(self, parts):
    """Joins 1-D or N-D arrays along their first axis; one that has all entries is not copied."""
    filled = [part for part in parts if len(part)]
    return filled[0] if len(filled) == 1 else np.concatenate(parts, axis=0)

  def stack_last(self, parts):
    return np.stack(parts, axis=-1)

  def repeat(self, x, times):
    """[1] -> [times]."""
    return np.broadcast_to(x, (times,))

  def size(self, x):
    """Number of elements of a 1-D array, which may be known only when the graph runs."""
    return int(x.shape[0])

  def vector(self, scalar):
    """Integer scalar -> int32[1]."""
    return np.asarray([scalar], np.int32)

  def integer(self, scalar):
    """A scalar as a 32-bit integer scalar, as `size` returns."""
    return int(scalar)

  def long(self, scalar):
    """A scalar as a 64-bit integer scalar, as `total` returns."""
    return int(scalar)

  # -- element-wise -------------------------------------------------------------------------------------------------

  def cast(self, x, dtype):
    return np.asarray(x).astype(dtype)

  def floor(self, x):
    return np.floor(x)

  def abs(self, x):
    return np.abs(x)

  def minimum(self, a, b):
    return np.minimum(a, b)

  def maximum(self, a, b):
    return np.maximum(a, b)

  def equal(self, a, b):
    """Element-wise. Stages use this and never `==`, which compares identities in some TensorFlow graphs."""
    return np.equal(a, b)

  def all(self, condition):
    """Whether a boolean array holds everywhere, as a scalar."""
    return np.all(condition)

  def where(self, condition, a, b):
    return np.where(condition, a, b)

  def bits_of(self, x):
    """float32 -> int32 with the same bits."""
    return np.ascontiguousarray(x, np.float32).view(np.int32)

  def float_of(self, bits):
    """int32 -> float32 with the same bits."""
    return np.ascontiguousarray(bits, np.int32).view(np.float32)

  def shift_right(self, x, n):
    """Logical shift of int32 by n: an int, an integer scalar or int32 of a shape that fits."""
    return (np.asarray(x, np.int32).view(np.uint32) >> np.asarray(n).astype(np.uint32)).view(np.int32)

  def power_of_two(self, n):
    """int32 scalar 2^n for an integer scalar n in 0 … 30."""
    return np.int32(1 << int(n))

  def xor(self, a, b):
    return np.bitwise_xor(a, b)

  def halves(self, words):
    """int32[n] words -> float32[2 n], the low then the high 16 bits of each word, as numbers 0 … 65535."""
    return np.ascontiguousarray(words, '<i4').view('<u2').astype(np.float32)

  def signs(self, words):
    """int32[n] -> float32[32 n]: -1 for each bit that is set and 1 for each that is not, most significant bit first."""
    return np.take(SIGNS_OF_BYTES, words.astype('>i4').view(np.uint8), axis=0).reshape(-1)

  def to_float16_bits(self, x):
    """float32 -> int32 holding the 16 bits of the nearest float16 (ties to even)."""
    return x.astype(np.float16).view(np.uint16).astype(np.int32)

  def from_float16_bits(self, bits):
    return bits.astype(np.uint16).view(np.float16).astype(np.float32)

  def generate(self, function, key, start, stop):
    """Evaluates `function(int32 indices, key[0], key[1]) -> int32` on start … stop-1 in slices that stay in cache."""
    out = np.empty(stop - start, np.int32)
    with np.errstate(over='ignore'):  # Words wrap around.
      for first in range(start, stop, self.slice_size):
        last = min(first + self.slice_size, stop)
        out[first - start:last - start] = function(np.arange(first, last, dtype=np.int32), key[0], key[1])
    return out

  def by_rows(self, function, *arrays):
    """Evaluates function(*arrays) -> tuple of arrays, where row i of the results depends on row i of the arrays alone.

    Done in slices that stay in cache, for which `random.Rows` are drawn then and there. The results lie in memory as
    the first array does, so that those for a transposed view can be transposed back without a copy.
    """
    rows = arrays[0].shape[0]
    step = max(1, self.slice_size * rows // max(arrays[0].size, 1))
    order = 'C' if arrays[0].flags.c_contiguous else 'F'
    results = None
    for start in range(0, max(rows, 1), step):
      parts = function(*(np.ascontiguousarray(a[start:start + step]) for a in arrays))
      results = results or tuple(np.empty((rows,) + part.shape[1:], part.dtype, order) for part in parts)
      for result, part in zip(results, parts):
        result[start:start + step] = part
    return results

  # -- reductions and matrices --------------------------------------------------------------------------------------

  def reduce_max(self, x):
    """Over the last axis, which is kept with size 1."""
    return np.max(x, axis=-1, keepdims=True)

  def reduce_min(self, x):
    return np.min(x, axis=-1, keepdims=True)

  def reduce_sum(self, x):
    """Float sums decide payload bits only where every partial sum is an integer of at most 2^24."""
    return np.sum(x, axis=-1, keepdims=True, dtype=x.dtype)

  def total(self, x):
    """Exact 64-bit sum of all elements of an int32 array, as a scalar."""
    return int(np.sum(x, dtype=np.int64))

  def totals(self, x):
    """Exact 64-bit sums over the last axis of an int32 array, which goes away."""
    return np.sum(x, axis=-1, dtype=np.int64)

  def sum_last(self, x):
    """int32 sum over the last axis, which goes away."""
    return np.sum(x, axis=-1, dtype=np.int32)

  def argmin(self, x):
    """Position of the smallest element of a 1-D array, as an integer scalar; the first one of equals."""
    return int(np.argmin(x))

  def argmax(self, x):
    """Position of the largest element of a 1-D array, as an integer scalar; the first one of equals."""
    return int(np.argmax(x))

  def matmul(self, a, b):
    return np.matmul(a, b)

  # -- indices ------------------------------------------------------------------------------------------------------

  def gather(self, x, index):
    """The entries (rows, if x is a matrix) of x at these positions."""
    return np.take(x, index, axis=0)

  def scatter(self, index, values, size):
    """[size] zeros with values[i] at index[i]; indices are distinct."""
    out = np.zeros(size, values.dtype)
    out[index] = values
    return out

  def where_nonzero(self, x):
    """int32 positions of the non-zero elements of a 1-D array, ascending."""
    return np.flatnonzero(x).astype(np.int32)

  def compress(self, x, mask):
    """The elements of x where the boolean mask holds."""
    return x[mask]

  def cumsum(self, x):
    """Inclusive cumulative sum of int32[n]."""
    return np.cumsum(x, dtype=np.int32)

  def search(self, ends, values):
    """int32[n]: for each value, how many of the ascending `ends` are <= it."""
    return np.searchsorted(ends, values, side='right').astype(np.int32)

  def largest(self, x, k):
    """int32[k]: positions of the k largest elements, ascending; of equal ones the lower positions are taken."""
    if k == 0:
      return np.zeros(0, np.int32)
    threshold = np.partition(x, x.size - k)[x.size - k]
    above = np.flatnonzero(x > threshold)
    ties = np.flatnonzero(x == threshold)[:k - above.size]
    return np.sort(np.concatenate([above, ties])).astype(np.int32)

  def count(self, symbols, size):
    """int32[size]: how often each of 0 … size-1 occurs among int32 or uint8 symbols."""
    counts = np.zeros(size, np.int32)
    for start in range(0, symbols.size, self.slice_size):
      counts += np.bincount(symbols[start:start + self.slice_size], minlength=size).astype(np.int32)
    return counts

  # -- bytes --------------------------------------------------------------------------------------------------------

  def integers_to_bytes(self, x, width):
    """int32[n] -> uint8[n width], little endian, the low `width` bytes of each."""
    if width == 1:
      return x.astype(np.uint8)
    return np.ascontiguousarray(x, '<i4').view(np.uint8).reshape(-1, 4)[:, :width].reshape(-1)

  def integers_from_bytes(self, payload, width):
    """uint8[n width] -> int32[n], little endian and unsigned."""
    if width == 1:
      return payload.astype(np.int32)
    if width == 4:
      return np.ascontiguousarray(payload).view('<i4').astype(np.int32, copy=False)
    parts = payload.reshape(-1, width)
    full = np.zeros((parts.shape[0], 4), np.uint8)
    full[:, :width] = parts
    return full.view('<i4').reshape(-1).astype(np.int32, copy=False)

  def bits_at(self, positions, size):
    """A bit string of `size` bytes with ones at these int32 positions, which ascend, and zeros elsewhere: uint8[size].
    """
    out = np.zeros(size, np.uint8)
    for first in range(0, positions.size, self.slice_size):
      part = positions[first:first + self.slice_size]
      base = int(part[0]) >> 3
      found = np.bincount((part >> 3) - base, np.left_shift(1, part & 7))
      out[base:base + found.size] += found.astype(np.uint8)
    return out

  def where_bits(self, payload):
    """int32 positions of the ones of a bit string, ascending."""
    step = self.slice_size // 8
    found = [np.flatnonzero(np.unpackbits(payload[first:first + step], bitorder='little')).astype(np.int32)
             + np.int32(8 * first) for first in range(0, payload.size, step)]
    return np.concatenate([np.zeros(0, np.int32), *found])

  def bit_string(self, words, lengths, symbols):
    """The words of uint8[n] symbols below A one behind the other, as a bit string: uint8[m].

    Args:
      words: int32[A], the word of each symbol, lowest bit first.
      lengths: int32[A], how many bits of it are sent, 0 … 16; those above are zero.
    """
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

  def long_to_bytes(self, x):
    """int64[n], each 0 … 2^32 - 1 -> uint8[4 n], little endian."""
    return x.astype('<u4').view(np.uint8)

  def long_from_bytes(self, payload):
    """Inverse of `long_to_bytes`."""
    return np.ascontiguousarray(payload).view('<u4').astype(np.int64)

  def raw_bytes(self, x):
    """An array of integers or booleans -> its little-endian bytes, uint8[n]."""
    x = np.ascontiguousarray(x)
    return x.astype(x.dtype.newbyteorder('<')).reshape(-1).view(np.uint8)

  def raw_values(self, payload, dtype):
    """Inverse of `raw_bytes` for a dtype name: 1-D."""
    if dtype == 'bool':
      self.require(payload <= 1, 'a boolean is neither 0 nor 1.')
    return np.ascontiguousarray(payload).view(np.dtype(dtype).newbyteorder('<')).astype(np.dtype(dtype))

  def dtype(self, name):
    """The library's dtype of a name such as 'float32'."""
    try:
      return np.dtype(name)
    except TypeError:
      raise SpecError(f'NumPy knows {name} only once TensorFlow or ml_dtypes is imported: import one first.') from None

  def crc32(self, payload):
    """CRC-32 (the one of zlib, gzip and java.util.zip) of uint8[n], as an int32 scalar."""
    return np.uint32(zlib.crc32(np.ascontiguousarray(payload))).view(np.int32)

  # -- control ------------------------------------------------------------------------------------------------------

  def collect(self, steps, body, state, backwards=False):
    """Runs `output, state = body(i, *state)` for i = 0 … steps-1, or backwards from steps-1 to 0; there is at least one
    step.

    The shapes of the state (a tuple) do not change; the outputs, of one shape, are stacked in the order of i:
    [steps, …].

    Returns:
      (outputs, state)
    """
    outputs = None
    for i in reversed(range(steps)) if backwards else range(steps):
      output, state = body(i, *state)
      if outputs is None:
        outputs = np.empty((steps, *np.shape(output)), output.dtype)
      outputs[i] = output
    return outputs, state

  def is_few(self, count):
    """Whether a loop in plain Python over `count` entries is faster than array operations on them."""
    return count <= 32

  def cond(self, condition, one, other):
    """one() where a boolean scalar holds, otherwise other(): arrays or tuples of them, of the same types."""
    return one() if condition else other()

  def apart(self, function, static, *arrays):
    """function(xp, *static, *arrays), a function of a module: what it requires is settled within it, so it may stand in
    `cond`.
    """
    return function(self, *static, *arrays)

  def split(self, x, sizes):
    """Parts of these sizes (ints, or int32[n]), one behind the other, which are all of x: a list, of one part x
    itself."""
    places = np.cumsum([0, *sizes], dtype=np.int64).tolist()
    return [x[start:stop] for start, stop in zip(places[:-1], places[1:])]

  def each(self, function, static, *columns):
    """`apart` for every entry of lists of vectors, or of vectors of scalars: the list of what the function gives,
    vectors or tuples of them."""
    return [function(self, *static, *entry) for entry in zip(*columns)]

  def segments(self, segments, method, values, keys):
    """Applies a method of its pipeline, 'encode', 'decode_to_prefix' or 'decode_prefix', to the values of each segment.
    """
    return [getattr(segment.pipeline, method)(self, value, segment.size, keys, segment.name)
            for segment, value in zip(segments, values)]

  def require(self, condition, message):
    """Refuses a payload: raises PayloadError unless the condition holds everywhere."""
    if not np.all(condition):
      raise PayloadError(message)

  def static_bytes(self, payload, size):
    """States that a byte array has exactly `size` bytes; raises PayloadError otherwise."""
    self.require(payload.shape[0] == size, f'expected {size} bytes but the payload holds {payload.shape[0]}.')
    return payload


numpy_ops = NumpyOps()
