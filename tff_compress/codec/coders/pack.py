"""Fixed-width packing: every symbol in the same number of bits, none wasted."""

import dataclasses
from typing import ClassVar

import numpy as np

from tff_compress.codec import bits
from tff_compress.codec.keys import Draws
from tff_compress.codec.stage import Arrays
from tff_compress.codec.stage import Bytes
from tff_compress.codec.stage import check
from tff_compress.codec.stage import Coder
from tff_compress.codec.stage import Integers
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops


@dataclasses.dataclass(frozen=True)
class Pack(Coder):
  """ceil(n w / 8) bytes for n symbols, w the bits that the quantizer's alphabet needs (at most 16)."""
  name: ClassVar[str] = 'pack'
  summary: ClassVar[str] = 'fixed width, no wasted bits'
  source: ClassVar[str] = 'docs/wire-format.md'

  def _width(self, signal: Integers) -> int:
    width = max(1, (signal.high - signal.low).bit_length())
    check(width <= 16, f'pack: symbols of {width} bits are too wide; the limit is 16.')
    return width

  def output(self, signal: Integers) -> Bytes:
    return Bytes(bits.packed_size(signal.size, self._width(signal)))

  def encode(self, xp: Ops, symbols: Array, draws: Draws | None, signal: Integers) -> tuple[Array, Arrays]:
    return bits.pack(xp, symbols - xp.constant(signal.low, np.int32), self._width(signal)), {}

  def decode(self, xp: Ops, values: Array, side: Arrays, draws: Draws | None, signal: Integers) -> Array:
    symbols = bits.unpack(xp, values, signal.size, self._width(signal)) + xp.constant(signal.low, np.int32)
    if signal.high - signal.low + 1 < 1 << self._width(signal):
      xp.require(symbols <= signal.high, 'a packed symbol is outside the alphabet.')
    return symbols
