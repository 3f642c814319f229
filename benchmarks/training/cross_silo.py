"""Accuracy and bytes of both directions where all clients take part in every round, paired with float32.

10 clients of the digits from a Dirichlet split (0.5), all in each round, one local epoch, batches of 20, SGD 0.05, the
38,282-parameter CNN, 100 rounds, 5 seeds: what few hospitals or banks are, the setting that codecs with error feedback
were made for, as every residual is sent on in the next round. The score is the accuracy on all test images, averaged
over the last three rounds. Runs are those of `tff-compress run`, in TFF; with the same seed they have the same split,
initial weights and batches. Bytes are those of the messages.

About a minute a run on one core. Finished runs are kept in benchmarks/.cache/simulations.
"""

from benchmarks.lib import scores
from benchmarks.lib import simulations

TASK = {'dataset': 'digits', 'split': 'dirichlet:0.5', 'clients': 10, 'clients_per_round': 10, 'model': 'digits_cnn',
        'client_learning_rate': 0.05}
TARGET = 0.9
ROUNDS = 100
SEEDS = range(5)

METHODS = {
    'float32': {},
    'int8': {'uplink': 'int8', 'downlink': 'int8'},
    'DRIVE, 1 bit, and its changes': {'uplink': 'drive', 'downlink': 'drive', 'downlink_changes': True},
    'top-k 1/100 both ways': {'uplink': 'ef-topk', 'downlink': 'ef-topk', 'downlink_changes': True},
    'STC 1/50 both ways': {'uplink': 'stc:p=1/50', 'downlink': 'stc:p=1/50'},
    'STC 1/400 both ways': {'uplink': 'stc:p=1/400', 'downlink': 'stc:p=1/400'},
    'EF-signSGD both ways': {'uplink': 'ef-signsgd', 'downlink': 'ef-signsgd'},
    'DGC 1/1000, changes as STC 1/100': {'uplink': 'dgc', 'downlink': 'stc:p=1/100'},
    'EF21': {'uplink': 'ef21', 'downlink': 'stc:p=1/50', 'weighting': 'uniform'},
    'PowerSGD, rank 2': {'uplink': 'powersgd'},
    'auto': {'uplink': 'auto'},
    'shared subspace, 1/50': {'uplink': 'subspace'},
    'shared subspace, 1/20': {'uplink': 'subspace:rate=1/20'},
}
"""{name: settings of `RunConfig`}. The first is what the others are compared with."""


def run(quick):
  rounds = 3 if quick else ROUNDS
  methods = {name: METHODS[name] for name in ('float32', 'shared subspace, 1/50')} if quick else METHODS
  rows = []
  for seed in range(1) if quick else SEEDS:
    for name, settings in methods.items():
      result = simulations.finished(**TASK, **settings, rounds=rounds, seed=seed)
      rows.append({'table': 'per seed', 'method': name, 'seed': seed, **simulations.score(result, TARGET)})
      reference = next(row for row in rows if row['seed'] == seed)
      rows[-1]['loss'] = 100 * (reference['final accuracy'] - rows[-1]['final accuracy'])
  return summary(rows) + rows


def summary(rows):
  """One row per method, the fewest bytes last: means over its seeds; `loss` against float32 in points."""
  result = []
  for name in dict.fromkeys(row['method'] for row in rows):
    own = [row for row in rows if row['method'] == name]
    entry = {'table': 'means', 'method': name, 'seeds': len(own),
             'reached': f'{sum(row["round"] is not None for row in own)} of {len(own)}'}
    for way in ('uplink', 'downlink'):
      entry[f'MB {way}'], _ = scores.mean_and_error([sum(row[f'{way} bytes']) / 1e6 for row in own])
    entry['MB both'] = entry['MB uplink'] + entry['MB downlink']
    entry['final accuracy'], _ = scores.mean_and_error([row['final accuracy'] for row in own])
    entry['loss'], entry['loss, s.e.'] = scores.mean_and_error([row['loss'] for row in own])
    result.append(entry)
  reference, *others = result
  return [{**entry, 'times fewer': reference['MB both'] / entry['MB both']}
          for entry in (reference, *sorted(others, key=lambda entry: -entry['MB both']))]
