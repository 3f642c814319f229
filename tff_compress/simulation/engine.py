"""The rounds of a simulated run: data, split, model, TFF's process, evaluation."""

import contextlib
import functools
import os
import time

import numpy as np
import tensorflow as tf

from tff_compress import codec as codec_lib
from tff_compress import processes
from tff_compress import runtime
from tff_compress.aggregators import uplink as uplink_lib
from tff_compress.keras import learning
from tff_compress.keras import optimizers
from tff_compress.keras import training
from tff_compress.keras.blueprint import Blueprint
from tff_compress.keras.clients import Clients
from tff_compress.processes import figures as figures_lib
from tff_compress.processes import methods
from tff_compress.simulation import config as config_lib
from tff_compress.simulation import folder as folder_lib
from tff_compress.simulation import models
from tff_compress.simulation import splits
from tff_compress.timeline.start import Start

_TEST_BATCH = 1000


def train(config, dataset, parts, folder, before, on_round, on_prepass):
  """Trains all rounds of a run, or those that are missing.

  Args:
    config: `RunConfig`.
    dataset: `Dataset`.
    parts: list of arrays with the indices of each client's examples.
    folder: `Folder`, or None.
    before: dict of an earlier result.json, or None.
    on_round: called with the dict of each new round; or None.
    on_prepass: called as `run` says; or None.

  Returns:
    (status, why it did not finish or '', rounds, parameters).
  """
  model = _model(config, dataset)
  start = _start(model, config.seed)
  clients = Clients([(dataset.x_train[part], dataset.y_train[part]) for part in parts], model,
                    batch_size=config.batch_size,
                    local_epochs=config.local_epochs, local_steps=config.steps, shuffle=True, seed=config.seed)
  blueprint = Blueprint(model, clients.element_spec)
  parameters = blueprint.trainable_spec.parameters
  aggregator, estimate = _uplink(config, blueprint)
  evaluate = _Evaluation(model, dataset, config)
  average = processes.MovingAverage(config.ema or 0.0)
  journal = None
  with _workers(config.workers), contextlib.ExitStack() as stack:
    process = _process(config, model, blueprint, aggregator, folder, start)
    trainer = training.Trainer(blueprint, clients, config.clients_per_round, process, config.method)
    rounds = []
    if folder is not None:
      journal = folder_lib.Journal(folder, config.checkpoint_every, {'parameters': parameters})
      stack.callback(journal.close)
      rounds, saved = journal.resume(before, {'state': trainer.state, 'average': trainer.weights})
      if saved is not None:
        trainer.restore(saved['state'], rounds, journal.learned)
        if rounds:
          average = processes.MovingAverage(config.ema or 0.0, saved['average'])
      if config.has_memory:
        process.store.rewind(trainer.round)
    status, reason = folder_lib.RUNNING, ''
    while trainer.round < config.rounds:
      if config.has_memory and journal is not None:
        process.store.kept_rounds = journal.checkpoints
      learned = trainer.learn(functools.partial(_tell_of_prepass, on_prepass, trainer.round + 1))
      if learned and journal is not None and not trainer.round:
        journal.begin({'state': trainer.state, 'average': trainer.weights}, trainer.learned)
      start = time.perf_counter()
      try:
        record = trainer.next()
      except training.Diverged as error:
        status, reason = folder_lib.DIVERGED, str(error)
        break
      average.update(trainer.state)
      entry = _entry(record, rounds, estimate, blueprint)
      if trainer.round % config.evaluate_every == 0 or trainer.round == config.rounds:
        blueprint.assign(average.weights)
        entry['loss'], entry['accuracy'] = evaluate()
      entry['seconds'] = time.perf_counter() - start
      rounds.append(entry)
      if journal is not None:
        journal.write(rounds, {'state': trainer.state, 'average': average.weights}, last=trainer.round == config.rounds)
      if on_round is not None:
        on_round(dict(entry))
    else:
      status = folder_lib.FINISHED
    if journal is not None:
      journal.end(status, rounds, reason)
  return status, reason, rounds, parameters


def _tell_of_prepass(on_prepass, coming, learned, clients):
  if on_prepass is not None:
    on_prepass({'round': coming, **learned}, clients)


def _model(config, dataset):
  model = models.build(config.model, input_shape=dataset.input_shape, num_classes=dataset.num_classes,
                       seed=config.seed & 0x7FFFFFFF, dropout=config.dropout)
  model.compile(optimizer='sgd', **dataset.kind.compile_arguments())
  return model


def _start(model, seed):
  """Gives the model weights that a few bytes say, of the distributions that it has: the `Start` that says them.

  All runs do, also those that send first weights otherwise, so that they begin alike whatever they send.
  """
  start = Start.like([variable.numpy() for variable in model.trainable_variables], seed)
  for variable, value in zip(model.trainable_variables, start.weights(codec_lib.Spec.of(model))):
    variable.assign(value)
  return start


def _codec_text(codec):
  return 'float32' if codec == 'none' else codec


