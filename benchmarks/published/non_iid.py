"""Clients of few classes: float32, communication delay, signs, top-k and STC, by iterations and by bytes both ways.

Sattler et al. 2020 (STC): with clients of few classes all compression converges more slowly, sparse ternary compression
least. As there: logistic regression, Fashion-MNIST, 100 clients, 10 a round, batches of 20, p = 1/400, and one local
iteration a round, or 20 with communication delay: all methods make the same number of local iterations, 240, and STC
and communication delay also 960 on clients of one class. Every method has the better of two steps for clients of one
class, found with another seed ('tuning'). The score is the mean accuracy at the last five points at which a run is
evaluated, as it swings where clients differ.

About 40 seconds a run on one core. Finished runs are kept in benchmarks/.cache/simulations.
"""

import numpy as np

from benchmarks.lib import plots
from benchmarks.lib import scores
from benchmarks.lib import simulations

TASK = {'dataset': 'fashion-mnist', 'clients': 100, 'clients_per_round': 10, 'model': 'logistic', 'batch_size': 20}
DELAY = 20
"""Iterations of communication delay, and between evaluations."""
ITERATIONS, LONG, LAST = 240, 960, 5
TUNING_SEED = 100
CLIENTS = {
    'iid': ('iid', ITERATIONS, 2),
    'two classes': ('shards:2', ITERATIONS, 5),
    'one class': ('shards:1', ITERATIONS, 5),
    'one class, longer': ('shards:1', LONG, 2),
}
"""{name: (split, iterations, number of seeds)}."""

RATES, STEPS = (0.04, 0.16), (0.0005, 0.002)
METHODS = {
    'float32': (lambda rate: {'client_learning_rate': rate}, RATES),
    f'delay {DELAY}': (lambda rate: {'client_learning_rate': rate, 'local_steps': DELAY}, RATES),
    'signSGD': (lambda step: {'uplink': f'signsgd-majority:step={step}'}, STEPS),
    'top-k': (lambda rate: {'client_learning_rate': rate, 'uplink': 'ef-topk:p=1/400'}, RATES),
    'STC': (lambda rate: {'client_learning_rate': rate, 'uplink': 'stc:p=1/400', 'downlink': 'stc:p=1/400'}, RATES),
}
"""{name: (step -> settings of `RunConfig`, steps)}. The last is compared with the others."""
FINALISTS = (f'delay {DELAY}', 'STC')
"""What is trained for longer."""


def run(quick):
  methods = {name: METHODS[name] for name in FINALISTS} if quick else METHODS
  tuned = {name: tune(name, 2 * DELAY if quick else ITERATIONS, steps[:1] if quick else steps)
           for name, (_, steps) in methods.items()}
  rows = []
  for seed in range(1 if quick else 5):
    for clients, (split, iterations, count) in CLIENTS.items():
      for name in methods if seed < count else ():
        if iterations == LONG and name not in FINALISTS:
          continue
        step = tuned[name][0]['step']
        rows.append({'table': 'per seed', 'clients': clients, 'method': name, 'seed': seed, 'step': step,
                     **trained(name, step, split, 2 * DELAY if quick else iterations, seed)})
  plot(rows, quick)
  return summary(rows) + sum(tuned.values(), []) + rows


def trained(name, step, split, iterations, seed):
  """The curve of one run: a dict of columns."""
  local = METHODS[name][0](step)
  steps = local.setdefault('local_steps', 1)
  result = simulations.finished(**TASK, **local, split=split, rounds=iterations // steps, evaluate_every=DELAY // steps,
                                seed=seed)
  rounds = result['rounds']
  points = [entry for entry in rounds if entry['accuracy'] is not None]
  sent = [(entry['uplink_bytes_total'] + entry['downlink_bytes_total']) / 1e6 for entry in points]
  accuracies = simulations.accuracies(result)
  return {'status': result['status'], 'accuracy': float(np.mean(accuracies[-LAST:])),
          'MB up': rounds[-1]['uplink_bytes_total'] / 1e6, 'MB down': rounds[-1]['downlink_bytes_total'] / 1e6,
          'iterations': [entry['round'] * steps for entry in points], 'MB': sent, 'accuracies': accuracies}


def tune(name, iterations, steps):
  """Rows of a method's steps on clients of one class, the best first."""
  rows = [{'table': 'tuning', 'method': name, 'step': step,
           'accuracy': trained(name, step, 'shards:1', iterations, TUNING_SEED)['accuracy']} for step in steps]
  return sorted(rows, key=lambda row: -row['accuracy'])


def summary(rows):
  """One row per kind of clients and method: means over the seeds, and how many points STC is ahead, paired."""
  result = []
  for clients in CLIENTS:
    for name in dict.fromkeys(row['method'] for row in rows if row['clients'] == clients):
      own = [row for row in rows if (row['clients'], row['method']) == (clients, name)]
      ahead = [100 * (other['accuracy'] - row['accuracy']) for row in own for other in rows
               if (other['clients'], other['method'], other['seed']) == (clients, 'STC', row['seed'])]
      accuracy, error = scores.mean_and_error([row['accuracy'] for row in own])
      difference, paired = scores.mean_and_error(ahead)
      result.append({'table': 'means', 'clients': clients, 'method': name, 'seeds': len(own), 'step': own[0]['step'],
                     'accuracy': accuracy, 's.e.': error, 'MB up': float(np.mean([row['MB up'] for row in own])),
                     'MB down': float(np.mean([row['MB down'] for row in own])),
                     'STC ahead, points': difference, 'STC ahead, s.e.': paired})
  return result


def plot(rows, quick):
  """Accuracy by iterations above, by bytes of both directions below; one column per kind of clients."""
  figure, axes = plots.axes(len(CLIENTS), rows=2, sharey=True)
  for column, clients in enumerate(CLIENTS):
    for number, name in enumerate(dict.fromkeys(row['method'] for row in rows)):
      own = [row for row in rows if (row['clients'], row['method']) == (clients, name)]
      if not own:
        continue
      accuracy = np.mean([row['accuracies'] for row in own], 0)
      for axis, xs in zip(axes[:, column], ('iterations', 'MB')):
        axis.plot(np.mean([row[xs] for row in own], 0), accuracy, f'C{number}', label=name)
    axes[0, column].set(title=clients, xlabel='local iterations')
    axes[1, column].set(xlabel='MB, both directions', xscale='log')
  for axis in axes[:, 0]:
    axis.set(ylabel='test accuracy')
  plots.save(figure, 'non_iid', quick)
