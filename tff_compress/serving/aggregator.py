"""The aggregator: closes rounds, folds their frames, steps the server's optimizer, and writes the next model.

Nothing that it holds in memory is needed: a process that is killed is followed by one that folds the same frames.
"""

from collections.abc import Callable
from collections.abc import Mapping
import hashlib
import json
import math
import os
import secrets
from typing import Any

import numpy as np

from tff_compress import codec as codec_lib
from tff_compress import wire
from tff_compress.codec import random
from tff_compress.codec.codec import Codec
from tff_compress.codec.spec import Spec
from tff_compress.serving.blobs import Blobs
from tff_compress.serving.fold import Fold
from tff_compress.serving.frames import Rules
from tff_compress.serving.optimizers import ServerOptimizer
from tff_compress.serving.settings import Settings
from tff_compress.serving.store import Store
from tff_compress.serving.store import StoreError
from tff_compress.timeline.timeline import Timeline
from tff_compress.timeline.whole import FLOAT32
from tff_compress.timeline.whole import WholeRules
from tflite_export import plans

LEAD_SECONDS = 6.0
"""After which another process takes over from an aggregator that died."""

Evaluate = Callable[[Mapping[str, np.ndarray]], dict[str, float]]
"""{name of a figure: value} of weights."""


class Task:
  """A task as the server sees it: its plan, codecs and rules, from the store alone.

  Args:
    store: that has it.
    task: its number.

  Raises:
    StoreError: there is no such task.
  """

  def __init__(self, store: Store, task: str) -> None:
    row = store.task(task)
    self.store, self.task = store, task
    self.settings: Settings = row['settings']
    self.plan: str = row['plan']
    self.seed = int(row['seed'], 16)
    self.manifest = plans.read_form(store.public.get(self.plan), 'the plan of this task')
    self.spec: Spec = plans.spec_of(self.manifest)
    self.rules = Rules(codec_lib(self.manifest['uplink']['codec']), self.spec, self.seed, self.settings.norm)
    self.downlink = downlink_of(self.manifest)
    self.history = WholeRules(self.downlink.fingerprint(self.spec))


def downlink_of(manifest: dict) -> Codec:
  """The codec in which a plan has the model sent."""
  return codec_lib((manifest['downlink'] or {}).get('codec', FLOAT32))


def pack(codec: Codec, weights: Mapping[str, np.ndarray], spec: Spec, seed: int, version: int) -> bytes:
  """A version of the model as a frame. float32 draws nothing from the seed."""
  ordered = {tensor.name: weights[tensor.name] for tensor in spec.tensors}
  return wire.pack(codec, ordered, seed=seed, round=version, client=random.SHARED_CLIENT)


def begin(store: Store, plan: plans.Plan, weights: Mapping[str, np.ndarray], settings: Settings) -> str:
  """Begins a task with a plan that was checked, and first weights; returns its number.

  Raises:
    StoreError: the weights are not those of the plan, or the plan has changes sent.
  """
  manifest, spec = plan.manifest, plan.spec
  downlink = downlink_of(manifest)
  if manifest['downlink'] and manifest['downlink']['changes']:
    raise StoreError(f'the plan {plan.path} has changes of the model sent, and this server sends it whole: make a plan '
                     'with another downlink, such as int8.')
  found = Spec.of(dict(weights))
  if {(t.name, t.shape) for t in found.tensors} != {(t.name, t.shape) for t in spec.tensors}:
    raise StoreError(f'the model is not the one that the plan {plan.path} was made of: its variables differ.')
  digest = digest_of(plan)
  for entry in manifest['files'].values():
    store.public.put((plan.path / entry['file']).read_bytes())
  store.public.put((plan.path / plans.MANIFEST).read_bytes())
  optimizer = optimizer_of(spec, settings)
  history = WholeRules(downlink.fingerprint(spec))
  seed = secrets.randbits(64)
  timeline = history.followed(None, pack(downlink, weights, spec, seed, 0))
  return store.begin_task(
      digest, settings, seed=f'{seed:016x}', model=store.blobs.put(pack(codec_lib(FLOAT32), weights, spec, 0, 0)),
      optimizer=store.blobs.put(optimizer.initialize()), timeline=store.blobs.put(timeline.to_bytes()))


def digest_of(plan: plans.Plan) -> str:
  """The SHA-256 of a plan's manifest, which names all else that it has."""
  return hashlib.sha256((plan.path / plans.MANIFEST).read_bytes()).hexdigest()


def optimizer_of(spec: Spec, settings: Settings) -> ServerOptimizer:
  """The server's optimizer of a task."""
  return ServerOptimizer(spec, settings.server_optimizer, settings.server_learning_rate, settings.server_momentum)