def _uplink(config, blueprint):
  """(aggregation factory, or None of a process with one of its own; bytes per client and round by estimate, or
  None)."""
  if config.has_memory:
    return None, None
  if not config.baseline:
    codec = codec_lib(config.method.uplink)
    codec.plan(blueprint.trainable_spec)  # Says what is wrong before a worker is started.
    return uplink_lib(codec, seed=config.seed, spec=blueprint.trainable_spec), None
  from tff_compress.simulation import baselines
  bits = config_lib.hadamard_bits(config.uplink)
  return baselines.aggregator(bits), baselines.bytes_estimate(bits, blueprint.weights().trainable)


def _process(config, model, blueprint, aggregator, folder, start):
  """What `Trainer` runs: a learning process, or a `Runner` of one whose clients remember."""
  common = dict(
      client_optimizer=optimizers.sgd(config.client_learning_rate, config.client_momentum),
      server_optimizer=optimizers.of_server(config.server_optimizer, config.server_learning_rate,
                                            config.server_momentum),
      seed=config.seed,
      proximal_strength=config.proximal_strength if config.algorithm == 'fedprox' else 0.0)
  if not config.has_memory:
    return learning.build(blueprint, aggregator=aggregator, downlink=codec_lib(_codec_text(config.downlink)),
                          uniform=config.weighting == 'uniform', **common)
  process = learning.build_with_memory(blueprint, config.method, process_arguments(config, model, start),
                                        **common)
  return processes.Runner(process, folder=None if folder is None else os.path.join(folder.path, folder_lib.CLIENTS),
                          max_clients=config.state_clients, max_bytes=config.state_bytes)


def process_arguments(config, model, start=None):
  """What the uplink's `Method.build` is given for a `RunConfig` and a Keras model, besides model and optimizers: a
  dict.

  Args:
    config: `RunConfig`.
    model: the Keras model.
    start: the `Start` that its weights are drawn with; None where they are others.
  """
  if config.method.both_ways:
    downlink = None
  else:
    text = _codec_text(config.downlink)
    downlink = processes.Changes(text, since=config.changes) if config.changes else codec_lib(text)
  arguments = learning.method_arguments(config.method, model, downlink, config.weighting == 'uniform')
  if start is not None:
    arguments.update(config.method.arguments_of_start(start, model))
  if config.feedback != config.method.error_feedback:  # What the run itself says of it.
    arguments['error_feedback'] = config.feedback or False
  return arguments


def _entry(record, rounds, estimate, blueprint):
  """What the result says of a round, from what `Trainer.next` returns."""
  entry = {'round': record['round'], 'clients': record['clients'], 'failed_clients': record['failed_clients'],
           'examples': record['examples'], 'train_loss': record['loss'], 'train_accuracy': record.get('accuracy'),
           'loss': None, 'accuracy': None}
  measured = methods.figures()
  for direction in ('uplink', 'downlink'):
    figures = {name: record[name] for name in record if name.startswith(direction)}
    suffix = ''
    if direction == 'uplink' and estimate is not None:
      values, suffix = blueprint.trainable_spec.parameters, '_estimate'
      figures = {'uplink_bytes': estimate * record['clients'], 'uplink_bits_per_parameter': 8 * estimate / values,
                 'uplink_ratio': 4 * values / estimate}
    total = f'{direction}_bytes_total{suffix}'
    figures = {name + suffix: value for name, value in figures.items()}
    entry.update(figures)
    entry[total] = ((rounds[-1].get(total, 0) if rounds else 0) + figures[f'{direction}_bytes{suffix}']
                    + figures_lib.sent(measured, direction, record))
  entry.update({figure.name: record[figure.name] for figure in measured if figure.name in record})
  return entry


class _Evaluation:
  """Loss and accuracy of the model on the test set, or on as much of it as the configuration says. The accuracy is None
  for kinds of data that have none."""

  def __init__(self, model, dataset, config):
    x, y = dataset.x_test, dataset.y_test
    if config.evaluation_examples is not None and config.evaluation_examples < len(x):
      # One shuffle for every run on this data set, as the examples may be sorted by label.
      chosen = np.sort(splits.generator('evaluation', 0).permutation(len(x))[:config.evaluation_examples])
      x, y = x[chosen], y[chosen]
    self._model, self._kind, self._count = model, dataset.kind, y.size
    self._batches = [(tf.constant(x[i:i + _TEST_BATCH]), tf.constant(y[i:i + _TEST_BATCH]))
                     for i in range(0, len(x), _TEST_BATCH)]
    specs = tf.TensorSpec([None, *x.shape[1:]], x.dtype), tf.TensorSpec([None, *y.shape[1:]], y.dtype)
    self._step = tf.function(self._sums).get_concrete_function(*specs)

  def _sums(self, x, y):
    outputs = self._model(x, training=False)
    loss = tf.reduce_sum(self._kind.losses(y, outputs))
    return loss, tf.reduce_sum(tf.cast(self._kind.hits(y, outputs), tf.int32)) if self._kind.accuracy else None

  def __call__(self):
    sums = [self._step(x, y) for x, y in self._batches]
    loss = sum(float(loss) for loss, _ in sums) / self._count
    return loss, sum(int(hits) for _, hits in sums) / self._count if self._kind.accuracy else None


@contextlib.contextmanager
def _workers(count):
  if not count:
    with training.running():
      yield
    return
  cores = len(os.sched_getaffinity(0))
  with runtime.local_context(workers=count, max_concurrent_computation_calls=max(1, cores // count)):
    yield
