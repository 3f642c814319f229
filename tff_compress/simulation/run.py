"""Runs of federated training in simulation: one (`run`), or several (`compare`).

Importing this module does not import TensorFlow. What a run is stands in config.py, the rounds themselves are in
engine.py, what a run leaves in its folder is in folder.py.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
import contextlib
import dataclasses
import functools
import os
import re

from tff_compress.simulation import datasets
from tff_compress.simulation import folder as folder_lib
from tff_compress.simulation import splits as splits_lib
from tff_compress.simulation.config import RunConfig
from tff_compress.simulation.settings import ConfigError


@dataclasses.dataclass(frozen=True)
class RunResult:
  """What came out of a run.

  Attributes:
    config: its `RunConfig`.
    status: 'finished', or 'diverged' where training produced NaN or infinite values, or was about to: `rounds` then
      ends before that.
    parameters: number of the model's trainable parameters.
    rounds: tuple of dicts, one per round:
      round: from 1.
      clients, failed_clients: that were drawn, and among them those whose update was not finite and was left out.
      examples: that were trained on, over all clients and epochs.
      train_loss, train_accuracy: over the clients' local steps.
      loss, accuracy: on the test set, the accuracy from 0 to 1; None where it was not evaluated.
      uplink_bytes, downlink_bytes: of all clients, as sent. A baseline of TFF has `uplink_bytes_estimate` instead.
      uplink_bytes_total, downlink_bytes_total: of this round and those before it (`uplink_bytes_total_estimate`).
      uplink_bits_per_parameter, downlink_bits_per_parameter, uplink_ratio, downlink_ratio: per message; ratios to
        float32, None where nothing was sent (`…_estimate`).
      client_states_bytes: of the states that all clients have, where they remember, without copies for checkpoints.
      What the uplink's method measures beyond that, such as bytes of a pre-pass, which the totals have in them
        (`tff_compress.processes.methods.figures`; docs/command-line.md has the table).
      seconds: of the round with its evaluation; in the first, TFF also builds its programs.
    reason: a sentence that says why it did not finish; ''.
    folder: where it was saved, or None. There, `result.json` has all of this; see folder.py for the rest.
  """
  config: RunConfig
  status: str
  parameters: int
  rounds: tuple
  folder: str | None = None
  reason: str = ''

  @property
  def accuracy(self) -> float | None:
    """Test accuracy at the last evaluation, 0 to 1; None if there was none."""
    return next((entry['accuracy'] for entry in reversed(self.rounds) if entry.get('accuracy') is not None), None)

  @property
  def loss(self) -> float | None:
    """Test loss at the last evaluation; None if there was none."""
    return next((entry['loss'] for entry in reversed(self.rounds) if entry.get('loss') is not None), None)


def run(config: RunConfig, *, on_round: Callable[[dict], object] | None = None,
        on_prepass: Callable[[dict, int], object] | None = None, resume: bool = True) -> RunResult:
  """Trains one configuration in simulation.

  Args:
    config: `RunConfig`.
    on_round: called after each round with its dict; see `RunResult.rounds`.
    on_prepass: called after each group of clients that learned in a pre-pass with (dict of `round`, the one that
      follows, and the `prepass_…` fields so far; number of clients that learn in all).
    resume: whether to go on where a run in `config.output` stopped; a finished one is returned at once. A run with more
      rounds than the folder has goes on with those that are missing. False starts anew and removes what is there.

  Returns:
    `RunResult`.

  Raises:
    ConfigError: the settings do not go together.
    DataError, SplitError, ModelError, CodecError: the data, its split, the model or a codec cannot be had.
    FolderError: the output folder cannot be used, or holds another run.
  """
  if not isinstance(config, RunConfig):
    raise ConfigError(f'run takes a RunConfig, not {type(config).__name__}.')
  with contextlib.ExitStack() as stack:
    folder = before = None
    if config.output is not None:
      method = config.method
      folder = folder_lib.Folder(config.output, config.as_dict(), None if method is None else str(method))
      stack.enter_context(folder.locked())
      if not resume:
        folder.clear()
      before = folder.read()
      if before and (before['status'] == folder_lib.DIVERGED or before['status'] == folder_lib.FINISHED
                     and len(before['rounds']) == config.rounds):
        return RunResult(config, before['status'], before['parameters'], tuple(before['rounds']), config.output,
                         before.get('reason', ''))
      folder.remove_leftovers()
      folder.check_writable()
    dataset = datasets.load(config.dataset, path=config.data_dir, **config.dataset_options)
    parts = splits_lib.split(config.split, dataset.labels, config.clients, config.seed, client_ids=dataset.client_ids)
    if config.clients_per_round > len(parts):
      raise ConfigError(
          f'clients_per_round is {config.clients_per_round} but there are {len(parts)} clients: use at most '
          'that many.')
    config.check_needs(len(parts))
    from tff_compress.simulation import engine
    status, reason, rounds, parameters = engine.train(config, dataset, parts, folder, before, on_round, on_prepass)
  return RunResult(config, status, parameters, tuple(rounds), config.output, reason)


def variants(config: RunConfig, uplinks: Iterable[str | tuple[str, str | None]]) -> list[RunConfig]:
  """The configuration with each uplink in turn, each with a folder of its own below `config.output`.

  Args:
    config: `RunConfig`.
    uplinks: sequence of uplink texts, which take the configuration's downlink unless its method or theirs has its own,
      or of (uplink, downlink), where a downlink of None is what belongs to the uplink.

  Returns:
    list of `RunConfig`.

  Raises:
    ConfigError: one of them is not valid.
  """
  result, names = [], set()
  for number, link in enumerate(uplinks):
    if isinstance(link, str):
      uplink, own = link, _has_own_downlink(link) or _has_own_downlink(config.uplink)
      downlink = None if own else config.downlink
    else:
      uplink, downlink = link
    name = uplink if downlink in (None, config.downlink) else f'{uplink} down {downlink}'
    name = re.sub(r'[^A-Za-z0-9.=]+', '-', name).strip('-')[:60]
    while name in names:
      name = f'{name}-{number}'
    names.add(name)
    output = None if config.output is None else os.path.join(config.output, name)
    result.append(dataclasses.replace(config, uplink=uplink, downlink=downlink, output=output))
  return result


def _has_own_downlink(uplink):
  return RunConfig(uplink=uplink).downlink != RunConfig(uplink='float32').downlink


def compare(configs: Iterable[RunConfig], *, on_round: Callable[[int, dict], object] | None = None,
            on_prepass: Callable[[int, dict, int], object] | None = None, resume: bool = True) -> list[RunResult]:
  """Runs several configurations, one after the other.

  With `variants` they differ in how updates and models are encoded, and train on the same clients and examples.

  Args:
    configs: sequence of `RunConfig`.
    on_round, on_prepass: called as those of `run`, with the position in `configs` in front.
    resume: as for `run`.

  Returns:
    list of `RunResult`, in order.

  Raises:
    As `run`; and ConfigError if two have the same output folder.
  """
  configs = list(configs)
  folders = [os.path.realpath(config.output) for config in configs if config.output is not None]
  if len(set(folders)) < len(folders):
    raise ConfigError('two runs have the same output folder: give each its own.')
  return [run(config, resume=resume, on_round=on_round and functools.partial(on_round, position),
              on_prepass=on_prepass and functools.partial(on_prepass, position))
          for position, config in enumerate(configs)]
