"""Tables, plots and a page of finished runs.

`load` reads the result.json files that runs leave behind, `summarize` turns runs into one row per codec, `write` makes
the plots and a self-contained HTML page. Works without TensorFlow; matplotlib is imported when a plot is made.

What is measured and how it is put together:

* accuracy of a run: the mean of its last three evaluations on the test set (of all, where there are fewer). Single
  evaluations jump by a point from round to round;
* accuracy of a codec: mean and sample standard deviation over its seeds;
* difference to float32: seeds are paired, as the same seed gives every codec the same clients, data and initial model.
  Mean and standard error of the differences. Standard deviations between seeds say little about this;
* bytes: lengths of what was sent, over all clients and rounds; MB is 10^6 bytes. What TFF's own aggregators send cannot
  be
  measured: the size of what their encoder returns stands in for it, and is marked as an estimate.
"""

import base64
import dataclasses
import html
import io
import math
import os
import statistics
import string

from tff_compress.codec import files
from tff_compress.codec.errors import CompressionError
from tff_compress.simulation import folder as folder_lib

LAST = 3
"""Evaluations that the accuracy of a run is the mean of."""

PLAIN = ('none', 'float32')
"""Uplinks and downlinks that are not compressed."""

# Settings that do not make two runs different tasks.
_INDIFFERENT = ('uplink', 'downlink', 'seed', 'output', 'data_dir', 'workers', 'checkpoint_every')

_PREPASS = ('clients', 'uplink_bytes', 'downlink_bytes', 'seconds')

_MAX_FOLDERS = 10_000


class ReportError(CompressionError):
  """A folder has no finished runs, or a result file is not one."""


@dataclasses.dataclass(frozen=True)
class Run:
  """One run as a report sees it. Make one with `Run.of(result)`.

  Attributes:
    uplink, downlink: codec texts, as the user wrote them.
    seed: what paired runs share.
    settings: dict of all other settings that its numbers depend on.
    parameters: number of the model's trainable parameters.
    rounds: tuple of dicts, as in `tff_compress.simulation.run.RunResult`.
    diverged: whether training ended in NaN or infinite values.
  """
  uplink: str
  downlink: str
  seed: int
  settings: dict
  parameters: int
  rounds: tuple
  diverged: bool = False

  @classmethod
  def of(cls, result):
    """Makes one of a `RunResult`."""
    return cls.of_dict({'config': result.config.as_dict(), 'parameters': result.parameters,
                        'rounds': list(result.rounds),
                        'status': result.status})

  @classmethod
  def of_dict(cls, result):
    """Makes one of what result.json holds. Raises ReportError if something is missing or not a number."""
    try:
      config = result['config']
      settings = {name: value for name, value in config.items() if name not in _INDIFFERENT}
      links = (config['uplink'], config['downlink'])
      if not all(isinstance(text, str) for text in links):
        raise TypeError
      run = cls(*links, int(config['seed']), settings, int(result['parameters']), tuple(result['rounds']),
                result['status'] == folder_lib.DIVERGED)
      for entry in run.rounds:
        for direction in ('uplink', 'downlink'):
          count, ratio, bits = (run.figure(entry, direction, name) for name in ('bytes', 'ratio', 'bits_per_parameter'))
          figures = [count, ratio, bits] if count else [count, bits, entry['clients']]
          if not all(isinstance(value, (int, float)) and 0 <= value < 1e18 for value in figures):
            raise TypeError
        learning = [entry.get(f'prepass_{name}', 0) for name in _PREPASS]
        if 'uplink_fallbacks' in entry:
          learning += [entry['uplink_fallbacks'], entry['clients']]
        if not all(isinstance(value, (int, float)) and 0 <= value < 1e18 for value in learning):
          raise TypeError
        for value in (*(entry[name] for name in ('accuracy', 'loss', 'seconds')), entry.get('client_states_bytes')):
          if value is not None and not isinstance(value, (int, float)):
            raise TypeError
      return run
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
      raise ReportError('something is missing in it') from None

  @property
  def estimated(self):
    """Whether the uplink's bytes are an estimate."""
    return any('uplink_bytes_estimate' in entry for entry in self.rounds)

  @property
  def is_plain(self):
    """Whether nothing is compressed in either direction."""
    return self.uplink in PLAIN and self.downlink in PLAIN

  @staticmethod
  def figure(entry, direction, name):
    """`uplink_bytes` and the like of a round, or the estimate where there is only that."""
    key = f'{direction}_{name}'
    return entry[key] if key in entry else entry[f'{key}_estimate']

  def evaluations(self):
    """[(round, accuracy, uplink bytes so far, downlink bytes so far)] of the rounds with an evaluation."""
    up = down = 0
    result = []
    for entry in self.rounds:
      up += self.figure(entry, 'uplink', 'bytes') + entry.get('prepass_uplink_bytes', 0)
      down += self.figure(entry, 'downlink', 'bytes') + entry.get('prepass_downlink_bytes', 0)
      if entry['accuracy'] is not None:
        result.append((entry['round'], entry['accuracy'], up, down))
    return result

  @property
  def accuracy(self):
    """Mean of the last evaluations, 0 … 1; NaN without any."""
    last = [accuracy for _, accuracy, _, _ in self.evaluations()[-LAST:]]
    return statistics.fmean(last) if last else math.nan

  def total(self, direction):
    """(bytes that were sent, bytes that float32 would have taken, number of values), over all clients and rounds,
    without pre-passes."""
    sent = plain = 0
    for entry in self.rounds:
      count, ratio = (self.figure(entry, direction, name) for name in ('bytes', 'ratio'))
      sent += count
      # Where nothing was sent there is no ratio.
      plain += count * ratio if count else 4 * self.parameters * entry['clients']
    return sent, plain, plain / 4


  def prepass(self, name):
    """Sum over rounds of 'clients', 'uplink_bytes', 'downlink_bytes' or 'seconds' of their pre-passes."""
    return sum(entry.get(f'prepass_{name}', 0) for entry in self.rounds)

  @property
  def fallbacks(self):
    """(messages with the fallback, all messages), over all rounds; None where there is no pre-pass."""
    counted = [entry for entry in self.rounds if entry.get('uplink_fallbacks') is not None]
    return tuple(sum(entry[name] for entry in counted) for name in ('uplink_fallbacks', 'clients')) if counted else None


