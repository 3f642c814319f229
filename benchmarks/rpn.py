"""Residual pooling (RPN): the MNIST example of Keras with the published split, and a network that is all convolutions.

Huang et al. 2020: ten clients, all in every round, hold the examples of the published table, here of Fashion-MNIST; means of the
convolution kernels travel in both directions. A client trains on 40 batches of 20 a round (about a seventh of its examples,
other ones each round) in place of all. In the second network nearly all parameters are 3 x 3 kernels, whose spatial detail
residual pooling never trains. 'feedback' adds what pooling loses to the next update; 'full round' sends every fifth update
whole.

Bytes are means over all messages, the first whole models included. About 2 minutes a run of the large network on one core.
Finished runs are kept in benchmarks/.cache/simulations.
"""

import numpy as np

from benchmarks import simulations

TASK = {'dataset': 'fashion-mnist', 'split': 'table', 'clients': 10, 'clients_per_round': 10, 'evaluate_every': 2}
PERIOD = 5
LARGE, SMALL = 'mnist_cnn', 'small_all_cnn'
ROUNDS, STEPS = {LARGE: 8, SMALL: 20}, 40
SEEDS = 3
BOTH = {'uplink': 'rpn', 'downlink': 'rpn'}


def every_fifth(rounds):
  """A schedule of uplinks: pooled, but for every fifth round."""
  return 'rpn' + ''.join(f' @{i - 1} float32 @{i} rpn' for i in range(PERIOD, rounds + 1, PERIOD))


def run(quick):
  rounds = {model: 2 if quick else number for model, number in ROUNDS.items()}
  whole = every_fifth(ROUNDS[SMALL])
  cases = [(LARGE, 'float32', {}), (LARGE, 'RPN', BOTH), (SMALL, 'float32', {}), (SMALL, 'RPN', BOTH),
           (SMALL, 'RPN, feedback', {'uplink': 'rpn', 'error_feedback': True}),
           (SMALL, 'RPN, full round', {'uplink': whole}),
           (SMALL, 'RPN, feedback and full round', {'uplink': whole, 'error_feedback': True})]
  rows = []
  for seed in range(1 if quick else SEEDS):
    for model, name, settings in cases[-5:] if quick else cases:
      result = simulations.finished(**TASK, model=model, **settings, rounds=rounds[model], seed=seed,
                                    local_steps=2 if quick else STEPS)
      entries = result['rounds']
      accuracies = [entry['accuracy'] for entry in entries if entry['accuracy'] is not None]
      rows.append({'table': 'per seed', 'model': model, 'method': name, 'seed': seed, 'status': result['status'],
                   'accuracy': accuracies[-1], 'accuracies': accuracies, 'parameters': result['parameters'],
                   **{f'bytes {short}': entries[-1][f'{direction}_bytes_total'] / sum(entry['clients'] for entry in entries)
                      for short, direction in (('up', 'uplink'), ('down', 'downlink'))}})
      reference = next(row for row in rows if (row['model'], row['seed']) == (model, seed))
      rows[-1]['loss'] = 100 * (reference['accuracy'] - rows[-1]['accuracy'])
  return summary(rows) + rows


def summary(rows):
  """One row per network and method: means over the seeds, in points what is lost against float32 with the same seeds."""
  result = []
  for model, name in dict.fromkeys((row['model'], row['method']) for row in rows):
    own = [row for row in rows if (row['model'], row['method']) == (model, name)]
    loss, error = simulations.mean_and_error([row['loss'] for row in own])
    result.append({'table': 'means', 'model': model, 'method': name, 'seeds': len(own),
                   'bytes up': float(np.mean([row['bytes up'] for row in own])), 'bytes down': own[0]['bytes down'],
                   'accuracy': float(np.mean([row['accuracy'] for row in own])), 'loss': loss, 'loss, s.e.': error})
  return result
