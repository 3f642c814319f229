"""The table of array operations that every stage is written over: what each operation takes and gives.

A stage never names an array library: it receives a table `xp` and uses Python's arithmetic operators and the operations
below. `codec/ops.py` is the table in NumPy, `tff_compress/tensorflow/ops.py` that of TensorFlow graphs, and
`tflite_export/encoder/ops.py` that of .tflite files, which has what encoders need. So one definition of the maths gives
the same payload bits in all three. `tests/tensorflow/test_tables.py` holds the tables to this description.

Conventions: real arrays are float32, integers are int32 and wrap modulo 2^32, bytes are uint8. Shapes are static
unless a docstring says otherwise. Nothing here may make payload bits depend on the order of a float sum: see
docs/random-numbers.md, "Exactness".
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from typing import Protocol
from typing import TypeAlias

import numpy.typing as npt

Array: TypeAlias = Any
"""An array of the table in use: np.ndarray, or a tensor of a graph. Both have `shape`, `dtype`, slices and Python's
operators, and nothing else that stages may use. No type of Python's describes that for both."""

Scalar: TypeAlias = Any
"""A whole number or a boolean: Python's or NumPy's, or a tensor without dimensions, known only when the graph runs."""


class Ops(Protocol):
  """A table of operations. `xp` is one."""

  # -- making and shaping -------------------------------------------------------------------------------------------

  def constant(self, value: npt.ArrayLike, dtype: npt.DTypeLike) -> Array:
    """A value that is known when the graph is built, as an array of its shape."""

  def iota(self, size: int) -> Array:
    """int32[size]: 0, 1, 2, …"""

  def zeros(self, shape: Sequence[Scalar], dtype: npt.DTypeLike) -> Array:
    """Zeros of this shape and dtype."""

  def reshape(self, x: Array, shape: Sequence[Scalar]) -> Array:
    """The same values in another shape, of which one size may be -1."""

  def transpose(self, x: Array, axes: Sequence[int]) -> Array:
    """Axis i of the result is axis axes[i] of x."""

  def concat(self, parts: Sequence[Array]) -> Array:
    """Joins 1-D or N-D arrays along their first axis; one that has all entries is not copied."""

  def stack_last(self, parts: Sequence[Array]) -> Array:
    """Arrays of one shape side by side along a new last axis."""

  def repeat(self, x: Array, times: Scalar) -> Array:
    """[1] -> [times]."""

  def size(self, x: Array) -> Scalar:
    """Number of elements of a 1-D array, which may be known only when the graph runs."""

  def vector(self, scalar: Scalar) -> Array:
    """Integer scalar -> int32[1]."""

  def integer(self, scalar: Scalar) -> Scalar:
    """A scalar as a 32-bit integer scalar, as `size` returns."""

  def long(self, scalar: Scalar) -> Scalar:
    """A scalar as a 64-bit integer scalar, as `total` returns."""

  def opaque(self, value: Array) -> Array:
    """The same array, behind which no optimizer of graphs looks.

    Optimizers put the constants of a product together, which rounds differently. Where that would tell, constants are
    hidden from them.
    """

  # -- element-wise -------------------------------------------------------------------------------------------------

  def cast(self, x: Array, dtype: npt.DTypeLike) -> Array:
    """The same values in another dtype; floats are cut off towards zero."""

  def floor(self, x: Array) -> Array:
    """The largest whole number that is at most x, as a float."""

  def abs(self, x: Array) -> Array:
    """|x|; of a zero, 0 or -0."""

  def minimum(self, a: Array, b: Array) -> Array:
    """The smaller of each two values; of 0 and -0, either."""

  def maximum(self, a: Array, b: Array) -> Array:
    """The larger of each two values; of 0 and -0, either."""

  def equal(self, a: Array, b: Array) -> Array:
    """Element-wise. Stages use this and never `==`, which compares identities in some TensorFlow graphs."""

  def all(self, condition: Array) -> Scalar:
    """Whether a boolean array holds everywhere."""

  def where(self, condition: Array, a: Array, b: Array) -> Array:
    """a where the condition holds, otherwise b."""

  def bits_of(self, x: Array) -> Array:
    """float32 -> int32 with the same bits."""

  def float_of(self, bits: Array) -> Array:
    """int32 -> float32 with the same bits."""

  def shift_right(self, x: Array, n: Array) -> Array:
    """Logical shift of int32 by n: an int, an integer scalar or int32 of a shape that fits."""

  def power_of_two(self, n: Scalar) -> Scalar:
    """int32 scalar 2^n for an integer scalar n in 0 … 30."""

  def xor(self, a: Array, b: Array) -> Array:
    """Exclusive or of the bits of int32 values."""

  def halves(self, words: Array) -> Array:
    """int32[n] words -> float32[2 n], the low then the high 16 bits of each word, as numbers 0 … 65535."""

  def signs(self, words: Array) -> Array:
    """int32[n] -> float32[32 n]: -1 for each bit that is set and 1 for each that is not, most significant bit first."""

  def to_float16_bits(self, x: Array) -> Array:
    """float32 -> int32 holding the 16 bits of the nearest float16 (ties to even)."""

  def from_float16_bits(self, bits: Array) -> Array:
    """int32 that hold the 16 bits of a float16 -> float32."""

  def generate(self, function: Callable[[Array, Array, Array], Array], key: Array, start: int, stop: Scalar) -> Array:
    """int32[stop - start]: function(int32 indices start … stop-1, key[0], key[1]) of an int32[2] key, element-wise."""

  def by_rows(self, function: Callable[..., tuple[Array, ...]], *arrays: Array) -> tuple[Array, ...]:
    """Evaluates function(*arrays) -> tuple of arrays, where row i of the results depends on row i of the arrays alone.

    It may be done in slices, for which `random.Rows` among the arrays are drawn then and there.
    """

  # -- reductions and matrices --------------------------------------------------------------------------------------

  def reduce_max(self, x: Array) -> Array:
    """Over the last axis, which is kept with size 1."""

  def reduce_min(self, x: Array) -> Array:
    """Over the last axis, which is kept with size 1."""

  def reduce_sum(self, x: Array) -> Array:
    """Over the last axis, which is kept with size 1, in the dtype of x.

    Float sums decide payload bits only where every partial sum is an integer of at most 2^24.
    """

  def total(self, x: Array) -> Scalar:
    """Exact 64-bit sum of all elements of an int32 array."""

  def totals(self, x: Array) -> Array:
    """Exact 64-bit sums over the last axis of an int32 array, which goes away."""

  def sum_last(self, x: Array) -> Array:
    """int32 sum over the last axis, which goes away."""

  def argmin(self, x: Array) -> Scalar:
    """Position of the smallest element of a 1-D array, as an integer scalar; the first one of equals."""

  def argmax(self, x: Array) -> Scalar:
    """Position of the largest element of a 1-D array, as an integer scalar; the first one of equals."""

  def matmul(self, a: Array, b: Array) -> Array:
    """float32[n, k], float32[k, m] -> float32[n, m]; exact where every partial sum is an integer of at most 2^24."""

  # -- indices ------------------------------------------------------------------------------------------------------

  def gather(self, x: Array, index: Array) -> Array:
    """The entries (rows, if x is a matrix) of x at these positions."""

  def scatter(self, index: Array, values: Array, size: Scalar) -> Array:
    """[size] zeros with values[i] at index[i]; indices are distinct."""

  def where_nonzero(self, x: Array) -> Array:
    """int32 positions of the non-zero elements of a 1-D array, ascending."""

  def compress(self, x: Array, mask: Array) -> Array:
    """The elements of x where the boolean mask holds."""

  def cumsum(self, x: Array) -> Array:
    """Inclusive cumulative sum of int32[n]."""

  def search(self, ends: Array, values: Array) -> Array:
    """int32[n]: for each value, how many of the ascending `ends` are <= it."""

  def largest(self, x: Array, k: int) -> Array:
    """int32[k]: positions of the k largest elements, ascending; of equal ones the lower positions are taken."""

  def count(self, symbols: Array, size: int) -> Array:
    """int32[size]: how often each of 0 … size-1 occurs among int32 or uint8 symbols."""

  # -- bytes --------------------------------------------------------------------------------------------------------

  def integers_to_bytes(self, x: Array, width: int) -> Array:
    """int32[n] -> uint8[n width], little endian, the low `width` bytes of each."""

  def integers_from_bytes(self, payload: Array, width: int) -> Array:
    """uint8[n width] -> int32[n], little endian and unsigned."""

  def bits_at(self, positions: Array, size: Scalar) -> Array:
    """A bit string of `size` bytes with ones at these int32 positions, which ascend, and zeros elsewhere: uint8[size].
    """

  def where_bits(self, payload: Array) -> Array:
    """int32 positions of the ones of a bit string, ascending."""

  def bit_string(self, words: Array, lengths: Array, symbols: Array) -> Array:
    """The words of uint8[n] symbols below A one behind the other, as a bit string: uint8[m].

    Args:
      words: int32[A], the word of each symbol, lowest bit first.
      lengths: int32[A], how many bits of it are sent, 0 … 16; those above are zero.
      symbols: uint8[n].
    """

  def long_to_bytes(self, x: Array) -> Array:
    """int64[n], each 0 … 2^32 - 1 -> uint8[4 n], little endian."""

  def long_from_bytes(self, payload: Array) -> Array:
    """Inverse of `long_to_bytes`."""

  def raw_bytes(self, x: Array) -> Array:
    """An array of integers or booleans -> its little-endian bytes, uint8[n]."""

  def raw_values(self, payload: Array, dtype: str) -> Array:
    """Inverse of `raw_bytes` for a dtype name: 1-D."""

  def dtype(self, name: str) -> Any:
    """The library's dtype of a name such as 'float32'. Raises SpecError where the library does not know it."""

  def crc32(self, payload: Array) -> Scalar:
    """CRC-32 (the one of zlib, gzip and java.util.zip) of uint8[n], as an int32 scalar."""

  # -- control ------------------------------------------------------------------------------------------------------

  def collect(self, steps: Scalar, body: Callable[..., tuple[Array, tuple[Array, ...]]], state: tuple[Array, ...],
              backwards: bool = False) -> tuple[Array, tuple[Array, ...]]:
    """Runs `output, state = body(i, *state)` for i = 0 … steps-1, or backwards from steps-1 to 0; there is at least one
    step.

    The shapes of the state do not change; the outputs, of one shape, are stacked in the order of i: [steps, …].

    Returns:
      (outputs, state)
    """

  def is_few(self, count: Scalar) -> bool:
    """Whether a loop in plain Python over `count` entries is faster than array operations on them."""

  def cond(self, condition: Scalar, one: Callable[[], Any], other: Callable[[], Any]) -> Any:
    """one() where a boolean scalar holds, otherwise other(): arrays or tuples of them, of the same types."""

  def loop(self, condition: Callable[..., Scalar], body: Callable[..., tuple[Any, ...]],
           state: tuple[Any, ...]) -> tuple[Any, ...]:
    """Runs state = body(*state) for as long as condition(*state) holds, which may be from the start not at all.

    The state is a tuple of structures of arrays, whose dtypes and numbers of dimensions do not change; the size of a
    1-D array of it may. What `body` requires of a payload stands in `apart`.
    """

  def apart(self, function: Callable[..., Any], static: tuple[Any, ...], *arrays: Array) -> Any:
    """function(xp, *static, *arrays), a function of a module: what it requires is checked within it, so it may stand in
    `cond`.
    """

  def split(self, x: Array, sizes: Array) -> list[Array]:
    """Parts of these sizes (ints, or int32[n]), one behind the other, which are all of x: a list, of one part x
    itself."""

  def each(self, function: Callable[..., Any], static: tuple[Any, ...], *columns: Array) -> list[Any]:
    """`apart` for every entry of lists of vectors, or of vectors of scalars: the list of what the function gives,
    vectors or tuples of them."""

  def segments(self, segments: Sequence[Any], method: str, values: Sequence[Any], keys: Any) -> list[Any]:
    """Applies a method of its pipeline, 'encode', 'decode_to_prefix' or 'decode_prefix', to the values of each segment.

    Args:
      segments: `codec.Segment`, each with a pipeline.
      method: of `Pipeline`.
      values: what the method takes, for each segment.
      keys: `keys.Keys` of the message, in a graph `tensorflow.keys.GraphKeys`.

    Returns:
      List of what the method gives.
    """

  def require(self, condition: Array | Scalar, message: str) -> None:
    """Refuses a payload: raises PayloadError unless the condition holds everywhere. In a graph, evaluation fails."""

  def static_bytes(self, payload: Array, size: int) -> Array:
    """The same byte array, which has exactly `size` bytes; refuses the payload otherwise, as `require` does."""