@dataclasses.dataclass(frozen=True)
class Series:
  """Runs that differ in their seed only, and what they amount to.

  Attributes:
    label: what tables and plots call it.
    runs: tuple of `Run`, by seed.
    accuracy, accuracy_deviation: mean over seeds, 0 … 1, and sample standard deviation (None for a single seed).
    difference, difference_error: paired mean difference to float32 in points (hundredths), and its standard error (None
      for a single pair); both None where float32 was not run with any of these seeds, or this is float32 itself.
    pairs: seeds that the difference is made of.
    uplink_bytes, downlink_bytes: of all clients and rounds of a run, pre-passes with them, mean over seeds.
    uplink_bits_per_parameter, downlink_bits_per_parameter: mean over messages, without pre-passes; None where nothing
      was sent.
    uplink_ratio, ratio: float32's bytes over the bytes sent, pre-passes with them; uplink only, and both directions
      together.
    prepass_uplink_bytes, prepass_downlink_bytes: of pre-passes alone, mean over seeds; None where there were none.
    fallbacks: share of the messages with the fallback, 0 … 1; None where there is no pre-pass.
    client_states_bytes: what is stored of all clients' memories in the end, mean over seeds; None where they have none.
    seconds: median over all rounds but each run's first, in which TFF builds its programs.
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
  uplink_bits_per_parameter: object
  downlink_bits_per_parameter: object
  uplink_ratio: object
  ratio: object
  prepass_uplink_bytes: object
  prepass_downlink_bytes: object
  fallbacks: object
  client_states_bytes: object
  seconds: object

  @property
  def first(self):
    return self.runs[0]

  @property
  def estimated(self):
    """Whether the uplink's bytes are an estimate."""
    return any(run.estimated for run in self.runs)

  def as_dict(self):
    """Its numbers in JSON's types; what is an estimate has it in its name."""
    result = {'label': self.label, 'uplink': self.first.uplink, 'downlink': self.first.downlink,
              'seeds': [run.seed for run in self.runs], 'diverged': [run.seed for run in self.runs if run.diverged]}
    for field in dataclasses.fields(self):
      if field.name not in ('label', 'runs'):
        of_uplink = field.name.startswith('uplink_') or field.name == 'ratio'
        result[field.name + ('_estimate' if of_uplink and self.estimated else '')] = getattr(self, field.name)
    return folder_lib.finite(result)


