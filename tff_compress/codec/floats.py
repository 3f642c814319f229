"""Float arithmetic that gives the same bits on every runtime: powers of two by their bits, bfloat16, square root.

Only element-wise IEEE operations and integer bit patterns are used (docs/random-numbers.md, "Exactness").
"""

import numpy as np

from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops

SMALLEST = np.float32(2.0**-64)
"""A block whose largest magnitude is below this is encoded as zero, so that no denormal can decide a bit."""

LARGEST = np.float32(2.0**88)
"""Larger magnitudes are refused by decoders. Updates hold at most 2^64, so the norm of 2^31 values is at most 2^79.5,
and a scale of a block of 4096 is at most 64 times its norm."""


SMALLEST_NORMAL = np.float32(2.0**-126)


def without_denormals(xp: Ops, x: Array) -> Array:
  """float32 with +0 for -0 and for denormals: runtimes differ in which zero a sum gives and in keeping denormals."""
  return xp.where(xp.abs(x) < SMALLEST_NORMAL, xp.constant(0, np.float32), x)


def exponent(xp: Ops, x: Array) -> Array:
  """int32 biased exponent (1 … 254) of positive normal float32 values."""
  return xp.shift_right(xp.bits_of(x), 23)


def power(xp: Ops, biased: Array) -> Array:
  """float32 2^(biased - 127) from int32 biased exponents in 1 … 254."""
  return xp.float_of(biased * xp.constant(1 << 23, np.int32))


def rounded_down_bfloat16(xp: Ops, x: Array) -> Array:
  """int32 holding the 16 bits of the largest bfloat16 that is <= x."""
  bits = xp.bits_of(x)
  return xp.shift_right(bits + xp.where(x < 0, xp.constant(0xFFFF, np.int32), xp.constant(0, np.int32)), 16)


def rounded_up_bfloat16(xp: Ops, x: Array) -> Array:
  """int32 holding the 16 bits of the smallest bfloat16 that is >= x."""
  bits = xp.bits_of(x)
  return xp.shift_right(bits + xp.where(x > 0, xp.constant(0xFFFF, np.int32), xp.constant(0, np.int32)), 16)


def nearest_bfloat16(xp: Ops, x: Array) -> Array:
  """int32 holding the 16 bits of the nearest bfloat16 of x >= 0 (ties away from zero)."""
  return xp.shift_right(xp.bits_of(x) + xp.constant(0x8000, np.int32), 16)


def from_bfloat16(xp: Ops, bits: Array) -> Array:
  """float32 from int32 whose low 16 bits are a bfloat16."""
  return xp.float_of(bits * xp.constant(1 << 16, np.int32))


def square_root(xp: Ops, x: Array) -> Array:
  """Square root of float32 x in 2^-60 … 2^60 (0 gives about 2^-30), to about one unit in the last place.

  Newton's method from a start taken from the exponent: divisions and additions only, so every runtime agrees.
  """
  x = xp.maximum(x, np.float32(2.0**-60))
  y = xp.float_of(xp.shift_right(xp.bits_of(x), 1) + xp.constant(0x1FC00000, np.int32))
  for _ in range(4):
    y = (y + x / y) * np.float32(0.5)
  return y


def is_sane(xp: Ops, x: Array) -> Array:
  """Boolean: neither NaN, nor infinite, nor so large that no encoder writes it and later arithmetic could overflow."""
  return xp.abs(x) <= LARGEST


def order(xp: Ops, x: Array) -> Array:
  """int32 that are in the order of the float32 values. Runtimes differ in whether they tell denormals from zero."""
  bits = xp.bits_of(x)
  return xp.where(bits < 0, xp.constant(-2**31, np.int32) - bits, bits)


def is_amount(xp: Ops, x: Array) -> Array:
  """Boolean: as `is_sane`, and not negative."""
  return is_sane(xp, x) & (order(xp, x) >= 0)


def blocks(xp: Ops, x: Array, size: int, block: int, fill_last: bool = False) -> Array:
  """[size] -> [ceil(size / block), block], the last row filled up with zeros or with the last value."""
  rows = -(-size // block)
  missing = rows * block - size
  if missing:
    filler = xp.repeat(x[-1:], missing) if fill_last else xp.zeros([missing], np.float32)
    x = xp.concat([x, filler])
  return xp.reshape(x, [rows, block])
