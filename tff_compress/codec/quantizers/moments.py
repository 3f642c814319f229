"""Exact block statistics for quantizers whose scale depends on norms and inner products.

Sums of floats differ between runtimes in their last bits, so they may not decide a payload bit. Here magnitudes are
first rounded to integers of at most 12 bits relative to the block's largest, and sums are split so that every partial
sum is an integer of at most 2^24: exact in float32 in any order.
"""

import numpy as np

from tff_compress.codec import floats
from tff_compress.codec import sums
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops

BLOCK = 4096
"""The largest block for which the sums below stay exact."""


class Moments:
  """Statistics of rows of values.

  Attributes:
    magnitudes: [rows, block] integers 0 … 4096, round(|x| 2^11 / p), p the power of two below the row's largest value.
    unit: [rows, 1] p / 2^11, the value of one; 0 in a row whose largest magnitude is below 2^-64.
    squares: [rows, 1] sum of the squared magnitudes, in units of unit^2.
  """

  def __init__(self, xp: Ops, rows: Array) -> None:
    self._xp = xp
    self.largest = xp.reduce_max(xp.abs(rows))
    up, self.unit = sums.scale(xp, 11, self.largest)
    self.magnitudes = xp.floor(xp.abs(rows) * up + np.float32(0.5))
    self.squares = self.sum_of_products(self.magnitudes, self.magnitudes)

  def sum_of_products(self, a: Array, b: Array) -> Array:
    """[rows, 1]: sum of a b for integers with a b <= 2^24, to float32 precision and the same on every runtime."""
    xp = self._xp
    product = a * b
    high = xp.floor(product * np.float32(2.0**-12))
    low = product - high * np.float32(2.0**12)
    return xp.reduce_sum(high) * np.float32(2.0**12) + xp.reduce_sum(low)

  def root_mean_square(self, inverse_counts: Array) -> Array:
    """[rows, 1] in units of `unit`; inverse_counts: [rows, 1] with 1 / `counts(size, block)`.

    A product, because graph optimizers turn a division by constants into one, which rounds differently.
    """
    return floats.square_root(self._xp, self.squares * inverse_counts)


def counts(size: int, block: int) -> np.ndarray:
  """NumPy float32 [rows, 1]: how many of each row's values are real when `size` values fill rows of `block`."""
  rows = -(-size // block)
  values = np.full((rows, 1), block, np.float32)
  values[-1, 0] = size - (rows - 1) * block
  return values
