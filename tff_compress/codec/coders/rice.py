"""Sparse coding: Rice-coded gaps between the symbols that are not zero, their signs, and what magnitudes they have."""

import dataclasses
from typing import ClassVar

import numpy as np

from tff_compress.codec import bits
from tff_compress.codec import counts
from tff_compress.codec import elias_gamma
from tff_compress.codec import gaps
from tff_compress.codec.keys import Draws
from tff_compress.codec.stage import Arrays
from tff_compress.codec.stage import Bytes
from tff_compress.codec.stage import check
from tff_compress.codec.stage import Coder
from tff_compress.codec.stage import Integers
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops


@dataclasses.dataclass(frozen=True)
class Rice(Coder):
  """For alphabets around zero of which most symbols are zero.

  Layout: m, the number of non-zero symbols (a count) | m positions as Rice-coded gaps (gaps.py) | m sign bits, 1 for
  negative, where the alphabet has negative symbols | magnitudes in Elias gamma, where it has any above 1.
  """
  name: ClassVar[str] = 'rice'
  summary: ClassVar[str] = 'Rice-coded gaps between non-zero symbols, with signs and magnitudes'
  source: ClassVar[str] = 'Golomb 1966; Rice 1979; Sattler et al. 2019, eq. 14'

  def _limit(self, signal: Integers) -> int:
    """Bits of the largest magnitude."""
    limit = max(abs(signal.low), abs(signal.high)).bit_length()
    check(limit < elias_gamma.MAX_LENGTH, 'rice: the alphabet is too large.')
    return limit

  def output(self, signal: Integers) -> Bytes:
    self._limit(signal)
    return Bytes(None)

  def encode(self, xp: Ops, symbols: Array, draws: Draws | None, signal: Integers) -> tuple[Array, Arrays]:
    positions = xp.where_nonzero(symbols)
    kept = xp.gather(symbols, positions)
    parts = [counts.encode(xp, xp.vector(xp.size(positions))), gaps.encode(xp, positions)]
    if signal.low < 0:
      parts.append(bits.pack(xp, xp.cast(kept < 0, np.int32), 1))
    if self._limit(signal) > 1:
      parts.append(elias_gamma.encode(xp, xp.abs(kept), self._limit(signal)))
    return xp.concat(parts), {}

  def decode(self, xp: Ops, values: Array, side: Arrays, draws: Draws | None, signal: Integers) -> Array:
    count, values = counts.decode_one(xp, values)
    positions, values = gaps.decode(xp, values, count, signal.size)
    kept = positions * xp.constant(0, np.int32) + xp.constant(1, np.int32)
    if signal.low < 0:
      length = (count + 7) // 8
      xp.require(length <= xp.size(values), 'a sparse tensor is cut short.')
      kept = kept - bits.unpack(xp, values[:length], count, 1) * xp.constant(2, np.int32)
      values = values[length:]
    if self._limit(signal) > 1:
      kept = kept * elias_gamma.decode(xp, values, count, self._limit(signal))
    else:
      xp.require(xp.equal(xp.size(values), 0), 'there are bytes behind the end of a sparse tensor.')
    xp.require((kept >= signal.low) & (kept <= signal.high), 'a symbol of a sparse tensor is outside the alphabet.')
    return xp.scatter(positions, kept, signal.size)
