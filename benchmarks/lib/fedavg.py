"""A small federated averaging loop without TFF, for benchmarks that train the same task with many codecs.

It exists to be fast on one core and exactly paired: for one seed every codec sees the same split, initial weights,
client draws, order of examples and dropout masks, all drawn from named generators, so two runs differ in their
updates' codecs only. Updates travel as real frames: `wire.pack` makes the bytes that are counted and `wire.unpack`
reads them back. Runs are checkpointed after every round and continue where they stopped.
"""

import dataclasses
import hashlib
import json

import numpy as np

from benchmarks.lib import harness
from benchmarks.lib import progress
from tff_compress import codec as codec_lib
from tff_compress import wire
from tff_compress.simulation import datasets
from tff_compress.simulation import splits

SHAPES = {
    'conv1/kernel': (3, 3, 1, 32), 'conv1/bias': (32,),
    'conv2/kernel': (3, 3, 32, 64), 'conv2/bias': (64,),
    'dense1/kernel': (9216, 128), 'dense1/bias': (128,),
    'logits/kernel': (128, 10), 'logits/bias': (10,),
}
"""The variables of the Keras MNIST CNN: 1,199,882 parameters."""


@dataclasses.dataclass(frozen=True)
class Task:
  """Federated averaging of the CNN on Fashion-MNIST with plain SGD."""
  clients: int = 100
  clients_per_round: int = 10
  concentration: float = 0.5
  epochs: int = 1
  batch: int = 20
  learning_rate: float = 0.05

  @property
  def name(self):
    return hashlib.sha256(repr(self).encode()).hexdigest()[:12]


class Trainer:
  """The TensorFlow half: local training and evaluation.

  Args:
    task: `Task`.
    dataset: `Dataset` of 28 x 28 images; None for Fashion-MNIST.
  """

  def __init__(self, task, dataset=None):
    import tensorflow as tf
    self._tf, self._task = tf, task
    self.dataset = dataset or datasets.load('fashion-mnist')
    self._x, self._y = tf.constant(self.dataset.x_train), tf.constant(self.dataset.y_train)
    self._train = tf.function(self._epochs, reduce_retracing=True)
    self._predict = tf.function(lambda weights, x: tf.argmax(self.logits(weights, x), axis=-1, output_type=tf.int32))

  def logits(self, weights, x, dropout=None):
    """float32 [n, 28, 28, 1] -> [n, 10]; `dropout` is an int32[2] seed, or None for inference."""
    tf = self._tf

    def dropped(values, rate, offset):
      if dropout is None:
        return values
      return tf.where(tf.random.stateless_uniform(tf.shape(values), dropout + offset) < rate, 0.0, values / (1 - rate))

    w = dict(zip(SHAPES, weights))
    x = tf.nn.relu(tf.nn.conv2d(x, w['conv1/kernel'], 1, 'VALID') + w['conv1/bias'])
    x = tf.nn.relu(tf.nn.conv2d(x, w['conv2/kernel'], 1, 'VALID') + w['conv2/bias'])
    x = tf.reshape(tf.nn.max_pool2d(x, 2, 2, 'VALID'), [-1, 9216])
    x = tf.nn.relu(tf.matmul(dropped(x, 0.25, 0), w['dense1/kernel']) + w['dense1/bias'])
    return tf.matmul(dropped(x, 0.5, 1 << 30), w['logits/kernel']) + w['logits/bias']

  def gradients(self, weights, x, y, dropout):
    tf = self._tf
    with tf.GradientTape() as tape:
      tape.watch(weights)
      losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, self.logits(weights, x, dropout))
      loss = tf.reduce_mean(losses)
    return tape.gradient(loss, weights)

  def _epochs(self, weights, order, key):
    """SGD over `order` (int32 example indices, all epochs on end): whole batches, and a smaller last one per epoch."""
    tf, task = self._tf, self._task
    size = tf.shape(order)[0] // task.epochs
    for epoch in range(task.epochs):
      step = 0
      while step * task.batch < size:
        first = epoch * size + step * task.batch
        chosen = order[first:tf.minimum(first + task.batch, (epoch + 1) * size)]
        gradients = self.gradients(weights, tf.gather(self._x, chosen), tf.gather(self._y, chosen),
                                   key + tf.stack([epoch, step]))
        weights = [w - task.learning_rate * g for w, g in zip(weights, gradients)]
        step += 1
    return weights

  def train(self, weights, examples, rng):
    """One client's local training: dict of weights -> dict of updates (new minus old)."""
    order = np.concatenate([rng.permutation(examples) for _ in range(self._task.epochs)]).astype(np.int32)
    key = rng.integers(0, 1 << 24, 2, dtype=np.int32)
    new = self._train([self._tf.constant(w) for w in weights.values()], order, key)
    return {name: after.numpy() - before for (name, before), after in zip(weights.items(), new)}

  def accuracy(self, weights):
    """Share of the test images that are classified correctly."""
    values = [self._tf.constant(w) for w in weights.values()]
    x, y = self.dataset.x_test, self.dataset.y_test
    right = sum(int(np.sum(self._predict(values, x[i:i + 500]).numpy() == y[i:i + 500])) for i in range(0, len(x), 500))
    return right / len(x)


