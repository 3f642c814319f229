"""How `run`, `compare` and `demo` show that they go on: rounds and pre-passes, on standard error."""

from __future__ import annotations

from collections.abc import Sequence
import contextlib
import math
import sys
import time

from tff_compress.cli import output
from tff_compress.processes import figures as figures_lib
from tff_compress.processes import methods
from tff_compress.processes import prepass
from tff_compress.simulation.report import Run
from tff_compress.simulation.run import RunConfig


class Progress:
  """Shows rounds as they end, on standard error: a bar on a terminal, lines elsewhere.

  Args:
    configs: the runs.
    every: seconds between lines, where lines are shown; the last round of a run always has one.
  """

  def __init__(self, configs: Sequence[RunConfig], every: float):
    self._configs, self._every, self._shown = configs, every, -math.inf
    self._bar = None

  def __enter__(self):
    if sys.stderr is not None and sys.stderr.isatty():
      with contextlib.suppress(ImportError):  # Lines do as well.
        import tqdm
        total = sum(config.rounds for config in self._configs)
        self._bar = tqdm.tqdm(total=total, desc='starting TensorFlow Federated', unit='round', dynamic_ncols=True,
                              nrows=20, leave=False)  # A terminal that does not know its height has one too.
    return self

  def __exit__(self, *unused):
    if self._bar is not None:
      self._bar.close()

  def round(self, position: int, entry: dict) -> None:
    """A round of the run at this position ended; `entry` is what was measured in it."""
    config, label = self._configs[position], self._label(position)
    measured = ''
    if entry['accuracy'] is not None:
      measured = f'accuracy {100 * entry["accuracy"]:.1f} %'
    elif entry['loss'] is not None:  # Where numbers are predicted.
      measured = f'loss {entry["loss"]:.3g}'
    if self._bar is not None:
      self._bar.set_description_str(label, refresh=False)
      self._bar.set_postfix_str(measured, refresh=False)
      # Rounds that an earlier process had done count as done.
      done = sum(c.rounds for c in self._configs[:position]) + entry['round']
      self._bar.update(done - self._bar.n)
      self._bar.refresh()
      return
    if time.monotonic() - self._shown < self._every and entry['round'] != config.rounds:
      return
    self._shown = time.monotonic()
    sent = Run.figure(entry, 'uplink', 'bytes')
    parts = [f'{label}: round {entry["round"]}/{config.rounds}', measured,
             f'{output.bytes_text(sent)} up, {output.bytes_text(entry["downlink_bytes"])} down',
             f'{entry["seconds"]:.1f} s']
    parts += figures_lib.remarks(methods.figures(), entry)
    output.say(', '.join(part for part in parts if part))

  def prepass(self, position: int, learned: dict, clients: int) -> None:
    """Some more clients learned in a pre-pass of the run at this position; `learned` as `run` says."""
    text = 'pre-pass' if learned['round'] == 1 else f'pre-pass again before round {learned["round"]}'
    text += f': {prepass.progress(learned, clients, output.bytes_text)}'
    if self._bar is not None:
      self._bar.set_description_str(text)
    elif learned['prepass_clients'] == clients or time.monotonic() - self._shown >= self._every:
      self._shown = time.monotonic()
      output.say(f'{self._label(position)}: {text}')

  def _label(self, position):
    config = self._configs[position]
    label = config.uplink if config.uplink == config.downlink else f'{config.uplink} / {config.downlink}'
    if len(self._configs) > 1:
      label = f'[{position + 1}/{len(self._configs)}] {label}'
    return output.printable(label if len(label) <= 40 else label[:39] + '…')
