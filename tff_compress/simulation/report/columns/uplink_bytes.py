"""How much clients sent."""

from tff_compress.simulation.report.columns import Column


class UplinkBytes(Column):
  """The lengths of the frames that were sent by clients, over all clients and rounds: payload, scales, padding, header
  and checksum, in 10^6 bytes."""
  name = 'uplink_bytes'
  title = 'MB up'
  position = 60
  scale = 1e6
  of_uplink = True

  def value(self, series):
    return series.uplink_bytes
