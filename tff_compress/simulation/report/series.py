"""Runs that differ in their seed only, as one row of a table and one line of a plot."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools
import itertools
import math
import statistics

from tff_compress.processes.figures import Figure
from tff_compress.simulation.report.runs import FLOAT32
from tff_compress.simulation.report.runs import Run


@dataclasses.dataclass(frozen=True)
class Series:
  """Runs that differ in their seed only, and what they amount to.

  Attributes:
    label: what tables and plots call it.
    runs: tuple of `Run`, by seed.
    float32: tuple of the `Run` of float32 that share the settings, which it is compared with; empty where float32 was
      not run, or this is float32 itself.
  """
  label: str
  runs: tuple[Run, ...]
  float32: tuple[Run, ...] = ()

  @property
  def first(self) -> Run:
    return self.runs[0]

  @property
  def estimated(self) -> bool:
    """Whether the uplink's bytes are an estimate."""
    return any(run.estimated for run in self.runs)

  @functools.cached_property
  def accuracy(self) -> float:
    """Mean over seeds, 0 … 1."""
    return statistics.fmean(run.accuracy for run in self.runs)

  @functools.cached_property
  def accuracy_deviation(self) -> float | None:
    """Sample standard deviation over seeds; None for a single seed."""
    return _deviation([run.accuracy for run in self.runs])

  @functools.cached_property
  def differences(self) -> list[float]:
    """Accuracy less that of float32, in points (hundredths), for each seed that both were run with.

    The same seed gives every codec the same clients, data and initial model, so these say more than standard deviations
    between seeds do.
    """
    float32 = {run.seed: run for run in self.float32}
    return [100 * (run.accuracy - float32[run.seed].accuracy) for run in self.runs if run.seed in float32]

  @property
  def difference(self) -> float | None:
    """Mean of `differences`; None where there are none."""
    return statistics.fmean(self.differences) if self.differences else None

  @property
  def difference_error(self) -> float | None:
    """Standard error of `difference`; None where there are less than two."""
    deviation = _deviation(self.differences)
    return None if deviation is None else deviation / math.sqrt(len(self.differences))

  @property
  def pairs(self) -> int:
    """Number of seeds that the difference is made of."""
    return len(self.differences)

  @property
  def uplink_bytes(self) -> float:
    """Of all clients and rounds of a run, what went beside messages with it, mean over seeds."""
    return self._bytes('uplink')

  @property
  def downlink_bytes(self) -> float:
    """Of all clients and rounds of a run, what went beside messages with it, mean over seeds."""
    return self._bytes('downlink')

  @property
  def total_bytes(self) -> float:
    """`uplink_bytes` and `downlink_bytes` together."""
    return self.uplink_bytes + self.downlink_bytes

  @property
  def uplink_bits_per_parameter(self) -> float | None:
    """Mean over messages, without what went beside them; None where nothing was sent."""
    return self._bits('uplink')

  @property
  def downlink_bits_per_parameter(self) -> float | None:
    """Mean over messages, without what went beside them; None where nothing was sent."""
    return self._bits('downlink')

  @property
  def uplink_ratio(self) -> float | None:
    """float32's bytes over the bytes sent, what went beside messages with it; None where nothing was sent."""
    return _per(self._total('uplink')[1], self.uplink_bytes)

  @property
  def ratio(self) -> float | None:
    """`uplink_ratio` of both directions together."""
    return _per(self._total('uplink')[1] + self._total('downlink')[1], self.total_bytes)

  def total(self, figure: Figure) -> float | None:
    """What a figure of a method with a `Total` comes to; None where it was not measured, or a sum is nothing.

    Sums over rounds, and what the last round has, are means over seeds; a share is one of all clients of all rounds and
    seeds, 0 … 1.
    """
    measured = [values for values in (run.values(figure) for run in self.runs) if values]
    if figure.total is None or not measured:
      return None
    if figure.total.share:
      return _per(*(sum(numbers) for numbers in zip(*itertools.chain(*measured))))
    if figure.total.last:
      return statistics.fmean(values[-1][0] for values in measured)
    return sum(value for value, _ in itertools.chain(*measured)) / len(self.runs) or None

  @functools.cached_property
  def seconds(self) -> float | None:
    """Median over all rounds but each run's first, in which TFF builds its programs; None where none was timed."""
    later = [entry for run in self.runs for entry in (run.rounds[1:] or run.rounds)]
    seconds = [entry['seconds'] for entry in later if entry['seconds'] is not None]
    return statistics.median(seconds) if seconds else None

  def _bytes(self, direction):
    beside = statistics.fmean(sum(run.beside(entry, direction) for entry in run.rounds) for run in self.runs)
    return self._total(direction)[0] + beside

  def _bits(self, direction):
    sent, _, values = self._total(direction)
    return _per(8 * sent, values)

  def _total(self, direction):
    """`Run.total`, mean over seeds."""
    return [statistics.fmean(numbers) for numbers in zip(*(run.total(direction) for run in self.runs))]


def summarize(runs: Sequence[Run]) -> list[Series]:
  """One `Series` per group of runs that differ in their seed only: float32 first, then from the most bytes in both
  directions together to the fewest.

  Args:
    runs: sequence of `Run`, not empty. Of two that do not differ at all, the later one counts.
  """
  groups: dict[tuple, dict[int, Run]] = {}
  for run in runs:
    groups.setdefault((run.uplink, run.downlink, _task(run)), {})[run.seed] = run
  float32 = {task: group for (up, down, task), group in groups.items() if up in FLOAT32 and down in FLOAT32}
  labels = _labels([next(iter(group.values())) for group in groups.values()])
  series = []
  for label, ((_, _, task), group) in zip(labels, groups.items()):
    others = float32.get(task, {})
    series.append(Series(label, tuple(group[seed] for seed in sorted(group)),
                         () if others is group else tuple(others.values())))
  return sorted(series, key=lambda entry: (not entry.first.is_float32, -entry.total_bytes))


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
    label = _short(up, 40) if same_downlink or run.is_float32 else f'{_short(up)} / {_short(down)}'
    label = ', '.join([label, *(_short(f'{name}={run.settings.get(name)}', 30) for name in differing)])
    while label in labels:
      label += "'"
    labels.append(label)
  return labels


def _compact(text):
  """A codec's text without what a reader can do without."""
  if text in FLOAT32:
    return 'float32'
  return '|'.join(' '.join(part.split()) for part in text.split('|')).removesuffix('|pack')


def _short(text, length=24):
  return text if len(text) <= length else text[:length - 1].rstrip(' |,:') + '…'


def _per(amount, by):
  return amount / by if by else None


def _deviation(values: list[float]) -> float | None:
  """Sample standard deviation; None for less than two values, NaN where one is not finite."""
  if len(values) < 2:
    return None
  # The module raises an AttributeError for NaN.
  return statistics.stdev(values) if all(map(math.isfinite, values)) else math.nan
