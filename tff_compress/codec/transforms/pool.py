"""Pooling of convolution kernels: one value in place of a filter's square."""

import dataclasses
import math
from typing import ClassVar

import numpy as np

from tff_compress.codec import sums
from tff_compress.codec.keys import Draws
from tff_compress.codec.stage import Arrays
from tff_compress.codec.stage import check
from tff_compress.codec.stage import Real
from tff_compress.codec.stage import Stage
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops

LARGEST_THRESHOLD = 2.0**64


@dataclasses.dataclass(frozen=True)
class Pool(Stage):
  """Kernels of shape (height, width, in, out) become their mean over height and width; the decoder puts it in all
  places.

  Variables of any other number of dimensions, and kernels of 1 x 1, stay as they are. Decoding is linear, so any number
  of missed rounds can be sent as one sum of the same size. This is the orthogonal projection on kernels that are
  constant in space: whatever detail a kernel has stays as it was initialised, which harms networks that are mostly
  convolutions. Biased.

  Attributes:
    threshold: the mean of a kernel becomes 0 unless |sum of its elements| is above this; at 0 all stay. In the
      units of the update.
  """
  name: ClassVar[str] = 'pool'
  summary: ClassVar[str] = 'the spatial mean of convolution kernels'
  source: ClassVar[str] = 'Huang et al. 2020 (RPN), sec. 3'
  linear: ClassVar[bool] = True
  needs_shapes: ClassVar[bool] = True
  examples: ClassVar[tuple[str, ...]] = ('', 'threshold=0.25')

  threshold: float = 0.0

  def __post_init__(self) -> None:
    check(0 <= self.threshold <= LARGEST_THRESHOLD,
          f'pool: the threshold must be from 0 to {LARGEST_THRESHOLD:.2g}, not {self.threshold}.')

  def _parts(self, signal: Real) -> list[tuple[int, int]]:
    """[(places, values per place)] of each variable."""
    shapes = signal.shapes or ((signal.size,),)
    return [(shape[0] * shape[1], shape[2] * shape[3]) if len(shape) == 4 and math.prod(shape) else
            (1, math.prod(shape)) for shape in shapes]

  def output(self, signal: Real) -> Real:
    return Real(sum(values for _, values in self._parts(signal)))

  def nmse_bound(self, signal: Real) -> float:
    return 1 + 1e-6 if any(places > 1 for places, _ in self._parts(signal)) else 0.0

  def encode(self, xp: Ops, x: Array, draws: Draws, signal: Real) -> tuple[Array, Arrays]:
    start, pooled = 0, []
    for places, values in self._parts(signal):
      piece = x[start:start + places * values]
      start += places * values
      pooled.append(piece if places == 1 else self._chosen(xp, _mean(xp, piece, places, values), places))
    return (pooled[0] if len(pooled) == 1 else xp.concat(pooled)), {}

  def _chosen(self, xp: Ops, means: Array, places: int) -> Array:
    """The means of kernels, 0 where the sum of the elements is not above the threshold."""
    if not self.threshold:
      return means
    return xp.where(xp.abs(means) > np.float32(self.threshold / places), means, xp.constant(0, np.float32))

  def decode(self, xp: Ops, values: Array, side: Arrays, draws: Draws, signal: Real) -> Array:
    start, pieces = 0, []
    for places, count in self._parts(signal):
      pieces += [values[start:start + count]] * places
      start += count
    return pieces[0] if len(pieces) == 1 else xp.concat(pieces)


def _mean(xp: Ops, kernel: Array, places: int, values: int) -> Array:
  """[places * values] -> [values], as whole numbers of which so many fit an int32."""
  bits = min(sums.BITS, 29 - (places - 1).bit_length())
  numbers, unit = sums.fixed_point(xp, kernel, bits, xp.reduce_max(xp.abs(kernel)))
  signed = xp.where(kernel < 0, -numbers, numbers)
  added = xp.sum_last(xp.transpose(xp.reshape(signed, [places, values]), [1, 0]))
  return xp.cast(added, np.float32) * np.float32(1 / places) * unit
