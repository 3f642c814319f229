"""What pre-passes cost."""

from tff_compress.simulation.report.columns import Column


class Prepass(Column):
  """What clients sent and received to learn, which MB up, MB down and × have in them and bits have not. The page lists
  it by round."""
  name = 'prepass'
  title = 'MB pre-pass'
  position = 120
  sentence = ('MB pre-pass is what clients sent and received to learn, which MB up, MB down and × have in them and '
              'bits have not')
  scale = 1e6

  def value(self, series):
    return (series.prepass_uplink_bytes or 0) + (series.prepass_downlink_bytes or 0) or None

  def figures(self, series):
    return {'prepass_uplink_bytes': series.prepass_uplink_bytes,
            'prepass_downlink_bytes': series.prepass_downlink_bytes}