def model_bytes():
  """Length of the frame that brings the model to a client as float32, which is the same whatever its values are.

  The loop trains from the weights themselves, which a float32 downlink gives back bit for bit.
  """
  return len(wire.pack(codec_lib('float32'), initial_weights(0), seed=0, round=1, client=0))


def initial_weights(seed):
  """Glorot-uniform kernels and zero biases, as Keras has them."""
  rng = splits.generator('benchmarks/weights', seed)
  weights = {}
  for name, shape in SHAPES.items():
    fan = np.prod(shape[:-2], dtype=int) * (shape[-1] + shape[-2]) if len(shape) > 1 else 0
    limit = np.sqrt(6 / fan) if fan else 0.0
    weights[name] = rng.uniform(-limit, limit, shape).astype(np.float32)
  return weights


class Run:
  """One training with one codec and one seed, as far as it has come.

  Attributes:
    rows: one dict per finished round: round (from 1), accuracy (on the test images) and uplink_bytes (of all clients).
    weights: dict of the global weights.
  """

  def __init__(self, trainer, task, codec, seed, cache=harness.CACHE):
    self._trainer, self._task, self._seed = trainer, task, seed
    self._codec = codec_lib(codec)
    name = hashlib.sha256(str(self._codec).encode()).hexdigest()[:12]
    self._path = cache / 'runs' / task.name / f'{name}-{seed}.npz'
    self._parts = splits.dirichlet(trainer.dataset.y_train, task.clients, task.concentration, seed)
    self.reset()
    if self._path.exists():
      with np.load(self._path) as stored:
        self.rows = json.loads(str(stored['rows']))
        self.weights = {name: stored[name] for name in SHAPES}

  def reset(self):
    """Goes back to the start."""
    self.rows, self.weights = [], initial_weights(self._seed)

  def updates(self):
    """Yields (client, number of examples, update) of the clients of the next round."""
    task, number = self._task, len(self.rows) + 1
    draw = splits.generator('benchmarks/clients', (self._seed, number))
    for client in draw.choice(task.clients, task.clients_per_round, replace=False):
      rng = splits.generator('benchmarks/order', (self._seed, number, int(client)))
      yield int(client), len(self._parts[client]), self._trainer.train(self.weights, self._parts[client], rng)

  def step(self):
    """Runs the next round, evaluates, and saves."""
    number = len(self.rows) + 1
    total, sent, mean = 0, 0, {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}
    for client, examples, update in self.updates():
      frame = wire.pack(self._codec, update, seed=self._seed, round=number, client=client)
      decoded, _ = wire.unpack(self._codec, frame, update, seed=self._seed, round=number, client=client)
      for name in SHAPES:
        mean[name] += np.float32(examples) * decoded[name]
      total, sent = total + examples, sent + len(frame)
    self.weights = {name: w + mean[name] / np.float32(total) for name, w in self.weights.items()}
    self.rows.append({'round': number, 'accuracy': self._trainer.accuracy(self.weights), 'uplink_bytes': sent})
    self._save()

  def _save(self):
    harness.write_arrays(self._path, {'rows': np.asarray(json.dumps(self.rows)), **self.weights})


def finished(trainer, task, codec, seed, rounds, cache=harness.CACHE):
  """Runs or continues one training: the rows of its first `rounds` rounds, or of fewer if an update became NaN or
  infinite."""
  training = Run(trainer, task, codec, seed, cache)
  try:
    while len(training.rows) < rounds:
      progress.say(f'{codec}, seed {seed}: round {len(training.rows) + 1} of {rounds}')
      training.step()
  except codec_lib.UpdateError as error:
    progress.say(f'{codec}, seed {seed}: diverged ({error})')
  return training.rows[:rounds]


def recorded_updates(rounds, task=Task(), seed=0):
  """The updates of all clients of some rounds of a float32 run: {round: [update of each client]}. Cached."""
  folder = harness.CACHE / 'updates' / task.name
  path = lambda number, i: folder / f'seed{seed}-round{number}-{i}.npz'
  wanted = range(task.clients_per_round)
  if not all(path(number, i).exists() for number in rounds for i in wanted):
    training = Run(Trainer(task), task, 'float32', seed, folder)
    training.reset()
    for number in range(1, max(rounds) + 1):
      progress.say(f'recording updates: round {number} of {max(rounds)}')
      if number in rounds:
        for i, (_, _, update) in enumerate(training.updates()):
          harness.write_arrays(path(number, i), update)
      training.step()
    progress.say('')
  result = {}
  for number in rounds:
    result[number] = []
    for i in wanted:
      with np.load(path(number, i)) as stored:
        result[number].append({name: stored[name] for name in SHAPES})
  return result
