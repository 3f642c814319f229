"""How much smaller both directions are."""

from tff_compress.simulation.report.columns import Column


class Ratio(Column):
  """The same of both directions together."""
  name = 'ratio'
  title = '× both'
  position = 110
  of_uplink = True

  def value(self, series):
    return series.ratio
