"""Key frames that are rounded at random or to the nearest: error of the model, and accuracy of training that goes on.

The digits' CNN in the shared subspace, 200 rounds, where every tenth round, or every one, ends with a key frame: all go
on with the coded model. That is far more often than messages would ask for, so that a difference could be seen. With
the same seed all see the same split, first weights, draws of clients and batches.
"""

import dataclasses

import numpy as np

from benchmarks.lib import exchanges
from benchmarks.lib import paired
from benchmarks.lib import scores
from benchmarks.training import both_directions
from tff_compress import codec as codec_lib
from tff_compress.codec.ops import numpy_ops
from tff_compress.subspace.rate import Rate
from tff_compress.subspace.runtime import NumpyRuntime
from tff_compress.subspace.session import Session

TASK = dataclasses.replace(both_directions.DIGITS, rounds=200)
LAST = 50
"""Rounds whose evaluations count."""
SEEDS = 5
CODECS = {'at random': 'int8', 'nearest': 'uniform:rounding=nearest | pack'}
EVERY = (10, 1)
"""Rounds from one key frame to the next."""


@dataclasses.dataclass(frozen=True)
class KeyFrames:
  """`exchanges.ExchangeCodec` of a run with key frames, all of whose clients are there in every round.

  Attributes:
    name: in tables.
    codec: of key frames.
    every: rounds from one to the next; 0: there are none.
  """
  name: str
  codec: str = 'int8'
  every: int = 0

  def begin(self, spec, start, seed):
    return _KeyFrames(self, spec, start, seed)


class _KeyFrames(exchanges.Exchange):

  def __init__(self, codec, spec, start, seed):
    runtime = NumpyRuntime(spec, seed, codec_lib(codec.codec), codec_lib('float32'))
    self._every = codec.every
    self._session = Session(spec.parameters, seed, Rate(noise=None, first=0.026), 0.0, runtime)
    self._copy = self._session.begin(numpy_ops, runtime.draw(np.frombuffer(start.to_bytes(), np.uint8)), 1)

  @property
  def model(self):
    return self._copy['model']

  def download(self, client, audited):
    return 0  # Not what is measured.

  def upload(self, client, update):
    return self._session.upload(numpy_ops, self._copy, update, np.int32(client))

  def step(self, received):
    session, copy = self._session, self._copy
    number, kept = copy['round'], session.kept(numpy_ops, copy)
    total = sum(np.float32(weight) * session.read(numpy_ops, number, np.int32(client), kept, message)
                for client, weight, message in received)
    mean = total / np.float32(sum(weight for _, weight, _ in received))
    coded = bool(self._every) and int(number + 1) % self._every == 0
    before, after = (session.move(numpy_ops, copy, session.change(
        numpy_ops, copy, mean, learning_rate=np.float32(1), bits=1, next_bits=1, key_frame=key_frame))
                     for key_frame in (False, coded))
    self._copy = after
    error = np.sum(np.square(after['model'] - before['model'], dtype=np.float64))
    return {'error': float(error / np.sum(np.square(before['model'], dtype=np.float64)))}

  def checkpoint(self):
    return {'copy': self._session.content(numpy_ops, self._copy)}

  def restore(self, kept):
    self._copy = self._session.from_content(numpy_ops, kept['copy'])


def run(quick):
  task = dataclasses.replace(TASK, rounds=10, every=5, examples=100) if quick else TASK
  codecs = [KeyFrames('none'), *(KeyFrames(f'{name}, every {every}', codec, every)
                                 for every in EVERY for name, codec in CODECS.items())]
  rows = []
  for seed in range(2 if quick else SEEDS):
    for codec in codecs:
      finished = paired.finished(task, codec, seed)
      errors = [error for error in finished.figures['error'] if error]
      points = [point for point in finished.points if point['round'] > task.rounds - LAST and point['round'] % 10 == 0]
      rows.append({'table': 'per seed', 'key frames': codec.name, 'seed': seed, 'NMSE': float(np.mean(errors or [0])),
                   **{name: float(np.mean([point[name] for point in points])) for name in ('accuracy', 'averaged')}})
  return summary(rows) + rows


def summary(rows):
  """A row for each kind of key frames: means over seeds, and differences in points to none, with standard errors."""
  of = lambda name: [row for row in rows if row['key frames'] == name]
  result = []
  for name in dict.fromkeys(row['key frames'] for row in rows):
    row = {'table': 'means', 'key frames': name, 'NMSE': float(np.mean([own['NMSE'] for own in of(name)]))}
    for figure in ('accuracy', 'averaged'):
      found = [100 * (own[figure] - none[figure]) for own, none in zip(of(name), of('none'), strict=True)]
      row[figure] = 100 * float(np.mean([own[figure] for own in of(name)]))
      row[f'{figure} +'], row[f'{figure} s.e.'] = scores.mean_and_error(found)
    result.append(row)
  return result
