"""The page and the plots of finished runs, in files."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from collections.abc import Sequence
import math
import os

from tff_compress import pages
from tff_compress.codec import files
from tff_compress.processes import methods
from tff_compress.processes import prepass
from tff_compress.simulation.report import plots
from tff_compress.simulation.report import table
from tff_compress.simulation.report.formats import percent
from tff_compress.simulation.report.formats import significant
from tff_compress.simulation.report.runs import ReportError
from tff_compress.simulation.report.runs import Run
from tff_compress.simulation.report.series import Series
from tff_compress.simulation.report.series import summarize

_TEMPLATES = os.path.join(os.path.dirname(__file__), 'templates')


def write(runs: Sequence[Run], folder: str, command: str = '', sort: str = table.SORT) -> str:
  """Writes accuracy_rounds.png, accuracy_bytes.png and report.html into a folder, which is made where it is missing.

  Where no run has an accuracy, as where numbers are predicted, there is report.html alone. Each file appears whole or
  not at all.

  Args:
    runs: sequence of `Run`, not empty.
    folder: path.
    command: the command that made the runs, for the page.
    sort: the column that rows are sorted by, as for `table.ordered`.

  Returns:
    Path of the page.

  Raises:
    ReportError: the files cannot be written.
  """
  series = table.ordered(summarize(runs), sort)
  has_accuracy = any(run.evaluations() for run in runs)
  makers = {'accuracy_rounds': plots.plot_rounds, 'accuracy_bytes': plots.plot_bytes} if has_accuracy else {}
  images = {(name, theme): plot(series, theme) for name, plot in makers.items() for theme in plots.THEMES}
  try:
    os.makedirs(folder, exist_ok=True)
  except OSError as error:
    raise ReportError(f'the folder {folder} cannot be made: {files.reason(error)}.') from None
  for name in makers:
    files.write(os.path.join(folder, f'{name}.png'), images[name, 'light'], ReportError)
  path = os.path.join(folder, 'report.html')
  # A path in the command may hold bytes that are no text.
  files.write(path, render(series, images, command, sort).encode('utf-8', 'replace'), ReportError)
  return path


def render(series: Sequence[Series], images: Mapping[tuple[str, str], bytes], command: str = '',
           sort: str = table.SORT) -> str:
  """The HTML page, without references to anything outside it.

  Args:
    series: sequence of `Series`, in the order of their rows.
    images: {(plot name, theme): PNG bytes}; a plot that is not there is left out.
    command: the command that made the runs.
    sort: the column that the rows are sorted by.
  """
  columns = table.columns(series)
  colours = list(zip(*([colour for colour, _ in plots.colours(series, theme)] for theme in plots.THEMES)))
  return pages.render(
      _TEMPLATES, 'report.html',
      title=' against '.join(_title_parts(series)), subtitle=table.subtitle(series), command=command,
      columns=columns, sort=sort, caption=table.caption(series), figures=_figures(series, images),
      rows=[(entry.first.is_float32, pair,
             [(column, column.text(entry), _sort_key(column.value(entry))) for column in columns])
            for entry, pair in zip(series, colours)],
      sections=[(entry.label, pair, _facts(entry), [(run.seed, *_rounds(run)) for run in entry.runs])
                for entry, pair in zip(series, colours)],
      settings=[(str(name).replace('_', ' '), value) for name, value in table.shared_settings(series).items()])


def _title_parts(series):
  """['int8, drive', 'float32'] or only the first."""
  float32 = [entry.label for entry in series if entry.first.is_float32]
  others = [entry.label for entry in series if not entry.first.is_float32]
  others = [', '.join(others) if len(others) <= 3 else f'{len(others)} codecs'] if others else []
  return others + float32[:1]


def _sort_key(value):
  """What the page's script sorts by: rows with '' come last."""
  return '' if value is None or value != value else value


def _figures(series, images):
  """[(what the plot shows, {theme: its address})] of all plots; the addresses are the pictures themselves."""
  of_rounds = 'Test accuracy after each round.'
  of_bytes = ('Test accuracy against what had been sent by then in both directions, over all clients: the further '
              'left, the less. Beside it, what clients sent of that.')
  banded = plots.banded(series)
  if banded:
    of_rounds += f' Lines are means over seeds; the band reaches from the worst to the best seed of {banded.label}.'
  return [(text, {theme: 'data:image/png;base64,' + base64.b64encode(images[name, theme]).decode('ascii')
                  for theme in plots.THEMES})
          for name, text in (('accuracy_rounds', of_rounds), ('accuracy_bytes', of_bytes))
          if (name, 'light') in images]


def _facts(entry):
  """[(name, text)] of what stands above the rounds of a row."""
  seeds = ', '.join(f'{percent(run.accuracy, 2) or "none"} % (seed {run.seed})' for run in entry.runs)
  accuracy = [('accuracy', seeds)] if any(run.evaluations() for run in entry.runs) else []
  mark = '≈' if entry.estimated else ''
  return [('uplink', entry.first.uplink), ('downlink', entry.first.downlink), *accuracy,
          ('sent in a run', f'{mark}{significant(entry.uplink_bytes / 1e6)} MB up, '
                            f'{significant(entry.downlink_bytes / 1e6)} MB down, '
                            f'{mark}{significant(entry.total_bytes / 1e6)} MB both'),
          *_prepasses(entry)]


def _prepasses(entry):
  """What pre-passes cost in each run."""
  for run in entry.runs:
    before = [item['round'] for item in run.rounds if item.get('prepass_clients')]
    if before:
      again = [str(number) for number in before if number > 1]
      costs = {figure.name: sum(value for value, _ in run.values(figure)) for figure in prepass.FIGURES}
      text = prepass.costs(costs, lambda count: f'{significant(count / 1e6)} MB')
      yield f'pre-pass, seed {run.seed}', text + (f'; again before round {", ".join(again)}' if again else '')


def _rounds(run):
  """(titles, rows) of the table of a run's rounds; a column that shows nothing in any row is left out."""
  measured = [figure for figure in methods.figures() if figure.heading and run.values(figure)]
  up = down = 0
  rows = []
  for item in run.rounds:
    sent, received = (run.figure(item, direction, 'bytes') for direction in ('uplink', 'downlink'))
    up += sent + run.beside(item, 'uplink')
    down += received + run.beside(item, 'downlink')
    rows.append([item['round'], percent(item['accuracy'], 2), _loss(item['loss']), f'{sent:,}', f'{received:,}',
                 f'{up / 1e6:.6g}', f'{down / 1e6:.6g}', f'{(up + down) / 1e6:.6g}', significant(item['seconds']),
                 *(_figure(figure, item.get(figure.name)) for figure in measured)])
  mark = ' (estimate)' if run.estimated else ''
  titles = ['round', 'accuracy %', 'test loss', f'bytes up{mark}', 'bytes down', f'MB up so far{mark}',
            'MB down so far', f'MB both so far{mark}', 'seconds', *(figure.heading for figure in measured)]
  shown = [i for i in range(len(titles)) if any(row[i] != '' for row in rows)]
  return [titles[i] for i in shown], [[row[i] for i in shown] for row in rows]


def _figure(figure, value):
  return '' if value is None or not value and not figure.place else f'{value:,}'


def _loss(value):
  return '' if value is None or not math.isfinite(value) else f'{value:.4g}'
