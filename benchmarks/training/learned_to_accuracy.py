"""Learned encoders against codecs at equal total bytes: two collaborators, many rounds, everything counted that is sent
for it.

Two clients with labels in other proportions (Dirichlet 0.5, Fashion-MNIST) train a classifier with one hidden layer:
784-20-10, that of Chandar et al. 2021, and a wide one, 784-256-10. A round has 50 batches of 20 per client. Messages
are frames as sent. What is sent once counts as well: the decoder of a client's own autoencoder (up), or the file with
encoder and decoder that a server hands out (down, to both). Such a server has learned from 1,000 images that neither
client has and that accuracy is not measured on. `kB in all` leaves out the model's way down, which is the same for all
methods; `MB both` has it, as a frame of float32 for each client and round.

`accuracy` is that on the other 9,000 test images, averaged over the last five evaluations; `behind` is paired with
float32 of the same seed. Finished runs are kept in benchmarks/.cache/learned.
"""

import dataclasses

import numpy as np

from benchmarks.lib import harness
from benchmarks.lib import plots
from benchmarks.lib import progress
from benchmarks.lib import scores
from tff_compress import codec as codec_lib
from tff_compress import wire
from tff_compress.simulation import datasets
from tff_compress.simulation import splits

FOLDER = harness.CACHE / 'learned'
COLLABORATORS, STEPS, BATCH, RATE = 2, 50, 20, 0.05
ROUNDS, EVERY, LAST, SEEDS = 300, 10, 5, 5
SERVERS_IMAGES = 1000
CLIENTS_SNAPSHOTS, SERVERS_SNAPSHOTS = (16, 150), (320, 1)
"""Snapshots that are learned from, and batches between them."""

EDEN = 'hadamard:key=client | eden:bits=1 | pack'
SAMPLED = 'hadamard:rotations=2 | subsample:{} | ' + EDEN
OTHERS = 'concat | hadamard:rotations=2,key=client | eden:bits=1 | pack'
COLUMNS = 'hidden/kernel => autoencoder:{},length=784,order=columns | {}; * => {}'


@dataclasses.dataclass(frozen=True)
class Way:
  """How the clients' updates travel.

  Attributes:
    uplink: codec; with an autoencoder without weights, that is learned.
    architecture: of what is learned, from `tff_compress.autoencoders`.
    by: 'clients': each learns its own and sends the decoder; 'server': one for all.
    target: 'delta' or 'weights'.
    feedback: whether clients add what was lost to their next update.
    epochs: of learning by gradients.
  """
  uplink: str
  architecture: str = ''
  by: str = ''
  target: str = 'delta'
  feedback: bool = False
  epochs: int = 30


def _columns(latent, sample='', others=''):
  """A bit of each latent value, or of a share of them; the same for the other variables."""
  return COLUMNS.format(latent, f'hadamard | subsample:{sample} | {EDEN}' if sample else EDEN,
                        'concat | ' + SAMPLED.format(others) if others else OTHERS)


