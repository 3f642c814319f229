"""Elias gamma coding of every symbol: short codes for small magnitudes."""

import dataclasses
from typing import ClassVar

import numpy as np

from tff_compress.codec import elias_gamma
from tff_compress.codec.keys import Draws
from tff_compress.codec.stage import Arrays
from tff_compress.codec.stage import Bytes
from tff_compress.codec.stage import check
from tff_compress.codec.stage import Coder
from tff_compress.codec.stage import Integers
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops


@dataclasses.dataclass(frozen=True)
class Elias(Coder):
  """Symbol s as gamma(zigzag(s - c) + 1): 2 floor(log2 n) + 1 bits; c is the alphabet's middle, where 0 usually falls.

  Laid out in bit planes: see elias_gamma.py.
  """
  name: ClassVar[str] = 'elias'
  summary: ClassVar[str] = 'Elias gamma code, short for symbols near the middle of the alphabet'
  source: ClassVar[str] = 'Elias 1975'

  def _plan(self, signal: Integers) -> tuple[int, int]:
    limit = (signal.high - signal.low + 2).bit_length()
    check(limit < elias_gamma.MAX_LENGTH, 'elias: the alphabet is too large.')
    return (signal.low + signal.high + 1) // 2, limit

  def output(self, signal: Integers) -> Bytes:
    self._plan(signal)
    return Bytes(None)

  def encode(self, xp: Ops, symbols: Array, draws: Draws | None, signal: Integers) -> tuple[Array, Arrays]:
    centre, limit = self._plan(signal)
    offset = symbols - xp.constant(centre, np.int32)
    numbers = xp.where(offset < 0, offset * -2, offset * 2 + 1)
    return elias_gamma.encode(xp, numbers, limit), {}

  def decode(self, xp: Ops, values: Array, side: Arrays, draws: Draws | None, signal: Integers) -> Array:
    centre, limit = self._plan(signal)
    numbers = elias_gamma.decode(xp, values, signal.size, limit)
    half = xp.shift_right(numbers, 1)
    odd = numbers - half * xp.constant(2, np.int32)
    symbols = xp.where(odd > 0, half, -half) + xp.constant(centre, np.int32)
    xp.require((symbols >= signal.low) & (symbols <= signal.high), 'an Elias-coded symbol is outside the alphabet.')
    return symbols
