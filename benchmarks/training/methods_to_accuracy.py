"""Bytes of both directions until Fashion-MNIST is classified with 74 % accuracy, for every method, paired with float32.

100 clients from a Dirichlet split (0.5), 10 a round, one local epoch, batches of 20, SGD 0.05, the 130,414-parameter
CNN, 20 rounds. The score is the accuracy on all test images, averaged over the last three rounds. Runs are those of
`tff-compress run`, in TFF; with the same seed they have the same split, initial weights, draw of clients and batches.
Bytes are those of the frames; a downlink is float32 once per client and round where the method has none of its own.

About 20 seconds a run on one core. Finished runs are kept in benchmarks/.cache/simulations.
"""

from benchmarks.lib import scores
from benchmarks.lib import simulations

TASK = {'dataset': 'fashion-mnist', 'split': 'dirichlet:0.5', 'clients': 100, 'clients_per_round': 10,
        'model': 'small_cnn', 'client_learning_rate': 0.05}
WAYS = ('up', 'down')
TARGET = 0.74
ROUNDS = 20
CLAIMED, SCREENED, HINTED = 5, 3, 2
"""Seeds of the rows that claims rest on, and of the others."""

METHODS = {
    'float32': ({}, CLAIMED),
    'float32, 5 epochs': ({'local_epochs': 5}, HINTED),
    'int8': ({'uplink': 'int8'}, SCREENED),
    'QSGD': ({'uplink': 'qsgd'}, SCREENED),
    'FedPAQ, 10 steps': ({'uplink': 'fedpaq'}, HINTED),
    'TernGrad': ({'uplink': 'terngrad'}, SCREENED),
    'DRIVE, 1 bit': ({'uplink': 'drive'}, SCREENED),
    'rotated ternary': ({'uplink': 'rotated-ternary'}, SCREENED),
    'shared mask': ({'uplink': 'shared-mask'}, CLAIMED),
    'shared mask, changes as int8': ({'uplink': 'shared-mask', 'downlink': 'int8', 'downlink_changes': True}, CLAIMED),
    'sketched updates': ({'uplink': 'sketch'}, SCREENED),
    'random mask 1/16, structured': ({'uplink': 'random-mask:fraction=1/16'}, HINTED),
    'low rank 1/16, structured': ({'uplink': 'low-rank:share=1/16'}, HINTED),
    'federated dropout': ({'uplink': 'federated-dropout'}, SCREENED),
    'ATOMO': ({'uplink': 'atomo'}, SCREENED),
    'error bound': ({'uplink': 'bounded'}, SCREENED),
    'RPN': ({'uplink': 'rpn', 'downlink': 'rpn'}, SCREENED),
    'top-k 1/100': ({'uplink': 'ef-topk'}, SCREENED),
    'DGC 1/1000': ({'uplink': 'dgc'}, HINTED),
    'SBC 1/100': ({'uplink': 'sbc'}, HINTED),
    'STC 1/400': ({'uplink': 'stc', 'downlink': 'stc'}, SCREENED),
    'STC 1/50': ({'uplink': 'stc:p=1/50', 'downlink': 'stc:p=1/50'}, CLAIMED),
    'EF-signSGD': ({'uplink': 'ef-signsgd'}, SCREENED),
    'EF-signSGD, changes as well': ({'uplink': 'ef-signsgd', 'downlink': 'ef-signsgd'}, SCREENED),
    'signSGD, majority vote': ({'uplink': 'signsgd-majority'}, SCREENED),
    'Signum': ({'uplink': 'signum'}, HINTED),
    'FedZip-like': ({'uplink': 'fedzip'}, HINTED),
    'CMFL': ({'uplink': 'cmfl'}, HINTED),
    'PowerSGD, rank 2': ({'uplink': 'powersgd'}, HINTED),
    'FetchSGD': ({'uplink': 'fetchsgd'}, HINTED),
}
"""{name: (settings of `RunConfig`, number of seeds)}. The first is what the others are compared with."""


def run(quick):
  task, rounds = ({**TASK, 'clients_per_round': 2, 'evaluation_examples': 1000}, 3) if quick else (TASK, ROUNDS)
  methods = {name: METHODS[name] for name in ('float32', 'shared mask')} if quick else METHODS
  rows = []
  for seed in range(1 if quick else CLAIMED):
    for name, (settings, seeds) in methods.items():
      if seed < seeds:
        rows.append({'table': 'per seed', 'method': name, 'seed': seed,
                     **simulations.score(simulations.finished(**task, **settings, rounds=rounds, seed=seed), TARGET)})
        reference = next(row for row in rows if row['seed'] == seed)
        rows[-1]['loss'] = 100 * (reference['final accuracy'] - rows[-1]['final accuracy'])
        if rows[-1]['round'] and reference['round']:
          rows[-1]['later'] = rows[-1]['round'] - reference['round']
          rows[-1]['ratio'] = sum(reference[f'MB {way}'] for way in WAYS) / sum(rows[-1][f'MB {way}'] for way in WAYS)
  return summary(rows) + rows


def summary(rows):
  """One row per method: means over its seeds.

  Against float32 with the same seeds: `later`, in rounds; `ratio` of bytes to the target; `loss` at the end, in points.
  """
  result = []
  for name in dict.fromkeys(row['method'] for row in rows):
    own = [row for row in rows if row['method'] == name]
    reached = [row for row in own if row['round']]
    loss, error = scores.mean_and_error([row['loss'] for row in own])
    entry = {'table': 'means', 'method': name, 'seeds': len(own), 'reached': f'{len(reached)} of {len(own)}'}
    for column in ('round', 'MB up', 'MB down'):
      entry[column], _ = scores.mean_and_error([row[column] for row in reached])
    entry['MB'] = entry['MB up'] + entry['MB down'] if reached else None
    for column in ('later', 'ratio', 'bytes up', 'bytes down', 'final accuracy'):
      entry[column], _ = scores.mean_and_error([row[column] for row in own if row.get(column) is not None])
    result.append({**entry, 'loss': loss, 'loss, s.e.': error})
  return result
