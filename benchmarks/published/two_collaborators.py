"""Two collaborators, one with images in colour and one in grey: the sawtooth of accuracy over 200 epochs.

Chandar et al. 2021, section 4: 40 rounds of 5 epochs, plain average, and an autoencoder of each collaborator's own,
learned from 40 epochs alone. Accuracy is on the collaborator's own kind of test images, after every epoch and after
averaging, where it drops, to recover in the round. CIFAR-10 is used if its archive is at `CIFAR10`, else synthetic
shapes in colour (of which 1,000 images for each, none in both); the classifier is the paper's with a quarter of its
filters (34,930 parameters), so that hundreds of epochs take minutes. 'one piece, dense, weights' is the published form,
with as many latent values as there are epochs alone: more of them would have nothing to learn.

Codecs and frames are those of the process of `build_autoencoder_fed_avg`, but in a loop of its own: epochs inside a
round cannot be seen from outside the process, and the process would send with its fallback what fits badly. A few
minutes a run on one core. Finished runs are kept in benchmarks/.cache/collaborators.
"""

import numpy as np

from benchmarks.lib import harness
from benchmarks.lib import local_training
from benchmarks.lib import plots
from benchmarks.lib import progress
from benchmarks.lib import scores
from tff_compress import simulation
from tff_compress import wire
from tff_compress.simulation import splits

CIFAR10 = harness.CACHE / 'cifar-10-binary.tar.gz'
FOLDER = harness.CACHE / 'collaborators'
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
MODEL = 'cifar_small'
ROUNDS, EPOCHS, ALONE, SEEDS = 40, 5, 40, 1
"""Rounds, epochs in each, epochs of the pre-pass."""
IMAGES, TESTED = 1000, 500
"""Of each collaborator, and of the test images."""
COLLABORATORS = ('colour', 'grey')
EIGHT_BITS = 'uniform:bits=8 | rans'
METHODS = {
    'float32': None,
    'one piece, dense, weights': ('dense', 0, 40, 'weights', 'float32'),
    'one piece, components, weights': ('linear', 0, 39, 'weights', EIGHT_BITS),
    'one piece, components, changes': ('linear', 0, 35, 'changes', EIGHT_BITS),
    'pieces, components, weights': ('linear', 1024, 32, 'weights', EIGHT_BITS),
}
"""{name: (kind, length or 0 for all, latent, what is encoded, codec of latent values)}."""
LEARNING_EPOCHS = 100


PROCESSES = {
    'weights': {'uplink': f'concat | autoencoder:39 | {EIGHT_BITS}', 'target': 'weights'},
    'changes': {'uplink': f'concat | autoencoder:7 | {EIGHT_BITS}', 'target': 'delta'},
}
"""{name: arguments of `build_autoencoder_fed_avg`}."""


def run(quick):
  rounds, epochs, alone, images = (2, 1, 3, 50) if quick else (ROUNDS, EPOCHS, ALONE, IMAGES)
  methods = [list(METHODS)[0], list(METHODS)[-1]] if quick else METHODS
  settings = {'rounds': rounds, 'epochs': epochs, 'alone': alone, 'images': images}
  rows = [finished(trained, 'per seed', METHODS, method=method, seed=seed, **settings)
          for seed in range(1 if quick else SEEDS) for method in methods]
  plot(rows, quick)
  return summary(rows) + [finished(through_process, 'through the process', PROCESSES, method=method, seed=0, **settings)
                          for method in list(PROCESSES)[:1 if quick else None]] + rows


def finished(function, table, methods, **settings):
  """The row that `function` gives for these settings, which is made unless it was."""
  settings['dataset'] = 'cifar10' if CIFAR10.exists() else 'colour-shapes'
  return harness.once(FOLDER, [table, settings, methods[settings['method']], MODEL, LEARNING_EPOCHS],
                      lambda: {'table': table, **settings, **function(**settings)})


def grey(x):
  """float32[n, h, w, 3] -> the same in grey: luma in all three channels."""
  return np.repeat((x @ LUMA)[..., np.newaxis], 3, axis=-1)


def collaborators(trainer, dataset, seed, images):
  """{name: (training, test)} examples: colour's are from the front of one order, grey's follow."""
  order = splits.generator('benchmarks/two-collaborators', seed).permutation(len(dataset.y_train))
  found = {}
  for number, (name, view) in enumerate(zip(COLLABORATORS, (np.asarray, grey))):
    chosen = order[number * images:(number + 1) * images]
    found[name] = (trainer.examples(view(dataset.x_train[chosen]), dataset.y_train[chosen]),
                   trainer.examples(view(dataset.x_test[:TESTED]), dataset.y_test[:TESTED]))
  return found


