"""Loss on the test set, of data that has no accuracy."""

import statistics

from tff_compress.simulation.report.columns import Column
from tff_compress.simulation.report.runs import LAST


class Loss(Column):
  """The mean of the last three evaluations, mean over seeds, where numbers are predicted and there is no accuracy."""
  name = 'loss'
  title = 'test loss'
  position = 42
  sentence = f'Test loss: mean of the last {LAST} evaluations'

  def value(self, series):
    losses = [[entry['loss'] for entry in run.rounds if entry['loss'] is not None and entry['accuracy'] is None][-LAST:]
              for run in series.runs]
    return statistics.fmean(map(statistics.fmean, losses)) if all(losses) else None
