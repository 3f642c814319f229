"""Random rotation against none at 1 and 2 bits: federated training on Fashion-MNIST, with the curve as a picture.

Konecny et al. 2016 (section 4): with probabilistic quantization, rotating first ("HD") always helps. The task is that of
bytes_to_accuracy.py, 15 rounds, one seed. Without rotation there is one range per tensor, as in the paper, and one per 1024
values, as is this project's default; a run in which a weight becomes NaN or infinite ends there.
"""

import numpy as np

from benchmarks import fedavg
from benchmarks import harness
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
  plot(rows, (harness.RESULTS / 'quick' if quick else harness.RESULTS) / 'rotation_curve.png')
  return rows


def plot(rows, path):
  import matplotlib  # pylint: disable=g-import-not-at-top
  matplotlib.use('Agg')
  from matplotlib import pyplot  # pylint: disable=g-import-not-at-top
  figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.2), sharey=True)
  for row in rows:
    style = '--' if 'block' in row['curve'] else '-' if 'rotated' in row['curve'] or 'bit' not in row['curve'] else ':'
    color = {'1': 'C3', '2': 'C0'}.get(row['curve'][0], 'k')
    numbers = np.arange(1, len(row['accuracies']) + 1)
    axes[0].plot(numbers, row['accuracies'], style, color=color, label=row['curve'])
    axes[1].plot(numbers * row['MB per round'], row['accuracies'], style, color=color, label=row['curve'])
  axes[0].set(xlabel='round', ylabel='test accuracy')
  axes[1].set(xlabel='uplink, MB', xscale='log')
  for axis in axes:
    axis.grid(alpha=0.3)
  axes[0].legend(fontsize=8)
  figure.tight_layout()
  with harness.replacing(path) as stream:
    figure.savefig(stream, format='png', dpi=100, metadata={'Software': None})