def trained(method, seed, rounds, epochs, alone, images, dataset):
  """One run.

  Returns:
    dict: `accuracies` of each collaborator after every epoch; `averaged`, those after the average of each
    round; `errors`, the relative error of each message; and bytes of all.
  """
  trainer = local_training.Trainer(MODEL, seed, batch=25, learning_rate=0.01)
  loaded = simulation.load(dataset, path=CIFAR10 if dataset == 'cifar10' else None)
  examples = collaborators(trainer, loaded, seed, images)
  codecs = dict.fromkeys(COLLABORATORS, 'float32')
  target, decoders = 'changes', 0
  if METHODS[method]:
    target = METHODS[method][3]
    for number, (name, (train, _)) in enumerate(examples.items()):
      rng = splits.generator('benchmarks/two-collaborators/alone', (seed, number))
      log = [trainer.start]
      log += progress.bar(trainer.epochs(trainer.start, train, alone, rng), f'{name} alone')
      codecs[name], size = learn(trainer, METHODS[method], np.stack(log), epochs, seed)
      decoders += size
  model = len(wire.pack('float32', trainer.variables(trainer.start), seed=seed, round=0, client=0))
  down = model * len(examples) * (rounds + bool(decoders))
  weights, sent, errors = trainer.start, 0, []
  accuracies, averaged = {name: [] for name in examples}, {name: [] for name in examples}
  for number in range(1, rounds + 1):
    progress.say(f'{method}, seed {seed}: round {number} of {rounds}')
    total = np.zeros(len(weights))
    for client, (name, (train, test)) in enumerate(examples.items()):
      rng = splits.generator('benchmarks/two-collaborators/order', (seed, number, client))
      for local in trainer.epochs(weights, train, epochs, rng):
        accuracies[name].append(trainer.score(local, test)[0])
      vector = local if target == 'weights' else local - weights
      if not np.all(np.isfinite(vector)):
        progress.say(f'{method}, seed {seed}: diverged in round {number}')
        return {'status': f'diverged in round {number}', **padded(accuracies, averaged, rounds, epochs),
                'errors': errors, 'bytes up': sent, 'bytes of decoders': decoders, 'bytes down': down}
      frame = wire.pack(codecs[name], trainer.variables(vector), seed=seed, round=number, client=client)
      parts, _ = wire.unpack(codecs[name], frame, trainer.variables(vector), seed=seed, round=number, client=client)
      decoded = np.concatenate([part.ravel() for part in parts.values()])
      errors.append(float(np.linalg.norm(decoded - vector) / np.linalg.norm(vector)))
      total, sent = total + decoded, sent + len(frame)
    mean = (total / len(examples)).astype(np.float32)
    weights = mean if target == 'weights' else weights + mean
    for name, (_, test) in examples.items():
      averaged[name].append(trainer.score(weights, test)[0])
  progress.say('')
  return {'status': 'finished', **padded(accuracies, averaged, rounds, epochs), 'errors': errors, 'bytes up': sent,
          'bytes of decoders': decoders, 'bytes down': down}


def padded(accuracies, averaged, rounds, epochs):
  """Accuracies as they are; of a run that diverged that of guessing, from the round on in which it did."""
  done = len(averaged[COLLABORATORS[0]])
  fill = [scores.GUESSING] * (rounds - done)
  return {'accuracies': {name: values[:done * epochs] + epochs * fill for name, values in accuracies.items()},
          'averaged': {name: values + fill for name, values in averaged.items()}}


def learn(trainer, method, log, epochs, seed):
  """(codec, bytes of the decoder) that are learned from a log of weights, float32[n, d], the first ones included."""
  from tff_compress import autoencoders
  from tff_compress.codec import artefacts
  kind, length, latent, target, rest = method
  # A round changes weights by so many epochs.
  snapshots = log[1:] if target == 'weights' else log[epochs:] - log[:-epochs]
  made = autoencoders.fit(autoencoders.ARCHITECTURES[kind](length or log.shape[1], latent), snapshots, trainer.sizes,
                          epochs=LEARNING_EPOCHS, seed=seed)
  return f'concat | autoencoder:{latent},length={length},weights={artefacts.add(made)} | {rest}', made.decoder_bytes


