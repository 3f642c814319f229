"""Error-bounded quantization: no value is off by more than a given error."""

import dataclasses
from typing import ClassVar

import numpy as np

from tff_compress.codec import floats
from tff_compress.codec.keys import Draws
from tff_compress.codec.ops import numpy_ops
from tff_compress.codec.stage import Arrays
from tff_compress.codec.stage import check
from tff_compress.codec.stage import choice
from tff_compress.codec.stage import Integers
from tff_compress.codec.stage import Real
from tff_compress.codec.stage import Side
from tff_compress.codec.stage import Signal
from tff_compress.codec.stage import Stage
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops


@dataclasses.dataclass(frozen=True)
class Bound(Stage):
  """q = round(x / w) with steps of w just below 2 e; decodes to q w, so that |x - q w| <= e.

  The step is a bfloat16, so q w is exact and the bound holds for the float32 that comes out, not for a real number
  before its rounding. Values that would need a larger q than `limit`, or that a step cannot bring within e, are sent as
  float32 beside the symbols. There is no predictor: updates are nearly white, and differences would cost more. The
  error is deterministic, so it does not average out over clients.

  Attributes:
    error: e, or its share of the range.
    mode: 'absolute', or 'relative' for e = error (max - min) over the vector.
    limit: largest |q|, 1 … 32767; alphabets up to 127 fit every coder.
  """
  name: ClassVar[str] = 'bound'
  codomain: ClassVar[type[Signal]] = Integers
  summary: ClassVar[str] = 'even steps with a bound on the error of every value'
  source: ClassVar[str] = 'Di and Cappello 2016 (SZ), without its predictor'
  examples: ClassVar[tuple[str, ...]] = ('0.002,limit=31', '0.01,mode=relative')

  error: float
  mode: str = choice('absolute', 'relative')
  limit: int = 127

  def __post_init__(self) -> None:
    smallest, largest = (2.0**-60, 2.0**60) if self.mode == 'absolute' else (2.0**-15, 0.5)
    check(smallest <= self.error <= largest,
          f'bound: the {self.mode} error must be from {smallest:.2g} to {largest:.2g}, not {self.error}.')
    check(1 <= self.limit <= 32767, f'bound: limit must be 1 … 32767, not {self.limit}.')

  def output(self, signal: Real) -> Integers:
    # The lowest symbol stands for a value that is sent as it is.
    return Integers(signal.size, -self.limit - 1, self.limit)

  def side(self, signal: Real) -> tuple[Side, ...]:
    return (Side('step', min(signal.size, 1), 2), Side('outliers', None, 4))

  def nmse_bound(self, signal: Real) -> float:
    # A value whose symbol is not 0 is at least e, so no error is larger than its value; (max - min)^2 <= 2 ||x||^2.
    return 1 + 1e-6 if self.mode == 'absolute' else min(1.0, 2 * signal.size * self.error**2) + 1e-6

  def encode(self, xp: Ops, x: Array, draws: Draws, signal: Real) -> tuple[Array, Arrays]:
    if not signal.size:
      empty = xp.zeros([0], np.int32)
      return empty, {'step': empty, 'outliers': empty}
    x = floats.without_denormals(xp, x)
    if self.mode == 'absolute':
      bits = xp.constant([_bfloat16_below(2 * self.error)], np.int32)
    else:
      # A little less, for the roundings of difference and product.
      width = (xp.reduce_max(x) - xp.reduce_min(x)) * np.float32(2 * self.error * (1 - 2.0**-21))
      width = xp.where(width < floats.SMALLEST, xp.constant(0, np.float32), width)
      bits = floats.rounded_down_bfloat16(xp, width)
    step = floats.from_bfloat16(xp, bits)
    limit = np.float32(self.limit)
    quotient = xp.floor(x / xp.where(step > 0, step, xp.constant(1, np.float32)) + np.float32(0.5))
    quotient = xp.minimum(xp.maximum(quotient, -limit), limit)
    # Both products are exact, 15 bits times 8; so is the difference, wherever it is near the bound (Sterbenz).
    within = xp.abs(x - quotient * step) <= step * np.float32(0.5)
    symbols = xp.where(within, xp.cast(quotient, np.int32), xp.constant(-self.limit - 1, np.int32))
    outside = xp.equal(symbols, -self.limit - 1)
    return symbols, {'step': bits, 'outliers': xp.compress(xp.bits_of(x), outside)}

  def decode(self, xp: Ops, values: Array, side: Arrays, draws: Draws, signal: Real) -> Array:
    outside = xp.where_nonzero(xp.cast(xp.equal(values, -self.limit - 1), np.int32))
    outliers = xp.float_of(side['outliers'])
    xp.require(xp.equal(xp.size(outside), xp.size(outliers)),
               'the outliers of an error-bounded tensor have another count.')
    xp.require(floats.is_sane(xp, outliers), 'an outlier is not a number of at most 2^88 in magnitude.')
    if not signal.size:
      return xp.zeros([0], np.float32)
    step = floats.from_bfloat16(xp, side['step'])
    xp.require(floats.is_amount(xp, step), 'the step of an error-bounded tensor is not a number from 0 to 2^88.')
    inside = xp.cast(values > -self.limit - 1, np.float32)
    return xp.cast(values, np.float32) * step * inside + xp.scatter(outside, outliers, signal.size)


def _bfloat16_below(x: float) -> int:
  """The 16 bits of the largest bfloat16 that is at most x > 0."""
  below = np.float32(x)
  if float(below) > x:
    below = np.nextafter(below, np.float32(0))
  return int(numpy_ops.bits_of(below)[0]) >> 16
