"""How much smaller updates are."""

from tff_compress.simulation.report.columns import Column


class UplinkRatio(Column):
  """How many times fewer bytes clients sent than with float32."""
  name = 'uplink_ratio'
  title = '× up'
  position = 100
  sentence = '; × is how many times fewer bytes than float32'
  of_uplink = True

  def value(self, series):
    return series.uplink_ratio