class Aggregator:
  """Args:
    task: which it looks after.
    evaluate: gives figures of a model, for the status page; None: there are none.
    say: is told each committed round, in a sentence.
  """

  def __init__(self, task: Task, evaluate: Evaluate | None = None,
               say: Callable[[str], None] = lambda text: None) -> None:
    self._task, self._evaluate, self._say = task, evaluate, say
    self._store, self._blobs = task.store, task.store.blobs
    self._optimizer = optimizer_of(task.spec, task.settings)
    self._folded: tuple[int, Fold] | None = None
    self._name, self._leads_until = secrets.token_hex(8), -math.inf
    for row in self._store.rounds(task.task, 2):
      if row['state'] == 'committed':  # By a process that was killed before it got so far.
        self._forget_frames(row['round'])

  @property
  def finished(self) -> bool:
    """Whether every round is committed."""
    return self._store.task(self._task.task)['state'] == 'finished'

  def _leads(self) -> bool:
    """Whether this is the one aggregator of the task, asked of the store when half of its time is over."""
    now = self._store.clock()
    if now >= self._leads_until - LEAD_SECONDS / 2 or now < self._leads_until - LEAD_SECONDS:
      leads = self._store.lead(self._task.task, self._name, LEAD_SECONDS)
      self._leads_until = now + LEAD_SECONDS if leads else -math.inf
    return self._leads_until > now

  def stop(self) -> None:
    """Lets another aggregator take over at once."""
    self._store.lead(self._task.task, self._name, 0.0)

  def look(self) -> bool:
    """Folds what came in, and ends the round where that is due and no other aggregator does; returns whether it did.
    """
    if not self._leads():
      return False
    number = self._store.task(self._task.task)['round']
    state = self._store.close_due(self._task.task, number)
    if state == 'committed':
      return False
    fold = self._fold(number)
    if state != 'closed':
      return False
    row = self._store.round(self._task.task, number)
    result, optimizer, weights = next_model(self._task, self._optimizer, row, fold.mean())
    timeline = Timeline.from_bytes(self._blobs.get(row['timeline']))
    coded = pack(self._task.downlink, weights, self._task.spec, self._task.seed, number)
    timeline = self._task.history.followed(timeline, coded)
    figures = {'participants': fold.count, **(self._evaluate(weights) if self._evaluate else {})}
    self._store.commit_round(
        self._task.task, number, result=self._blobs.put(result), optimizer=self._blobs.put(optimizer),
        timeline=self._blobs.put(timeline.to_bytes()), figures=figures)
    self._forget_frames(number)
    self._folded = None
    self._say(f'round {number} of {self._task.settings.rounds}: '
              + ', '.join(f'{name} {value:.4g}' for name, value in figures.items()))
    return True

  def _forget_frames(self, number: int) -> None:
    if not self._task.settings.keep_frames:
      for _, _, digest, _ in self._store.accepted(self._task.task, number):
        self._blobs.delete(digest)

  def _fold(self, number: int) -> Fold:
    if self._folded is None or self._folded[0] != number:
      self._folded = number, Fold(self._task.rules, number)
    fold = self._folded[1]
    for _, client, digest, weight in self._store.accepted(self._task.task, number, fold.count):
      fold.add(self._blobs.get(digest), client, weight)
    return fold


def next_model(task: Task, optimizer: ServerOptimizer, row: Mapping[str, Any],
               mean: dict[str, np.ndarray]) -> tuple[bytes, bytes, dict[str, np.ndarray]]:
  """(frame of the next exact weights, state of the optimizer, the weights) after a round with this row and mean."""
  weights = wire.unpack(FLOAT32, task.store.blobs.get(row['model']), task.spec, seed=0)[0]
  optimizer_state, stepped = optimizer.step(task.store.blobs.get(row['optimizer']), weights, mean)
  frame = pack(codec_lib(FLOAT32), stepped, task.spec, 0, row['round'])
  # What goes on is what can be read again.
  return frame, optimizer_state, wire.unpack(FLOAT32, frame, task.spec, seed=0)[0]


def replay(task: Task) -> list[tuple[int, int, bool]]:
  """Folds the kept frames of every committed round again.

  Returns:
    [(round, how many frames, whether the model is the same, bit for bit)]

  Raises:
    StoreError: frames were not kept.
  """
  if not task.settings.keep_frames:
    raise StoreError('the frames of this task were not kept: start it with --keep-frames.')
  optimizer, blobs, found = optimizer_of(task.spec, task.settings), task.store.blobs, []
  for row in task.store.rounds(task.task):
    if row['state'] == 'committed':
      fold = Fold(task.rules, row['round'])
      for _, client, digest, weight in task.store.accepted(task.task, row['round']):
        fold.add(blobs.get(digest), client, weight)
      frame, _, _ = next_model(task, optimizer, row, fold.mean())
      found.append((row['round'], fold.count, frame == blobs.get(row['result'])))
  return found


def open_task(store: Store) -> str:
  """The number of the one task of a store. Raises StoreError where there is none, or several."""
  found = store.tasks()
  if len(found) != 1:
    raise StoreError('there is no task here yet.' if not found else 'there are several tasks here: name one of '
                     + ', '.join(found) + '.')
  return found[0]


def figures(row: Mapping[str, Any]) -> dict[str, Any]:
  """What is known of a round's result."""
  return json.loads(row['figures']) if row['figures'] else {}


def open_store(folder: str, database: str | None = None, blobs: str | None = None, **more: Any) -> Store:
  """The store in a folder, which is made if need be; or one elsewhere, by URLs."""
  os.makedirs(folder, exist_ok=True)
  where = os.path.join(os.path.abspath(folder), 'server.sqlite')
  root = (blobs or os.path.abspath(folder)).rstrip('/')
  return Store(database or f'sqlite:///{where}', Blobs(f'{root}/private'), Blobs(f'{root}/public'), **more)
