"""The table of finished runs: one row per `Series`, the words above and below it, and the same as numbers."""

from __future__ import annotations

from collections.abc import Sequence
import math

from tff_compress.simulation import folder as folder_lib
from tff_compress.simulation.report import columns as columns_lib
from tff_compress.simulation.report.formats import counted
from tff_compress.simulation.report.series import Series

SORT = 'total_bytes'
"""What rows are sorted by where nothing is said: the bytes of both directions."""


def sortable() -> list[str]:
  """The names of the columns that rows may be sorted by: those of numbers."""
  return [column.name for column in columns_lib.registry() if not column.is_text]


def ordered(series: Sequence[Series], name: str = SORT) -> list[Series]:
  """Rows in the order of a column of numbers: float32 first, as what the others are compared with, then from the
  largest number to the smallest, and last what has none.

  Args:
    series: the rows.
    name: one of `sortable`.
  """
  column = next(column for column in columns_lib.registry() if column.name == name)

  def place(entry):
    value = column.value(entry)
    number = value if isinstance(value, (int, float)) and not math.isnan(value) else -math.inf
    return not entry.first.is_float32, -number
  return sorted(series, key=place)


def columns(series: Sequence[Series]) -> list[columns_lib.Column]:
  """The columns that show something of any of these."""
  return [column for column in columns_lib.registry() if any(column.text(entry) for entry in series)]


def rows(series: Sequence[Series]) -> tuple[list[str], list[list[str]]]:
  """(column titles, one list of texts per series)."""
  shown = columns(series)
  return [column.title for column in shown], [[column.text(entry) for column in shown] for entry in series]


def caption(series: Sequence[Series]) -> str:
  """What the columns of `rows` mean: a few sentences."""
  sentences: list[str] = []
  for column in columns(series):
    said = column.caption(series)
    if said.startswith(';') and sentences:
      sentences[-1] += said
    elif said:
      sentences.append(said.lstrip('; '))
  if any(entry.estimated for entry in series):
    sentences.append("≈ is an estimate: the size of what TFF's encoder returns, as TFF does not say what it would send")
  if any(run.diverged for entry in series for run in entry.runs):
    sentences.append('Diverged: training came to NaN or infinite values, or was about to, and ended early')
  return ' '.join(f'{sentence}.' for sentence in sentences)


def numbers(series: Series) -> dict:
  """What `--json` has of a row, in JSON's types; what is an estimate has it in its name."""
  result = {'label': series.label, 'uplink': series.first.uplink, 'downlink': series.first.downlink,
            'seeds': [run.seed for run in series.runs], 'diverged': [run.seed for run in series.runs if run.diverged]}
  for column in columns_lib.registry():
    if not column.is_text:
      suffix = '_estimate' if column.of_uplink and series.estimated else ''
      result.update({name + suffix: value for name, value in column.figures(series).items()})
  return folder_lib.finite(result)


def subtitle(series: Sequence[Series]) -> str:
  """What was trained, on one line."""
  settings = shared_settings(series)
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


def shared_settings(series: Sequence[Series]) -> dict:
  """Settings that are the same in all runs."""
  every = [run.settings for entry in series for run in entry.runs]
  return {name: value for name, value in every[0].items()
          if all(name in other and other[name] == value for other in every)}
