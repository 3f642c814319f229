"""Values sent as floats: float32 as it is or without its zeros, float16 with a power-of-two scale."""

import dataclasses
from typing import ClassVar

import numpy as np

from tff_compress.codec import bits
from tff_compress.codec import floats
from tff_compress.codec.keys import Draws
from tff_compress.codec.stage import Arrays
from tff_compress.codec.stage import Bytes
from tff_compress.codec.stage import Real
from tff_compress.codec.stage import Side
from tff_compress.codec.stage import Signal
from tff_compress.codec.stage import Stage
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops


@dataclasses.dataclass(frozen=True)
class Float32(Stage):
  """Four bytes per value, little endian. Lossless, except that -0 and denormals become +0."""
  name: ClassVar[str] = 'float32'
  codomain: ClassVar[type[Signal]] = Bytes
  summary: ClassVar[str] = 'float32 values, uncompressed'
  source: ClassVar[str] = 'IEEE 754'
  linear: ClassVar[bool] = False
  unbiased: ClassVar[bool] = True

  def output(self, signal: Real) -> Bytes:
    return Bytes(4 * signal.size)

  def nmse_bound(self, signal: Real) -> float:
    return 0.0

  def encode(self, xp: Ops, x: Array, draws: Draws, signal: Real) -> tuple[Array, Arrays]:
    return xp.integers_to_bytes(xp.bits_of(floats.without_denormals(xp, x)), 4), {}

  def decode(self, xp: Ops, values: Array, side: Arrays, draws: Draws, signal: Real) -> Array:
    x = xp.float_of(xp.integers_from_bytes(values, 4))
    xp.require(floats.is_sane(xp, x), 'the payload holds a NaN, an infinity or a magnitude above 2^88.')
    return x


@dataclasses.dataclass(frozen=True)
class Nonzero(Stage):
  """The values that are not zero, four bytes each, behind one bit for every value that says whether it is there.

  Where that would not be shorter, all values are sent as by `float32`, and no bits. Which of the two it is shows in the
  number of bytes. Lossless, except that -0 and denormals become +0.
  """
  name: ClassVar[str] = 'nonzero'
  codomain: ClassVar[type[Signal]] = Bytes
  summary: ClassVar[str] = 'float32 values without the zeros, and a bit for each that says which are there'
  source: ClassVar[str] = 'Huang et al. 2020 (RPN), sec. 3, selection of filters'
  unbiased: ClassVar[bool] = True

  def output(self, signal: Real) -> Bytes:
    return Bytes(None)

  def nmse_bound(self, signal: Real) -> float:
    return 0.0

  def encode(self, xp: Ops, x: Array, draws: Draws, signal: Real) -> tuple[Array, Arrays]:
    words = xp.bits_of(floats.without_denormals(xp, x))
    present = xp.cast(xp.abs(x) >= floats.SMALLEST_NORMAL, np.int32)
    head = bits.packed_size(signal.size, 1)
    dense = 4 * xp.total(present) + head >= 4 * signal.size
    flags = bits.pack(xp, present, 1)[:xp.integer(xp.where(dense, 0, head))]
    return xp.concat([flags, xp.integers_to_bytes(xp.compress(words, dense | (present > 0)), 4)]), {}

  def decode(self, xp: Ops, values: Array, side: Arrays, draws: Draws, signal: Real) -> Array:
    size, head = signal.size, bits.packed_size(signal.size, 1)
    dense = xp.equal(xp.size(values), 4 * size)
    xp.require(xp.size(values) >= head, 'the values that are not zero are cut short.')
    flags = xp.where(dense, xp.constant(0, np.uint8), values[:head])
    present = xp.maximum(bits.unpack(xp, flags, size, 1), xp.cast(dense, np.int32))
    body, count = values[xp.integer(xp.where(dense, 0, head)):], xp.total(present)
    xp.require(xp.equal(xp.long(xp.size(body)), 4 * count), 'the values that are not zero are not as many as it says.')
    xp.require(dense | (4 * count + head < 4 * size), 'values that are not zero are sent in the longer way.')
    found = xp.float_of(xp.integers_from_bytes(body, 4))
    xp.require(floats.is_sane(xp, found), 'the payload holds a NaN, an infinity or a magnitude above 2^88.')
    return xp.scatter(xp.where_nonzero(present), found, size)


@dataclasses.dataclass(frozen=True)
class Float16(Stage):
  """Two bytes per value, rounded to nearest, and one exponent per tensor.

  All values are scaled by one power of two that brings the largest magnitude to 2^14 … 2^15: without it, float16 would
  overflow above 65504 and lose precision below 6e-5, where updates often are.
  """
  name: ClassVar[str] = 'float16'
  codomain: ClassVar[type[Signal]] = Bytes
  summary: ClassVar[str] = 'float16 values with one power-of-two scale per tensor'
  source: ClassVar[str] = 'IEEE 754'

  def output(self, signal: Real) -> Bytes:
    return Bytes(2 * signal.size)

  def side(self, signal: Real) -> tuple[Side, ...]:
    return (Side('exponent', min(signal.size, 1), 1),)

  def nmse_bound(self, signal: Real) -> float:
    return 2.0**-22 + signal.size * 2.0**-56

  def encode(self, xp: Ops, x: Array, draws: Draws, signal: Real) -> tuple[Array, Arrays]:
    if not signal.size:
      return xp.zeros([0], np.uint8), {'exponent': xp.zeros([0], np.int32)}
    largest = xp.reduce_max(xp.abs(x))
    live = xp.cast(largest >= floats.SMALLEST, np.float32)
    exponent = floats.exponent(xp, xp.maximum(largest, floats.SMALLEST))
    scaled = x * (floats.power(xp, xp.constant(254 + 14, np.int32) - exponent) * live)
    # What float16 could only hold as a denormal is rounded to zero: runtimes differ in how they treat those.
    scaled = xp.where(xp.abs(scaled) < np.float32(2.0**-14), xp.constant(0, np.float32), scaled)
    return xp.integers_to_bytes(xp.to_float16_bits(scaled), 2), {'exponent': exponent}

  def decode(self, xp: Ops, values: Array, side: Arrays, draws: Draws, signal: Real) -> Array:
    if not signal.size:
      return xp.zeros([0], np.float32)
    x = xp.from_float16_bits(xp.integers_from_bytes(values, 2))
    xp.require(floats.is_sane(xp, x), 'the payload holds a NaN or an infinity.')
    exponent = side['exponent']
    # The biased exponents of floats.SMALLEST and just below floats.LARGEST.
    xp.require((exponent >= 63) & (exponent <= 214), 'the scale of a float16 tensor is out of range.')
    return x * floats.power(xp, exponent - xp.constant(14, np.int32))
