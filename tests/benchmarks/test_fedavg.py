"""The loop that the training benchmarks share: plain SGD of the CNN, exactly paired, and resumable."""

import types

import numpy as np
import pytest

from benchmarks.lib import fedavg
from benchmarks.training import bytes_to_accuracy
from tff_compress import codec as codec_lib
from tff_compress import wire
from tff_compress.simulation import data
from tff_compress.simulation import models

pytestmark = pytest.mark.tf

TASK = fedavg.Task(clients=4, clients_per_round=2, batch=4, epochs=2)


@pytest.fixture(scope='module')
def trainer():
  rng = np.random.default_rng(0)
  x = lambda n: rng.random((n, 28, 28, 1), dtype=np.float32)
  y = lambda n: (np.arange(n) % 10).astype(np.int32)
  return fedavg.Trainer(TASK, data.Dataset('noise', x(60), y(60), x(30), y(30), 10))


@pytest.fixture(scope='module')
def run_in(trainer):
  return lambda folder, codec='float32', seed=0: fedavg.Run(trainer, TASK, codec, seed, folder)


def test_the_model_is_the_cnn_of_the_simulation(trainer):
  model = models.build('mnist_cnn')
  weights = fedavg.initial_weights(3)
  assert codec_lib.Spec.of(model) == codec_lib.Spec.of(weights)
  model.set_weights(list(weights.values()))
  x = trainer.dataset.x_test
  np.testing.assert_allclose(trainer.logits(list(weights.values()), x), model(x), rtol=1e-4, atol=1e-5)


def test_local_training_is_plain_sgd_over_batches_with_a_smaller_last_one(trainer):
  import tensorflow as tf
  weights, examples = fedavg.initial_weights(0), np.arange(10)
  update = trainer.train(weights, examples, np.random.default_rng(5))

  rng = np.random.default_rng(5)
  order = [rng.permutation(examples) for _ in range(2)]
  key = rng.integers(0, 1 << 24, 2, dtype=np.int32)
  model = [tf.Variable(value) for value in weights.values()]
  optimizer = tf.keras.optimizers.SGD(TASK.learning_rate)
  for epoch, permutation in enumerate(order):
    for step, chosen in enumerate((permutation[:4], permutation[4:8], permutation[8:])):
      x, y = trainer.dataset.x_train[chosen], trainer.dataset.y_train[chosen]
      with tf.GradientTape() as tape:
        losses = tf.keras.losses.sparse_categorical_crossentropy(
            y, trainer.logits(model, x, key + np.array([epoch, step], np.int32)), from_logits=True)
        loss = tf.reduce_mean(losses)
      optimizer.apply_gradients(zip(tape.gradient(loss, model), model))
  for after, (name, before) in zip(model, weights.items()):
    np.testing.assert_allclose(update[name], after.numpy() - before, rtol=1e-3, atol=1e-6)


def test_dropout_drops_a_quarter_and_a_half_and_keeps_the_mean(trainer):
  weights = {name: np.zeros(shape, np.float32) for name, shape in fedavg.SHAPES.items()}
  weights['conv2/bias'] += 1  # All pooled values are 1.
  weights['dense1/kernel'][:, 0] = 1 / 9216  # The first hidden unit is their mean after dropout.
  weights['dense1/bias'][1:] = 1  # The other hidden units are 1.
  weights['logits/kernel'][0, 0] = 1
  weights['logits/kernel'][1:, 1] = 1
  x = np.zeros((400, 28, 28, 1), np.float32)
  logits = trainer.logits(list(weights.values()), x, np.array([1, 2], np.int32)).numpy()
  kept = logits[:, 0] > 0
  assert 0.4 < kept.mean() < 0.6
  # sd of a mean of 9216 values that are 4/3 with probability 3/4: 0.006.
  np.testing.assert_allclose(logits[kept, 0], 2, atol=0.06)
  assert abs(logits[:, 1].mean() - 127) < 3  # sd 11.3 / 20


