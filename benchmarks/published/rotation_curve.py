"""Random rotation against none at 1 and 2 bits: federated training on Fashion-MNIST, with the curve as a picture.

Konecny et al. 2016 (section 4): with probabilistic quantization, rotating first ("HD") always helps. The task is that
of `bytes_to_accuracy`, 15 rounds, one seed. Without rotation there is one range per tensor, as in the paper, and one
per 1024 values, as is this project's default; a run in which a weight becomes NaN or infinite ends there.
"""

import numpy as np

from benchmarks.lib import fedavg
from benchmarks.lib import plots
from tff_compress import codec as codec_lib

CODECS = {
    'float32': 'float32',
    '1 bit': 'uniform:bits=1,range=tensor | pack',
    '1 bit, range per block': 'uniform:bits=1 | pack',
    '1 bit, rotated': 'hadamard | uniform:bits=1 | pack',
    '2 bits': 'uniform:bits=2,range=tensor | pack',
    '2 bits, range per block': 'uniform:bits=2 | pack',
    '2 bits, rotated': 'hadamard | uniform:bits=2 | pack',
}
ROUNDS = 15


def run(quick):
  task = fedavg.Task(clients_per_round=2) if quick else fedavg.Task()
  rounds = 3 if quick else ROUNDS
  trainer = fedavg.Trainer(task)
  rows = []
  for name, codec in CODECS.items():
    results = fedavg.finished(trainer, task, codec, 0, rounds)
    accuracies = [row['accuracy'] for row in results]
    rows.append({
        'curve': name, 'codec': str(codec_lib(codec)), 'rounds': len(results),
        'MB per round': results[0]['uplink_bytes'] / 1e6, 'final accuracy': float(np.mean(accuracies[-3:])),
        'best accuracy': max(accuracies), 'accuracies': accuracies,
    })
  plot(rows, quick)
  return rows


def plot(rows, quick):
  figure, ((by_round, by_bytes),) = plots.axes(2, sharey=True)
  for row in rows:
    style = '--' if 'block' in row['curve'] else '-' if 'rotated' in row['curve'] or 'bit' not in row['curve'] else ':'
    color = {'1': 'C3', '2': 'C0'}.get(row['curve'][0], 'k')
    numbers = np.arange(1, len(row['accuracies']) + 1)
    by_round.plot(numbers, row['accuracies'], style, color=color, label=row['curve'])
    by_bytes.plot(numbers * row['MB per round'], row['accuracies'], style, color=color, label=row['curve'])
  by_round.set(xlabel='round', ylabel='test accuracy')
  by_bytes.set(xlabel='uplink, MB', xscale='log')
  plots.save(figure, 'rotation_curve', quick)
