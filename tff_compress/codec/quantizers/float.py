"""Values sent as floats: float32 as it is, float16 with a power-of-two scale."""

import dataclasses
from typing import ClassVar

import numpy as np

from tff_compress.codec import floats
from tff_compress.codec.stage import Bytes
from tff_compress.codec.stage import Real
from tff_compress.codec.stage import Side
from tff_compress.codec.stage import Stage


def _settled(xp, x):
  """x with +0 for -0 and for denormals: runtimes differ in which zero a sum gives and in whether they keep denormals."""
  return xp.where(xp.abs(x) < floats.SMALLEST_NORMAL, xp.constant(0, np.float32), x)


@dataclasses.dataclass(frozen=True)
class Float32(Stage):
  """Four bytes per value, little endian. Lossless, except that -0 and denormals become +0."""
  name: ClassVar[str] = 'float32'
  codomain: ClassVar[type] = Bytes
  summary: ClassVar[str] = 'float32 values, uncompressed'
  source: ClassVar[str] = 'IEEE 754'
  linear: ClassVar[bool] = False
  unbiased: ClassVar[bool] = True

  def output(self, signal):
    return Bytes(4 * signal.size)

  def nmse_bound(self, signal):
    return 0.0

  def encode(self, xp, x, draws, signal):
    return xp.integers_to_bytes(xp.bits_of(_settled(xp, x)), 4), {}

  def decode(self, xp, values, side, draws, signal):
    x = xp.float_of(xp.integers_from_bytes(values, 4))
    xp.require(floats.is_sane(xp, x), 'the payload holds a NaN, an infinity or a magnitude above 2^88.')
    return x


@dataclasses.dataclass(frozen=True)
class Float16(Stage):
  """Two bytes per value, rounded to nearest, and one exponent per tensor.

  All values are scaled by one power of two that brings the largest magnitude to 2^14 … 2^15: without it, float16 would
  overflow above 65504 and lose precision below 6e-5, where updates often are.
  """
  name: ClassVar[str] = 'float16'
  codomain: ClassVar[type] = Bytes
  summary: ClassVar[str] = 'float16 values with one power-of-two scale per tensor'
  source: ClassVar[str] = 'IEEE 754'

  def output(self, signal):
    return Bytes(2 * signal.size)

  def side(self, signal):
    return (Side('exponent', min(signal.size, 1), 1),)

  def nmse_bound(self, signal):
    return 2.0**-22 + signal.size * 2.0**-56

  def encode(self, xp, x, draws, signal):
    if not signal.size:
      return xp.zeros([0], np.uint8), {'exponent': xp.zeros([0], np.int32)}
    largest = xp.reduce_max(xp.abs(x))
    live = xp.cast(largest >= floats.SMALLEST, np.float32)
    exponent = floats.exponent(xp, xp.maximum(largest, floats.SMALLEST))
    scaled = x * (floats.power(xp, xp.constant(254 + 14, np.int32) - exponent) * live)
    # What float16 could only hold as a denormal is rounded to zero: runtimes differ in how they treat those.
    scaled = xp.where(xp.abs(scaled) < np.float32(2.0**-14), xp.constant(0, np.float32), scaled)
    return xp.integers_to_bytes(xp.to_float16_bits(scaled), 2), {'exponent': exponent}

  def decode(self, xp, values, side, draws, signal):
    if not signal.size:
      return xp.zeros([0], np.float32)
    x = xp.from_float16_bits(xp.integers_from_bytes(values, 2))
    xp.require(floats.is_sane(xp, x), 'the payload holds a NaN or an infinity.')
    exponent = side['exponent']
    # The biased exponents of floats.SMALLEST and just below floats.LARGEST.
    xp.require((exponent >= 63) & (exponent <= 214), 'the scale of a float16 tensor is out of range.')
    return x * floats.power(xp, exponent - xp.constant(14, np.int32))
