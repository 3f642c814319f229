"""Randomized Hadamard rotation in blocks, exact on every runtime and without padding."""

from collections.abc import Sequence
import dataclasses
import functools
import math
from typing import ClassVar
from typing import TypeAlias

import numpy as np

from tff_compress.codec import floats
from tff_compress.codec.keys import Draws
from tff_compress.codec.random import Purpose
from tff_compress.codec.random import Rows
from tff_compress.codec.stage import Arrays
from tff_compress.codec.stage import check
from tff_compress.codec.stage import choice
from tff_compress.codec.stage import Real
from tff_compress.codec.stage import Stage
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops

_Step: TypeAlias = tuple[int, int, int, bool]
"""(start, rows, block, across) of one block transform."""


@functools.cache
def sylvester(order: int) -> np.ndarray:
  """float32 [order, order] Hadamard matrix of +1 and -1 in Sylvester's (natural) order; order is a power of two."""
  matrix = np.ones((1, 1), np.float32)
  while matrix.shape[0] < order:
    matrix = np.block([[matrix, matrix], [matrix, -matrix]])
  return matrix.astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Hadamard(Stage):
  """Random signs, then an orthonormal Hadamard transform, in blocks of r x r values.

  The block is the largest power of four that is at most `block` and at most the number of values, so nothing is
  padded: what is left behind the last whole block is rotated together with the values just before it, as one more
  block. The second of two rotations takes its blocks across the first one's, so that one value reaches block^2 others.

  Before each transform a block is scaled by a power of two and rounded stochastically to integers small enough for
  every sum inside the transform to be exact in float32, in any order. This error is at most 2.5e-4 of ||x||^2 (block
  4096; 4e-6 at 1024) in the worst case and near 1e-8 on usual updates.

  Attributes:
    rotations: 1, or 2 where a single one is not enough to make spiky updates isotropic.
    block: 4, 16, 64, 256, 1024 or 4096.
    key: 'round' for signs that all clients of a round share, so that the inverse can be applied to the sum;
      'client' for a rotation of the client's own.
  """
  name: ClassVar[str] = 'hadamard'
  summary: ClassVar[str] = 'random signs and an orthonormal Hadamard transform; no padding'
  source: ClassVar[str] = 'Suresh et al. 2017; Konecny et al. 2016, sec. 3'
  unbiased: ClassVar[bool] = True
  isotropic: ClassVar[bool] = True
  examples: ClassVar[tuple[str, ...]] = ('', 'rotations=2', 'key=client', 'rotations=2,block=4096', 'block=64')

  rotations: int = 1
  block: int = 1024
  key: str = choice('round', 'client')

  def __post_init__(self) -> None:
    check(self.rotations in (1, 2), f'hadamard: rotations must be 1 or 2, not {self.rotations}.')
    check(self.block in (4, 16, 64, 256, 1024, 4096),
          f'hadamard: block must be 4, 16, 64, 256, 1024 or 4096, not {self.block}.')

  @property
  def linear(self) -> bool:
    return self.key == 'round'

  def output(self, signal: Real) -> Real:
    return Real(signal.size)

  def nmse_bound(self, signal: Real) -> float:
    # A value is off by less than one unit, with a variance of at most 1/4; the largest is at least 2^(23 - log2 block)
    # units.
    return self.rotations * (self.block**3 * 2.0**-48 + 1e-9)

  def _plan(self, size: int) -> list[_Step]:
    """[(start, rows, block, across)] of the block transforms, in the order of encoding."""
    block = largest_block(self.block, size)
    rows = size // block
    steps = []
    for rotation in range(self.rotations):
      steps.append((0, rows, block, rotation == 1))
      if size % block:
        steps.append((size - block, 1, block, False))
    return steps

  def _signs(self, xp: Ops, draws: Draws, steps: Sequence[_Step]) -> list[Rows]:
    """The signs of each step, [rows, block]: consecutive pieces of one stream."""
    stream, used, pieces = draws.of(self.key, Purpose.ROTATION), 0, []
    for _, rows, block, _ in steps:
      pieces.append(Rows(xp, stream.signs, rows, block, used))
      used += rows * block
    return pieces

  def encode(self, xp: Ops, x: Array, draws: Draws, signal: Real) -> tuple[Array, Arrays]:
    if signal.size == 0:
      return x, {}
    steps = self._plan(signal.size)
    dithers = draws.client(Purpose.PRE_ROUNDING).dither(sum(block for *_, block, _ in steps))
    used = 0
    for (start, rows, block, across), signs in zip(steps, self._signs(xp, draws, steps)):
      part = _rows(xp, x[start:start + rows * block], rows, block, across)
      part, = xp.by_rows(lambda x, signs, dither=dithers[used:used + block]: (forward(xp, x, signs, dither),), part,
                         signs)
      used += block
      part = _unrows(xp, part, rows, block, across)
      x = _replace(xp, x, part, start, signal.size)
    return x, {}

  def decode(self, xp: Ops, values: Array, side: Arrays, draws: Draws, signal: Real) -> Array:
    if signal.size == 0:
      return values
    x = values
    steps = self._plan(signal.size)
    for (start, rows, block, across), signs in reversed(list(zip(steps, self._signs(xp, draws, steps)))):
      part = _rows(xp, x[start:start + rows * block], rows, block, across)
      part, = xp.by_rows(lambda x, signs: (inverse(xp, x, signs),), part, signs)
      part = _unrows(xp, part, rows, block, across)
      x = _replace(xp, x, part, start, signal.size)
    return x


