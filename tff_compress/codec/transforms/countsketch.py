"""Count sketch: random signed sums of the values, from which the large ones can be read again."""

from collections.abc import Sequence
import dataclasses
import fractions
from typing import ClassVar

import numpy as np

from tff_compress.codec import sums
from tff_compress.codec.keys import Draws
from tff_compress.codec.random import Purpose
from tff_compress.codec.stage import Arrays
from tff_compress.codec.stage import check
from tff_compress.codec.stage import Real
from tff_compress.codec.stage import Stage
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops


@dataclasses.dataclass(frozen=True)
class CountSketch(Stage):
  """`rows` tables of c columns, in each of which every value is added to one column with a random sign.

  A row's estimate of value i is its column times the sign: unbiased, with a variance of at most ||x||^2 / c, and the
  decoder takes the median over the rows. Sketches of a round add up to the sketch of the sum, so the server sums first
  and decodes once. By itself this has as large an error as sub-sampling; it is meant for a server that takes the
  largest estimates only (FetchSGD).

  The columns of a row: the values are cut into chunks of c, and each chunk is turned by a random number of columns. So
  values of one chunk never meet, any two others do with probability 1 / c, and a table is a sum of whole chunks.

  Attributes:
    fraction: of the number of values, what all tables have together; 0 < fraction <= 1.
    rows: 1, 3, 5, 7 or 9.
  """
  name: ClassVar[str] = 'countsketch'
  summary: ClassVar[str] = 'random signed sums of the values; the median of several estimates of each'
  source: ClassVar[str] = 'Charikar et al. 2002; Rothchild et al. 2020 (FetchSGD)'
  unbiased: ClassVar[bool] = True
  examples: ClassVar[tuple[str, ...]] = ('1/5', '1/4,rows=1', '1/2,rows=3')

  fraction: fractions.Fraction
  rows: int = 5

  def __post_init__(self) -> None:
    check(self.rows in (1, 3, 5, 7, 9), f'countsketch: rows must be 1, 3, 5, 7 or 9, not {self.rows}.')
    check(self.rows * fractions.Fraction(1, 4096) <= self.fraction <= 1,
          f'countsketch: the fraction must be from rows / 4096 to 1, not {self.fraction}.')

  @property
  def summable(self) -> bool:
    return True

  def columns(self, size: int) -> int:
    """Columns of each table for `size` values."""
    return max(1, round(self.fraction * size / self.rows)) if size else 0

  def output(self, signal: Real) -> Real:
    return Real(self.rows * self.columns(signal.size))

  def nmse_bound(self, signal: Real) -> float:
    # The median of an odd number of symmetric errors strays no further than one of them.
    return signal.size / max(self.columns(signal.size), 1) + 1e-5

  def _hashes(self, xp: Ops, draws: Draws, size: int) -> tuple[Array, Array]:
    """(int32[rows, chunks] columns that each chunk is turned by, float32[rows, chunks c] signs)."""
    columns = self.columns(size)
    chunks = -(-size // columns)
    stream = draws.of('round', Purpose.COUNT_SKETCH)
    count = self.rows * chunks
    words = xp.reshape(stream.words(count), [self.rows, chunks])
    turns = xp.shift_right(words, 1) % xp.constant(columns, np.int32)
    return turns, xp.reshape(stream.signs(count * columns, 32 * count), [self.rows, chunks * columns])

  def _positions(self, xp: Ops, turns: Array, chunks: int, columns: int, inverse: bool) -> Array:
    """int32[chunks, c]: where in the vector the value of each column is, or (inverse) in which column each value is."""
    turn = xp.reshape(turns, [chunks, 1])
    column = xp.reshape(xp.iota(columns), [1, columns])
    if inverse:
      return (column + turn) % xp.constant(columns, np.int32)
    start = xp.reshape(xp.iota(chunks) * xp.constant(columns, np.int32), [chunks, 1])
    return start + (column + xp.constant(columns, np.int32) - turn) % xp.constant(columns, np.int32)

  def sketch(self, xp: Ops, x: Array, draws: Draws, size: int) -> Array:
    """float32[size], size > 0 -> float32[rows, c]. Exact where the values are whole numbers of which chunk sums fit 24
    bits."""
    columns = self.columns(size)
    chunks = -(-size // columns)
    turns, signs = self._hashes(xp, draws, size)
    if chunks * columns > size:
      x = xp.concat([x, xp.zeros([chunks * columns - size], np.float32)])
    tables = []
    for row in range(self.rows):
      placed = xp.gather(x * signs[row], self._positions(xp, turns[row], chunks, columns, False))
      tables.append(xp.reshape(xp.reduce_sum(xp.transpose(placed, [1, 0])), [1, columns]))
    return xp.concat(tables)

  def estimate(self, xp: Ops, tables: Array, draws: Draws, size: int) -> Array:
    """float32[rows, c] sketch of a vector, or sum of sketches -> float32[size]: the median of each value's
    estimates."""
    columns = self.columns(size)
    chunks = -(-size // columns)
    turns, signs = self._hashes(xp, draws, size)
    estimates = []
    for row in range(self.rows):
      placed = xp.gather(tables[row], self._positions(xp, turns[row], chunks, columns, True))
      estimates.append((xp.reshape(placed, [-1]) * signs[row])[:size])
    return _median(xp, estimates)

  def encode(self, xp: Ops, x: Array, draws: Draws, signal: Real) -> tuple[Array, Arrays]:
    size = signal.size
    if not size:
      return x, {}
    # Rounded at random to whole numbers of which a column's worth can be added exactly, in any order. More than 17 bits
    # would leave too few of float32's 24 for the dither.
    chunks = -(-size // self.columns(size))
    bits = min(16, 23 - (chunks - 1).bit_length())
    up, unit = sums.scale(xp, bits, xp.reduce_max(xp.abs(x)))
    numbers = xp.floor(x * up + draws.client(Purpose.COUNT_SKETCH_ROUNDING).dither(size))
    return xp.reshape(self.sketch(xp, numbers, draws, size), [-1]) * unit, {}

  def decode(self, xp: Ops, values: Array, side: Arrays, draws: Draws, signal: Real) -> Array:
    size = signal.size
    if not size:
      return values
    return self.estimate(xp, xp.reshape(values, [self.rows, self.columns(size)]), draws, size)


def _median(xp: Ops, arrays: Sequence[Array]) -> Array:
  """Element-wise median of an odd number of arrays, by exchanging neighbours until half of them are in order.

  A zero is +0: which of -0 and +0 is the smaller one is not the same on all processors.
  """
  arrays = list(arrays)
  for last in range(len(arrays) - 1, len(arrays) // 2 - 1, -1):
    for i in range(last):
      arrays[i], arrays[i + 1] = xp.minimum(arrays[i], arrays[i + 1]), xp.maximum(arrays[i], arrays[i + 1])
  median = arrays[len(arrays) // 2]
  return xp.where(xp.equal(median, np.float32(0)), np.float32(0), median)