def load(folder, on_damaged=None):
  """The runs in a folder and in the folders below it.

  Args:
    folder: path.
    on_damaged: called with a sentence for each result.json that is not one, and is left out; None: that is an error.

  Returns:
    list of `Run` with at least one round each, in the order of their paths.

  Raises:
    ReportError: there are none, or one of them cannot be read.
    FolderError: a result.json is not one.
  """
  if not os.path.isdir(folder):
    raise ReportError(f'{folder} is not a folder.')
  runs, damaged = [], 0
  for count, (path, below, names) in enumerate(os.walk(folder)):
    if count == _MAX_FOLDERS:
      raise ReportError(f'{folder} has more than {_MAX_FOLDERS} folders in it: give the one that the runs are in.')
    below.sort()
    if folder_lib.RESULT in names:
      below.clear()  # What a run keeps to itself.
      try:
        runs += _read(path)
      except (ReportError, folder_lib.FolderError) as error:
        if on_damaged is None:
          raise
        damaged += 1
        on_damaged(str(error))
  if not runs:
    raise ReportError(f'{folder} has no {folder_lib.RESULT} of a run with at least one round'
                      f'{" that can be read" if damaged else ""}.')
  return runs


def _read(path):
  """[the `Run` in a folder]; [] where it has no round yet."""
  result = folder_lib.read_result(path)
  if not result or not result['rounds']:
    return []
  try:
    return [Run.of_dict(result)]
  except ReportError as error:
    raise ReportError(f'{os.path.join(path, folder_lib.RESULT)} is not the result of a run: {error}.') from None


def summarize(runs):
  """One `Series` per group of runs that differ in their seed only: float32 first, then from the most bytes to the
  fewest.

  Args:
    runs: sequence of `Run`, not empty. Of two that do not differ at all, the later one counts.
  """
  groups = {}
  for run in runs:
    groups.setdefault((run.uplink, run.downlink, _task(run)), {})[run.seed] = run
  plain = {task: group for (up, down, task), group in groups.items() if up in PLAIN and down in PLAIN}
  labels = _labels([next(iter(group.values())) for group in groups.values()])
  series = [_series(label, group, plain.get(key[2], {})) for label, (key, group) in zip(labels, groups.items())]
  return sorted(series, key=lambda entry: (not entry.first.is_plain, -entry.uplink_bytes - entry.downlink_bytes))


def _task(run):
  """What two runs must share to be compared; hashable."""
  return tuple(sorted((name, repr(value)) for name, value in run.settings.items()))


def _labels(runs):
  """Short and distinct names: the uplink, the downlink where that differs between the runs, and settings that do."""
  same_downlink = len({_compact(run.downlink) for run in runs}) == 1
  differing = [name for name in runs[0].settings if len({repr(run.settings.get(name)) for run in runs}) > 1]
  labels = []
  for run in runs:
    up, down = _compact(run.uplink), _compact(run.downlink)
    label = _short(up, 40) if same_downlink or run.is_plain else f'{_short(up)} / {_short(down)}'
    label = ', '.join([label, *(_short(f'{name}={run.settings.get(name)}', 30) for name in differing)])
    while label in labels:
      label += "'"
    labels.append(label)
  return labels


def _compact(text):
  """A codec's text without what a reader can do without."""
  if text in PLAIN:
    return 'float32'
  return '|'.join(' '.join(part.split()) for part in text.split('|')).removesuffix('|pack')


