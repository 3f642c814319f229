"""Plots of accuracy, as PNG; matplotlib is imported when one is made."""

from __future__ import annotations

from collections.abc import Sequence
import io
import statistics
from typing import Any

from tff_compress.simulation.report.series import Series

# Colours that stay apart for the colour-blind (Okabe and Ito 2008), lightened on dark ground. Float32 has the ink.
THEMES: dict[str, dict[str, Any]] = {
    'light': {'page': '#ffffff', 'ink': '#1b1c1e', 'soft': '#5c6066', 'line': '#dcdfe3',
              'colours': ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#b8860b', '#56b4e9', '#7b4ea3')},
    'dark': {'page': '#16181c', 'ink': '#e7e8ea', 'soft': '#a3a8b0', 'line': '#363a41',
             'colours': ('#56b4e9', '#f0883e', '#2fc99a', '#e3a1c6', '#e6c84a', '#4f8fd0', '#b99ae0')},
}
_STYLES = ('-', (0, (5, 1.5)), (0, (1, 1)), (0, (6, 1.5, 1, 1.5)))


def colours(series: Sequence[Series], theme: str) -> list[tuple]:
  """A colour and a line style per series; more series than colours repeat them with another line style."""
  ink, others = THEMES[theme]['ink'], THEMES[theme]['colours']
  result: list[tuple] = []
  used = 0
  for entry in series:
    if entry.first.is_float32:
      result.append((ink, '-'))
      continue
    result.append((others[used % len(others)], _STYLES[used // len(others) % len(_STYLES)]))
    used += 1
  return result


def plot_rounds(series: Sequence[Series], theme: str = 'light') -> bytes:
  """PNG of test accuracy against round: means over seeds. The band of `banded` reaches from its worst to its best seed.

  Args:
    series: sequence of `Series`.
    theme: one of `THEMES`.
  """
  figure, (axes,) = _figure(theme, 1, (8.4, 4.4))
  ends = []
  for entry, (colour, style) in zip(series, colours(series, theme)):
    curve = _curve(entry)
    if not curve:
      continue
    rounds, mean, low, high = ([point[i] for point in curve] for i in (0, 1, 2, 3))
    axes.plot(rounds, mean, color=colour, linestyle=style, linewidth=1.8, solid_capstyle='round', zorder=3)
    if entry is banded(series):
      axes.fill_between(rounds, low, high, color=colour, alpha=0.13, linewidth=0)
    axes.plot(rounds[-1:], mean[-1:], 'o', color=colour, markersize=4, zorder=4)
    ends.append((rounds[-1], mean[-1], entry.label, colour))
  axes.set_xlabel('round')
  axes.xaxis.get_major_locator().set_params(integer=True)
  _label_ends(figure, axes, ends)
  return _png(figure)


def banded(series: Sequence[Series]) -> Series | None:
  """The one `Series` whose spread over seeds is drawn: float32, or else the first. None where it has a single seed.

  One, because the bands of runs that share their seeds lie on top of each other, and hide the lines.
  """
  entry = next((entry for entry in series if entry.first.is_float32), series[0])
  return entry if len(entry.runs) > 1 else None


def plot_bytes(series: Sequence[Series], theme: str = 'light') -> bytes:
  """PNG of test accuracy against megabytes sent so far, log scale: in both directions together, and beside it, smaller,
  what clients sent of that."""
  figure, panels = _figure(theme, 2, (8.4, 4.6), widths=(5, 3))
  figure.get_layout_engine().set(wspace=0.06)
  handles = []
  for entry, (colour, style) in zip(series, colours(series, theme)):
    curve = _curve(entry)
    for axes, column in zip(panels, (5, 4)):
      points = [(point[column] / 1e6, point[1]) for point in curve if point[column] > 0]
      if points:
        line, = axes.plot(*zip(*points), color=colour, linestyle=style, linewidth=1.8, zorder=3)
        axes.plot(*points[-1], 'o', color=colour, markersize=4, zorder=4)
        if axes is panels[0]:
          handles.append((line, entry.label))
  for axes, label in zip(panels, ('sent up and down together (MB, log scale)', 'of that, sent up (MB, log scale)')):
    axes.set_xscale('log')
    axes.xaxis.set_major_formatter(_megabytes())
    axes.minorticks_off()
    axes.set_xlabel(label)
  panels[1].set_ylabel('')
  if handles:
    lines, labels = zip(*handles)
    columns = max(1, min(len(labels), int(120 / (max(map(len, labels)) + 8))))
    figure.legend(lines, labels, loc='outside lower center', ncols=columns, frameon=False, fontsize=9,
                  labelcolor=THEMES[theme]['ink'])
  return _png(figure)


def _curve(entry):
  """[(round, mean, worst, best accuracy in %, mean bytes up, mean bytes up and down)] where every seed was
  evaluated."""
  tables = [{point[0]: point for point in run.evaluations()} for run in entry.runs]
  result = []
  for number in sorted(set.intersection(*map(set, tables))):
    points = [table[number] for table in tables]
    accuracies = [100 * point[1] for point in points]
    up = statistics.fmean(point[2] for point in points)
    result.append((number, statistics.fmean(accuracies), min(accuracies), max(accuracies), up,
                   up + statistics.fmean(point[3] for point in points)))
  return result


def _figure(theme, panels, size, widths=None):
  """A figure with `panels` plots of accuracy side by side. No pyplot: its figures are global."""
  from matplotlib import figure as figure_lib
  theme = THEMES[theme]
  figure = figure_lib.Figure(figsize=size, dpi=160, layout='constrained', facecolor=theme['page'])
  all_axes = figure.subplots(1, panels, sharey=True, squeeze=False, width_ratios=widths)[0]
  for axes in all_axes:
    axes.set_facecolor(theme['page'])
    axes.set_ylabel('test accuracy (%)')
    for side in ('top', 'right', 'left'):
      axes.spines[side].set_visible(False)
    axes.spines['bottom'].set_color(theme['soft'])
    axes.grid(axis='y', color=theme['line'], linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=theme['soft'], labelsize=9, length=3)
    axes.tick_params(axis='y', length=0)
    axes.xaxis.label.set_color(theme['ink'])
    axes.yaxis.label.set_color(theme['ink'])
  return figure, all_axes


def _label_ends(figure, axes, ends):
  """Writes each label right of where its line ends, moved apart where they would overlap, with a thin line to its
  place."""
  if not ends:
    return
  axes.margins(x=0.01)
  figure.draw_without_rendering()  # Settles the limits and the layout, on which the positions depend.
  height = 13 * figure.dpi / 72  # Pixels between the centres of two lines of text.
  pixels = sorted(((axes.transData.transform((x, y))[1], x, y, label, colour) for x, y, label, colour in ends),
                  key=lambda end: end[0], reverse=True)
  places = _apart([end[0] for end in pixels], height)
  for (_, x, y, label, colour), place in zip(pixels, places):
    shown = axes.transData.inverted().transform((0, place))[1]
    axes.annotate(label, (x, y), xytext=(max(end[1] for end in pixels), shown), textcoords=_beside(axes, 20),
                  color=colour, fontsize=9.5, va='center', annotation_clip=False,
                  arrowprops={'arrowstyle': '-', 'color': colour, 'linewidth': 0.6, 'relpos': (0, 0.5), 'shrinkA': 1,
                              'shrinkB': 4})


def _apart(wanted, distance):
  """Positions at least `distance` apart, in the same descending order, each group of moved ones centred on its own."""
  groups = []
  for position in wanted:
    groups.append([position])
    # A group whose span reaches the one above joins it.
    while len(groups) > 1:
      above, below = groups[-2], groups[-1]
      bottom = statistics.fmean(above) - (len(above) - 1) / 2 * distance
      top = statistics.fmean(below) + (len(below) - 1) / 2 * distance
      if bottom - top >= distance:
        break
      groups[-2:] = [above + below]
  return [statistics.fmean(group) + ((len(group) - 1) / 2 - i) * distance for group in groups
          for i in range(len(group))]


def _beside(axes, points):
  """Data coordinates, moved right by some points."""
  from matplotlib import transforms
  return transforms.offset_copy(axes.transData, fig=axes.figure, x=points, units='points')


def _megabytes():
  from matplotlib import ticker
  return ticker.FuncFormatter(lambda value, _: f'{value:g}')


def _png(figure):
  buffer = io.BytesIO()
  # Without metadata the same runs give the same bytes.
  figure.savefig(buffer, format='png', facecolor=figure.get_facecolor(), metadata={'Software': None})
  return buffer.getvalue()