def through_process(method, seed, rounds, epochs, alone, images, dataset):
  """The same in the process, with its fallback, and a pre-pass whenever it says that too much was sent with that.

  Returns:
    dict: accuracies after the last quarter's averages, share of fallbacks, pre-passes, and bytes up, all of them.
  """
  import tensorflow as tf
  import tensorflow_federated as tff

  import tff_compress
  from tff_compress import processes
  from tff_compress import runtime
  from tff_compress.simulation import models
  arguments = PROCESSES[method]
  trainer = local_training.Trainer(MODEL, seed, batch=25, learning_rate=0.01)
  loaded = simulation.load(dataset, path=CIFAR10 if dataset == 'cifar10' else None)
  examples = collaborators(trainer, loaded, seed, images)

  def model_fn():
    return tff.learning.models.from_keras_model(
        models.build(MODEL, seed=seed), loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        input_spec=(tf.TensorSpec([None, 32, 32, 3]), tf.TensorSpec([None], tf.int32)))

  def datasets(purpose, number, passes):
    return [simulation.batches(x.numpy(), y.numpy(), batch_size=25, epochs=passes, seed=(seed, purpose, number, client))
            for client, ((x, y), _) in enumerate(examples.values())]

  # A round's change is that of all its epochs; weights are taken after each.
  passes = 1 if arguments['target'] == 'weights' else epochs
  sent, fallbacks, prepasses = 0, 0, 0
  # Keras can trace no model outside of TFF's graphs once there is one in them, so this one is traced before.
  accuracies = {name: [trainer.score(trainer.start, test)[0]] for name, (_, test) in examples.items()}
  with runtime.local_context():
    runner = processes.Runner(tff_compress.build_autoencoder_fed_avg(
        model_fn, **arguments, snapshots=alone // passes, seed=seed,
        client_optimizer_fn=tff.learning.optimizers.build_sgdm(0.01, momentum=0.9)))
    again = True
    for number in range(1, rounds + 1):
      progress.say(f'{method} through the process: round {number} of {rounds}')
      if again:
        metrics = runner.prepass(COLLABORATORS, datasets(0, number, passes))
        sent += tff_compress.aggregators.communication(metrics)['uplink_bytes']
        prepasses += 1
      metrics = runner.next(COLLABORATORS, datasets(1, number, epochs))
      sent += tff_compress.aggregators.communication(metrics)['uplink_bytes']
      fallbacks += int(metrics['aggregator']['uplink_fallbacks'])
      again = bool(metrics['aggregator']['uplink_drift'])
      vector = np.concatenate([np.ravel(weight) for weight in runner.state.global_model_weights.trainable])
      for name, (_, test) in examples.items():
        accuracies[name].append(trainer.score(vector, test)[0])
  quarter = max(1, rounds // 4)
  return {**{f'{name}, averaged, last quarter': float(np.mean(accuracies[name][-quarter:])) for name in examples},
          'fallbacks, %': 100 * fallbacks / (rounds * len(examples)), 'pre-passes': prepasses, 'MB up': sent / 1e6}


def drops_and_recovers(row, name):
  """bool[rounds - 1]: where the average is below the end of its round, and the end of the next above the average."""
  epochs, averaged = np.asarray(row['accuracies'][name]), np.asarray(row['averaged'][name])
  ends = epochs.reshape(len(averaged), -1)[:, -1]
  return (averaged < ends)[:-1] & (ends[1:] > averaged[:-1])


def summary(rows):
  """One row per method and collaborator: means over the seeds."""
  found = []
  for method in dict.fromkeys(row['method'] for row in rows):
    own = [row for row in rows if row['method'] == method]
    for name in COLLABORATORS:
      quarter = max(1, own[0]['rounds'] // 4)
      ends = [np.asarray(row['accuracies'][name]).reshape(row['rounds'], -1)[:, -1] for row in own]
      entry = {'table': 'means', 'data': own[0]['dataset'], 'method': method, 'collaborator': name, 'seeds': len(own),
               'diverged': sum(row['status'] != 'finished' for row in own)}
      for label, values in (('first quarter', [end[:quarter].mean() for end in ends]),
                            ('last quarter', [end[-quarter:].mean() for end in ends]),
                            ('averaged, last quarter', [np.mean(row['averaged'][name][-quarter:]) for row in own])):
        entry[label], entry[f'{label}, s.e.'] = scores.mean_and_error([float(value) for value in values])
      entry['drops and recovers, %'] = 100 * float(np.mean([drops_and_recovers(row, name) for row in own]))
      entry['relative error'] = float(np.mean([row['errors'] for row in own]))
      entry.update({f'MB {label}': float(np.mean([row[f'bytes {key}'] for row in own])) / 1e6
                    for label, key in (('up', 'up'), ('of decoders', 'of decoders'), ('down', 'down'))})
      found.append(entry)
  return found


def plot(rows, quick):
  """The first seed of each method: local epochs, and the average that follows them at the same place."""
  methods = list(dict.fromkeys(row['method'] for row in rows))
  columns = min(3, len(methods))
  figure, axes = plots.axes(columns, rows=-(-len(methods) // columns), sharey=True)
  for axis in axes.ravel()[len(methods):]:
    axis.remove()
  for axis, method in zip(axes.ravel(), methods):
    row = next(row for row in rows if row['method'] == method)
    for number, name in enumerate(COLLABORATORS):
      rounds = np.asarray(row['accuracies'][name]).reshape(row['rounds'], -1)
      curve = np.concatenate([rounds, np.asarray(row['averaged'][name])[:, None]], axis=1)
      places = np.arange(1, rounds.size + 1).reshape(rounds.shape)
      axis.plot(np.concatenate([places, places[:, -1:]], axis=1).ravel(), curve.ravel(), f'C{number}', linewidth=0.8,
                label=name)
    axis.set(title=method, xlabel='epoch')
  for axis in axes[:, 0]:
    axis.set(ylabel='test accuracy')
  plots.save(figure, 'two_collaborators', quick)
