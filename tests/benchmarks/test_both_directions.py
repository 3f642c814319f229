"""Long training with messages in both directions: the networks, exchanges, runs that resume, and paired differences."""

import dataclasses
import types

import numpy as np
import pytest

from benchmarks.lib import exchanges
from benchmarks.lib import networks
from benchmarks.lib import paired
from benchmarks.training import both_directions
from tff_compress.simulation import data
from tff_compress.simulation import models
from tff_compress.subspace.rate import Rate
from tff_compress.timeline import history
from tff_compress.timeline.start import Start

pytestmark = pytest.mark.tf

NETWORK = networks.Network((8, 8, 1), (networks.Conv(4, same=True), networks.Pool(), networks.Dropout(0.5),
                                       networks.Dense(10)))
TASK = paired.Task('digits', NETWORK, clients=6, per_round=3, learning_rate=0.1, rounds=4, every=2, examples=50)
SUBSPACE = exchanges.Subspace('half', Rate(noise=None, first=0.5), uplink_bits=2)
FORMS = [both_directions.codec_named(name, TASK) for name in (
    'fixed-0.5-2/8', 'block-0.5-1/1/2', 'block-0.5-2/2/2-3', 'integers-0.5-4/1')]


@pytest.fixture(scope='module')
def trainer():
  return paired.trainer(TASK)


@pytest.fixture
def run_in(trainer):
  return lambda folder, codec=SUBSPACE, seed=0: paired.Run(trainer, TASK, codec, seed, folder)


@pytest.mark.parametrize('network, model', [
    (both_directions.DIGITS_CNN, 'digits_cnn'), (both_directions.SMALL_CNN, 'small_cnn'),
    (both_directions.MNIST_CNN, 'mnist_cnn')])
def test_networks_are_those_of_the_simulation(network, model):
  model = models.build(model)
  weights = network.initial_weights(3)
  assert [tensor.shape for tensor in network.spec.tensors] == [weight.shape for weight in weights]
  model.set_weights(weights)
  x = np.random.default_rng(0).random((3, *network.shape), np.float32)
  np.testing.assert_allclose(network.logits(weights, x), model(x), rtol=1e-4, atol=1e-5)


def test_local_training_is_plain_sgd_over_batches_with_a_smaller_last_one():
  import tensorflow as tf
  network = networks.Network((4, 4, 1), (networks.Dense(5), networks.Dense(3)))
  rng = np.random.default_rng(0)
  x, y = rng.random((12, 4, 4, 1), np.float32), rng.integers(0, 3, 12).astype(np.int32)
  trainer = networks.Trainer(network, data.Dataset('noise', x, y, x, y, 3), epochs=2, batch=4, learning_rate=0.5)
  weights = network.initial_weights(1)
  vector = np.concatenate([weight.reshape(-1) for weight in weights])
  orders = [np.array([3, 1, 5, 0, 2, 4, 0, 2, 4, 3, 1, 5]), np.array([7, 8, 8, 7])]  # 6 and 2 examples, twice.
  found = trainer.updates(vector, orders, np.zeros((2, 2), np.int32))
  batches = [([3, 1, 5, 0], [2, 4], [0, 2, 4, 3], [1, 5]), ([7, 8], [8, 7])]
  for update, own in zip(found, batches):
    variables = [tf.Variable(weight) for weight in weights]
    for chosen in own:
      with tf.GradientTape() as tape:
        losses = tf.keras.losses.sparse_categorical_crossentropy(
            y[chosen], network.logits(variables, x[chosen]), from_logits=True)
        loss = tf.reduce_mean(losses)
      tf.keras.optimizers.SGD(0.5).apply_gradients(zip(tape.gradient(loss, variables), variables))
    after = np.concatenate([variable.numpy().reshape(-1) for variable in variables])
    np.testing.assert_allclose(update, vector - after, rtol=1e-4, atol=1e-6)


def test_dropout_depends_on_its_seed_and_keeps_the_mean():
  network = networks.Network((50, 50, 1), (networks.Dropout(0.25), networks.Dense(1)))
  weights, x = [np.full((2500, 1), 1 / 2500, np.float32), np.zeros(1, np.float32)], np.ones((1, 50, 50, 1), np.float32)
  drawn = [network.logits(weights, x, np.array([seed, 0], np.int32)).numpy()[0, 0] for seed in (1, 1, 2)]
  assert drawn[0] == drawn[1] != drawn[2] and 0.95 < drawn[0] < 1.05  # sd 0.012
  assert network.logits(weights, x).numpy()[0, 0] == pytest.approx(1, abs=1e-4)


def test_codecs_see_the_same_clients_weights_and_batches(run_in, tmp_path):
  one, other = run_in(tmp_path), run_in(tmp_path, exchanges.Float32())
  for (client, examples, update), (client2, examples2, update2) in zip(one.updates(), other.updates()):
    assert (client, examples) == (client2, examples2)
    np.testing.assert_array_equal(update, update2)


@pytest.mark.parametrize('codec', [SUBSPACE, exchanges.Float32(), *FORMS], ids=lambda codec: codec.name)
def test_a_stopped_run_continues_as_if_it_had_not_stopped(run_in, tmp_path, codec):
  whole = run_in(tmp_path / 'whole', codec)
  for _ in range(4):
    whole.step()
  parts = run_in(tmp_path / 'parts', codec)
  parts.step()
  parts.step()
  parts.save()
  continued = run_in(tmp_path / 'parts', codec)
  assert continued.rounds == 2
  continued.step()
  continued.step()
  assert (continued.up, continued.down, continued.points) == (whole.up, whole.down, whole.points)
  assert continued.figures == whole.figures
  np.testing.assert_array_equal(continued.exchange.model, whole.exchange.model)
  np.testing.assert_equal(continued.exchange.checkpoint(), whole.exchange.checkpoint())
  continued.save()
  finished = run_in(tmp_path / 'parts', codec)
  assert (finished.rounds, finished.points, finished.figures) == (4, whole.points, whole.figures)