WHOLE = 'concat | autoencoder:32 | uniform:bits=8 | pack'
WAYS = {
    'narrow': {
        'float32': Way('float32'),
        'EDEN, 1 bit': Way('drive'),
        'EDEN, 1 bit of 1/4': Way('shared-mask:1/4'),
        'EDEN, 1 bit of 1/16': Way('shared-mask:1/16'),
        'EDEN, 1 bit of 1/40': Way('shared-mask:1/40'),
        'EDEN, 1 bit of 1/64': Way('shared-mask:1/64'),
        'STC 1/50': Way('stc:p=1/50', feedback=True),
        'STC 1/400': Way('stc', feedback=True),
        'published: own dense, whole, of weights': Way(WHOLE, 'dense', 'clients', 'weights', epochs=300),
        'own PCA, whole, of weights': Way(WHOLE, 'linear', 'clients', 'weights'),
        'own dense, whole': Way(WHOLE, 'dense', 'clients', epochs=300),
        'own PCA, whole': Way(WHOLE, 'linear', 'clients'),
        'own PCA of columns': Way(COLUMNS.format(32, 'uniform:bits=8 | pack', OTHERS), 'linear', 'clients'),
        "server's PCA of rows, 1 bit": Way(COLUMNS.format(32, EDEN, OTHERS).replace('columns', 'rows'), 'linear',
                                           'server'),
        'cosines of columns, 1 bit': Way(COLUMNS.format('32,weights=cosine', EDEN, OTHERS)),
        "server's dense of columns, 1 bit": Way(_columns(32), 'dense', 'server', epochs=100),
        "server's PCA of columns, 8 bits": Way(COLUMNS.format(32, 'uniform:bits=8 | pack', OTHERS), 'linear', 'server'),
        "server's PCA of columns, 1 bit": Way(_columns(32), 'linear', 'server'),
        "server's PCA of columns, 64, 1 bit": Way(_columns(64), 'linear', 'server'),
        "server's PCA of columns, 64, 1 bit of 1/4": Way(_columns(64, '1/4', '1/4'), 'linear', 'server'),
    },
    'wide': {
        'float32': Way('float32'),
        "server's PCA of columns, 64, 1 bit of 1/32": Way(_columns(64, '1/32', '1/8'), 'linear', 'server'),
        "server's PCA of columns, 64, 1 bit of 1/128": Way(_columns(64, '1/128', '1/16'), 'linear', 'server'),
        'EDEN, 1 bit of 1/512': Way('shared-mask:1/512'),
        'EDEN, 1 bit of 1/256': Way('shared-mask:1/256'),
        'EDEN, 1 bit of 1/128': Way('shared-mask:1/128'),
        'STC 1/3000': Way('stc:p=1/3000', feedback=True),
        'STC 1/400': Way('stc', feedback=True),
    },
}
HIDDEN = {'narrow': 20, 'wide': 256}
ALONE_NAME = 'nothing: each alone'


class Classifier:
  """784-h-10 with ReLU, softmax cross-entropy and plain SGD: small enough for NumPy.

  Args:
    hidden: h.
    x, y: float32[n, 784] and int[n].
  """

  def __init__(self, hidden, x, y):
    self.shapes = {'hidden/kernel': (784, hidden), 'hidden/bias': (hidden,), 'logits/kernel': (hidden, 10),
                   'logits/bias': (10,)}
    self.x, self.y = x, y

  def initial(self, seed):
    """Glorot-uniform kernels and zero biases."""
    rng, weights = splits.generator('benchmarks/learned/weights', seed), {}
    for name, shape in self.shapes.items():
      limit = np.sqrt(6 / sum(shape)) if len(shape) > 1 else 0.0
      weights[name] = rng.uniform(-limit, limit, shape).astype(np.float32)
    return weights

  def train(self, weights, examples, steps, rng):
    """The update (new less old) of `steps` batches of examples drawn anew."""
    kernel, bias, out, shift = (w.copy() for w in weights.values())
    rate = np.float32(RATE)
    for _ in range(steps):
      batch = rng.choice(examples, BATCH)
      x = self.x[batch]
      hidden = np.maximum(x @ kernel + bias, 0)
      slope = _softmax(hidden @ out + shift)
      slope[np.arange(BATCH), self.y[batch]] -= 1
      slope *= rate / BATCH
      inner = (slope @ out.T) * (hidden > 0)
      out -= hidden.T @ slope
      shift -= slope.sum(0)
      kernel -= x.T @ inner
      bias -= inner.sum(0)
    return {name: new - old for (name, old), new in zip(weights.items(), (kernel, bias, out, shift))}

  def accuracy(self, weights, x, y):
    kernel, bias, out, shift = weights.values()
    return float(np.mean(np.argmax(np.maximum(x @ kernel + bias, 0) @ out + shift, 1) == y))


def _softmax(x):
  x = np.exp(x - x.max(1, keepdims=True))
  return x / x.sum(1, keepdims=True)


def model_bytes(hidden):
  """Length of the frame that brings a model with so many hidden units to a client as float32."""
  return len(wire.pack(codec_lib('float32'), Classifier(hidden, None, None).initial(0), seed=0, round=1, client=0))