def _short(text, length=24):
  return text if len(text) <= length else text[:length - 1].rstrip(' |,:') + '…'


def _series(label, group, plain):
  runs = tuple(group[seed] for seed in sorted(group))
  accuracies = [run.accuracy for run in runs]
  paired = [seed for seed in group if seed in plain and group is not plain]
  pairs = [100 * (group[seed].accuracy - plain[seed].accuracy) for seed in paired]
  later = [entry for run in runs for entry in (run.rounds[1:] or run.rounds)]
  seconds = [entry['seconds'] for entry in later if entry['seconds'] is not None]
  kept = [run.rounds[-1]['client_states_bytes'] for run in runs
          if run.rounds[-1].get('client_states_bytes') is not None]
  up, down = ([statistics.fmean(numbers) for numbers in zip(*(run.total(direction) for run in runs))]
              for direction in ('uplink', 'downlink'))
  learning_up, learning_down = (statistics.fmean(run.prepass(f'{direction}_bytes') for run in runs)
                                for direction in ('uplink', 'downlink'))
  sent_up, sent_down = up[0] + learning_up, down[0] + learning_down
  counted = [run.fallbacks for run in runs if run.fallbacks is not None]
  return Series(
      label=label, runs=runs, accuracy=statistics.fmean(accuracies),
      accuracy_deviation=statistics.stdev(accuracies) if len(accuracies) > 1 else None,
      difference=statistics.fmean(pairs) if pairs else None,
      difference_error=statistics.stdev(pairs) / math.sqrt(len(pairs)) if len(pairs) > 1 else None,
      pairs=len(pairs), uplink_bytes=sent_up, downlink_bytes=sent_down,
      uplink_bits_per_parameter=_per(8 * up[0], up[2]), downlink_bits_per_parameter=_per(8 * down[0], down[2]),
      uplink_ratio=_per(up[1], sent_up), ratio=_per(up[1] + down[1], sent_up + sent_down),
      prepass_uplink_bytes=learning_up or None, prepass_downlink_bytes=learning_down or None,
      fallbacks=_per(*map(sum, zip(*counted))) if counted else None,
      client_states_bytes=statistics.fmean(kept) if kept else None,
      seconds=statistics.median(seconds) if seconds else None)


def _per(amount, by):
  return amount / by if by else None


