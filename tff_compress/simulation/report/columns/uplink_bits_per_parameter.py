"""Bits of a client's message."""

from tff_compress.simulation.report.columns import Column


class UplinkBits(Column):
  """Bits that clients sent per parameter and message."""
  name = 'uplink_bits_per_parameter'
  title = 'bits up'
  position = 80
  sentence = 'Bits are per parameter and message'
  of_uplink = True

  def value(self, series):
    return series.uplink_bits_per_parameter
