"""Runs of federated training in simulation: what one is (`RunConfig`), how to start it (`run`), several (`compare`).

Importing this module does not import TensorFlow. The rounds themselves are in engine.py, what a run leaves in its
folder is in folder.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
import re

from tff_compress import codec as codec_lib
from tff_compress import processes
from tff_compress.codec import meaning
from tff_compress.processes import methods
from tff_compress.processes import needs
from tff_compress.simulation import datasets
from tff_compress.simulation import folder as folder_lib
from tff_compress.simulation import models as models_lib
from tff_compress.simulation import splits as splits_lib
from tff_compress.simulation.config import ConfigError

ALGORITHMS = ('fedavg', 'fedprox')
SERVER_OPTIMIZERS = ('sgd', 'adam', 'yogi', 'adagrad')
BASELINES = ('tff:compression_aggregator', 'tff:hadamard:bits=N')
"""Uplinks of TFF itself, for comparison. Their bytes cannot be measured as sent: `uplink_bytes_estimate`."""


@dataclasses.dataclass(frozen=True)
class RunConfig:
  """Everything a run's result depends on, and where to put it.

  Two configurations that differ in `uplink` and `downlink` only train on the same clients, the same examples in the
  same order, with the same dropout and from the same initial weights.

  Attributes:
    dataset: a name that `simulation.load` knows.
    data_dir: folder or file it is read from; None for where it usually is.
    max_clients: emnist: at most this many writers.
    only_digits: emnist: ten labels; False: all 62.
    split: how the examples are dealt out to clients: a text that `simulation.split` knows.
    clients: how many clients there are; None for as many as a natural split has.
    clients_per_round: how many of them train in a round, drawn without replacement.
    rounds: how many rounds.
    model: a name in `simulation.models.ARCHITECTURES`.
    dropout: whether the model has its dropout layers.
    algorithm: 'fedavg' (McMahan et al. 2017) or 'fedprox' (Li et al. 2020).
    proximal_strength: the mu of fedprox.
    local_epochs: passes over a client's examples in a round.
    local_steps: batches that a client trains on in a round (communication delay), however many examples it has; in
      place of local_epochs. None: as the uplink's method has it, or else local_epochs.
    batch_size: examples per local step.
    client_learning_rate, client_momentum: of the clients' SGD.
    server_optimizer: 'sgd', 'adam', 'yogi' or 'adagrad' (Reddi et al. 2021).
    server_learning_rate, server_momentum: of the server; the momentum is for 'sgd' only.
    weighting: 'examples' weights clients by their number of examples, 'uniform' does not; None: as the uplink's method
      has it, or else 'examples'.
    uplink: a codec's text or a method's (`tff_compress.processes.method` reads both), or a schedule such as
      'stc:p=1/10 @20 stc:p=1/100'; 'none' (the same as float32), 'tff:compression_aggregator' (TFF's own: 8-bit
      quantization of tensors above 20,000 values, with adaptive zeroing and clipping) or 'tff:hadamard:bits=N' (TFF's
      EncodedSumFactory with a Hadamard transform and an N-bit quantizer, N from 1 to 16).
    downlink: codec text, or 'none'. None becomes what the uplink's method has, or else 'float32'.
    error_feedback: whether clients remember what their uplink loses, and add it to their next update; None: if the
      uplink is a preset that is meant for it.
    feedback_momentum: momentum of the feedback (deep gradient compression); 0 for none.
    feedback_decay, feedback_drop_after: what clients remember is multiplied by the one for each round that they missed,
      and dropped after more missed rounds than the other (None: never). Both count only where there is feedback.
    downlink_changes: whether the downlink sends what changed in the model instead of all of it, and clients keep a
      copy;
      None: if the downlink is a preset that is meant for it.
    downlink_since: 'last': changes since the last message, of which a client receives all that it missed; 'start':
      since the start, in one message. None: as the downlink's preset is meant, or else 'last'.
    state_clients, state_bytes: at most as many clients, and bytes, are remembered; None: no limit. Those that took part
      least recently start anew.
    seed: whole number that the split, the draw of clients, the order of examples, the initial weights, dropout and the
      codecs' randomness come from.
    evaluate_every: rounds between evaluations on the test set; the last round is always evaluated.
    evaluation_examples: evaluate on this many test examples, the first ones of a fixed shuffle; None: on all.
    ema: factor of an exponential moving average of the server's weights that is evaluated in their place: after each
      round average := ema * average + (1 - ema) * weights. None: the weights themselves are evaluated.
    output: folder for results, checkpoints and logs; None: nothing is written.
    checkpoint_every: rounds between checkpoints; None: one when ten seconds have passed since the last, as one takes a
      moment. The last round always has one.
    workers: local TFF workers that the clients of a round are split over; 0 for the TFF context that is installed.
  """

  dataset: str = 'digits'
  data_dir: str | None = None
  max_clients: int | None = None
  only_digits: bool = True
  split: str = 'dirichlet:0.5'
  clients: int | None = 20
  clients_per_round: int = 10
  rounds: int = 20
  model: str = 'digits_cnn'
  dropout: bool = False
  algorithm: str = 'fedavg'
  proximal_strength: float = 0.1
  local_epochs: int = 1
  local_steps: int | None = None
  batch_size: int = 20
  client_learning_rate: float = 0.05
  client_momentum: float = 0.0
  server_optimizer: str = 'sgd'
  server_learning_rate: float = 1.0
  server_momentum: float = 0.0
  weighting: str | None = None
  uplink: str = 'float32'
  downlink: str | None = None
  error_feedback: bool | None = None
  feedback_momentum: float = 0.0
  feedback_decay: float = 1.0
  feedback_drop_after: int | None = None
  downlink_changes: bool | None = None
  downlink_since: str | None = None
  state_clients: int | None = None
  state_bytes: int | None = None
  seed: int = 0
  evaluate_every: int = 1
  evaluation_examples: int | None = None
  ema: float | None = None
  output: str | None = None
  checkpoint_every: int | None = None
  workers: int = 1

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      checked = _checked(field.name, value)
      if checked is not value:
        object.__setattr__(self, field.name, checked)
    if self.clients is not None and self.clients_per_round > self.clients:
      raise ConfigError(
          f'clients_per_round is {self.clients_per_round} but there are {self.clients} clients: use at most '
          'that many.')
    if self.clients is None and self.split != 'natural':
      raise ConfigError(f"clients must be given for the split {self.split!r}; only 'natural' brings its own.")
    if self.dropout and not models_lib.ARCHITECTURES[self.model].dropout:
      raise ConfigError(f'{self.model} has no dropout layers: leave dropout=True out.')
    if self.server_momentum and self.server_optimizer != 'sgd':
      raise ConfigError(f"server_momentum is for the server optimizer 'sgd', not for {self.server_optimizer!r}.")
    datasets.check_options(self.dataset, self.dataset_options, ConfigError)
    models_lib.check_kind(self.model, datasets.source(self.dataset).kind, self.dataset, ConfigError)
    if self.local_epochs != 1 and self.steps is not None:
      raise ConfigError(f'local_steps ({self.steps}) takes the place of local_epochs: leave one of the two out.')
    self._check_uplink()

  @property
  def dataset_options(self):
    """{option: value} of all options that data sets have."""
    return {name: getattr(self, name) for name in datasets.options()}

  def _check_uplink(self):
    """Settles the downlink, and refuses settings that contradict the uplink's method."""
    method = self.method
    own = method is not None and method.downlink
    if self.downlink is None:
      object.__setattr__(self, 'downlink', own or 'float32')
    if self.baseline:
      if self.error_feedback or self.changes:
        raise ConfigError(f'error_feedback and downlink_changes need an uplink of this package, not {self.uplink!r}.')
      return
    for name, needed in (('weighting', method.weighting), ('local_steps', method.local_steps), ('downlink', own)):
      if needed and getattr(self, name) not in (None, needed):
        raise ConfigError(f'{name} is {needed} with the uplink {self.uplink!r}: leave it out.')
    if own and (self.downlink_changes, self.downlink_since) != (None, None):
      raise ConfigError(
          f'downlink_changes and downlink_since are settled by the uplink {self.uplink!r}: leave them out.')
    self.check_needs(self.clients)
    if self.downlink_since is not None and not self.changes:
      raise ConfigError('downlink_since is for downlink_changes: give both, or none.')
    if method.name and (self.feedback_momentum or self.error_feedback not in (None, method.error_feedback is not None)):
      raise ConfigError(
          f'error_feedback and feedback_momentum are settled by the uplink {self.uplink!r}: leave them out.')
    if self.feedback_momentum and self.feedback is None:
      raise ConfigError('feedback_momentum is for error_feedback: give both, or none.')
    for name in self._feedback_settings if self.feedback is not None else ():
      if name not in self.feedback.run_settings:
        raise ConfigError(f'feedback_{name} is not for the uplink {self.uplink!r}, whose clients remember in another '
                          'way: leave it out.')

  def check_needs(self, clients):
    """Raises ConfigError unless the run is such as the uplink's method needs it; `clients` is None where it is not
    known yet how many there are."""
    if not self.baseline:
      needs.check(self.method.needs, needs.Facts(
          clients=clients, clients_per_round=self.clients_per_round, sends_changes=bool(self.changes),
          equal_weights=(self.weighting or self.method.weighting) == 'uniform'),
                  f'the uplink {self.uplink!r}', ConfigError)

  @property
  def method(self):
    """The `tff_compress.processes.methods.Method` of the uplink; None for a baseline."""
    return None if self.baseline else processes.method('float32' if self.uplink == 'none' else self.uplink)

  @property
  def feedback(self):
    """What clients remember of their updates, a `ClientMemory` such as `ErrorFeedback`, or None."""
    if self.baseline or self.error_feedback is False:
      return None
    feedback = self.method.error_feedback
    if feedback is None:
      if not self.error_feedback:
        return None
      feedback = processes.ErrorFeedback()
    given = {name: value for name, value in self._feedback_settings.items() if name in feedback.run_settings}
    return dataclasses.replace(feedback, **given) if given else feedback

  @property
  def _feedback_settings(self):
    """Those that say something else than their defaults."""
    values = {name: getattr(self, f'feedback_{name}') for name in ('decay', 'drop_after', 'momentum')}
    return {name: value for name, value in values.items() if value != getattr(RunConfig, f'feedback_{name}')}

  @property
  def changes(self):
    """The `since` of a downlink of changes, 'last' or 'start'; '' for the whole model. A method with its own has
    that."""
    preset = meaning.needing_changes(self.downlink)
    meant = '' if preset is None else preset.changes
    if self.downlink_changes is None and not meant or self.downlink_changes is False:
      return ''
    return self.downlink_since or meant or 'last'

  @property
  def steps(self):
    """Batches that a client trains on in a round; None for whole epochs."""
    return self.local_steps if self.local_steps is not None or self.baseline else self.method.local_steps

  @property
  def has_memory(self):
    """Whether it takes a process whose clients remember, `tff_compress.build_fed_avg`, and not TFF's own."""
    return not self.baseline and (not self.method.codec_suffices or self.feedback is not None or bool(self.changes))

  @property
  def baseline(self):
    """Whether the uplink is one of TFF's own."""
    return self.uplink.startswith('tff:')

  def as_dict(self):
    """The settings in JSON's types; `RunConfig(**config.as_dict()) == config`."""
    return dataclasses.asdict(self)


