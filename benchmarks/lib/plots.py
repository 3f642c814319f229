"""Curves of benchmarks as small PNG files."""

from benchmarks.lib import harness


def axes(columns, rows=1, size=(3.2, 3), **settings):
  """(figure, array of its axes [rows, columns]); `size` is the width and height of one in inches."""
  import matplotlib
  matplotlib.use('Agg')
  from matplotlib import pyplot
  return pyplot.subplots(rows, columns, figsize=(size[0] * columns + 1, size[1] * rows + 1), squeeze=False, **settings)


def colour(number):
  """One of twenty colours."""
  import matplotlib
  return matplotlib.colormaps['tab20'](number)


def save(figure, name, quick):
  """Writes results/NAME.png, of a quick run into its own folder. All axes get a grid, the first a legend if none has
  one."""
  for axis in figure.axes:
    axis.grid(alpha=0.3)
  if all(axis.get_legend() is None for axis in figure.axes):
    figure.axes[0].legend(fontsize=8)
  figure.tight_layout()
  with harness.replacing(harness.results(quick) / f'{name}.png') as stream:
    figure.savefig(stream, format='png', dpi=85, metadata={'Software': None})
