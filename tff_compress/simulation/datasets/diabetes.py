"""How diabetes went on after a year (Efron et al. 2004): a number to predict."""

from tff_compress.simulation import kinds
from tff_compress.simulation.data import DataError
from tff_compress.simulation.datasets.base import Bundled
from tff_compress.simulation.datasets.base import hold_out


class Diabetes(Bundled):
  name = 'diabetes'
  summary = ("scikit-learn's bundled diabetes: 442 rows of 10 measurements and the disease's progression a year later, "
             'both standardized, so that a loss of 1 is that of predicting the mean; a fixed fifth of them for testing')
  kind = kinds.REGRESSION
  origin = 'comes with scikit-learn'

  def make(self):
    try:
      from sklearn.datasets import load_diabetes
    except ImportError:
      raise DataError('The diabetes data come with scikit-learn: install scikit-learn.') from None
    x, y = load_diabetes(return_X_y=True)
    return hold_out(self.name, x, y, kind=self.kind, standardize=True)