def test_codecs_see_the_same_clients_split_weights_and_batches(run_in, tmp_path):
  one, other = run_in(tmp_path), run_in(tmp_path, 'shared-mask')
  for (client, examples, update), (client2, examples2, update2) in zip(one.updates(), other.updates()):
    assert (client, examples) == (client2, examples2)
    for name in update:
      np.testing.assert_array_equal(update[name], update2[name])
  assert any(np.any(a[2]['logits/bias'] != b[2]['logits/bias']) for a,
             b in zip(one.updates(), run_in(tmp_path, seed=1).updates()))


def test_a_round_moves_the_weights_by_the_weighted_mean_and_counts_frames(run_in, tmp_path):
  run = run_in(tmp_path, 'int8')
  before, updates = dict(run.weights), list(run.updates())
  run.step()
  frames = [wire.pack('int8', update, seed=0, round=1, client=client) for client, _, update in updates]
  decoded = [wire.unpack('int8', frame, before, seed=0)[0] for frame in frames]
  total = sum(examples for _, examples, _ in updates)
  for name in before:
    mean = sum(examples / total * d[name] for (_, examples, _), d in zip(updates, decoded))
    np.testing.assert_allclose(run.weights[name], before[name] + mean, rtol=1e-5, atol=1e-7)
  assert run.rows[0]['uplink_bytes'] == sum(map(len, frames))
  assert 0 <= run.rows[0]['accuracy'] <= 1


def test_a_stopped_run_continues_as_if_it_had_not_stopped(run_in, tmp_path):
  whole = run_in(tmp_path / 'whole', 'shared-mask')
  whole.step()
  whole.step()
  run_in(tmp_path / 'parts', 'shared-mask').step()
  continued = run_in(tmp_path / 'parts', 'shared-mask')
  assert len(continued.rows) == 1
  continued.step()
  assert continued.rows == whole.rows
  for name in whole.weights:
    np.testing.assert_array_equal(continued.weights[name], whole.weights[name])


def test_a_diverged_run_ends_with_the_rounds_it_finished(trainer, tmp_path):
  infinite = types.SimpleNamespace(dataset=trainer.dataset, accuracy=lambda weights: 0.1,
                                   train=lambda weights, *_: {name: value + np.inf for name, value in weights.items()})
  assert fedavg.finished(infinite, TASK, 'int8', 0, 5, tmp_path) == []


def test_scores_average_three_rounds_and_count_bytes_up_to_the_target():
  rounds = [{'accuracy': a, 'uplink_bytes': 1_000_000} for a in (0.1, 0.9, 0.73, 0.6, 0.9, 0.74)]
  score = bytes_to_accuracy.score(rounds, fedavg.Task())
  assert (score['round'], score['MB up']) == (4, 4.0)  # (0.9 + 0.73 + 0.6) / 3 = 0.743
  down = 4 * 10 * (4 * 1_199_882 + 20) / 1e6  # 4 rounds of 10 clients; float32 and a header.
  assert score['MB down'] == pytest.approx(down) and score['MB both'] == pytest.approx(4 + down)
  assert score['bytes per client and round'] == 100_000
  assert score['final accuracy'] == pytest.approx((0.6 + 0.9 + 0.74) / 3)
  missed = bytes_to_accuracy.score(rounds[:3], fedavg.Task())
  assert missed['round'] is missed['MB up'] is missed['MB down'] is missed['MB both'] is None


def test_losses_are_paired_by_seed():
  rows = []
  for seed, base in enumerate((0.7, 0.8)):
    for codec, loss in (('float32', 0), ('ours', 0.01 * (seed + 1))):
      rounds = [{'accuracy': base - loss, 'uplink_bytes': 1}] * 20
      rows.append({'codec': codec, 'seed': seed, **bytes_to_accuracy.score(rounds, fedavg.Task())})
      bytes_to_accuracy.compare(rows[-1], rows[-2 if loss else -1])
  baseline, ours = bytes_to_accuracy.summary(rows, 20)
  assert baseline['loss at round 20'] == 0
  assert ours['loss at round 20'] == pytest.approx(1.5)
  assert ours['loss at round 20, s.e.'] == pytest.approx(0.5)
  assert ours['reached'] == '1 of 2' and ours['most MB both'] == ours['MB both'] == ours['MB up'] + ours['MB down']
