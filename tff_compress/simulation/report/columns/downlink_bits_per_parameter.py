"""Bits of a message to a client."""

from tff_compress.simulation.report.columns import Column


class DownlinkBits(Column):
  """The same of messages to clients."""
  name = 'downlink_bits_per_parameter'
  title = 'bits down'
  position = 90

  def value(self, series):
    return series.downlink_bits_per_parameter
