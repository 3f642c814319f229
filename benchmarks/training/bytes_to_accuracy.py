"""Bytes of both directions until Fashion-MNIST is classified with 74 % accuracy, for uplinks, paired with float32.

100 clients from a Dirichlet split (0.5), 10 a round, one local epoch, batches of 20, SGD 0.05, the 1,199,882-parameter
CNN, 20 rounds, 5 seeds. The score is the accuracy on all test images, averaged over the last three rounds. A seed has
the same split, initial weights, client draws, batches and dropout masks with every codec. Bytes are those of the
frames; the downlink is a frame of float32 for each client and round.

Takes hours on a busy core and continues where it was stopped (checkpoints are in benchmarks/.cache/runs).
"""

import numpy as np

from benchmarks.lib import fedavg
from benchmarks.lib import scores

CODECS = ('float32', 'shared-mask')
"""The first is what the others are compared with."""
TARGET = 0.74
ROUNDS = 20
SEEDS = range(5)
EARLY = 13
"""The loss against float32 is reported at this round, near which float32 reaches the target, and at the last."""


def run(quick):
  task = fedavg.Task(clients_per_round=2) if quick else fedavg.Task()
  seeds, rounds = (range(1), 3) if quick else (SEEDS, ROUNDS)
  trainer = fedavg.Trainer(task)
  rows = []
  for seed in seeds:
    for codec in CODECS:
      rows.append({'table': 'per seed', 'codec': codec, 'seed': seed,
                   **score(fedavg.finished(trainer, task, codec, seed, rounds), task)})
      compare(rows[-1], next(row for row in rows if row['seed'] == seed))
  return summary(rows, rounds) + rows


def score(rounds, task):
  """What one run's rows say: a dict of columns."""
  accuracies = [row['accuracy'] for row in rounds]
  means = scores.trailing_means(accuracies)
  reached = next((i + scores.WIDTH for i, mean in enumerate(means) if mean >= TARGET), None)
  sent = np.cumsum([row['uplink_bytes'] for row in rounds])
  up = down = both = None
  if reached is not None:
    up, down = float(sent[reached - 1] / 1e6), reached * task.clients_per_round * fedavg.model_bytes() / 1e6
    both = up + down
  return {
      'round': reached, 'MB up': up, 'MB down': down, 'MB both': both,
      'bytes per client and round': float(sent[-1] / len(rounds) / task.clients_per_round),
      'final accuracy': means[-1], 'accuracies': accuracies, 'uplink bytes': [row['uplink_bytes'] for row in rounds],
  }


def compare(row, reference):
  """Adds the loss against the reference's run of the same seed, in percentage points."""
  ours, theirs = (scores.trailing_means(r['accuracies']) for r in (row, reference))
  if len(ours) > EARLY - scores.WIDTH:
    row['early loss'] = 100 * (theirs[EARLY - scores.WIDTH] - ours[EARLY - scores.WIDTH])
  row['final loss'] = 100 * (theirs[-1] - ours[-1])


def summary(rows, rounds):
  """One row per codec: means over the seeds; losses with their standard errors."""
  result = []
  for codec in dict.fromkeys(row['codec'] for row in rows):
    own = [row for row in rows if row['codec'] == codec]
    reached = [row for row in own if row['round']]
    entry = {'table': f'means over {len(own)} seeds', 'codec': codec, 'reached': f'{len(reached)} of {len(own)}',
             **{column: _mean(reached, column) for column in ('round', 'MB up', 'MB down', 'MB both')},
             'most MB both': max((row['MB both'] for row in reached), default=None),
             'bytes per client and round': _mean(own, 'bytes per client and round'),
             'final accuracy': _mean(own, 'final accuracy')}
    for column, name in (('early loss', f'loss at round {EARLY}'), ('final loss', f'loss at round {rounds}')):
      values = [row[column] for row in own if column in row]
      if values:
        entry[name], entry[f'{name}, s.e.'] = scores.mean_and_error(values)
    result.append(entry)
  return result


def _mean(rows, column):
  return scores.mean_and_error([row[column] for row in rows])[0]
