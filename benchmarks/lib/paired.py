"""Long training without TFF, exactly paired, with real messages in both directions.

For one seed every codec sees the same split, first weights, draws of clients, orders of examples and dropout masks, so
two runs differ in what their codecs did alone. Runs are checkpointed and go on where they stopped.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
import time

import numpy as np

from benchmarks.lib import exchanges
from benchmarks.lib import harness
from benchmarks.lib import networks
from benchmarks.lib import progress
from tff_compress import codec as codec_lib
from tff_compress.processes.moving_average import MovingAverage
from tff_compress.simulation import datasets
from tff_compress.simulation import splits
from tff_compress.subspace.rate import ALARM
from tff_compress.timeline.start import Start

CHECKPOINT = 30.0
"""Seconds between checkpoints, at least."""

_EXCHANGE = 'exchange-'  # In names of arrays of a checkpoint.


@dataclasses.dataclass(frozen=True)
class Task:
  """Federated averaging with plain SGD.

  Attributes:
    dataset: of images.
    network: `Network`.
    clients, per_round: how many there are, and take part in a round.
    split: as `splits.split` names it.
    epochs, batch, learning_rate: of local training.
    rounds: how long a run is.
    every: it is evaluated after every so many rounds, and counts as it was in its last `LAST` ones.
    averaging: momentum of the moving average of the weights, which is evaluated beside them.
    examples: how many test images it is evaluated on; None for all.
  """
  dataset: str
  network: networks.Network
  clients: int
  per_round: int
  learning_rate: float
  rounds: int
  every: int
  split: str = 'dirichlet:0.5'
  epochs: int = 1
  batch: int = 20
  averaging: float = 0.9
  examples: int | None = None

  @property
  def identity(self) -> str:
    """Differs for tasks whose runs differ in another way than in their length."""
    return hashlib.sha256(repr(dataclasses.replace(self, rounds=0)).encode()).hexdigest()[:12]


@functools.lru_cache(1)
def trainer(task: Task) -> networks.Trainer:
  """Of a task."""
  dataset = _dataset(task)
  return networks.Trainer(task.network, dataset, epochs=task.epochs, batch=task.batch, learning_rate=task.learning_rate)


def _dataset(task):
  dataset = datasets.load(task.dataset)
  tests = slice(task.examples)
  return dataclasses.replace(dataset, x_test=dataset.x_test[tests], y_test=dataset.y_test[tests])


class Run:
  """One training with one codec and one seed, as far as it has come.

  Args:
    trainer: of the task.
    task: `Task`.
    codec: `ExchangeCodec`.
    seed: of all that is random.
    cache: folder of checkpoints.

  Attributes:
    rounds: number of finished rounds.
    up, down: bytes of all clients in each of them.
    points: one dict for each evaluation: round, accuracy and averaged (that of the averaged weights).
    figures: {name: a number for each round}, of the codec, and growth, ||W||^2 / ||W_0||^2.
    alarm: the first round whose model was about to diverge, or None.
  """

  _KEPT = ('up', 'down', 'points', 'figures', 'alarm')

  def __init__(self, trainer, task, codec, seed, cache=harness.CACHE):
    self._trainer, self._task, self._codec, self._seed = trainer, task, codec, seed
    name = hashlib.sha256(repr(codec).encode()).hexdigest()[:12]
    self._path = cache / 'paired' / task.identity / f'{name}-{seed}.npz'
    dataset = _dataset(task)
    self._parts = splits.split(task.split, dataset.y_train, task.clients, seed)
    spec = task.network.spec
    start = Start.like(task.network.initial_weights(seed), seed)
    self.exchange = codec.begin(spec, start, seed)
    self._first_energy = _energy(self.exchange.model)
    self._average = MovingAverage(task.averaging)
    self.up, self.down, self.points, self.figures, self.alarm = [], [], [], {}, None
    if self._path.exists():
      self._resume()

  @property
  def rounds(self):
    return len(self.up)

  def updates(self):
    """[(client, number of examples, float32[d] update)] of the clients of the next round."""
    task, orders, keys = self._task, [], []
    chosen = splits.generator('benchmarks/clients', (self._seed, self.rounds)).choice(
        task.clients, task.per_round, replace=False)
    for client in chosen:
      rng = splits.generator('benchmarks/order', (self._seed, self.rounds, int(client)))
      orders.append(np.concatenate([rng.permutation(self._parts[client]) for _ in range(task.epochs)]))
      keys.append(rng.integers(0, 1 << 24, 2, dtype=np.int32))
    found = self._trainer.updates(self.exchange.model, orders, np.stack(keys))
    return [(int(client), len(self._parts[client]), update) for client, update in zip(chosen, found)]

  def step(self):
    """The next round. Raises UpdateError where an update is not finite."""
    updates = self.updates()
    if not np.isfinite([update.sum() for *_, update in updates]).all():
      raise codec_lib.UpdateError('an update is not finite.')
    exchange, up, received = self.exchange, 0, []
    # The first of a round is audited, which is one that is drawn.
    down = sum(exchange.download(client, place == 0) for place, (client, *_) in enumerate(updates))
    for client, examples, update in updates:
      message = exchange.upload(client, update)
      received.append((client, examples, message))
      up += len(message)
    figures = exchange.step(received)
    figures['growth'] = _energy(exchange.model) / self._first_energy
    self._average.update(exchange.model)
    self.up.append(up)
    self.down.append(down)
    for name, value in figures.items():
      self.figures.setdefault(name, []).append(value)
    if self.alarm is None and not figures['growth'] <= ALARM:
      self.alarm = self.rounds
    if self.rounds % self._task.every == 0:
      self.points.append({'round': self.rounds, 'accuracy': self._trainer.accuracy(exchange.model),
                          'averaged': self._trainer.accuracy(self._average.weights)})

  def save(self):
    """Writes a checkpoint."""
    kept = {name: getattr(self, name) for name in self._KEPT}
    harness.write_arrays(self._path, {
        'kept': np.asarray(json.dumps(kept)), 'average': self._average.weights,
        **{_EXCHANGE + name: array for name, array in self.exchange.checkpoint().items()}})

  def _resume(self):
    with np.load(self._path) as stored:
      for name, value in json.loads(str(stored['kept'])).items():
        setattr(self, name, value)
      self._average = MovingAverage(self._task.averaging, stored['average'])
      if self.rounds < self._task.rounds:  # Otherwise nobody goes on, and what the run says of itself is all there.
        self.exchange.restore({name.removeprefix(_EXCHANGE): stored[name] for name in stored.files
                               if name.startswith(_EXCHANGE)})


def finished(task: Task, codec: exchanges.ExchangeCodec, seed: int, cache: pathlib.Path = harness.CACHE) -> Run:
  """A run of all rounds of a task, made or continued; of fewer where an update became NaN or infinite."""
  run = Run(trainer(task), task, codec, seed, cache)
  label, saved = f'{codec.name}, seed {seed}', time.monotonic()
  try:
    while run.rounds < task.rounds:
      run.step()
      if run.rounds == task.rounds or time.monotonic() - saved > CHECKPOINT:
        run.save()
        saved = time.monotonic()
        accuracy = f', accuracy {run.points[-1]["accuracy"]:.3f}' if run.points else ''
        progress.say(f'{label}: round {run.rounds} of {task.rounds}{accuracy}')
  except codec_lib.UpdateError as error:
    progress.say(f'{label}: diverged after round {run.rounds} ({error})')
  return run


def _energy(vector):
  return float(np.sum(np.square(vector, dtype=np.float64)))
