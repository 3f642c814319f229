"""Low rank: the coordinates of a matrix on a few random orthonormal columns, which both sides draw from a key."""

from collections.abc import Sequence
import dataclasses
import fractions
import math
from typing import ClassVar

import numpy as np

from tff_compress.codec import sums
from tff_compress.codec.keys import Draws
from tff_compress.codec.random import Purpose
from tff_compress.codec.stage import Arrays
from tff_compress.codec.stage import check
from tff_compress.codec.stage import choice
from tff_compress.codec.stage import Real
from tff_compress.codec.subspace import Maps
from tff_compress.codec.subspace import Subspace
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops
from tff_compress.codec.transforms import hadamard

BLOCK = 256
"""Largest Hadamard matrix that a basis is made of."""


@dataclasses.dataclass(frozen=True)
class LowRank(Subspace):
  """A variable M, a matrix of d1 x d2 values, becomes B = V^T M of r x d2; the decoder makes (d1 / r) V B of it.

  V is d1 x r with orthonormal columns: r columns, chosen uniformly, of a d1 x d1 Hadamard matrix in blocks with
  random signs for its rows. So E[(d1 / r) V V^T] = I: unbiased, with an NMSE of d1 / r - 1 for every M. Entries that
  are drawn independently have one of (d1 - 1) / r, and their V^T V is not a multiple of I, which training in the
  subspace needs.

  The last dimension of a variable is one side of the matrix, the others together are the other: (height, width, in,
  out) is (height width in) x out. V covers the shorter side, d1, as what is sent is r / d1 of the values. Variables
  of fewer than two dimensions, and those of which r would not be below d1, pass as they are.

  Before it is multiplied, each of the d2 vectors is scaled by a power of two and rounded stochastically to whole
  numbers small enough for every sum to be exact in float32, in any order. This error is at most 2^-32 d1 of ||M||^2.

  Attributes:
    share: r / d1, 0 < share < 1; r is at least 1.
    key: 'round' for a V that all clients of a round share (the sum of what they encode can then be decoded at once, but
      what V leaves out is common to the clients: averaging does not bring it back); 'client' for one of the client's
      own.
  """
  name: ClassVar[str] = 'lowrank'
  summary: ClassVar[str] = 'coordinates of matrices on a few random columns, drawn from a key'
  source: ClassVar[str] = 'Konecny et al. 2016, sec. 2; orthonormal columns on the shorter side'
  needs_shapes: ClassVar[bool] = True
  examples: ClassVar[tuple[str, ...]] = ('1/4', '1/2,key=client', '0.4')

  share: fractions.Fraction
  key: str = choice('round', 'client')

  def __post_init__(self) -> None:
    check(0 < self.share < 1, f'lowrank: the share must be above 0 and below 1, not {self.share}.')

  def _layouts(self, signal: Real) -> 'list[_Layout]':
    """The `_Layout` of each variable."""
    return [_Layout.of(shape, self.share) for shape in signal.shapes or ((signal.size,),)]

  def output(self, signal: Real) -> Real:
    return Real(sum(layout.coordinates for layout in self._layouts(signal)))

  def scales(self, signal: Real) -> tuple[float, ...]:
    return tuple(layout.short / layout.rank for layout in self._layouts(signal))

  def nmse_bound(self, signal: Real) -> float:
    return max((1 + (scale > 1) * 2.0**-16) * scale - 1 for scale in self.scales(signal))

  def _bases(self, xp: Ops, draws: Draws, layouts: 'Sequence[_Layout]') -> 'list[_Basis | None]':
    """For each layout its `_Basis`, or None where the variable passes: drawn from consecutive pieces of one stream."""
    stream, start = draws.of(self.key, Purpose.BASIS), 0
    bases: list[_Basis | None] = []
    for layout in layouts:
      if layout.passes:
        bases.append(None)
        continue
      columns = xp.largest(stream.words(layout.short, start), layout.rank)
      start += layout.short
      bases.append(_Basis(xp, layout, columns, stream.signs(layout.short, 32 * start)))
      start += -(-layout.short // 32)
    return bases

  def maps(self, xp: Ops, draws: Draws, signal: Real) -> Maps:
    layouts = self._layouts(signal)
    bases = self._bases(xp, draws, layouts)

    def project(x: Array) -> Array:
      pieces = _split(x, [layout.size for layout in layouts])
      return _join(xp, [piece if basis is None else xp.reshape(basis.project(layout.rows(xp, piece)), [-1])
                        for layout, basis, piece in zip(layouts, bases, pieces)])

    def lift(values: Array) -> Array:
      pieces = _split(values, [layout.coordinates for layout in layouts])
      return _join(xp, [piece if basis is None else layout.values(xp, basis.lift(piece))
                        for layout, basis, piece in zip(layouts, bases, pieces)])

    return project, lift

  def encode(self, xp: Ops, x: Array, draws: Draws, signal: Real) -> tuple[Array, Arrays]:
    layouts = self._layouts(signal)
    pieces = _split(x, [layout.size for layout in layouts])
    dithers = draws.client(Purpose.BASIS_ROUNDING)
    start, encoded = 0, []
    for layout, basis, piece in zip(layouts, self._bases(xp, draws, layouts), pieces):
      if basis is not None:
        rows = layout.rows(xp, piece)
        up, unit = sums.scale(xp, layout.bits, xp.reduce_max(xp.abs(rows)))
        # All rows share one row of dithers, as the errors are tiny and change with every message.
        numbers = xp.floor(rows * up + dithers.dither(layout.short, start))
        start += layout.short
        piece = xp.reshape(basis.project(numbers) * xp.reshape(unit, [1, layout.long]), [layout.coordinates])
      encoded.append(piece)
    return _join(xp, encoded), {}

  def decode(self, xp: Ops, values: Array, side: Arrays, draws: Draws, signal: Real) -> Array:
    _, lift = self.maps(xp, draws, signal)
    pieces = _split(values, [layout.coordinates for layout in self._layouts(signal)])
    return lift(_join(xp, [piece * np.float32(scale) for piece, scale in zip(pieces, self.scales(signal))]))


@dataclasses.dataclass(frozen=True)
class _Layout:
  """How a variable is seen as d2 rows of d1 values.

  Attributes:
    short, long: d1 and d2; 1 and the number of values where it passes as it is.
    rank: r.
    across: whether the last dimension is the long one.
  """
  short: int
  long: int
  rank: int = 1
  across: bool = False

  @classmethod
  def of(cls, shape: tuple[int, ...], share: fractions.Fraction) -> '_Layout':
    size = math.prod(shape)
    if len(shape) > 1 and size:
      last = shape[-1]
      short, long = min(last, size // last), max(last, size // last)
      rank = max(1, round(share * short))
      if rank < short:
        return cls(short, long, rank, last > short)
    return cls(1, size)

  @property
  def passes(self) -> bool:
    return self.rank == self.short

  @property
  def size(self) -> int:
    return self.short * self.long

  @property
  def coordinates(self) -> int:
    """How many values it becomes."""
    return self.rank * self.long

  @property
  def blocks(self) -> list[tuple[int, int, int]]:
    """[(first, number, order)] of the Hadamard blocks along the short side: powers of four, as large as fit."""
    first, order, found = 0, BLOCK, []
    while first < self.short:
      number = (self.short - first) // order
      if number:
        found.append((first, number, order))
      first += number * order
      order //= 4
    return found

  @property
  def bits(self) -> int:
    """Magnitudes become whole numbers up to 2^(bits + 1), of which a block can be added in float32, or a dither."""
    return min(16, 24 - self.blocks[0][2].bit_length())

  def rows(self, xp: Ops, x: Array) -> Array:
    """float32[d1 d2] of the variable -> float32[d2, d1]."""
    if self.across:
      return xp.transpose(xp.reshape(x, [self.short, self.long]), [1, 0])
    return xp.reshape(x, [self.long, self.short])

  def values(self, xp: Ops, rows: Array) -> Array:
    """Inverse of `rows`."""
    return xp.reshape(xp.transpose(rows, [1, 0]) if self.across else rows, [self.size])


class _Basis:
  """V: columns of a signed Hadamard matrix in blocks.

  Args:
    xp: operation table.
    layout: `_Layout`.
    columns: int32[r], ascending.
    signs: float32[d1].
  """

  def __init__(self, xp: Ops, layout: _Layout, columns: Array, signs: Array) -> None:
    self._xp, self._layout, self._columns, self._signs = xp, layout, columns, signs
    # 1 + the place of each column among the chosen ones, 0 for those that were not chosen.
    self._places = xp.scatter(columns, xp.iota(layout.rank) + xp.constant(1, np.int32), layout.short)

  def project(self, rows: Array) -> Array:
    """float32[d2, d1] -> float32[r, d2]: V^T of each row. Exact where sums of a block's values are."""
    xp = self._xp
    return xp.gather(self._transform(xp.transpose(rows * self._signs, [1, 0])), self._columns)

  def lift(self, values: Array) -> Array:
    """float32[r d2] -> float32[d2, d1]: V of each column."""
    xp, layout = self._xp, self._layout
    values = xp.concat([xp.zeros([1, layout.long], np.float32), xp.reshape(values, [layout.rank, layout.long])])
    return xp.transpose(self._transform(xp.gather(values, self._places)), [1, 0]) * self._signs

  def _transform(self, x: Array) -> Array:
    """float32[d1, d2]: each column times the orthonormal Hadamard matrix in blocks, which is its own inverse."""
    xp, long = self._xp, self._layout.long
    parts = []
    for first, number, order in self._layout.blocks:
      part = xp.transpose(x[first:first + number * order], [1, 0])
      part = hadamard.transform(xp, xp.reshape(part, [long * number, order])) * np.float32(1 / math.isqrt(order))
      parts.append(xp.transpose(xp.reshape(part, [long, number * order]), [1, 0]))
    return _join(xp, parts)


def _split(x: Array, sizes: Sequence[int]) -> list[Array]:
  start, pieces = 0, []
  for size in sizes:
    pieces.append(x[start:start + size])
    start += size
  return pieces


def _join(xp: Ops, pieces: Sequence[Array]) -> Array:
  return pieces[0] if len(pieces) == 1 else xp.concat(pieces)
