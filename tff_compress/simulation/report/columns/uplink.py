"""The uplink."""

from tff_compress.simulation.report.columns import Column
from tff_compress.simulation.report.runs import FLOAT32


class Uplink(Column):
  """The codec or method of the clients' updates."""
  name = 'uplink'
  title = 'uplink'
  position = 10
  is_text = True

  def value(self, series):
    return series.label

  def text(self, series):
    return 'float32' if series.first.uplink in FLOAT32 else series.first.uplink