def largest_block(most: int, size: int) -> int:
  """The largest power of four that is at most `most`, which is one, and at most `size`; 1 for no values."""
  return min(most, 4**int(math.log(max(size, 1), 4) + 1e-9))


def _rows(xp: Ops, part: Array, rows: int, block: int, across: bool) -> Array:
  """[rows * block] -> [rows, block]: consecutive values in a row, or (across) values `rows` apart."""
  if across:
    return xp.transpose(xp.reshape(part, [block, rows]), [1, 0])
  return xp.reshape(part, [rows, block])


def _unrows(xp: Ops, part: Array, rows: int, block: int, across: bool) -> Array:
  if across:
    part = xp.transpose(xp.reshape(part, [rows, block]), [1, 0])
  return xp.reshape(part, [rows * block])


def _replace(xp: Ops, x: Array, part: Array, start: int, size: int) -> Array:
  """x with `part` in place of the values from `start`."""
  stop = start + int(part.shape[0])
  if start == 0 and stop == size:
    return part
  return xp.concat([piece for piece in (x[:start], part, x[stop:]) if int(piece.shape[0])])


def transform(xp: Ops, x: Array) -> Array:
  """Unnormalised Hadamard transform of each row of [rows, block]; applied twice it multiplies by block.

  A row is seen as a square of order^2 = block values: H_order times the transposed square times H_order. Every partial
  sum adds at most order^2 inputs with signs, so integers of magnitude up to 2^24 / order^2 stay exact whatever order
  the sums are done in.
  """
  block = int(x.shape[1])
  order = math.isqrt(block)
  matrix = xp.constant(sylvester(order), np.float32)
  # How many rows there are may be known only when the graph runs.
  x = xp.matmul(xp.reshape(x, [-1, order]), matrix)
  x = xp.transpose(xp.reshape(x, [-1, order, order]), [0, 2, 1])
  x = xp.matmul(xp.reshape(x, [-1, order]), matrix)
  return xp.reshape(x, [-1, block])


def forward(xp: Ops, x: Array, signs: Array, dither: Array) -> Array:
  """Rounds each row to integers, flips signs, transforms, and scales back to an orthonormal result.

  Args:
    xp: operation table.
    x: float32[rows, block], block a power of four.
    signs: float32[rows, block] of 1 and -1.
    dither: float32[block] in (0, 1), for the rounding of all rows.
  """
  block = int(x.shape[1])
  order = math.isqrt(block)
  bits = 24 - int(math.log2(block))
  largest = xp.reduce_max(xp.abs(x))
  live = xp.cast(largest >= floats.SMALLEST, np.float32)
  exponent = floats.exponent(xp, xp.maximum(largest, floats.SMALLEST))
  up = floats.power(xp, xp.constant(254 + bits - 1, np.int32) - exponent) * live
  down = floats.power(xp, exponent - xp.constant(bits - 1 + order.bit_length() - 1, np.int32)) * live
  # All rows share one row of dithers. Each value is still rounded without bias; that errors of different rows go
  # together is of no account, as they are about 1e-8 of the energy and change with every message.
  integers = xp.floor(x * up + dither)
  return transform(xp, integers * signs) * down


def inverse(xp: Ops, x: Array, signs: Array) -> Array:
  """Inverse of `forward` with the same signs: float32[rows, block] -> float32[rows, block]."""
  # Scaled first: a power of two rounds nothing, and the sums cannot overflow.
  x = x * np.float32(1 / math.isqrt(int(x.shape[1])))
  return transform(xp, x) * signs
