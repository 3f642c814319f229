"""Wine of three cultivars by its chemistry (Forina et al. 1988): the smallest table."""

from tff_compress.simulation import kinds
from tff_compress.simulation.data import DataError
from tff_compress.simulation.datasets.base import Bundled
from tff_compress.simulation.datasets.base import hold_out


class Wine(Bundled):
  name = 'wine'
  summary = ("scikit-learn's bundled wine: 178 rows of 13 measurements, standardized, and three cultivars; a fixed "
             'stratified fifth of them for testing')
  kind = kinds.TABLE
  origin = 'comes with scikit-learn'

  def make(self):
    try:
      from sklearn.datasets import load_wine
    except ImportError:
      raise DataError('The wine comes with scikit-learn: install scikit-learn.') from None
    x, y = load_wine(return_X_y=True)
    return hold_out(self.name, x, y.astype('int32'), num_classes=3, kind=self.kind, standardize=True)
