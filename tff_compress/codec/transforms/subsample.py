"""Sub-sampling: a random subset of the coordinates that both sides draw from a key, so no positions are sent."""

import dataclasses
import fractions
from typing import ClassVar

import numpy as np

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


@dataclasses.dataclass(frozen=True)
class Subsample(Subspace):
  """Keeps a fraction of the coordinates; the decoder multiplies them by d / k (unbiased).

  Where 1/fraction is a whole number s <= 65536, one coordinate is drawn from every s consecutive ones: each is kept
  with probability exactly 1/s (for s a power of two; otherwise within s / 2^32, relatively), but the choices are not
  independent as in simple random sampling. For other fractions a uniform subset of k = round(fraction d) is drawn.

  The multiplication is done by the decoder, which keeps the range of a following quantizer small.

  Attributes:
    fraction: 0 < fraction <= 1.
    key: 'round' for a mask that all clients of a round share (the sum of encoded updates can then be decoded at once,
      but the mask's error is common to the clients: averaging does not remove it); 'client' for masks of their own.
    least: coordinates that are kept at least, of all variables of the vector; a uniform subset where the fraction has
      fewer.
  """
  name: ClassVar[str] = 'subsample'
  summary: ClassVar[str] = 'a random subset of the coordinates, drawn from a key'
  source: ClassVar[str] = 'Konecny et al. 2016, sec. 3; exactly k without replacement'
  examples: ClassVar[tuple[str, ...]] = ('1/16', '0.1,key=client', '0.3', '1/50', '1/64,least=40')

  fraction: fractions.Fraction
  key: str = choice('round', 'client')
  least: int = 0

  def __post_init__(self) -> None:
    check(0 < self.fraction <= 1, f'subsample: the fraction must be above 0 and at most 1, not {self.fraction}.')
    check(0 <= self.least < 1 << 31, f'subsample: least must be from 0 to 2^31 - 1, not {self.least}.')

  def _stride(self, size: int) -> int | None:
    """s where the fraction is 1/s, 16 bits are enough to draw from s and that many are kept; otherwise None."""
    stride = 1 / self.fraction
    whole = stride.denominator == 1 and stride <= 1 << 16 and -(-size // int(stride)) >= min(self.least, size)
    return int(stride) if whole else None

  def __repr__(self) -> str:
    # Fingerprints are of this: without `least`, they are what they were before there was one.
    least = f', least={self.least}' if self.least else ''
    return f'Subsample(fraction={self.fraction!r}, key={self.key!r}{least})'

  def kept(self, size: int) -> int:
    """Number of coordinates kept of `size`."""
    stride = self._stride(size)
    if stride:
      return -(-size // stride)
    return min(size, max(1, self.least, round(self.fraction * size))) if size else 0

  def output(self, signal: Real) -> Real:
    return Real(self.kept(signal.size))

  def scales(self, signal: Real) -> tuple[float, ...]:
    scale = float(self._stride(signal.size) or signal.size / max(self.kept(signal.size), 1))
    return (scale,) * max(len(signal.shapes), 1)

  def nmse_bound(self, signal: Real) -> float:
    return self.scales(signal)[0] - 1

  def _index(self, xp: Ops, draws: Draws, size: int) -> Array:
    """int32[k]: the kept positions, ascending. With strides the last may lie behind the end."""
    stream = draws.of(self.key, Purpose.MASK)
    kept, stride = self.kept(size), self._stride(size)
    if stride == 1 or kept == size and not stride:
      return xp.iota(size)
    if not stride:
      return xp.largest(stream.words(size), kept)
    words = stream.words(kept)
    # floor(word stride / 2^32) in two halves of 16 bits, so that nothing is lost beyond 32 bits.
    factor = xp.constant(stride, np.int32)
    high = xp.shift_right(words, 16)
    low = words - high * xp.constant(1 << 16, np.int32)
    offset = xp.shift_right(high * factor + xp.shift_right(low * factor, 16), 16)
    return xp.iota(kept) * xp.constant(stride, np.int32) + offset

  def maps(self, xp: Ops, draws: Draws, signal: Real) -> Maps:
    size = signal.size
    index = self._index(xp, draws, size)
    stride = self._stride(size)
    padding = self.kept(size) * stride - size if stride else 0

    def project(x: Array) -> Array:
      return xp.gather(xp.concat([x, xp.zeros([padding], np.float32)]) if padding else x, index)

    def lift(values: Array) -> Array:
      return xp.scatter(index, values, size + padding)[:size]

    return project, lift

  def decode(self, xp: Ops, values: Array, side: Arrays, draws: Draws, signal: Real) -> Array:
    _, lift = self.maps(xp, draws, signal)
    return lift(values * np.float32(self.scales(signal)[0]))
