"""Accuracy against that of float32."""

import math

from tff_compress.simulation.report.columns import Column


class Difference(Column):
  """The difference in points: for each seed the difference between two runs that share everything but the codec, then
  mean ± standard error. It is much sharper than the difference of the means, because most of what differs between seeds
  is common to all codecs."""
  name = 'difference'
  title = 'vs float32'
  position = 50

  def value(self, series):
    return series.difference

  def text(self, series):
    if series.difference is None or math.isnan(series.difference):
      return ''
    error = '' if series.difference_error is None else f' ± {series.difference_error:.2f}'
    return f'{series.difference:+.2f}{error}'

  def caption(self, rows):
    several = any(len(series.runs) > 1 for series in rows)
    return '; vs float32: the difference in points' + (', mean ± standard error over the same seeds' if several else '')

  def figures(self, series):
    return {'difference': series.difference, 'difference_error': series.difference_error, 'pairs': series.pairs}