def exchange_of(codec, seed=5):
  start = Start.like(NETWORK.initial_weights(seed), seed)
  return codec.begin(NETWORK.spec, start, seed)


def test_a_round_of_float32_moves_the_model_by_the_weighted_mean_and_counts_frames():
  exchange, size = exchange_of(exchanges.Float32()), NETWORK.spec.parameters
  first, updates = exchange.model, np.random.default_rng(1).normal(size=(2, size)).astype(np.float32)
  assert exchange.download(4, True) == 4 * size + 20
  messages = [exchange.upload(client, update) for client, update in enumerate(updates)]
  assert [len(message) for message in messages] == [4 * size + 20] * 2
  exchange.step([(0, 1, messages[0]), (1, 3, messages[1])])
  np.testing.assert_allclose(exchange.model, first - (updates[0] + 3 * updates[1]) / 4, atol=1e-6)


def rounds_of(exchange, count):
  rng = np.random.default_rng(2)
  for _ in range(count):
    exchange.step([(7, 1, exchange.upload(7, rng.normal(size=NETWORK.spec.parameters).astype(np.float32) / 100))])


def test_absent_clients_receive_what_they_missed_and_audits_notice_another_model():
  exchange = exchange_of(SUBSPACE)
  start = exchange.download(0, True)
  here = exchange.download(0, True)
  assert here == history.HEADER_BYTES < start
  rounds_of(exchange, 3)
  missed = exchange.download(0, True)
  rounds_of(exchange, 1)
  one = exchange.download(0, True)
  assert missed - here == 3 * (one - here)
  rounds_of(exchange, 1)
  copy = exchange._copies[4]
  changed = {**copy.held, 'model': np.nextafter(copy.held['model'], np.float32(9))}
  exchange._copies[4] = dataclasses.replace(copy, held=changed)
  with pytest.raises(history.DigestError):
    exchange.download(0, True)


def test_updates_that_are_not_finite_end_a_run_with_the_rounds_that_it_finished(trainer, tmp_path, monkeypatch):
  infinite = types.SimpleNamespace(updates=lambda vector, orders, keys: np.full((3, len(vector)), np.inf, np.float32))
  monkeypatch.setattr(paired, 'trainer', lambda task: infinite)
  assert paired.finished(TASK, SUBSPACE, 0, tmp_path).rounds == 0


def score_of(accuracies, codec='ours', seed=0, **others):
  task = dataclasses.replace(TASK, rounds=len(accuracies), every=1)
  points = [{'round': i + 1, 'accuracy': value, 'averaged': value} for i, value in enumerate(accuracies)]
  run = types.SimpleNamespace(up=[1e6] * len(points), down=[2e6] * len(points), rounds=len(points), points=points,
                              figures={'growth': [1.0] * len(points)}, alarm=None)
  run.__dict__.update(others)
  return {'table': 'per seed', 'task': 'a-short', 'codec': codec, 'seed': seed, 'learning rate': 0.1,
          **both_directions.score(run, task)}


def test_bytes_count_up_to_the_target_and_raw_accuracies_must_hold_for_three_rounds():
  row = score_of([0.5, 0.9, 0.7, 0.8, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5])
  assert row['averaged to target'] == {'round': 2, 'MB up': 2.0, 'MB down': 4.0}
  assert row['accuracy to target'] == {'round': 4, 'MB up': 4.0, 'MB down': 8.0}
  assert (row['MB up'], row['MB down'], row['MB both']) == (10.0, 20.0, 30.0)
  assert row['accuracy'] == 0.5  # The last fifth counts.
  long = score_of([0.01 * (i % 7) for i in range(60)])
  assert long['accuracy @16'] == pytest.approx(0.01 * (6 + 0 + 1) / 3)
  assert long['rounds'] == [*range(2, 61, 2)] and long['MB curve'][:2] == [6.0, 12.0]
  diverged = both_directions.score(types.SimpleNamespace(up=[1], down=[1], rounds=1, points=[], figures={}, alarm=1),
                                   TASK)
  assert (diverged['diverged'], diverged['accuracy']) == (1, 0.1)


def test_differences_are_paired_by_seed():
  rows = [score_of([base + own] * 10, codec, seed) for seed, base in enumerate((0.5, 0.7))
          for codec, own in (('float32', 0), ('ours', 0.01 * (seed + 1)))]
  means = {row['codec']: row for row in both_directions.summary(rows) if row['table'] == 'means'}
  assert means['ours']['accuracy +'] == pytest.approx(1.5) and means['ours']['accuracy s.e.'] == pytest.approx(0.5)
  assert means['ours']['x'] == 1 and means['float32']['accuracy +'] == 0


def test_results_of_the_same_run_are_replaced(tmp_path, monkeypatch):
  monkeypatch.setattr(both_directions, 'PATH', tmp_path / 'results.json')
  monkeypatch.setattr(both_directions, 'TASKS', {'a-short': None})
  both_directions.record([score_of([0.1] * 5, 'float32'), score_of([0.2] * 5)])
  both_directions.record([score_of([0.3] * 5)])
  rows = [row for row in both_directions.stored()['rows'] if row['table'] == 'per seed']
  assert [(row['codec'], row['accuracy']) for row in rows] == [('float32', 0.1), ('ours', pytest.approx(0.3))]
