"""How much was sent in both directions."""

from tff_compress.simulation.report.columns import Column


class TotalBytes(Column):
  """The sum of both directions, which the rows are sorted by where nothing is said."""
  name = 'total_bytes'
  title = 'MB both'
  position = 75
  sentence = 'MB both is what went up and down together'
  scale = 1e6
  of_uplink = True

  def value(self, series):
    return series.total_bytes
