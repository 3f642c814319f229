"""When autoencoders pay: savings by collaborators and by rounds, as printed and as measured.

Chandar et al. 2021, figures 10 and 11, for the classifier for CIFAR-10 (550,570 parameters). 'printed' is equations 4
to 6 for the published autoencoder of 352,915,690 parameters, which count values up only. The others are measured: whole
messages with their frames, of changes of weights in two epochs after those that autoencoders were learned from
(synthetic images in colour), latent values of 8 bits and rANS, and once for each decoder the first model down and the
decoder up. Where one decoder is for all, every collaborator gets encoder and decoder down. Savings are against float32:
up alone, or in both directions. Break-even is the number of collaborators or rounds at which they are 1. How much an
update loses is beside the bytes: a message that says nothing pays at once.
"""

import numpy as np

from benchmarks.lib import local_training
from benchmarks.lib import plots
from benchmarks.lib import progress
from tff_compress import wire
from tff_compress.autoencoders import savings
from tff_compress.simulation import datasets

VALUES, LATENT = 550_570, 320
ROUNDS = (8, 40)
"""What break-even at 40 collaborators implies, and what savings of 120 at 1000 do (and the experiment had)."""
COUNTS = [int(n) for n in np.unique(np.round(np.geomspace(1, 10_000, 41)))]
LEARNED = {
    'pieces, principal components': ('linear', 1024, 32),
    'pieces, dense': ('dense', 1024, 32),
    'one piece, principal components': ('linear', VALUES, 7),
}
"""{name: (kind, length, latent)}."""
SNAPSHOTS = 8
_FLAG = 5  # Before a frame of latent values: a byte, and the checksum of its decoder.


def run(quick):
  model, images = ('cifar_small', 50) if quick else ('cifar_cnn', 500)
  sizes = measure(model, images, dict(list(LEARNED.items())[:2]) if quick else LEARNED)
  curves = printed() + [found for row in sizes for found in measured(row, sizes[0])]
  plot(curves, quick)
  return summary(curves) + statements() + sizes + curves


def measure(model, images, learned):
  """Rows of bytes: what a message takes, and what is sent once, without an autoencoder and with each of `learned`."""
  from tff_compress import autoencoders
  from tff_compress.codec import artefacts
  trainer = local_training.Trainer(model, seed=0, batch=25, learning_rate=0.02)
  dataset = datasets.load('colour-shapes')
  examples = trainer.examples(dataset.x_train[:images], dataset.y_train[:images])
  weights = [trainer.start]
  for vector in trainer.epochs(trainer.start, examples, SNAPSHOTS + 2, np.random.default_rng(0)):
    progress.say(f'training {model}: epoch {len(weights)} of {SNAPSHOTS + 2}')
    weights.append(vector)
  deltas = np.diff(weights, axis=0)
  later = [trainer.variables(delta) for delta in deltas[SNAPSHOTS:]]

  def size(codec):
    return float(np.mean([len(wire.pack(codec, x, seed=0, round=1, client=i)) for i, x in enumerate(later)]))

  plain = {'table': 'bytes of a message, and once', 'values': len(trainer.start), 'model float32': size('float32'),
           'model int8': size('int8')}
  rows = [{**plain, 'autoencoder': 'none', 'up': size('float32'), 'decoder': 0, 'file': 0}]
  for name, (kind, length, latent) in learned.items():
    progress.say(f'learning: {name}')
    made = autoencoders.fit(autoencoders.ARCHITECTURES[kind](min(length, len(trainer.start)), latent),
                            deltas[:SNAPSHOTS],
                            trainer.sizes)
    weights = artefacts.add(made)
    codec = f'concat | autoencoder:{latent},length={made.length},weights={weights} | uniform:bits=8 | rans'
    error = autoencoders.fitting.relative_error(made, deltas[SNAPSHOTS:])
    rows.append({**plain, 'autoencoder': name, 'up': size(codec) + _FLAG,
                 'decoder': len(wire.pack('float32', arrays(made), seed=0, round=0, client=0)),
                 'file': len(made.packed), 'error of the messages': float(np.mean(error))})
  progress.say('')
  return rows


def arrays(autoencoder):
  """What a receiver needs of an autoencoder, as a client sends it."""
  found = {'means': autoencoder.means, 'deviations': autoencoder.deviations}
  for i, layer in enumerate(autoencoder.decoder):
    found.update({f'{i}/weights': layer.weights.astype(np.int8), f'{i}/scale': layer.scale, f'{i}/bias': layer.bias})
  return found


