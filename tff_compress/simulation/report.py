"""Tables, plots and a page of finished runs.

`summarize` turns runs into one row per codec, `write` makes the plots and a self-contained HTML page, `load` reads the
result.json files that runs leave behind. Works without TensorFlow; matplotlib is imported when a plot is made.

What is measured and how it is put together:

* accuracy of a run: the mean of its last three evaluations on the test set (of all, where there are fewer). Single
  evaluations jump by a point from round to round;
* accuracy of a codec: mean and sample standard deviation over its seeds;
* difference to float32: seeds are paired, as the same seed gives every codec the same clients, data and initial model.
  Mean and standard error of the differences. Standard deviations between seeds say little about this;
* bytes: lengths of what was sent, over all clients and rounds; MB is 10^6 bytes. Without a codec the models are sent as
  float32, and their bytes are counted as four per parameter.
"""

import base64
import dataclasses
import html
import io
import json
import math
import os
import re
import statistics
import string
import tempfile

from tff_compress.codec.errors import CompressionError

LAST = 3
"""Evaluations that the accuracy of a run is the mean of."""

RESULT_NAME = 'result.json'
MAX_RESULT = 64 << 20
"""Largest result file that is read, in bytes."""

PLAIN = ('', 'none', 'float32')
"""Uplinks and downlinks that are not compressed."""


class ReportError(CompressionError):
  """A folder has no finished runs, or a result file is not one."""


@dataclasses.dataclass(frozen=True)
class Run:
  """One finished run.

  Attributes:
    uplink, downlink: codec texts, as the user wrote them.
    seed: what paired runs share.
    configuration: mapping of setting to value, without the above.
    parameters: number of the model's parameters.
    rounds: tuple of dicts with `round` (from 1), `accuracy` (0 … 1, None where not evaluated), `seconds`, and the bytes of
      all clients in that round, `uplink_bytes` and `downlink_bytes`; `loss` and others are shown where they are there.
  """
  uplink: str
  downlink: str
  seed: int
  configuration: dict
  parameters: int
  rounds: tuple

  def evaluations(self):
    """[(round, accuracy, uplink bytes so far, downlink bytes so far)] of the rounds with an evaluation."""
    up = down = 0
    result = []
    for entry in self.rounds:
      up += entry['uplink_bytes']
      down += entry['downlink_bytes']
      if entry.get('accuracy') is not None:
        result.append((entry['round'], entry['accuracy'], up, down))
    return result

  @property
  def accuracy(self):
    """Mean of the last evaluations; NaN without any."""
    last = [accuracy for _, accuracy, _, _ in self.evaluations()[-LAST:]]
    return statistics.fmean(last) if last else math.nan

  def total(self, direction):
    """Bytes of all clients and rounds; direction is 'uplink' or 'downlink'."""
    return sum(entry[f'{direction}_bytes'] for entry in self.rounds)


@dataclasses.dataclass(frozen=True)
class Series:
  """The runs of one uplink and downlink, one per seed, and what they amount to.

  Attributes:
    label: what tables and plots call it.
    runs: tuple of `Run`.
    accuracy, accuracy_deviation: mean over seeds, 0 … 1, and sample standard deviation (None for a single seed).
    difference, difference_error: paired mean difference to float32 and its standard error (None for a single pair); both
      None where float32 was not run with any of these seeds, or this is float32 itself.
    pairs: seeds that the difference is made of.
    uplink_bytes, downlink_bytes: mean over seeds of the total of a run.
    uplink_bits, downlink_bits: bits per parameter and message; None where unknown.
    uplink_ratio, ratio: float32's bytes over the bytes sent; uplink only, and both directions together.
    seconds: median over all rounds but each run's first, which also builds the graphs.
  """
  label: str
  runs: tuple
  accuracy: float
  accuracy_deviation: object
  difference: object
  difference_error: object
  pairs: int
  uplink_bytes: float
  downlink_bytes: float
  uplink_bits: object
  downlink_bits: object
  uplink_ratio: object
  ratio: object
  seconds: object

  @property
  def uplink(self):
    return self.runs[0].uplink

  @property
  def downlink(self):
    return self.runs[0].downlink

  @property
  def is_plain(self):
    """Whether nothing is compressed in either direction."""
    return self.uplink in PLAIN and self.downlink in PLAIN

  def as_dict(self):
    """What `--json` prints of it."""
    result = {'label': self.label, 'uplink': self.uplink, 'downlink': self.downlink,
              'seeds': [run.seed for run in self.runs]}
    fields = [f.name for f in dataclasses.fields(self) if f.name not in ('label', 'runs')]
    return {**result, **{name: getattr(self, name) for name in fields}}


