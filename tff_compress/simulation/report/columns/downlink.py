"""The downlink."""

from tff_compress.simulation.report.columns import Column
from tff_compress.simulation.report.runs import FLOAT32


class Downlink(Column):
  """The codec of the model on its way to the clients."""
  name = 'downlink'
  title = 'downlink'
  position = 20
  is_text = True

  def value(self, series):
    return series.first.downlink

  def text(self, series):
    return 'float32' if series.first.downlink in FLOAT32 else series.first.downlink
