"""How long a round takes."""

from tff_compress.simulation.report.columns import Column


class Seconds(Column):
  """The median time of a round with its evaluation, without each run's first, in which TFF builds its programs."""
  name = 'seconds'
  title = 's/round'
  position = 150

  def value(self, series):
    return series.seconds