def summarize(runs):
  """One `Series` per uplink and downlink, in the order in which they first appear.

  Args:
    runs: sequence of `Run`, not empty.
  """
  groups = {}
  for run in runs:
    groups.setdefault((run.uplink, run.downlink), {})[run.seed] = run
  plain = next((group for (up, down), group in groups.items() if up in PLAIN and down in PLAIN), {})
  labels = _labels(list(groups))
  return [_series(label, group, plain) for label, group in zip(labels, groups.values())]


def _labels(links):
  """Short and distinct names: the uplink, and the downlink where that differs between the runs."""
  same = len({down in PLAIN or down for _, down in links}) == 1
  labels = []
  for up, down in links:
    up, down = ('float32' if text in PLAIN else ' '.join(text.split()) for text in (up, down))
    label = up if same or up == down == 'float32' else f'{_short(up)} / {_short(down)}'
    label = _short(label, 40)
    while label in labels:
      label += "'"
    labels.append(label)
  return labels


def _short(text, length=18):
  return text if len(text) <= length else text[:length - 1].rstrip(' |,:') + '…'


def _series(label, group, plain):
  runs = tuple(group[seed] for seed in sorted(group))
  accuracies = [run.accuracy for run in runs]
  pairs = [] if group is plain else [100 * (group[seed].accuracy - plain[seed].accuracy) for seed in group if seed in plain]
  messages = [_messages(run) for run in runs]
  sent = [run.total('uplink') for run in runs]
  received = [run.total('downlink') for run in runs]
  seconds = [entry['seconds'] for run in runs for entry in (run.rounds[1:] or run.rounds) if entry.get('seconds') is not None]
  float_bytes = [4 * run.parameters * count for run, count in zip(runs, messages)]
  return Series(
      label=label, runs=runs, accuracy=statistics.fmean(accuracies),
      accuracy_deviation=statistics.stdev(accuracies) if len(accuracies) > 1 else None,
      difference=statistics.fmean(pairs) if pairs else None,
      difference_error=statistics.stdev(pairs) / math.sqrt(len(pairs)) if len(pairs) > 1 else None,
      pairs=len(pairs), uplink_bytes=statistics.fmean(sent), downlink_bytes=statistics.fmean(received),
      uplink_bits=_per(8 * sum(sent), sum(float_bytes) / 4), downlink_bits=_per(8 * sum(received), sum(float_bytes) / 4),
      uplink_ratio=_per(sum(float_bytes), sum(sent)), ratio=_per(2 * sum(float_bytes), sum(sent) + sum(received)),
      seconds=statistics.median(seconds) if seconds else None)


def _messages(run):
  """Messages in one direction: clients over all rounds."""
  return sum(entry['clients'] for entry in run.rounds)


def _per(amount, by):
  return amount / by if by else None


# ---- plots -------------------------------------------------------------------------------------------------------------