# What a value may be, besides its type: (least, most) of a number; `None` at the end where None is allowed.
_WHOLE = {
    'max_clients': (1, 2**20, None), 'clients': (1, splits_lib.MAX_CLIENTS, None), 'clients_per_round': (1, 2**20),
    'rounds': (1, 10**6), 'local_epochs': (1, 10**4), 'batch_size': (1, 10**6), 'seed': (0, 2**64 - 1),
    'evaluate_every': (1, 10**6), 'evaluation_examples': (1, 10**9, None), 'checkpoint_every': (1, 10**6, None),
    'local_steps': (1, 10**5, None), 'feedback_drop_after': (0, 10**9, None), 'state_clients': (1, 2**40, None),
    'state_bytes': (1, 2**60, None),
    'workers': (0, 256),
}
_NUMBERS = {
    'proximal_strength': (0, 1e6), 'client_learning_rate': (0, 1e6), 'client_momentum': (0, 1),
    'server_learning_rate': (0, 1e6), 'server_momentum': (0, 1), 'feedback_momentum': (0, 1), 'ema': (0, 1, None),
    'feedback_decay': (0, 1),
}
_ABOVE = ('proximal_strength', 'client_learning_rate', 'server_learning_rate')  # The least value itself is refused.
_BELOW = ('client_momentum', 'server_momentum', 'feedback_momentum', 'ema')  # The greatest value itself is refused.
_WORDS = {
    'dataset': datasets.names(), 'model': models_lib.names(), 'algorithm': ALGORITHMS,
    'server_optimizer': SERVER_OPTIMIZERS, 'weighting': ('examples', 'uniform'),
    'downlink_since': ('last', 'start'),
}
_OPTIONAL = ('data_dir', 'output', 'weighting', 'downlink', 'error_feedback', 'downlink_changes',
             'downlink_since')  # Of texts and words.


