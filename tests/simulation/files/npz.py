"""An .npz file of images, for tests."""

import numpy as np


def write(folder):
  """A small data set for the contract of data sets; what --data-dir is given."""
  x = np.random.Generator(np.random.Philox(0)).integers(0, 256, (40, 6, 6), np.uint8)
  np.savez(folder / 'data.npz', x=x, y=np.arange(40) % 4)
  return folder / 'data.npz'
