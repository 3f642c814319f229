"""Accuracy on the test set."""

from tff_compress.simulation.report.columns import Column
from tff_compress.simulation.report.formats import percent
from tff_compress.simulation.report.runs import LAST


class Accuracy(Column):
  """The mean of the last three evaluations, then mean ± standard deviation over seeds."""
  name = 'accuracy'
  title = 'accuracy %'
  position = 40

  def value(self, series):
    return series.accuracy

  def text(self, series):
    text = percent(series.accuracy)
    if series.accuracy_deviation is not None and text:
      text += f' ± {percent(series.accuracy_deviation)}'
    return text + (' diverged' if any(run.diverged for run in series.runs) else '')

  def caption(self, rows):
    seeds = max(len(series.runs) for series in rows)
    spread = f', then mean ± standard deviation over {seeds} seeds' if seeds > 1 else ''
    return f'Accuracy: mean of the last {LAST} evaluations{spread}'

  def figures(self, series):
    return {'accuracy': series.accuracy, 'accuracy_deviation': series.accuracy_deviation}