def _checked(name, value):
  if name in _WHOLE:
    least, most, *optional = _WHOLE[name]
    if value is None and optional:
      return None
    if isinstance(value, bool) or not hasattr(value, '__index__') or not least <= value.__index__() <= most:
      raise ConfigError(f'{name} must be a whole number from {least} to {most}, not {value!r}.')
    return value if type(value) is int else int(value)
  if name in _NUMBERS:
    least, most, *optional = _NUMBERS[name]
    if value is None and optional:
      return None
    try:
      if isinstance(value, (bool, str)):
        raise TypeError
      number = float(value)
    except (TypeError, ValueError, OverflowError):
      raise ConfigError(f'{name} must be a number, not {value!r}.') from None
    low = number > least if name in _ABOVE else number >= least
    high = number < most if name in _BELOW else number <= most
    if not (math.isfinite(number) and low and high):
      raise ConfigError(f'{name} must be {"above" if name in _ABOVE else "at least"} {least:g} and '
                        f'{"below" if name in _BELOW else "at most"} {most:g}, not {value!r}.')
    return value if type(value) is float else number
  if name in _OPTIONAL and value is None:
    return None
  if name in ('dropout', 'only_digits', 'error_feedback', 'downlink_changes'):
    if not isinstance(value, bool):
      raise ConfigError(f'{name} must be True or False, not {value!r}.')
    return value
  if name in ('data_dir', 'output'):
    try:
      text = os.fspath(value)
    except TypeError:
      text = None
    if not isinstance(text, str) or not text or '\0' in text:
      raise ConfigError(f'{name} must be the path of a folder or file, not {value!r}.')
    return text
  if not isinstance(value, str):
    raise ConfigError(f'{name} must be a text, not {value!r}.')
  if name in _WORDS and value not in _WORDS[name]:
    raise ConfigError(f'{name} must be one of {", ".join(_WORDS[name])}, not {value[:40]!r}.')
  if name == 'uplink' and value.startswith('tff:'):
    hadamard_bits(value)
    return value
  if name == 'downlink' and value.partition(':')[0].strip() in methods.registry():
    raise ConfigError(f'downlink: {value[:60]!r} is a method, which settles both directions: give it as uplink.')
  if name in ('uplink', 'downlink') and value != 'none':
    try:
      (processes.method if name == 'uplink' else codec_lib.parse)(value)
    except codec_lib.CompressionError as error:
      raise ConfigError(f'{name}: {error}') from None
  return value


