"""What clients remember."""

from tff_compress.simulation.report.columns import Column


class ClientStates(Column):
  """What is stored of what clients remember, in the end, over all clients that took part."""
  name = 'client_states_bytes'
  title = 'MB kept'
  position = 140
  sentence = 'MB kept is what is stored of what clients remember, in the end'
  scale = 1e6

  def value(self, series):
    return series.client_states_bytes
