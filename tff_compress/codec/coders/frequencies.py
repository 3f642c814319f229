"""Frequencies of symbols with a fixed sum, for coders that send a table of them."""

import numpy as np

PRECISION = 12
TOTAL = 1 << PRECISION


def frequencies(xp, counts, alphabet, size):
  """int32[alphabet] counts of `size` symbols -> frequencies that sum to 4096, at least 1 for every symbol that occurs."""
  used = xp.cast(counts > 0, np.int32)
  left = xp.long(TOTAL) - xp.total(used)
  share = xp.cast(xp.cast(counts, np.int64) * left // xp.long(size), np.int32) + used
  rest = xp.integer(xp.long(TOTAL) - xp.total(share))
  most = xp.cast(xp.equal(xp.iota(alphabet), xp.argmax(counts)), np.int32)
  return share + most * rest