def hadamard_bits(text):
  """The N of 'tff:hadamard:bits=N'; None for 'tff:compression_aggregator'.

  Raises:
    ConfigError: it is neither.
  """
  if text == 'tff:compression_aggregator':
    return None
  found = re.fullmatch(r'tff:hadamard:bits=([0-9]{1,2})', text)
  if not found or not 1 <= int(found[1]) <= 16:
    raise ConfigError(
        f'uplink: there is no {text[:60]!r} in TFF; use tff:compression_aggregator, or tff:hadamard:bits=N '
        'with N from 1 to 16.')
  return int(found[1])


@dataclasses.dataclass(frozen=True)
class RunResult:
  """What came out of a run.

  Attributes:
    config: its `RunConfig`.
    status: 'finished', or 'diverged' where training produced NaN or infinite values: `rounds` then ends before that.
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
    folder: where it was saved, or None. There, `result.json` has all of this; see folder.py for the rest.
  """
  config: RunConfig
  status: str
  parameters: int
  rounds: tuple
  folder: str | None = None

  @property
  def accuracy(self):
    """Test accuracy at the last evaluation, 0 to 1; None if there was none."""
    return next((entry['accuracy'] for entry in reversed(self.rounds) if entry.get('accuracy') is not None), None)

  @property
  def loss(self):
    """Test loss at the last evaluation; None if there was none."""
    return next((entry['loss'] for entry in reversed(self.rounds) if entry.get('loss') is not None), None)


def run(config, *, on_round=None, on_prepass=None, resume=True):
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
      folder = folder_lib.Folder(config.output, config.as_dict())
      stack.enter_context(folder.locked())
      if not resume:
        folder.clear()
      before = folder.read()
      if before and (before['status'] == folder_lib.DIVERGED or before['status'] == folder_lib.FINISHED
                     and len(before['rounds']) == config.rounds):
        return RunResult(config, before['status'], before['parameters'], tuple(before['rounds']), config.output)
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
    status, rounds, parameters = engine.train(config, dataset, parts, folder, before, on_round, on_prepass)
  return RunResult(config, status, parameters, tuple(rounds), config.output)


def variants(config, uplinks):
  """The configuration with each uplink in turn, each with a folder of its own below `config.output`.

  Args:
    config: `RunConfig`.
    uplinks: sequence of uplink texts, which take the configuration's downlink unless a method has its own, or of
      (uplink, downlink), where a downlink of None is what belongs to the uplink.

  Returns:
    list of `RunConfig`.

  Raises:
    ConfigError: one of them is not valid.
  """
  result, names = [], set()
  for number, link in enumerate(uplinks):
    if isinstance(link, str):
      uplink, downlink = link, None if _has_own_downlink(link) else config.downlink
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
  return dataclasses.replace(RunConfig(), uplink=uplink, downlink=None).downlink != RunConfig().downlink


def compare(configs, *, on_round=None, on_prepass=None, resume=True):
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
