"""Messages that an autoencoder did not fit."""

from tff_compress.simulation.report.columns import Column
from tff_compress.simulation.report.formats import percent


class Fallbacks(Column):
  """The share of messages that the autoencoder did not fit. The page lists them by round."""
  name = 'fallbacks'
  title = 'fallbacks %'
  position = 130
  sentence = '; fallbacks is the share of messages that the autoencoder did not fit'

  def value(self, series):
    return series.fallbacks

  def text(self, series):
    return percent(series.fallbacks)