class Task:
  """Data and models of one seed."""

  def __init__(self, hidden, seed):
    dataset = datasets.load('fashion-mnist')
    flat = lambda x: x.reshape(len(x), -1).astype(np.float32)
    order = splits.generator('benchmarks/learned/server', seed).permutation(len(dataset.x_test))
    own, test = order[:SERVERS_IMAGES], order[SERVERS_IMAGES:]
    self.seed, self.hidden = seed, hidden
    self.model = Classifier(hidden, flat(dataset.x_train), dataset.y_train)
    self.servers = Classifier(hidden, flat(dataset.x_test)[own], dataset.y_test[own])
    self.test = flat(dataset.x_test)[test], dataset.y_test[test]
    self.parts = splits.dirichlet(dataset.y_train, COLLABORATORS, 0.5, seed)

  def snapshots(self, way, rule, client):
    """What is learned from; `client` is None for the server's."""
    from tff_compress.codec.ops import numpy_ops as xp
    model, examples = (self.servers, np.arange(SERVERS_IMAGES)) if client is None else (self.model, self.parts[client])
    weights = self.model.initial(self.seed if client is not None else self.seed + 1000)
    rng, found = splits.generator('benchmarks/learned/alone',
                                  (self.seed, COLLABORATORS if client is None else client)), []
    count, steps = SERVERS_SNAPSHOTS if client is None else CLIENTS_SNAPSHOTS
    for _ in range(count):
      update = model.train(weights, examples, steps, rng)
      weights = {name: w + update[name] for name, w in weights.items()}
      found.append(rule.take(xp, list((weights if way.target == 'weights' else update).values())))
    return np.asarray(found)

  def learned(self, way):
    """(codec of each client, bytes up, bytes down) of what is sent once."""
    if not way.architecture:
      return [codec_lib(way.uplink)] * COLLABORATORS, 0, 0
    from tff_compress import autoencoders
    rule = autoencoders.LearnedRule(way.uplink,
                                    {name: np.zeros(shape, np.float32) for name, shape in self.model.shapes.items()})
    architecture = autoencoders.ARCHITECTURES[way.architecture](rule.length, rule.stage.latent)
    fit = lambda client: autoencoders.fit(architecture, self.snapshots(way, rule, client), rule.sizes,
                                          epochs=way.epochs,
                                          seed=self.seed)
    if way.by == 'server':
      one = fit(None)
      return [rule.learned(one)] * COLLABORATORS, 0, COLLABORATORS * len(one.packed)
    found = [fit(client) for client in range(COLLABORATORS)]
    return [rule.learned(one) for one in found], sum(one.decoder_bytes for one in found), 0


def trained(hidden, seed, name, way, rounds):
  """One run: {'up once', 'down once', 'rounds': [{round, bytes (so far), accuracy}]}. Cached."""
  settings = {'hidden': hidden, 'seed': seed, 'rounds': rounds, 'way': dataclasses.asdict(way),
              'snapshots': {'clients': CLIENTS_SNAPSHOTS, 'server': SERVERS_SNAPSHOTS, '': None}[way.by]}
  return harness.once(FOLDER, settings, lambda: {'settings': settings, **train(hidden, seed, name, way, rounds)})


def train(hidden, seed, name, way, rounds):
  """Does what `trained` says."""
  task = Task(hidden, seed)
  codecs, up, down = task.learned(way)
  weights, sent, rows = task.model.initial(seed), up + down, []
  kept = [{variable: np.float32(0) for variable in weights} for _ in range(COLLABORATORS)]
  examples = [len(part) for part in task.parts]
  for number in range(1, rounds + 1):
    progress.say(f'{name}, {hidden} units, seed {seed}: round {number} of {rounds}')
    following = {variable: np.zeros_like(w) for variable, w in weights.items()}
    for client, codec in enumerate(codecs):
      rng = splits.generator('benchmarks/learned/batches', (seed, number, client))
      update = task.model.train(weights, task.parts[client], STEPS, rng)
      if way.feedback:
        update = {variable: u + kept[client][variable] for variable, u in update.items()}
      of_weights = way.target == 'weights'
      x = {variable: weights[variable] + u for variable, u in update.items()} if of_weights else update
      frame = wire.pack(codec, x, seed=seed, round=number, client=client)
      decoded, _ = wire.unpack(codec, frame, x, seed=seed, round=number, client=client)
      if way.feedback:
        kept[client] = {variable: u - decoded[variable] for variable, u in update.items()}
      sent += len(frame)
      for variable, old in weights.items():
        new = decoded[variable] if of_weights else old + decoded[variable]
        following[variable] += np.float32(examples[client] / sum(examples)) * new
    weights = following
    if number % EVERY == 0 or number == rounds:
      rows.append({'round': number, 'bytes': sent, 'accuracy': task.model.accuracy(weights, *task.test)})
  return {'up once': up, 'down once': down, 'rounds': rows}


