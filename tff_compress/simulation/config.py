"""What a run in simulation is: `RunConfig`, its settings and what they have to be together.

To add a setting, declare it among the fields of `RunConfig`, and use it; an option of a data set is declared by the
data set. Importing this module does not import TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import re
from typing import Any

from tff_compress import codec as codec_lib
from tff_compress import processes
from tff_compress.codec import checks
from tff_compress.codec import defaults
from tff_compress.codec import meaning
from tff_compress.processes import methods
from tff_compress.processes import needs
from tff_compress.processes.protocols import ClientMemory
from tff_compress.simulation import datasets
from tff_compress.simulation import models as models_lib
from tff_compress.simulation import settings as settings_lib
from tff_compress.simulation import splits as splits_lib
from tff_compress.simulation.settings import ConfigError
from tff_compress.simulation.settings import Setting
from tff_compress.simulation.settings import setting

_DATA, _TRAINING, _COMMUNICATION, _RUNNING = 'data', 'training', 'communication', 'running'


def hadamard_bits(text: str) -> int | None:
  """The N of 'tff:hadamard:bits=N'; None for 'tff:compression_aggregator'.

  Raises:
    ConfigError: it is neither.
  """
  if text == 'tff:compression_aggregator':
    return None
  found = re.fullmatch(r'tff:hadamard:bits=([0-9]{1,2})', text)
  if not found or not 1 <= int(found[1]) <= 16:
    raise ConfigError(
        f'uplink: there is no {checks.shown(text)} in TFF; use tff:compression_aggregator, or tff:hadamard:bits=N '
        'with N from 1 to 16.')
  return int(found[1])


def _checked_uplink(text):
  if text == defaults.UNNAMED:
    return text  # As a configuration settles it.
  if text.startswith('tff:'):
    hadamard_bits(text)
  else:
    _refuse_unreadable('uplink', processes.method, text)
  return text


def _checked_downlink(text):
  named = methods.registry().get(text.partition(':')[0].strip())
  if named is not None and named.both_ways and text == named.name:
    return text  # As `_check_uplink` settles it.
  if named is not None:
    raise ConfigError(f'downlink: {checks.shown(text)} is a method, which settles both directions: give it as uplink.')
  _refuse_unreadable('downlink', codec_lib.parse, text)
  return text


def _refuse_unreadable(name, read, text):
  try:
    if text != 'none':
      read(text)
  except codec_lib.CompressionError as error:
    raise ConfigError(f'{name}: {error}') from None


def _with_dataset_options(cls):
  """Decorates `RunConfig` before it is a dataclass: behind `data_dir` it has the options of all data sets."""
  annotations = {}
  for name, annotation in cls.__annotations__.items():
    annotations[name] = annotation
    if name == 'data_dir':
      for option, owners in datasets.options().items():
        declared = next(iter(owners.values()))
        annotations[option] = declared.annotation
        setattr(cls, option, dataclasses.replace(declared, help=f'{" and ".join(owners)}: {declared.help}').field)
  cls.__annotations__ = annotations
  return cls


@settings_lib.documented
@dataclasses.dataclass(frozen=True)
@_with_dataset_options
class RunConfig:
  """Everything a run's result depends on, and where to put it.

  Two configurations that differ in `uplink` and `downlink` only train on the same clients, the same examples in the
  same order, with the same dropout and from the same initial weights.
  """

  dataset: str = setting('digits', _DATA, 'data set to train on', words=datasets.names())
  data_dir: str | None = setting(
      None, _DATA, 'what to read: ' + '; '.join(f'{name}: {source.files}' for name, source in datasets.SOURCES.items()
                                                if source.files) + '; none: where it usually is', path=True)
  split: str = setting(
      'dirichlet:0.5', _DATA, 'how examples are dealt out to clients: iid, dirichlet:ALPHA, shards:N, table or natural')
  clients: int | None = setting(
      20, _DATA, 'number of clients; none: as many as a natural split has', least=1, most=splits_lib.MAX_CLIENTS)
  clients_per_round: int = setting(
      10, _TRAINING, 'number of clients that train in each round, drawn without replacement', least=1, most=2**20)
  rounds: int = setting(20, _TRAINING, 'number of rounds', least=1, most=10**6)
  model: str = setting('digits_cnn', _TRAINING, 'model to train', words=models_lib.names())
  dropout: bool = setting(False, _TRAINING, 'keep the dropout layers of a model that has some')
  algorithm: str = setting(
      'fedavg', _TRAINING, 'fedavg: McMahan et al. 2017; fedprox: Li et al. 2020',
      words=('fedavg', 'fedprox'))
  proximal_strength: float = setting(
      0.1, _TRAINING, 'strength of the proximal term of fedprox, its mu', above=0, most=1e6)
  local_epochs: int = setting(1, _TRAINING, "passes over a client's examples in each round", least=1, most=10**4)
  local_steps: int | None = setting(
      None, _TRAINING, 'batches that a client trains on in each round, however many examples it has, in place of local '
      "epochs (communication delay); none: as the uplink's method says, or else local epochs", least=1, most=10**5)
  batch_size: int = setting(20, _TRAINING, 'examples in each local step', least=1, most=10**6)
  client_learning_rate: float = setting(
      0.05, _TRAINING, "learning rate of the clients' SGD", above=0, most=1e6)
  client_momentum: float = setting(0.0, _TRAINING, "momentum of the clients' SGD", least=0, below=1)
  server_optimizer: str = setting(
      'sgd', _TRAINING, "the server's optimizer, with the constants of Reddi et al. 2021",
      words=('sgd', 'adam', 'yogi', 'adagrad'))
  server_learning_rate: float = setting(1.0, _TRAINING, "the server's learning rate", above=0, most=1e6)
  server_momentum: float = setting(0.0, _TRAINING, "momentum of the server's SGD", least=0, below=1)
  weighting: str | None = setting(
      None, _TRAINING, 'examples: clients count by their number of examples; uniform: all count the same; none: as the '
      "uplink's method says, or else by examples", words=('examples', 'uniform'))
  uplink: str = setting(
      defaults.UNNAMED, _COMMUNICATION, 'auto: the shared subspace, which is the downlink as well, with all that it '
      'needs chosen by public rules; default: auto, or float32 where a downlink or feedback is named; or a '
      "codec for updates on their way to the server: stages such as 'hadamard | uniform:bits=2 | pack', a preset such "
      'as int8, or float32 (or none) to send values as they are; or a method such as dgc:p=1/100; or a schedule, '
      "'CODEC @5 CODEC', which changes to the second codec after 5 rounds; or, for comparison, TFF's own "
      'tff:compression_aggregator or tff:hadamard:bits=N, whose bytes are estimated',
      metavar='CODEC', check=_checked_uplink)
  downlink: str | None = setting(
      None, _COMMUNICATION, "codec for the model on its way to the clients; none: as the uplink's method says, or else "
      'float32', metavar='CODEC', check=_checked_downlink)
  error_feedback: bool | None = setting(
      None, _COMMUNICATION, 'clients remember what the uplink loses, and add it to their next update; none: if the '
      'uplink is meant for it')
  feedback_momentum: float = setting(
      0.0, _COMMUNICATION, 'momentum of the error feedback (deep gradient compression); 0: none', least=0, below=1)
  feedback_decay: float = setting(
      1.0, _COMMUNICATION, 'what a client remembers is multiplied by this for each round that it missed', least=0,
      most=1)
  feedback_drop_after: int | None = setting(
      None, _COMMUNICATION, 'a client that missed more rounds than this starts anew; none: never', least=0, most=10**9)
  downlink_changes: bool | None = setting(
      None, _COMMUNICATION, 'the downlink sends what changed in the model, of which clients keep a copy; none: if the '
      'downlink is meant for it')
  downlink_since: str | None = setting(
      None, _COMMUNICATION, 'last: a client receives each message of changes that it missed; start: a single message '
      'with all changes since the start; none: as the downlink is meant, or else last', words=('last', 'start'))
  state_clients: int | None = setting(
      None, _COMMUNICATION, 'at most this many clients are remembered, those that took part most recently; none: no '
      'limit', least=1, most=2**40)
  state_bytes: int | None = setting(
      None, _COMMUNICATION, 'what is remembered of clients takes at most this many bytes; none: no limit', least=1,
      most=2**60)
  seed: int = setting(
      0, _TRAINING, 'where the split, the draw of clients, the order of examples, the initial weights, dropout and the '
      'codecs take their randomness from', least=0, most=2**64 - 1)
  evaluate_every: int = setting(
      1, _RUNNING, 'rounds between evaluations on the test set; the last round is always evaluated', least=1,
      most=10**6)
  evaluation_examples: int | None = setting(
      None, _RUNNING, 'evaluate on this many test examples, the first of a fixed shuffle; none: all of them', least=1,
      most=10**9)
  ema: float | None = setting(
      None, _TRAINING, 'evaluate a moving average of the weights: after each round, average := ema * average + (1 - '
      'ema) * weights; none: the weights themselves', least=0, below=1)
  output: str | None = setting(
      None, _RUNNING, 'folder for results, checkpoints and the report; a run that is already there is continued; none: '
      'nothing is written', path=True, metavar='DIR')
  checkpoint_every: int | None = setting(
      None, _RUNNING, 'rounds between checkpoints; none: one every ten seconds, and one after the last round', least=1,
      most=10**6)
  workers: int = setting(
      1, _RUNNING, 'local TFF workers that the clients of a round are split over; 0, in Python: the TFF context that '
      'is installed', least=0, most=256)

  def __post_init__(self):
    settings_lib.check_all(self)
    if self.uplink == defaults.UNNAMED:
      said = self.downlink not in (None, defaults.BOTH_WAYS) or bool(self._feedback_settings) or (
          self.error_feedback, self.downlink_changes, self.downlink_since) != (None, None, None)
      object.__setattr__(self, 'uplink', 'float32' if said else defaults.BOTH_WAYS)
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
  def dataset_options(self) -> dict[str, Any]:
    """{option: value} of all options that data sets have."""
    return {name: getattr(self, name) for name in datasets.options()}

  def _check_uplink(self):
    """Settles the downlink, and refuses settings that contradict the uplink's method."""
    method = self.method
    own = method is not None and method.downlink
    if self.downlink is None:
      object.__setattr__(self, 'downlink', own or 'float32')
    if method is None:
      if self.error_feedback or self.changes:
        raise ConfigError(f'error_feedback and downlink_changes need an uplink of this package, not {self.uplink!r}.')
      return
    for name, needed in (('weighting', method.weighting), ('local_steps', method.local_steps), ('downlink', own)):
      if needed and getattr(self, name) not in (None, needed):
        raise ConfigError(
            f'{name} is {needed} with the uplink {self.uplink!r}: leave it out, or choose another uplink.')
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
    feedback = self.feedback
    for name in self._feedback_settings:
      if feedback is not None and name not in feedback.run_settings:
        raise ConfigError(f'feedback_{name} is not for the uplink {self.uplink!r}, whose clients remember in another '
                          'way: leave it out.')

  def check_needs(self, clients: int | None) -> None:
    """Raises ConfigError unless the run is such as the uplink's method needs it; `clients` is None where it is not
    known yet how many there are."""
    method = self.method
    if method is not None:
      facts = dataclasses.replace(self._facts(clients), sends_changes=bool(self.changes),
                                  equal_weights=(self.weighting or method.weighting) == 'uniform')
      needs.check(method.needs, facts, f'the uplink {self.uplink!r}', ConfigError)

  @property
  def method(self) -> methods.Method | None:
    """The `tff_compress.processes.methods.Method` of the uplink; None for a baseline."""
    if self.baseline:
      return None
    return processes.method('float32' if self.uplink == 'none' else self.uplink).settled(self._facts(self.clients))

  def _facts(self, clients):
    """What is known of the run before its method is; `clients` is None where it is not known how many there are."""
    return needs.Facts(clients=clients, clients_per_round=self.clients_per_round, rounds=self.rounds,
                       server_sgd=self.server_optimizer == 'sgd')

  @property
  def feedback(self) -> ClientMemory | None:
    """What clients remember of their updates."""
    method = self.method
    if method is None or self.error_feedback is False:
      return None
    feedback: Any = method.error_feedback  # A dataclass.
    if feedback is None:
      if not self.error_feedback:
        return None
      feedback = processes.ErrorFeedback()
    given = {name: value for name, value in self._feedback_settings.items() if name in feedback.run_settings}
    return dataclasses.replace(feedback, **given) if given else feedback

  @property
  def _feedback_settings(self):
    """{name without feedback_: value} of those that say something else than their defaults."""
    return {name.removeprefix('feedback_'): getattr(self, name) for name, declared in settings().items()
            if name.startswith('feedback_') and getattr(self, name) != declared.default}

  @property
  def changes(self) -> str:
    """The `since` of a downlink of changes, 'last' or 'start'; '' for the whole model. A method with its own has
    that."""
    preset = meaning.needing_changes(self.downlink or 'float32')  # It is a text by now: see `_check_uplink`.
    meant = '' if preset is None else preset.changes
    if self.downlink_changes is None and not meant or self.downlink_changes is False:
      return ''
    return self.downlink_since or meant or 'last'

  @property
  def steps(self) -> int | None:
    """Batches that a client trains on in a round; None for whole epochs."""
    method = self.method
    return self.local_steps if self.local_steps is not None or method is None else method.local_steps

  @property
  def has_memory(self) -> bool:
    """Whether it takes a process whose clients remember, `tff_compress.build_fed_avg`, and not TFF's own."""
    method = self.method
    return method is not None and (not method.codec_suffices or self.feedback is not None or bool(self.changes))

  @property
  def baseline(self) -> bool:
    """Whether the uplink is one of TFF's own."""
    return self.uplink.startswith('tff:')

  def as_dict(self) -> dict[str, Any]:
    """The settings in JSON's types; `RunConfig(**config.as_dict()) == config`."""
    return dataclasses.asdict(self)


def settings() -> Mapping[str, Setting]:
  """{name: `Setting`} of all fields of `RunConfig`, in their order."""
  return settings_lib.settings_of(RunConfig)


def make(values: Mapping[str, Any]) -> RunConfig:
  """The `RunConfig` of some settings; the others have their defaults.

  Args:
    values: mapping of setting name to value.

  Raises:
    ConfigError: a setting does not exist, cannot have its value, or does not go with another.
  """
  for name in values:
    if name not in settings():
      raise ConfigError(
          f'there is no setting {checks.shown(name)}; {settings_lib.nearest(name, settings())}')
  return RunConfig(**values)
