"""How much was sent to clients."""

from tff_compress.simulation.report.columns import Column


class DownlinkBytes(Column):
  """The same of what was sent to clients."""
  name = 'downlink_bytes'
  title = 'MB down'
  position = 70
  scale = 1e6

  def value(self, series):
    return series.downlink_bytes
