"""Handwritten digits, small enough to train on in seconds."""

import numpy as np

from tff_compress.simulation.data import DataError
from tff_compress.simulation.datasets.base import Bundled
from tff_compress.simulation.datasets.base import hold_out


class Digits(Bundled):
  name = 'digits'
  summary = "scikit-learn's bundled 8x8 digits: 1,797 examples, a fixed stratified fifth of them for testing"
  origin = 'comes with scikit-learn'

  def make(self):
    try:
      from sklearn.datasets import load_digits
    except ImportError:
      raise DataError('The digits come with scikit-learn: install scikit-learn.') from None
    digits = load_digits()
    x = (digits.images[..., np.newaxis] / 16).astype(np.float32)
    return hold_out(self.name, x, digits.target.astype(np.int32), num_classes=10)
