"""Accuracy and bytes of both directions in long training with real messages, against float32 with the same seeds.

Digits for 1,000 rounds, Fashion-MNIST for 300 and to 74 % accuracy, and clients that return rarely. Every message that
a client would send or receive is made and counted, the start that gives the first weights as well, and one client of
each round really follows what it received from the model that it had: it must get the server's, bit for bit. With the
same seed all codecs see the same split, first weights, draws of clients, batches and dropout masks.

Accuracy is that of the server's weights and of their moving average, for float32 as well, each compared with its own.
Takes hours and continues where it was stopped: checkpoints are in benchmarks/.cache/paired; delete those of codecs that
changed. `python -m benchmarks.training.both_directions TASK --seeds 2 --codecs NAME` makes some of the runs.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys

import numpy as np

from benchmarks.lib import exchanges
from benchmarks.lib import harness
from benchmarks.lib import networks
from benchmarks.lib import paired
from benchmarks.lib import scores
from tff_compress.processes.methods.auto import Auto
from tff_compress.subspace.rate import Rate

DIGITS_CNN = networks.Network((8, 8, 1), (
    networks.Conv(16, same=True), networks.Conv(32, same=True), networks.Pool(), networks.Dense(64),
    networks.Dense(10)))
DIGITS_MLP = networks.Network((8, 8, 1), (networks.Dense(256), networks.Dense(128), networks.Dense(10)))
FASHION_MLP = networks.Network((28, 28, 1), (networks.Dense(128), networks.Dense(64), networks.Dense(10)))
SMALL_CNN = networks.Network((28, 28, 1), (
    networks.Conv(16, stride=2), networks.Conv(32, stride=2), networks.Dense(108), networks.Dense(10)))
MNIST_CNN = networks.Network((28, 28, 1), (
    networks.Conv(32), networks.Conv(64), networks.Pool(), networks.Dropout(0.25), networks.Dense(128),
    networks.Dropout(0.5), networks.Dense(10)))

DIGITS = paired.Task('digits', DIGITS_CNN, clients=20, per_round=10, learning_rate=0.2, rounds=1000, every=5)
FASHION = paired.Task('fashion-mnist', FASHION_MLP, clients=100, per_round=10, learning_rate=0.1, rounds=300, every=5)
FASHION_CNN = dataclasses.replace(FASHION, network=SMALL_CNN, learning_rate=0.2)
SHORT = dataclasses.replace(FASHION_CNN, learning_rate=0.05, rounds=20, every=1, averaging=0.7)

# Learning rates are those that are best for float32, but for the short tasks, which say how soon 74 % is reached.
TASKS = {
    'digits-cnn': (DIGITS, 5, ('auto', '0.013-1/1')),
    'digits-mlp': (dataclasses.replace(DIGITS, network=DIGITS_MLP), 3, ('auto',)),
    'digits-cnn-5-epochs': (dataclasses.replace(DIGITS, epochs=5, learning_rate=0.1), 3, ('auto',)),
    'fashion-mlp': (FASHION, 5, ('auto', 'block-0.03-2/1/2')),
    'fashion-mlp-5-epochs': (dataclasses.replace(FASHION, epochs=5), 3, ('auto', 'block-0.03-2/1/2')),
    'fashion-cnn': (FASHION_CNN, 5, ('auto', 'block-0.05-2/1/2')),
    'fashion-cnn-5-epochs': (dataclasses.replace(FASHION_CNN, epochs=5, learning_rate=0.1), 3, ('auto',)),
    'fashion-cnn-short': (SHORT, 5, ('auto', '0.005-1/1')),
    'mnist-cnn-short': (dataclasses.replace(SHORT, network=MNIST_CNN, rounds=16, examples=4000), 5,
                        ('auto', '0.012-1/1', '0.004-1/1')),
    'rare-clients': (dataclasses.replace(FASHION, clients=1000, split='iid', epochs=2), 5,
                     ('auto', 'block-0.03-2/1/2', 'fixed-0.1-1/4')),
}
"""{name: (task, seeds, names of codecs beside float32)}."""

TARGET = 0.74
LAST = 40
"""What counts is the mean accuracy of the evaluations in the last so many rounds, in short runs in a fifth of them."""
EARLY = (16, 50, 200)
"""Rounds at which the mean of three evaluations is compared besides."""
CURVE = 50
"""Points of a curve that are kept, at most."""


def codec_named(name, task):
  """`ExchangeCodec` of a name.

  float32; auto, what the method of this name chooses; rule-NOISE, for the rule with a budget; SHARE-UP/DOWN, for a
  constant share of the coordinates with so many bits; block-SHARE-UP/PLACEMENT/DOWN, for blocks with so many bits in
  placements and in the changes at their ends, and
  with -ROUNDS behind it for blocks of so many rounds; fixed-SHARE-UP/PLACEMENT; integers-SHARE-UP/DOWN, for integer
  sums. Raises ValueError for others.
  """
  if name == 'float32':
    return exchanges.Float32()
  if name == 'auto':
    return exchanges.SubspaceForm(name, Auto().rule, 0, 0, form='block', placement_bits=1)
  kind, *parts = name.split('-')
  if kind == 'rule':
    return exchanges.Subspace(name, Rate(noise=float(parts[0]), rounds=task.rounds))
  if kind not in ('block', 'fixed', 'integers'):
    kind, parts = '', [kind, *parts]
  rate, bits = Rate(noise=None, first=float(parts[0])), [int(number) for number in parts[1].split('/')]
  if kind == 'block':
    hold = int(parts[2]) if len(parts) > 2 else 0
    return exchanges.SubspaceForm(name, rate, bits[0], bits[2], form='block', placement_bits=bits[1], hold=hold)
  if kind == 'fixed':
    return exchanges.SubspaceForm(name, rate, bits[0], form='fixed', placement_bits=bits[1])
  if kind == 'integers':
    return exchanges.SubspaceForm(name, rate, *bits, sums='integers')
  return exchanges.Subspace(name, rate, *bits)


def run(quick):
  tasks = TASKS
  if quick:
    tasks = {'digits-cnn': (dataclasses.replace(DIGITS, rounds=10, every=1, examples=100), 2,
                            ('rule-1.5', 'block-0.05-2/1/2'))}
  rows = []
  for name, (task, seeds, codecs) in tasks.items():
    rows += measured(name, task, ['float32', *codecs], range(seeds))
  return summary(rows) + rows


def measured(name, task, codecs, seeds):
  """A row for each codec and seed of a task."""
  return [{'table': 'per seed', 'task': name, 'codec': codec, 'seed': seed, 'learning rate': task.learning_rate,
           **score(paired.finished(task, codec_named(codec, task), seed), task)} for seed in seeds for codec in codecs]


def score(run, task):
  """What one run says: a dict of columns."""
  up, down = np.cumsum(run.up[:task.rounds]) / 1e6, np.cumsum(run.down[:task.rounds]) / 1e6
  points = [point for point in run.points if point['round'] <= task.rounds]
  diverged = run.rounds < task.rounds
  row = {'diverged': run.rounds if diverged else None, 'alarm': run.alarm, 'MB up': _last(up), 'MB down': _last(down),
         'MB both': _last(up + down)}
  for column in ('accuracy', 'averaged'):
    curve = [point[column] for point in points]
    row[column] = scores.GUESSING if diverged else float(np.mean(curve[-_width(task):]))
    # Raw accuracies swing, so that three evaluations must reach the target on average.
    means = scores.trailing_means(curve) if column == 'accuracy' and curve else curve
    ends = [point['round'] for point in points[len(points) - len(means):]]
    reached = next((number for number, mean in zip(ends, means) if mean >= TARGET), None)
    row[f'{column} to target'] = reached and {
        'round': reached, 'MB up': float(up[reached - 1]), 'MB down': float(down[reached - 1])}
    for number in EARLY:
      place = next((i for i, point in enumerate(points[:-1], 1) if point['round'] == number), 0)
      if place:
        row[f'{column} @{number}'] = float(np.mean(curve[max(0, place - scores.WIDTH):place]))
  step = max(1, -(-len(points) // CURVE))
  shown = points[::-1][::step][::-1]
  row['rounds'] = [point['round'] for point in shown]
  for column in ('accuracy', 'averaged'):
    row[f'{column} curve'] = [round(point[column], 4) for point in shown]
  curves = {'MB': up + down, **run.figures}
  row.update((f'{name} curve', [float(f'{values[number - 1]:.4g}') for number in row['rounds']])
             for name, values in curves.items())
  return row


def _last(totals):
  return float(totals[-1]) if len(totals) else 0.0


def _width(task):
  """Number of evaluations that count."""
  return max(1, min(LAST, task.rounds // 5) // task.every)


def summary(rows):
  """One row per task and codec: means over seeds, and paired differences to float32 with their standard errors.

  Differences are in points, of the codec's accuracy less float32's; `x` says how many times fewer bytes both ways.
  """
  result = []
  for task, codec, rate in dict.fromkeys((row['task'], row['codec'], row['learning rate']) for row in rows):
    own = [row for row in rows if (row['task'], row['codec'], row['learning rate']) == (task, codec, rate)]
    pairs = [(row, other) for row in own for other in rows if other['codec'] == 'float32' and all(
        row[name] == other[name] for name in ('task', 'seed', 'learning rate'))]
    entry = {'table': 'means', 'task': task, 'lr': rate, 'codec': codec, 'seeds': len(own),
             **{column: _mean(own, column) for column in ('MB up', 'MB down', 'MB both')},
             'x': _ratio(pairs, lambda row: row['MB both'])}
    for column in ('accuracy', 'averaged'):
      entry[column] = 100 * _mean(own, column)
      entry[f'{column} +'], entry[f'{column} s.e.'] = _difference(pairs, column)
      early = [number for number in EARLY if all(f'{column} @{number}' in row for pair in pairs for row in pair)]
      entry.update((f'{column} + @{number}', _difference(pairs, f'{column} @{number}')[0]) for number in early)
    entry['alarms'] = sum(row['alarm'] is not None for row in own)
    entry['diverged'] = sum(row['diverged'] is not None for row in own)
    result.append(entry)
    for column in ('accuracy', 'averaged'):
      reached = [row[f'{column} to target'] for row in own if row[f'{column} to target']]
      if reached and task.endswith('short'):
        result.append({'table': f'to {100 * TARGET:.0f} %, {column}', 'task': task, 'lr': rate, 'codec': codec,
                       'reached': f'{len(reached)} of {len(own)}',
                       **{name: _mean(reached, name) for name in ('round', 'MB up', 'MB down')},
                       'MB both': float(np.mean([row['MB up'] + row['MB down'] for row in reached])),
                       'most MB both': max(row['MB up'] + row['MB down'] for row in reached)})
  return sorted(result, key=lambda row: row['table'])


def _difference(pairs, column):
  """Mean of the paired differences in points, and its standard error."""
  return scores.mean_and_error([100 * (row[column] - other[column]) for row, other in pairs])


def _ratio(pairs, value):
  own, others = (sum(value(pair[place]) for pair in pairs) for place in (0, 1))
  return others / own if own else None


def _mean(rows, column):
  return scores.mean_and_error([row[column] for row in rows])[0]


def main(arguments=None):
  environment = harness.benchmarks()['both_directions'].environment
  if any(os.environ.get(name) != environment[name] for name in harness.THREAD_VARIABLES):
    return subprocess.run([sys.executable, '-m', 'benchmarks.training.both_directions', *(arguments or sys.argv[1:])],
                          env=environment, check=False).returncode
  parser = argparse.ArgumentParser(prog='python -m benchmarks.training.both_directions',
                                   description='Makes some of the runs and puts them into the results.')
  parser.add_argument('task', choices=TASKS)
  parser.add_argument('--seeds', type=int, nargs='+', help='which; those of the task without it')
  parser.add_argument('--codecs', nargs='+', help='their names; all without it')
  parser.add_argument('--rounds', type=int, help='others than the task\'s')
  parser.add_argument('--learning-rate', type=float, help='another than the task\'s')
  options = parser.parse_args(arguments)
  task, seeds, codecs = TASKS[options.task]
  name = options.task if options.rounds in (None, task.rounds) else f'{options.task}, {options.rounds} rounds'
  task = dataclasses.replace(task, rounds=options.rounds or task.rounds,
                             learning_rate=options.learning_rate or task.learning_rate)
  for seed in options.seeds or range(seeds):
    for codec in options.codecs or ('float32', *codecs):
      record(measured(name, task, [codec], [seed]))
  harness.print_tables([row for row in stored()['rows'] if row['table'] != 'per seed' and row['task'] == name])
  return 0


PATH = harness.RESULTS / 'both_directions.json'


def stored():
  """The results so far."""
  return json.loads(PATH.read_text(encoding='utf-8')) if PATH.exists() else {'rows': []}


def record(rows):
  """Puts rows of runs into the results, in place of those of the same task, codec, learning rate and seed."""
  key = lambda row: tuple(row[name] for name in ('task', 'codec', 'learning rate', 'seed'))
  kept = {key(row): row for row in stored()['rows'] if row['table'] == 'per seed'} | {key(row): row for row in rows}
  order = list(TASKS)
  runs = sorted(kept.values(), key=lambda row: order.index(row['task'].partition(',')[0]))
  harness.write_json(PATH, {'benchmark': 'both_directions', 'command': 'python -m benchmarks both_directions',
                            'machine': harness.machine(), 'rows': summary(runs) + runs})


if __name__ == '__main__':
  sys.exit(main())
