"""Settings that differ between the rows."""

from tff_compress.simulation.report.columns import Column


class Settings(Column):
  """Other settings, where they differ between the rows."""
  name = 'settings'
  title = 'settings'
  position = 30
  is_text = True

  def value(self, series):
    return series.label.partition(', ')[2]  # A label has those that differ behind the codecs.