def alone(hidden, seed, rounds):
  """Accuracy of a client that trains as long and sends nothing, mean over both."""
  task, found = Task(hidden, seed), []
  for client in range(COLLABORATORS):
    weights = task.model.initial(seed)
    update = task.model.train(weights, task.parts[client], rounds * STEPS,
                              splits.generator('benchmarks/learned/nothing', (seed, client)))
    found.append(task.model.accuracy({name: w + update[name] for name, w in weights.items()}, *task.test))
  return float(np.mean(found))


def run(quick):
  """Trains; `quick` does so for three ways and two rounds of the narrow model.

  Returns:
    List of rows: the means, then those of each seed.
  """
  rounds, seeds = (2, 1) if quick else (ROUNDS, SEEDS)
  quick_ways = ('float32', 'EDEN, 1 bit of 1/16', "server's PCA of columns, 1 bit")
  wanted = {'narrow': {name: WAYS['narrow'][name] for name in quick_ways}} if quick else WAYS
  rows = []
  for model, ways in wanted.items():
    down = COLLABORATORS * rounds * model_bytes(HIDDEN[model])
    for seed in range(seeds):
      for name, way in ways.items():
        result = trained(HIDDEN[model], seed, name, way, rounds)
        last = result['rounds'][-LAST:]
        total = result['rounds'][-1]['bytes']
        rows.append({'table': 'per seed', 'model': model, 'method': name, 'seed': seed,
                     'kB up once': result['up once'] / 1e3, 'kB down once': result['down once'] / 1e3,
                     'kB in all': total / 1e3, 'MB both': (total + down) / 1e6,
                     'bytes a message': (total - result['up once'] - result['down once']) / (COLLABORATORS * rounds),
                     'accuracy': float(np.mean([entry['accuracy'] for entry in last])),
                     'curve': [(entry['bytes'], entry['accuracy']) for entry in result['rounds']]})
      rows.append({'table': 'per seed', 'model': model, 'method': ALONE_NAME, 'seed': seed, 'kB up once': 0.0,
                   'kB down once': 0.0, 'kB in all': 0.0, 'MB both': 0.0, 'bytes a message': 0.0,
                   'accuracy': alone(HIDDEN[model], seed, rounds), 'curve': []})
  plot(rows, quick)
  return summary(rows) + rows


def summary(rows):
  """One row per model and method: means over the seeds, and points behind float32."""
  result = []
  for model, method in dict.fromkeys((row['model'], row['method']) for row in rows):
    own = [row for row in rows if (row['model'], row['method']) == (model, method)]
    entry = {'table': model, 'method': method, 'seeds': len(own)}
    for column in ('bytes a message', 'kB up once', 'kB down once', 'kB in all', 'MB both', 'accuracy'):
      entry[column], _ = scores.mean_and_error([row[column] for row in own])
    losses = [100 * (other['accuracy'] - row['accuracy']) for row in own for other in rows
              if (other['model'], other['method'], other['seed']) == (model, 'float32', row['seed'])]
    entry['behind'], entry['behind, s.e.'] = scores.mean_and_error(losses)
    result.append(entry)
  return result


def plot(rows, quick):
  models = list(dict.fromkeys(row['model'] for row in rows))
  figure, axes = plots.axes(2, len(models))
  for (axis, beside), model in zip(axes, models):
    for number, method in enumerate(dict.fromkeys(row['method'] for row in rows if row['model'] == model
                                                  and row['curve'])):
      curves = np.asarray([row['curve'] for row in rows if row['model'] == model and row['method'] == method])
      axis.plot(curves[:, :, 0].mean(0) / 1e3, curves[:, :, 1].mean(0), color=f'C{number % 10}',
                linestyle='-' if number < 10 else '--', label=method)
    axis.set(xscale='log', title=f'784-{HIDDEN[model]}-10', xlabel='kB sent, but for the float32 downlink',
             ylabel='test accuracy')
    # What training loses altogether is in the table.
    axis.set_ylim(bottom=None if quick else 0.6)
    beside.axis('off')
    beside.legend(*axis.get_legend_handles_labels(), loc='center left', fontsize=7)
  plots.save(figure, 'learned_to_accuracy', quick)
