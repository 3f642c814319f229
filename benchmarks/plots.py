"""Curves of benchmarks as small PNG files."""

from benchmarks import harness


def axes(columns, rows=1, **settings):
  """(figure, array of its axes [rows, columns])."""
  import matplotlib
  matplotlib.use('Agg')
  from matplotlib import pyplot
  return pyplot.subplots(rows, columns, figsize=(3.2 * columns + 1, 3 * rows + 1), squeeze=False, **settings)


def save(figure, name, quick):
  """Writes results/NAME.png, of a quick run into its own folder. All axes get a grid, the first a legend if none has
  one."""
  for axis in figure.axes:
    axis.grid(alpha=0.3)
  if all(axis.get_legend() is None for axis in figure.axes):
    figure.axes[0].legend(fontsize=8)
  figure.tight_layout()
  with harness.replacing((harness.RESULTS / 'quick' if quick else harness.RESULTS) / f'{name}.png') as stream:
    figure.savefig(stream, format='png', dpi=85, metadata={'Software': None})
