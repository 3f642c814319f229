"""Finished runs, read from the result.json files that they leave behind."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import math
import os
import statistics
from typing import Any

from tff_compress.codec.errors import CompressionError
from tff_compress.processes import figures as figures_lib
from tff_compress.processes import methods
from tff_compress.simulation import folder as folder_lib

LAST = 3
"""Evaluations that the accuracy of a run is the mean of: single ones jump by a point from round to round."""

FLOAT32 = ('none', 'float32')
"""Uplinks and downlinks that are not compressed."""

# Settings that do not make two runs different tasks.
_INDIFFERENT = ('uplink', 'downlink', 'seed', 'output', 'data_dir', 'workers', 'checkpoint_every')

_MAX_FOLDERS = 10_000


class ReportError(CompressionError):
  """A folder has no finished runs, a result file is not one, or a report cannot be written."""


@dataclasses.dataclass(frozen=True)
class Run:
  """One run as a report sees it. Make one with `Run.of(result)`.

  Attributes:
    uplink, downlink: codec texts, as the user wrote them.
    seed: what paired runs share.
    settings: dict of all other settings that its numbers depend on.
    parameters: number of the model's trainable parameters.
    rounds: tuple of dicts, as in `tff_compress.simulation.run.RunResult`.
    diverged: whether training ended early, in NaN or infinite values or before them.
  """
  uplink: str
  downlink: str
  seed: int
  settings: dict
  parameters: int
  rounds: tuple
  diverged: bool = False

  @classmethod
  def of(cls, result: Any) -> Run:
    """Makes one of a `RunResult`."""
    return cls.of_dict({'config': result.config.as_dict(), 'parameters': result.parameters,
                        'rounds': list(result.rounds),
                        'status': result.status})

  @classmethod
  def of_dict(cls, result: dict) -> Run:
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
        measured = [entry[figure.name] for figure in methods.figures() if figure.name in entry]
        if measured:
          measured.append(entry['clients'])
        if not all(isinstance(value, (int, float)) and 0 <= value < 1e18 for value in measured):
          raise TypeError
        for value in (entry[name] for name in ('accuracy', 'loss', 'seconds')):
          if value is not None and not isinstance(value, (int, float)):
            raise TypeError
      return run
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
      raise ReportError('something is missing in it') from None

  @property
  def estimated(self) -> bool:
    """Whether the uplink's bytes are an estimate."""
    return any('uplink_bytes_estimate' in entry for entry in self.rounds)

  @property
  def is_float32(self) -> bool:
    """Whether nothing is compressed in either direction."""
    return self.uplink in FLOAT32 and self.downlink in FLOAT32

  @staticmethod
  def figure(entry: dict, direction: str, name: str) -> Any:
    """`uplink_bytes` and the like of a round, or the estimate where there is only that."""
    key = f'{direction}_{name}'
    return entry[key] if key in entry else entry[f'{key}_estimate']

  @staticmethod
  def beside(entry: dict, direction: str) -> int:
    """Bytes that went in a direction beside the messages of a round, as for a pre-pass."""
    return figures_lib.sent(methods.figures(), direction, entry)

  def evaluations(self) -> list[tuple]:
    """[(round, accuracy, uplink bytes so far, downlink bytes so far)] of the rounds with an evaluation."""
    up = down = 0
    result = []
    for entry in self.rounds:
      up += self.figure(entry, 'uplink', 'bytes') + self.beside(entry, 'uplink')
      down += self.figure(entry, 'downlink', 'bytes') + self.beside(entry, 'downlink')
      if entry['accuracy'] is not None:
        result.append((entry['round'], entry['accuracy'], up, down))
    return result

  @property
  def accuracy(self) -> float:
    """Mean of the last evaluations, 0 … 1; NaN without any."""
    last = [accuracy for _, accuracy, _, _ in self.evaluations()[-LAST:]]
    return statistics.fmean(last) if last else math.nan

  def total(self, direction: str) -> tuple:
    """(bytes that were sent, bytes that float32 would have taken, number of values), over all clients and rounds,
    without what went beside the messages."""
    sent = float32 = 0
    for entry in self.rounds:
      count, ratio = (self.figure(entry, direction, name) for name in ('bytes', 'ratio'))
      sent += count
      # Where nothing was sent there is no ratio.
      float32 += count * ratio if count else 4 * self.parameters * entry['clients']
    return sent, float32, float32 / 4

  def values(self, figure: figures_lib.Figure) -> list:
    """Its values, with the number of clients, in the rounds that have it: [(value, clients)]."""
    return [(entry[figure.name], entry['clients']) for entry in self.rounds if entry.get(figure.name) is not None]


def load(folder: str, on_damaged: Callable[[str], None] | None = None) -> list[Run]:
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
