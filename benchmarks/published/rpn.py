"""Residual pooling (RPN): the MNIST example of Keras with the published split, and a network that is all convolutions.

Huang et al. 2020: ten clients, all in every round, hold the examples of the published table; means of the convolution
kernels travel in both directions. Here they are examples of Fashion-MNIST, of which a client trains on 40 batches of 20
a round (about a seventh, other ones each round) in place of all; and, nearer to MNIST, the digits of scikit-learn, all
in every round. In the last network nearly all parameters are 3 x 3 kernels, whose spatial detail residual pooling never
trains. 'feedback' adds what pooling loses to the next update; 'full round' sends every fifth update whole. The score is
the mean accuracy at the last two evaluations, which are two rounds apart.

Bytes are means over all messages, the first whole models included. About 2 minutes a run of the first network on one
core. Finished runs are kept in benchmarks/.cache/simulations.
"""

import numpy as np

from benchmarks.lib import scores
from benchmarks.lib import simulations

TASK = {'split': 'table', 'clients': 10, 'clients_per_round': 10, 'evaluate_every': 2}
FASHION = {'dataset': 'fashion-mnist', 'local_steps': 40}
NETWORKS = {
    'mnist_cnn': {**FASHION, 'model': 'mnist_cnn', 'rounds': 8},
    'mnist_cnn, digits': {'dataset': 'digits', 'model': 'mnist_cnn', 'rounds': 60},
    'small_all_cnn': {**FASHION, 'model': 'small_all_cnn', 'rounds': 20},
}
SEEDS, PERIOD, LAST = 3, 5, 2
POOLED = {'float32': {}, 'RPN': {'uplink': 'rpn', 'downlink': 'rpn'}}


def every_fifth(rounds):
  """A schedule of uplinks: pooled, but for every fifth round."""
  return 'rpn' + ''.join(f' @{i - 1} float32 @{i} rpn' for i in range(PERIOD, rounds + 1, PERIOD))


def methods(network):
  """{name: settings of `RunConfig`} of what is tried on a network."""
  if network != 'small_all_cnn':
    return POOLED
  whole = every_fifth(NETWORKS[network]['rounds'])
  return {**POOLED, 'RPN, feedback': {'uplink': 'rpn', 'error_feedback': True}, 'RPN, full round': {'uplink': whole},
          'RPN, feedback and full round': {'uplink': whole, 'error_feedback': True}}


def run(quick):
  rows = []
  for seed in range(1 if quick else SEEDS):
    for network in ('mnist_cnn, digits',) if quick else NETWORKS:
      task = {**TASK, **NETWORKS[network], **({'rounds': 2} if quick else {})}
      for name, settings in methods(network).items():
        result = simulations.finished(**task, **settings, seed=seed)
        entries = result['rounds']
        accuracies = simulations.accuracies(result)
        rows.append({'table': 'per seed', 'network': network, 'method': name, 'seed': seed, 'status': result['status'],
                     'parameters': result['parameters'], 'accuracy': float(np.mean(accuracies[-LAST:])),
                     'accuracies': accuracies,
                     **{f'bytes {short}': entries[-1][f'{way}_bytes_total'] / sum(entry['clients'] for entry in entries)
                        for short, way in (('up', 'uplink'), ('down', 'downlink'))}})
        reference = next(row for row in rows if (row['network'], row['seed']) == (network, seed))
        rows[-1]['loss'] = 100 * (reference['accuracy'] - rows[-1]['accuracy'])
  return summary(rows) + rows


def summary(rows):
  """One row per network and method: means over the seeds, and points lost against float32 with the same seeds."""
  result = []
  for network, name in dict.fromkeys((row['network'], row['method']) for row in rows):
    own = [row for row in rows if (row['network'], row['method']) == (network, name)]
    loss, error = scores.mean_and_error([row['loss'] for row in own])
    result.append({'table': 'means', 'network': network, 'method': name, 'seeds': len(own),
                   'bytes up': float(np.mean([row['bytes up'] for row in own])), 'bytes down': own[0]['bytes down'],
                   'accuracy': float(np.mean([row['accuracy'] for row in own])), 'loss': loss, 'loss, s.e.': error})
  return result
