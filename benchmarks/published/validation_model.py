"""The validation model: accuracy with weights that went through an autoencoder, epoch by epoch, on Fashion-MNIST.

Chandar et al. 2021, section 4: a classifier 784-20-10 (15,910 parameters) is trained and its weights logged after every
epoch; an autoencoder 15,910-32-15,910 (1,034,182 parameters, 497 times fewer values) learns from the log; a frozen copy
of the classifier with the decoded weights is evaluated next to the original. What is printed holds if accuracies differ
by at most 2 points in the second half of training. There the autoencoder has seen the weights that it decodes; beside
it are autoencoders that have not: 'first half' learned from that of the log only, 'another client' from the log of a
client with other examples and the same first weights. 'previous', 'middle' and 'mean' send nothing: the weights of the
epoch before, those after half of the epochs, or the mean of the log.

A log and what is learned from it take a minute for each seed on one core, and are kept in benchmarks/.cache/validation.
"""

import numpy as np

from benchmarks.lib import harness
from benchmarks.lib import local_training
from benchmarks.lib import plots
from benchmarks.lib import progress
from benchmarks.lib import scores
from tff_compress.simulation import datasets
from tff_compress.simulation import splits

FOLDER = harness.CACHE / 'validation'
LATENT, EPOCHS, SEEDS = 32, 40, 5
POINTS = 2
"""Largest difference of accuracies that is printed, in points."""
LOGS = ('whole log', 'first half', 'another client')
"""What autoencoders are learned from."""
SETTINGS = {
    'dense, 30 epochs': ('dense', 30, LOGS[:1]),
    'dense, 300 epochs': ('dense', 300, LOGS),
    'principal components': ('linear', 1, LOGS),
}
"""{name: (kind, epochs of learning, logs)}."""


def run(quick):
  settings = {name: SETTINGS[name] for name in (list(SETTINGS)[0], list(SETTINGS)[-1])} if quick else SETTINGS
  epochs, examples = (4, 200) if quick else (EPOCHS, 30_000)
  rows = [row for seed in range(1 if quick else SEEDS) for row in finished(seed, epochs, examples, settings)]
  plot(rows, quick)
  return summary(rows) + rows


def finished(*arguments):
  """The rows of `trained`, which is done once."""
  return harness.once(FOLDER, arguments, lambda: {'rows': trained(*arguments)})['rows']


def trained(seed, epochs, examples, settings):
  """Rows of one seed: accuracies of the original and of every reconstruction."""
  from tff_compress import autoencoders
  dataset = datasets.load('fashion-mnist')
  trainer = local_training.Trainer('mlp', seed, batch=100, learning_rate=0.003)
  rng = splits.generator('benchmarks/validation-model', seed)
  order = rng.permutation(len(dataset.y_train))
  logs = []
  for chosen in (order[:examples], order[examples:2 * examples]):
    local = trainer.examples(dataset.x_train[chosen], dataset.y_train[chosen])
    logs.append(np.stack(list(progress.bar(trainer.epochs(trainer.start, local, epochs, rng), f'seed {seed}'))))
  log, other = logs
  test = trainer.examples(dataset.x_test, dataset.y_test)
  scores = lambda weights: np.array([trainer.score(vector, test) for vector in weights])
  originals, half = scores(log), epochs // 2

  def row(name, learned_from, decoded):
    accuracies, losses = scores(decoded).T
    gaps = 100 * np.abs(accuracies - originals[:, 0])[half:]
    errors = np.linalg.norm(decoded - log, axis=1) / np.linalg.norm(log, axis=1)
    return {'table': 'per seed', 'autoencoder': name, 'learned from': learned_from, 'seed': seed,
            'largest gap': float(gaps.max()), 'mean gap': float(gaps.mean()),
            'loss added': float(np.mean((losses - originals[:, 1])[half:])), 'error': float(errors[half:].mean()),
            'accuracies': accuracies.tolist(), 'losses': losses.tolist(), 'errors': errors.tolist()}

  rows = [row('none', '', log), row('previous', '', np.concatenate([trainer.start[None], log[:-1]])),
          row('middle', '', np.concatenate([log[:half], np.repeat(log[half - 1:half], epochs - half, 0)])),
          row('mean', '', np.repeat(log.mean(0, keepdims=True), epochs, 0))]
  snapshots = dict(zip(LOGS, (log, log[:half], other)))
  for name, (kind, learning_epochs, learned) in settings.items():
    architecture = autoencoders.ARCHITECTURES[kind](log.shape[1], LATENT)
    for learned_from in learned:
      progress.say(f'seed {seed}: {name}, {learned_from}')
      made = autoencoders.fit(architecture, snapshots[learned_from], trainer.sizes, epochs=learning_epochs, seed=seed)
      rows.append({**row(name, learned_from, decoded(made, log)), 'parameters': architecture.parameters,
                   'ratio': architecture.ratio})
  progress.say('')
  return rows


def decoded(autoencoder, log):
  """What an autoencoder makes of each vector of weights, float32[n, d]; latent values are float32, as published."""
  from tff_compress.codec.ops import numpy_ops as xp
  size = log.shape[1]
  return np.stack([autoencoder.decode(xp, autoencoder.encode(xp, vector, size), size) for vector in log])


def summary(rows):
  """One row per autoencoder and what it was learned from: means over the seeds, and how often the gap stays small."""
  found = []
  for name, learned_from in dict.fromkeys((row['autoencoder'], row['learned from']) for row in rows):
    own = [row for row in rows if (row['autoencoder'], row['learned from']) == (name, learned_from)]
    small = sum(row['largest gap'] <= POINTS for row in own)
    entry = {'table': 'means', 'autoencoder': name, 'learned from': learned_from, 'seeds': len(own),
             f'at most {POINTS} points': f'{small} of {len(own)}'}
    for column in ('largest gap', 'mean gap', 'loss added', 'error'):
      entry[column], entry[f'{column}, s.e.'] = scores.mean_and_error([row[column] for row in own])
    entry['accuracy after epoch 1'] = float(np.mean([row['accuracies'][0] for row in own]))
    found.append(entry)
  return found


def plot(rows, quick):
  """The first seed: the original, and each autoencoder by what it was learned from."""
  # The first has the legend, and principal components learn from all logs.
  names = list(dict.fromkeys(row['autoencoder'] for row in rows if row['learned from']))[::-1]
  figure, axes = plots.axes(len(names), sharey=True)
  original = next(row for row in rows if row['autoencoder'] == 'none')
  numbers = np.arange(1, len(original['accuracies']) + 1)
  for axis, name in zip(axes.ravel(), names):
    for number, learned_from in enumerate(LOGS):
      row = next((row for row in rows if (row['autoencoder'], row['learned from']) == (name, learned_from)), None)
      if row:
        axis.plot(numbers, row['accuracies'], f'C{number}', label=f'decoded, learned from {learned_from}')
    axis.plot(numbers, original['accuracies'], 'k', linewidth=1, label='original')
    axis.set(title=name, xlabel='epoch')
  axes[0, 0].set(ylabel='test accuracy')
  plots.save(figure, 'validation_model', quick)
