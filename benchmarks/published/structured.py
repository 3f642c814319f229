"""Structured against sketched updates at 25 % and 6.25 % of float32's size, without quantization, on Fashion-MNIST.

Konecny et al. 2016, figures 1 and 2: of structured updates, a random mask is better than low rank; of random masks,
training on the mask is ahead at first, and sketching (training everything, sending a random part) ends higher. 100
clients of equal distribution, 10 a round, one local epoch, batches of 20, the 130,414-parameter CNN. Every method has
the best of four learning rates, found with another seed in 8 rounds ('tuning'). The score is the mean accuracy of the
last three rounds.

About 20 seconds a run on one core. Finished runs are kept in benchmarks/.cache/simulations.
"""

import numpy as np

from benchmarks.lib import plots
from benchmarks.lib import scores
from benchmarks.lib import simulations

TASK = {'dataset': 'fashion-mnist', 'split': 'iid', 'clients': 100, 'clients_per_round': 10, 'model': 'small_cnn'}
ROUNDS, EARLY, SEEDS = 20, 4, 3
TUNING_SEED, TUNING_ROUNDS = 100, 8
RATES = (0.05, 0.15, 0.45, 1.35)
SHARES = ('1/4', '1/16')
METHODS = {
    'structured mask': 'random-mask:fraction={}',
    'structured low rank': 'low-rank:share={}',
    'sketched mask': 'concat | subsample:{},key=client | float32',
}


def run(quick):
  rounds, seeds, rates = (2, 1, RATES[:1]) if quick else (ROUNDS, SEEDS, RATES)
  uplinks = {('float32', '1'): 'float32'}
  uplinks.update(((name, share), text.format(share)) for share in SHARES for name, text in METHODS.items())
  if quick:
    uplinks = dict(list(uplinks.items())[:2])
  tuned = {key: tune(key, uplink, rates, min(rounds, TUNING_ROUNDS)) for key, uplink in uplinks.items()}
  rows = []
  for seed in range(seeds):
    for (method, share), uplink in uplinks.items():
      rate = tuned[method, share][0]['rate']
      rows.append({'table': 'per seed', 'method': method, 'share': share, 'seed': seed, 'rate': rate,
                   **trained(uplink, rate, rounds, seed)})
  plot(rows, quick)
  return summary(rows) + sum(tuned.values(), []) + rows


def trained(uplink, rate, rounds, seed):
  """The curve of one run: a dict of columns."""
  result = simulations.finished(**TASK, uplink=uplink, client_learning_rate=rate, rounds=rounds, seed=seed)
  accuracies = simulations.accuracies(result)
  return {'status': result['status'], 'early': float(np.mean(accuracies[:EARLY])),
          'accuracy': scores.trailing_means(accuracies)[-1], 'accuracies': accuracies,
          'MB up': sum(entry['uplink_bytes'] for entry in result['rounds']) / 1e6}


def tune(key, uplink, rates, rounds):
  """Rows of a method's learning rates, the best first."""
  rows = [{'table': 'tuning', 'method': key[0], 'share': key[1], 'rate': rate,
           'accuracy': trained(uplink, rate, rounds, TUNING_SEED)['accuracy']} for rate in rates]
  return sorted(rows, key=lambda row: -row['accuracy'])


def summary(rows):
  """One row per method and share: means over the seeds; points behind float32 and the structured mask."""
  result = []
  for method, share in dict.fromkeys((row['method'], row['share']) for row in rows):
    own = [row for row in rows if (row['method'], row['share']) == (method, share)]
    entry = {'table': 'means', 'method': method, 'share': share, 'seeds': len(own), 'rate': own[0]['rate'],
             'MB up': own[0]['MB up']}
    for column, label in (('early', f'rounds 1 to {EARLY}'), ('accuracy', 'last 3 rounds')):
      entry[label], entry[f'{label}, s.e.'] = scores.mean_and_error([row[column] for row in own])
    for reference in ('float32', 'structured mask'):
      losses = [100 * (other['accuracy'] - row['accuracy']) for row in own for other in rows
                if other['method'] == reference and other['seed'] == row['seed'] and other['share'] in ('1', share)]
      entry[f'behind {reference}'], entry[f'behind {reference}, s.e.'] = scores.mean_and_error(losses)
    result.append(entry)
  return result


def plot(rows, quick):
  figure, axes = plots.axes(len(SHARES), sharey=True)
  for axis, share in zip(axes[0], SHARES):
    for number, method in enumerate(('float32', *METHODS)):
      curves = [row['accuracies'] for row in rows if row['method'] == method and row['share'] in ('1', share)]
      if curves:
        axis.plot(np.arange(1, len(curves[0]) + 1), np.mean(curves, 0), f'C{number}', label=method)
    axis.set(title=f'{share} of float32', xlabel='round')
  axes[0, 0].set(ylabel='test accuracy')
  plots.save(figure, 'structured', quick)