def printed():
  """Curves of equations 4 to 6, with half of the autoencoder as the decoder's size, as printed."""
  cost = savings.dense_parameters(VALUES, LATENT) / 2
  one = [curve('one decoder', 'printed', 'up', VALUES, LATENT, cost, rounds) for rounds in ROUNDS]
  return one + [curve('a decoder each', 'printed', 'up', VALUES, LATENT, cost)]


def measured(row, none):
  """Curves from the bytes of a row of `measure`, and of the one without an autoencoder: both figures, all
  directions."""
  found = []
  for directions in ('up', 'both', 'both, int8 down'):
    both = directions != 'up'
    model = row['model int8'] if 'int8' in directions else row['model float32']
    plain = none['up'] + both * none['model float32']
    sent = row['up'] + both * model
    once = row['decoder'] + both * model * (row['decoder'] > 0)
    found += [curve('one decoder', row['autoencoder'], directions, plain, sent, once, rounds, both * row['file'])
              for rounds in ROUNDS]
    found.append(curve('a decoder each', row['autoencoder'], directions, plain, sent, once))
  # Without an autoencoder, and float32 down, there is nothing to save.
  return [row for row in found if row['at most'] > 1]


def curve(figure, autoencoder, directions, plain, sent, cost, rounds=None, each=0):
  """Savings by collaborators for a number of rounds and one decoder, or by rounds with a decoder each.

  Args:
    plain, sent: size of a round of one collaborator without and with the autoencoder.
    cost: of a decoder, once for each.
    rounds: None where savings are by rounds.
    each: what every collaborator gets once.
  """
  plain, sent = (plain, sent) if rounds is None else (plain * rounds, sent * rounds + each)
  return {'table': 'curves', 'figure': figure, 'autoencoder': autoencoder, 'directions': directions, 'rounds': rounds,
          'plain': plain, 'sent': sent, 'cost': cost, 'break-even': savings.break_even(plain, sent, cost),
          'at most': plain / sent, 'by': COUNTS,
          'savings': [savings.savings_ratio(plain, sent, count, cost) for count in COUNTS]}


def at(row, count):
  """A curve's savings at a number of collaborators or rounds."""
  return savings.savings_ratio(row['plain'], row['sent'], count, row['cost'])


def summary(curves):
  """One row per curve."""
  return [{'table': 'break-even', 'figure': row['figure'], 'rounds': row['rounds'], 'autoencoder': row['autoencoder'],
           'directions': row['directions'], 'break-even': row['break-even'], 'savings at 10': at(row, 10),
           'savings at 40': at(row, 40), 'savings at 1000': at(row, 1000), 'at most': row['at most']} for row in curves]


def statements():
  """What is printed about one decoder for all, and what equation 4 gives for each number of rounds."""
  found = {row['rounds']: row for row in printed() if row['rounds']}
  return [{'table': 'printed for one decoder: break-even at 40 collaborators, 120 times beyond 1000', 'rounds': rounds,
           'break-even': row['break-even'], 'savings at 1000': at(row, 1000),
           # Savings of 120: as if what is without the autoencoder were 120 times smaller.
           'collaborators for 120 times': savings.break_even(row['plain'] / 120, row['sent'], row['cost'])}
          for rounds, row in found.items()]


def plot(curves, quick):
  """One decoder for all, of 40 rounds and as printed also of 8, and a decoder each."""
  figure, (axes,) = plots.axes(2, sharey=True)
  shown = {'printed': 'printed', 'pieces, principal components': 'pieces',
           'one piece, principal components': 'one piece'}
  styles = {'up': '-', 'both': ':', 'both, int8 down': '--'}
  for axis, kind, unit in zip(axes, ('one decoder', 'a decoder each'), ('collaborators', 'rounds')):
    for row in curves:
      fewer = row['rounds'] == ROUNDS[0]
      if row['figure'] != kind or row['autoencoder'] not in shown or fewer and row['autoencoder'] != 'printed':
        continue
      color = 'C7' if fewer else f'C{list(shown).index(row["autoencoder"])}'
      label = f'{shown[row["autoencoder"]]}, {row["directions"]}' + f', {ROUNDS[0]} rounds' * fewer
      axis.plot(row['by'], row['savings'], color + styles[row['directions']], label=label)
      if row['by'][0] <= row['break-even'] <= row['by'][-1]:
        axis.plot(row['break-even'], 1, color + 'o', markersize=4)
    axis.axhline(1, color='k', linewidth=0.5)
    axis.set(title=kind, xlabel=unit, xscale='log', yscale='log', ylim=(2e-6, None))
  axes[0].set(title=f'one decoder, {ROUNDS[1]} rounds', ylabel='times less sent than float32')
  plots.save(figure, 'break_even', quick)