# ---- plots
# -------------------------------------------------------------------------------------------------------------

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
    if entry.first.is_plain:
      result.append((theme['ink'], '-'))
      continue
    count = len(theme['colours'])
    result.append((theme['colours'][used % count], _STYLES[used // count % len(_STYLES)]))
    used += 1
  return result


def plot_rounds(series, theme='light'):
  """PNG of test accuracy against round: means over seeds. The band of `banded` reaches from its worst to its best seed.

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
    if entry is banded(series):
      axes.fill_between(rounds, low, high, color=colour, alpha=0.13, linewidth=0)
    axes.plot(rounds[-1:], mean[-1:], 'o', color=colour, markersize=4, zorder=4)
    ends.append((rounds[-1], mean[-1], entry.label, colour))
  axes.set_xlabel('round')
  axes.xaxis.get_major_locator().set_params(integer=True)
  _label_ends(figure, axes, ends)
  return _png(figure)


def banded(series):
  """The one `Series` whose spread over seeds is drawn: float32, or else the first. None where it has a single seed.

  One, because the bands of runs that share their seeds lie on top of each other, and hide the lines.
  """
  entry = next((entry for entry in series if entry.first.is_plain), series[0])
  return entry if len(entry.runs) > 1 else None


def plot_bytes(series, theme='light'):
  """PNG of test accuracy against megabytes sent so far: up on the left, up and down on the right, log scale."""
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
    columns = max(1, min(len(labels), int(120 / (max(map(len, labels)) + 8))))
    figure.legend(lines, labels, loc='outside lower center', ncols=columns, frameon=False, fontsize=9,
                  labelcolor=_THEMES[theme]['ink'])
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


def _figure(theme, panels, size):
  """A figure with `panels` plots of accuracy side by side. No pyplot: its figures are global."""
  from matplotlib import figure as figure_lib
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


# ---- page
# --------------------------------------------------------------------------------------------------------------


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
  except OSError as error:
    raise ReportError(f'the folder {folder} cannot be made: {files.reason(error)}.') from None
  for name in plots:
    files.write(os.path.join(folder, f'{name}.png'), images[name, 'light'], ReportError)
  path = os.path.join(folder, 'report.html')
  # A path in the command may hold bytes that are no text.
  files.write(path, page(series, images, command).encode('utf-8', 'replace'), ReportError)
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
  settings = _shared_settings(series)
  columns = _columns(series)
  title = ' against '.join(_title_part(series))
  figures = [
      ('accuracy_rounds', 'Test accuracy after each round.'),
      ('accuracy_bytes',
       'Test accuracy against what had been sent by then, over all clients: the further left, the less.'),
  ]
  if banded(series):
    spread = f' Lines are means over seeds; the band reaches from the worst to the best seed of {banded(series).label}.'
    figures[0] = (figures[0][0], figures[0][1] + spread)
  return template.substitute(
      title=html.escape(title), subtitle=html.escape(subtitle(series)),
      command=f'<pre>{html.escape(command)}</pre>' if command else '',
      header=''.join(_head(name) for name, _, _ in columns),
      rows='\n'.join(_row(entry, colours, columns) for entry, colours in zip(series, _both_colours(series))),
      caption=html.escape(caption(series)),
      figures='\n'.join(_picture(name, text, images) for name, text in figures),
      sections='\n'.join(_section(entry, colours) for entry, colours in zip(series, _both_colours(series))),
      configuration='\n'.join(_property(key, value) for key, value in settings.items()),
      footer=_FOOTER)


_FOOTER = ('Bytes are the lengths of the frames that were sent, over all clients and rounds: payload, scales, padding, '
           'header and checksum. float32 is a codec like the others. MB is 10<sup>6</sup> bytes.')


def subtitle(series):
  """What was trained, on one line."""
  settings = _shared_settings(series)
  first = series[0].first
  seeds = sorted({run.seed for entry in series for run in entry.runs})
  what = [str(settings[name]) for name in ('dataset', 'model') if name in settings]
  if 'clients' in settings and 'clients_per_round' in settings:
    clients = 'natural clients' if settings['clients'] is None else counted(settings['clients'], 'client')
    what.append(f'{clients}, {settings["clients_per_round"]} in a round')
  if 'split' in settings:
    what.append(f'split {settings["split"]}')
  what += [counted(settings.get('rounds', len(first.rounds)), 'round'), counted(len(seeds), 'seed'),
           counted(first.parameters, 'parameter')]
  return ' · '.join(what)


def counted(number, noun):
  """'1 round', '1,000 rounds'."""
  return f'{number:,} {noun}' + ('' if number == 1 else 's')


def _title_part(series):
  """['int8, drive', 'float32'] or only the first."""
  plain = [entry.label for entry in series if entry.first.is_plain]
  others = [entry.label for entry in series if not entry.first.is_plain]
  others = [', '.join(others) if len(others) <= 3 else f'{len(others)} codecs'] if others else []
  return others + plain[:1]


def percent(value, digits=1):
  """0.9731 as '97.3'; '' for None and NaN."""
  return '' if value is None or math.isnan(value) else f'{100 * value:.{digits}f}'


def _significant(value):
  if value is None:
    return ''
  return f'{value:,.0f}' if value >= 999.5 else f'{value:.3g}'


def _sent(series, value):
  """A figure of the uplink, marked where it is an estimate."""
  return ('≈' if series.estimated and value is not None else '') + _significant(value)


def _accuracy(series):
  text = percent(series.accuracy)
  if series.accuracy_deviation is not None and text:
    text += f' ± {percent(series.accuracy_deviation)}'
  return text + (' diverged' if any(run.diverged for run in series.runs) else '')


def _difference(series):
  if series.difference is None or math.isnan(series.difference):
    return ''
  return f'{series.difference:+.2f}' + ('' if series.difference_error is None else f' ± {series.difference_error:.2f}')


def _kept(series):
  return '' if series.client_states_bytes is None else _significant(series.client_states_bytes / 1e6)


def _prepass(series):
  """MB of pre-passes in both directions; None where there were none."""
  sent = (series.prepass_uplink_bytes or 0) + (series.prepass_downlink_bytes or 0)
  return sent / 1e6 if sent else None


def _shown_settings(series):
  """The settings in the label, which are those that differ between the rows."""
  return series.label.partition(', ')[2]


# Title, text, and what to sort by.
_COLUMNS = (
    ('uplink', lambda s: 'float32' if s.first.uplink in PLAIN else s.first.uplink, lambda s: s.label),
    ('downlink', lambda s: 'float32' if s.first.downlink in PLAIN else s.first.downlink, lambda s: s.first.downlink),
    ('settings', _shown_settings, _shown_settings),
    ('accuracy %', _accuracy, lambda s: s.accuracy),
    ('vs float32', _difference, lambda s: s.difference),
    ('MB up', lambda s: _sent(s, s.uplink_bytes / 1e6), lambda s: s.uplink_bytes),
    ('MB down', lambda s: _significant(s.downlink_bytes / 1e6), lambda s: s.downlink_bytes),
    ('bits up', lambda s: _sent(s, s.uplink_bits_per_parameter), lambda s: s.uplink_bits_per_parameter),
    ('bits down', lambda s: _significant(s.downlink_bits_per_parameter), lambda s: s.downlink_bits_per_parameter),
    ('× up', lambda s: _sent(s, s.uplink_ratio), lambda s: s.uplink_ratio),
    ('× both', lambda s: _sent(s, s.ratio), lambda s: s.ratio),
    ('MB pre-pass', lambda s: _significant(_prepass(s)), _prepass),
    ('fallbacks %', lambda s: percent(s.fallbacks), lambda s: s.fallbacks),
    ('MB kept', _kept, lambda s: s.client_states_bytes),
    ('s/round', lambda s: _significant(s.seconds), lambda s: s.seconds),
)


TEXT_COLUMNS = ('uplink', 'downlink', 'settings')
"""Columns of `rows` that are not numbers."""


def _columns(series):
  """The columns that are not empty for all."""
  return [column for column in _COLUMNS if any(column[1](entry) for entry in series)]


def rows(series):
  """(column titles, one list of texts per series), for a table."""
  columns = _columns(series)
  return [name for name, _, _ in columns], [[text(entry) for _, text, _ in columns] for entry in series]


def caption(series):
  """What the columns of `rows` mean: a few sentences."""
  seeds = max(len(entry.runs) for entry in series)
  text = f'Accuracy: mean of the last {LAST} evaluations'
  if seeds > 1:
    text += f', then mean ± standard deviation over {seeds} seeds'
  if any(_difference(entry) for entry in series):
    text += '; vs float32: the difference in points' + (', mean ± standard error over the same seeds' if seeds > 1
                                                        else '')
  text += '. Bits are per parameter and message; × is how many times fewer bytes than float32.'
  if any(entry.fallbacks is not None for entry in series):
    text += (
        ' MB pre-pass is what clients sent and received to learn, which MB up, MB down and × have in them and bits '
        'have not; fallbacks is the share of messages that the autoencoder did not fit.')
  if any(entry.client_states_bytes is not None for entry in series):
    text += ' MB kept is what is stored of what clients remember, in the end.'
  if any(entry.estimated for entry in series):
    text += " ≈ is an estimate: the size of what TFF's encoder returns, as TFF does not say what it would send."
  if any(run.diverged for entry in series for run in entry.runs):
    text += ' Diverged: training came to NaN or infinite values and ended early.'
  return text


def _both_colours(series):
  return [(light[0], dark[0]) for light, dark in zip(_colours(series, 'light'), _colours(series, 'dark'))]


def _swatch(colours):
  return f'<span class="swatch" style="--light:{colours[0]};--dark:{colours[1]}"></span>'


def _head(name):
  kind = ' class="text"' if name in TEXT_COLUMNS else ''
  return f'<th scope="col"{kind}><button>{html.escape(name).replace("× ", "×&nbsp;")}</button></th>'


def _row(entry, colours, columns):
  cells = []
  for name, text, value in columns:
    raw = value(entry)
    raw = '' if raw is None or raw != raw else raw
    mark = _swatch(colours) if name == 'uplink' else ''
    kind = ' class="text"' if name in TEXT_COLUMNS else ''
    cells.append(f'<td{kind} data-value="{html.escape(str(raw))}">{mark}{html.escape(text(entry))}</td>')
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
  seeds = ', '.join(f'{percent(run.accuracy, 2) or "none"} % (seed {run.seed})' for run in entry.runs)
  facts = [('uplink', entry.first.uplink), ('downlink', entry.first.downlink), ('accuracy', seeds),
           ('sent in a run', f'{_sent(entry, entry.uplink_bytes / 1e6)} MB up, '
                             f'{_significant(entry.downlink_bytes / 1e6)} MB down'),
           *_learning(entry)]
  details = [f'<details><summary>Every round, seed {run.seed}</summary>'
             f'<div class="scroll">{_rounds_table(run)}</div></details>'
             for run in entry.runs]
  table = ''.join(_property(name, value) for name, value in facts)
  return (
      f'<h3>{_swatch(colours)}{html.escape(entry.label)}</h3><table><tbody class="properties">{table}</tbody></table>'
      + '\n'.join(details))


def _learning(entry):
  """What pre-passes cost in each run, as properties."""
  for run in entry.runs:
    passes = [item['round'] for item in run.rounds if item.get('prepass_clients')]
    if passes:
      again = [str(number) for number in passes if number > 1]
      up, down = (_significant(run.prepass(f'{direction}_bytes') / 1e6) for direction in ('uplink', 'downlink'))
      text = f'{up} MB up, {down} MB down, {run.prepass("seconds"):.0f} s'
      yield f'pre-pass, seed {run.seed}', text + (f'; again before round {", ".join(again)}' if again else '')


def _rounds_table(run):
  learns = run.fallbacks is not None
  up = down = 0
  lines = []
  for item in run.rounds:
    sent, received = (run.figure(item, direction, 'bytes') for direction in ('uplink', 'downlink'))
    up, down = (total + count + item.get(f'prepass_{direction}_bytes', 0)
                for total, count, direction in ((up, sent, 'uplink'), (down, received, 'downlink')))
    cells = (item['round'], percent(item['accuracy'], 2), _loss(item['loss']), f'{sent:,}', f'{received:,}',
             f'{up / 1e6:.6g}', f'{down / 1e6:.6g}', _significant(item['seconds']))
    if learns:
      learned = item.get('prepass_clients', 0)
      figures = [item.get(f'prepass_{name}', 0) for name in ('uplink_bytes', 'downlink_bytes')] if learned else ()
      cells += (item.get('uplink_fallbacks', ''), learned or '', *([f'{count:,}' for count in figures] or ['', '']))
    lines.append('<tr>' + ''.join(f'<td>{cell}</td>' for cell in cells) + '</tr>')
  mark = ' (estimate)' if run.estimated else ''
  titles = ('round', 'accuracy %', 'test loss', f'bytes up{mark}', 'bytes down', f'MB up so far{mark}',
            'MB down so far',
            'seconds', *(('fallbacks', 'learned before', 'bytes up for it', 'bytes down for it') if learns else ()))
  return (f'<table><thead><tr>{"".join(f"<th>{title}</th>" for title in titles)}</tr></thead>'
          f'<tbody>{"".join(lines)}</tbody></table>')


def _loss(value):
  return '' if value is None or not math.isfinite(value) else f'{value:.4g}'


def _shared_settings(series):
  """Settings that are the same in all runs."""
  every = [run.settings for entry in series for run in entry.runs]
  return {name: value for name, value in every[0].items()
          if all(name in other and other[name] == value for other in every)}