# Colours that stay apart for the colour-blind (Okabe and Ito 2008), lightened on dark ground. Float32 has the ink.
_THEMES = {
    'light': {'page': '#ffffff', 'ink': '#1b1c1e', 'soft': '#5c6066', 'line': '#dcdfe3',
              'colours': ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#b8860b', '#56b4e9', '#7b4ea3')},
    'dark': {'page': '#16181c', 'ink': '#e7e8ea', 'soft': '#a3a8b0', 'line': '#363a41',
             'colours': ('#56b4e9', '#f0883e', '#2fc99a', '#e3a1c6', '#e6c84a', '#4f8fd0', '#b99ae0')},
}
_STYLES = ('-', (0, (5, 1.5)), (0, (1, 1)), (0, (6, 1.5, 1, 1.5)))


def _colours(series, theme):
  """A colour and a line style per series; more series than colours repeat them with another line style."""
  theme = _THEMES[theme]
  result, used = [], 0
  for entry in series:
    if entry.is_plain:
      result.append((theme['ink'], '-'))
      continue
    count = len(theme['colours'])
    result.append((theme['colours'][used % count], _STYLES[used // count % len(_STYLES)]))
    used += 1
  return result


def plot_rounds(series, theme='light'):
  """PNG of test accuracy against round; a line is the mean over seeds, the band around it reaches from worst to best seed.

  Args:
    series: sequence of `Series`.
    theme: 'light' or 'dark'.

  Returns:
    bytes
  """
  figure, (axes,) = _figure(theme, 1, (8.4, 4.4))
  ends = []
  for entry, (colour, style) in zip(series, _colours(series, theme)):
    curve = _curve(entry)
    if not curve:
      continue
    rounds, mean, low, high = ([point[i] for point in curve] for i in (0, 1, 2, 3))
    axes.plot(rounds, mean, color=colour, linestyle=style, linewidth=1.8, solid_capstyle='round', zorder=3)
    if len(entry.runs) > 1:
      axes.fill_between(rounds, low, high, color=colour, alpha=0.13, linewidth=0)
    axes.plot(rounds[-1:], mean[-1:], 'o', color=colour, markersize=4, zorder=4)
    ends.append((rounds[-1], mean[-1], entry.label, colour))
  axes.set_xlabel('round')
  axes.xaxis.get_major_locator().set_params(integer=True)
  _label_ends(figure, axes, ends)
  return _png(figure)


def plot_bytes(series, theme='light'):
  """PNG of test accuracy against megabytes sent by all clients so far: up on the left, up and down on the right, log scale."""
  figure, panels = _figure(theme, 2, (8.4, 4.6))
  figure.get_layout_engine().set(wspace=0.06)
  handles = []
  for entry, (colour, style) in zip(series, _colours(series, theme)):
    curve = _curve(entry)
    for axes, column in zip(panels, (4, 5)):
      points = [(point[column] / 1e6, point[1]) for point in curve if point[column] > 0]
      if points:
        line, = axes.plot(*zip(*points), color=colour, linestyle=style, linewidth=1.8, zorder=3)
        axes.plot(*points[-1], 'o', color=colour, markersize=4, zorder=4)
        if axes is panels[0]:
          handles.append((line, entry.label))
  for axes, label in zip(panels, ('sent up by all clients (MB, log scale)', 'sent up and down (MB, log scale)')):
    axes.set_xscale('log')
    axes.xaxis.set_major_formatter(_megabytes())
    axes.minorticks_off()
    axes.set_xlabel(label)
  panels[1].set_ylabel('')
  if handles:
    lines, labels = zip(*handles)
    columns = max(1, min(len(labels), int(110 / (max(map(len, labels)) + 8))))
    figure.legend(lines, labels, loc='outside lower center', ncols=columns, frameon=False, fontsize=9,
                  labelcolor=_THEMES[theme]['ink'])
  return _png(figure)


def _curve(entry):
  """[(round, mean, worst, best accuracy in %, mean bytes up, mean bytes up and down)] where every seed was evaluated."""
  tables = [{point[0]: point for point in run.evaluations()} for run in entry.runs]
  result = []
  for number in sorted(set.intersection(*map(set, tables))):
    points = [table[number] for table in tables]
    accuracies = [100 * point[1] for point in points]
    up = statistics.fmean(point[2] for point in points)
    result.append((number, statistics.fmean(accuracies), min(accuracies), max(accuracies), up,
                   up + statistics.fmean(point[3] for point in points)))
  return result


def _figure(theme, panels, size):
  """A figure with `panels` plots of accuracy side by side. No pyplot: its figures are global."""
  from matplotlib import figure as figure_lib  # pylint: disable=g-import-not-at-top
  theme = _THEMES[theme]
  figure = figure_lib.Figure(figsize=size, dpi=160, layout='constrained', facecolor=theme['page'])
  all_axes = figure.subplots(1, panels, sharey=True, squeeze=False)[0]
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
  """Writes each label right of where its line ends, moved apart where they would overlap, with a thin line to its place."""
  if not ends:
    return
  axes.margins(x=0.01)
  figure.canvas.draw()
  height = 13 * figure.dpi / 72  # Pixels between the centres of two lines of text.
  pixels = sorted(((axes.transData.transform((x, y))[1], x, y, label, colour) for x, y, label, colour in ends),
                  key=lambda end: end[0], reverse=True)
  places = _apart([end[0] for end in pixels], height)
  for (_, x, y, label, colour), place in zip(pixels, places):
    shown = axes.transData.inverted().transform((0, place))[1]
    axes.annotate(label, (x, y), xytext=(max(end[1] for end in pixels), shown), textcoords=_beside(axes, 20),
                  color=colour, fontsize=9.5, va='center', annotation_clip=False,
                  arrowprops={'arrowstyle': '-', 'color': colour, 'linewidth': 0.6, 'relpos': (0, 0.5), 'shrinkA': 1, 'shrinkB': 4})


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
  return [statistics.fmean(group) + ((len(group) - 1) / 2 - i) * distance for group in groups for i in range(len(group))]


def _beside(axes, points):
  """Data coordinates, moved right by some points."""
  from matplotlib import transforms  # pylint: disable=g-import-not-at-top
  return transforms.offset_copy(axes.transData, fig=axes.figure, x=points, units='points')


def _megabytes():
  from matplotlib import ticker  # pylint: disable=g-import-not-at-top
  return ticker.FuncFormatter(lambda value, _: f'{value:g}')


def _png(figure):
  buffer = io.BytesIO()
  # Without metadata the same runs give the same bytes.
  figure.savefig(buffer, format='png', facecolor=figure.get_facecolor(), metadata={'Software': None})
  return buffer.getvalue()


# ---- page --------------------------------------------------------------------------------------------------------------


def write(runs, folder, command=''):
  """Writes accuracy_rounds.png, accuracy_bytes.png and report.html into a folder, which is made where it is missing.

  Each file appears whole or not at all.

  Args:
    runs: sequence of `Run`, not empty.
    folder: path.
    command: the command that made the runs, for the page.

  Returns:
    Path of the page.

  Raises:
    ReportError: the files cannot be written.
  """
  series = summarize(runs)
  plots = {'accuracy_rounds': plot_rounds, 'accuracy_bytes': plot_bytes}
  images = {(name, theme): plot(series, theme) for name, plot in plots.items() for theme in _THEMES}
  try:
    os.makedirs(folder, exist_ok=True)
    for name in plots:
      _write_file(os.path.join(folder, f'{name}.png'), images[name, 'light'])
    path = os.path.join(folder, 'report.html')
    _write_file(path, page(series, images, command).encode('utf-8'))
  except OSError as error:
    raise ReportError(f'the report cannot be written to {folder}: {error.strerror or error}.') from None
  return path


def page(series, images, command=''):
  """The HTML page: a str without references to anything outside it.

  Args:
    series: sequence of `Series`.
    images: {(plot name, theme): PNG bytes}.
    command: the command that made the runs.
  """
  with open(os.path.join(os.path.dirname(__file__), 'report.html'), encoding='utf-8') as file:
    template = string.Template(file.read())
  first = series[0].runs[0]
  configuration = _shared_configuration(series)
  rounds = len(first.rounds)
  seeds = sorted({run.seed for entry in series for run in entry.runs})
  title = ' against '.join(_title_part(series))
  what = [str(configuration[key]) for key in ('dataset', 'model') if configuration.get(key)]
  if configuration.get('clients'):
    what.append(f'{configuration["clients"]} clients, {configuration.get("clients_per_round")} in a round')
  if configuration.get('split'):
    what.append(f'split {configuration["split"]}')
  what += [f'{rounds} rounds', f'{len(seeds)} seed{"s" * (len(seeds) > 1)}', f'{first.parameters:,} parameters']
  figures = [
      ('accuracy_rounds', 'Test accuracy after each round.', True),
      ('accuracy_bytes', 'Test accuracy against what had been sent by then, over all clients: the further left, the less was sent.',
       False),
  ]
  band = ' Lines are means over seeds, bands reach from the worst to the best seed.' if len(seeds) > 1 else ''
  return template.substitute(
      title=html.escape(title), subtitle=html.escape(' · '.join(what)), command=html.escape(command or 'tff-compress compare'),
      header=''.join(f'<th scope="col"><button>{html.escape(name)}</button></th>' for name, _, _ in _COLUMNS),
      rows='\n'.join(_row(entry, colours) for entry, colours in zip(series, _both_colours(series))),
      caption=html.escape(_caption(series)),
      figures='\n'.join(_picture(name, text + (band if banded else ''), images) for name, text, banded in figures),
      sections='\n'.join(_section(entry, colours) for entry, colours in zip(series, _both_colours(series))),
      configuration='\n'.join(_property(key, value) for key, value in configuration.items()),
      footer=_FOOTER)


_FOOTER = ('Bytes are the lengths of the payloads that were sent, over all clients and rounds, with scales, seeds and padding. '
           'Where a direction is not compressed, it is counted as four bytes per parameter. MB is 10<sup>6</sup> bytes.')


def _title_part(series):
  """['int8, drive', 'float32'] or only the first."""
  plain = [entry.label for entry in series if entry.is_plain]
  others = [entry.label for entry in series if not entry.is_plain]
  others = [', '.join(others) if len(others) <= 3 else f'{len(others)} codecs'] if others else []
  return others + plain[:1]


def percent(value, digits=1):
  """0.9731 as '97.3'; '' for None and NaN."""
  return '' if value is None or math.isnan(value) else f'{100 * value:.{digits}f}'


def _with_error(value, error, form):
  if value is None or math.isnan(value):
    return ''
  return format(value, form) + ('' if error is None else f' ± {error:.2f}')


def _significant(value):
  if value is None:
    return ''
  return f'{value:,.0f}' if value >= 999.5 else f'{value:.3g}'


_COLUMNS = (
    ('codec', lambda s: s.label, lambda s: s.label),
    ('accuracy %', lambda s: percent(s.accuracy) + (f' ± {percent(s.accuracy_deviation)}' if s.accuracy_deviation is not None
                                                    else ''), lambda s: s.accuracy),
    ('points to float32', lambda s: _with_error(s.difference, s.difference_error, '+.2f'), lambda s: s.difference),
    ('MB up', lambda s: _significant(s.uplink_bytes / 1e6), lambda s: s.uplink_bytes),
    ('MB down', lambda s: _significant(s.downlink_bytes / 1e6), lambda s: s.downlink_bytes),
    ('bits up', lambda s: _significant(s.uplink_bits), lambda s: s.uplink_bits),
    ('bits down', lambda s: _significant(s.downlink_bits), lambda s: s.downlink_bits),
    ('× smaller up', lambda s: _significant(s.uplink_ratio), lambda s: s.uplink_ratio),
    ('× smaller both', lambda s: _significant(s.ratio), lambda s: s.ratio),
    ('s per round', lambda s: _significant(s.seconds), lambda s: s.seconds),
)


def rows(series):
  """(column titles, one list of texts per series), for a table."""
  return [name for name, _, _ in _COLUMNS], [[text(entry) for _, text, _ in _COLUMNS] for entry in series]


def _caption(series):
  seeds = max(len(entry.runs) for entry in series)
  text = f'Accuracy: mean of the last {LAST} evaluations'
  if seeds > 1:
    text += (f', then mean ± standard deviation over {seeds} seeds. Points to float32: mean ± standard error of the '
             'differences between runs of the same seed')
  return text + '. Bits are per parameter and message; × smaller is against float32.'


def _both_colours(series):
  return [(light[0], dark[0]) for light, dark in zip(_colours(series, 'light'), _colours(series, 'dark'))]


def _swatch(colours):
  return f'<span class="swatch" style="--light:{colours[0]};--dark:{colours[1]}"></span>'


def _row(entry, colours):
  cells = []
  for name, text, value in _COLUMNS:
    raw = value(entry)
    raw = '' if raw is None or raw != raw else raw
    mark = _swatch(colours) if name == 'codec' else ''
    cells.append(f'<td data-value="{html.escape(str(raw))}">{mark}{html.escape(text(entry))}</td>')
  return f'<tr>{"".join(cells)}</tr>'


def _picture(name, caption, images):
  def uri(theme):
    return 'data:image/png;base64,' + base64.b64encode(images[name, theme]).decode('ascii')
  return (f'<figure><picture><source media="(prefers-color-scheme: dark)" srcset="{uri("dark")}">'
          f'<img src="{uri("light")}" width="1344" alt="{html.escape(caption)}"></picture>'
          f'<figcaption>{html.escape(caption)}</figcaption></figure>')


def _property(name, value):
  return f'<tr><th scope="row">{html.escape(str(name).replace("_", " "))}</th><td>{html.escape(str(value))}</td></tr>'


def _section(entry, colours):
  facts = [('uplink', entry.uplink or 'float32'), ('downlink', entry.downlink or 'float32')]
  seeds = ', '.join(f'{percent(run.accuracy, 2)} % (seed {run.seed})' for run in entry.runs)
  facts.append(('accuracy', seeds))
  facts.append(('sent in a run', f'{_significant(entry.uplink_bytes / 1e6)} MB up, {_significant(entry.downlink_bytes / 1e6)} MB down'))
  details = []
  for run in entry.runs:
    lines = []
    for item, (up, down) in zip(run.rounds, _running(run)):
      lines.append(f'<tr><td>{item["round"]}</td><td>{percent(item.get("accuracy"), 2)}</td><td>{_loss(item.get("loss"))}</td>'
                   f'<td>{item["uplink_bytes"]:,}</td><td>{item["downlink_bytes"]:,}</td><td>{up / 1e6:.6g}</td>'
                   f'<td>{down / 1e6:.6g}</td><td>{_significant(item.get("seconds"))}</td></tr>')
    details.append(
        f'<details><summary>Every round, seed {run.seed}</summary><div class="scroll"><table><thead><tr><th>round</th>'
        '<th>accuracy %</th><th>test loss</th><th>bytes up</th><th>bytes down</th><th>MB up so far</th><th>MB down so far</th>'
        f'<th>seconds</th></tr></thead><tbody>{"".join(lines)}</tbody></table></div></details>')
  table = ''.join(_property(name, value) for name, value in facts)
  return (f'<h3>{_swatch(colours)}{html.escape(entry.label)}</h3><table><tbody class="properties">{table}</tbody></table>'
          + '\n'.join(details))


def _running(run):
  up = down = 0
  for item in run.rounds:
    up += item['uplink_bytes']
    down += item['downlink_bytes']
    yield up, down


def _loss(value):
  return '' if value is None or not math.isfinite(value) else f'{value:.4g}'


def _shared_configuration(series):
  """Settings that are the same in all runs."""
  every = [run.configuration for entry in series for run in entry.runs]
  return {key: value for key, value in every[0].items() if all(other.get(key) == value for other in every)}


def _write_file(path, data):
  """Writes beside the path and renames, so that a file is there whole or not at all."""
  handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path) or '.', prefix='.report-')
  try:
    with os.fdopen(handle, 'wb') as file:
      file.write(data)
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)
  except BaseException:
    os.unlink(temporary)
    raise
