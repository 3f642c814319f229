"""Published results of learned encoders: quick runs work, and what is counted and compared is what is said."""

import numpy as np
import pytest

from benchmarks.lib import harness
from benchmarks.lib import local_training
from benchmarks.published import break_even
from benchmarks.published import two_collaborators
from benchmarks.published import validation_model
from tests.simulation.files.fashion_mnist import idx
from tests.simulation.files.fashion_mnist import write_files
from tff_compress.codec import network
from tff_compress.simulation import datasets
from tff_compress.simulation.datasets import fashion_mnist

# One process imports TensorFlow for all of them.
pytestmark = [pytest.mark.tf, pytest.mark.xdist_group('autoencoder-results')]


@pytest.fixture(autouse=True)
def folders(monkeypatch, tmp_path):
  monkeypatch.setattr(harness, 'RESULTS', tmp_path / 'results')
  monkeypatch.setattr(two_collaborators, 'FOLDER', tmp_path / 'collaborators')
  monkeypatch.setattr(validation_model, 'FOLDER', tmp_path / 'validation')
  monkeypatch.setattr(two_collaborators, 'CIFAR10', tmp_path / 'none')
  # Compiling a process takes longer than all else here.
  monkeypatch.setattr(two_collaborators, 'PROCESSES', {})


@pytest.fixture(scope='module')
def shapes():
  return datasets.load('colour-shapes')


@pytest.fixture(scope='module')
def trainer():
  return local_training.Trainer('cifar_small', seed=0, batch=25, learning_rate=0.02)


def pictures():
  return [path for path in harness.RESULTS.rglob('*.png') if path.parent.name == 'quick' and path.stat().st_size > 5000]


def of_table(rows, table):
  return [row for row in rows if row['table'] == table]


# -- training


def test_an_epoch_goes_through_all_examples_with_momentum(trainer, shapes):
  """Against the same steps by Keras's own SGD."""
  import tensorflow as tf

  from tff_compress.simulation import models
  x, y = shapes.x_train[:60], shapes.y_train[:60]
  found = list(trainer.epochs(trainer.start, trainer.examples(x, y), 2, np.random.default_rng(3)))
  model = models.build('cifar_small', seed=0)
  optimizer, rng = tf.keras.optimizers.SGD(0.02, momentum=0.9), np.random.default_rng(3)
  for _ in range(2):
    order = rng.permutation(60)
    for chosen in (order[:25], order[25:50], order[50:]):
      with tf.GradientTape() as tape:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y[chosen], model(x[chosen]))
        loss = tf.reduce_mean(losses)
      optimizer.apply_gradients(zip(tape.gradient(loss, model.trainable_variables), model.trainable_variables))
  expected = np.concatenate([variable.numpy().ravel() for variable in model.trainable_variables])
  np.testing.assert_allclose(found[1], expected, atol=1e-5)
  assert np.linalg.norm(found[0] - found[1]) > 1e-3
  accuracy, loss = trainer.score(found[1], trainer.examples(x, y))
  logits = model(x).numpy()
  assert accuracy == pytest.approx(np.mean(logits.argmax(-1) == y), abs=1 / 60)
  expected = float(tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)))
  assert loss == pytest.approx(expected, rel=1e-4)


def test_evaluating_between_epochs_changes_nothing(trainer, shapes):
  examples = trainer.examples(shapes.x_train[:50], shapes.y_train[:50])
  plain = list(trainer.epochs(trainer.start, examples, 2, np.random.default_rng(0)))
  between = []
  for vector in trainer.epochs(trainer.start, examples, 2, np.random.default_rng(0)):
    between.append(vector)
    trainer.score(trainer.start, examples)
  np.testing.assert_array_equal(plain, between)


# -- break-even


def test_the_printed_statements_about_one_decoder_need_different_rounds():
  eight, forty = break_even.statements()
  assert eight['break-even'] == pytest.approx(40.1, abs=0.05) and forty['break-even'] == pytest.approx(8.0, abs=0.05)
  assert forty['savings at 1000'] == pytest.approx(116.4, abs=0.05) and eight['savings at 1000'] < 25
  assert eight['collaborators for 120 times'] == pytest.approx(5_168, abs=1)
  assert forty['collaborators for 120 times'] == pytest.approx(1_034, abs=1)


def test_curves_cross_1_at_break_even_and_end_below_their_limit():
  for row in break_even.printed():
    savings = np.asarray(row['savings'])
    assert np.all(np.diff(savings) > 0) and savings[-1] < row['at most']
    assert np.interp(row['break-even'], row['by'], savings) == pytest.approx(1, rel=0.02)


def test_break_even_of_measured_bytes(trainer):
  rows = break_even.run(quick=True)
  none, pieces, _ = of_table(rows, 'bytes of a message, and once')
  assert none['up'] == none['model float32'] == 4 * trainer.start.size + 20
  # int8 weights, scales and biases of the layer, means and deviations of 16 variables, and a frame.
  assert pieces['decoder'] == 32 * 1024 + 8 * 1024 + 8 * 16 + 20
  curves = {tuple(row[key] for key in ('figure', 'autoencoder', 'directions', 'rounds')): row
            for row in of_table(rows, 'curves')}
  name = 'pieces, principal components'
  one, each = curves['one decoder', name, 'both', 40], curves['a decoder each', name, 'both', None]
  up, model = pieces['up'], pieces['model float32']
  # Forty rounds of 10 collaborators and the decoder of one; each gets encoder and decoder, one trains before the
  # rounds.
  sent = 10 * (40 * (up + model) + pieces['file']) + pieces['decoder'] + model
  assert break_even.at(one, 10) == pytest.approx(10 * 40 * 2 * model / sent)
  sent = 10 * (up + model) + pieces['decoder'] + model
  assert break_even.at(each, 10) == pytest.approx(10 * 2 * model / sent)
  assert all(row['at most'] < 2 for row in curves.values() if row['directions'] == 'both')
  assert len(pictures()) == 1


# -- validation model


@pytest.fixture
def digits_as_fashion_mnist(monkeypatch, tmp_path):
  """The digits, enlarged to 28x28, in Fashion-MNIST's files and where these are found first."""
  digits = datasets.load('digits')
  contents = {f'y_{part}': idx(getattr(digits, f'y_{part}').astype(np.uint8)) for part in ('train', 'test')}
  for part in ('train', 'test'):
    pixels = np.kron(np.uint8(255 * getattr(digits, f'x_{part}')[..., 0]), np.ones((1, 3, 3), np.uint8))
    contents[f'x_{part}'] = idx(np.pad(pixels, ((0, 0), (2, 2), (2, 2))))
  monkeypatch.setattr(fashion_mnist, 'FOLDER', write_files(tmp_path / 'fashion-mnist', contents, packed=False))


@pytest.mark.usefixtures('digits_as_fashion_mnist')
def test_the_validation_model_knows_what_was_learned_and_what_was_not():
  rows = validation_model.run(quick=True)
  per_seed = of_table(rows, 'per seed')
  assert {row['parameters'] for row in per_seed if row.get('parameters')} == {1_034_182}
  found = {(row['autoencoder'], row['learned from']): row for row in per_seed}
  assert found['none', '']['largest gap'] == found['none', '']['error'] == 0
  # Four snapshots span three dimensions, so principal components have all of them.
  known = found['principal components', 'whole log']['error']
  assert known < 0.001 and 3 * known < found['principal components', 'first half']['error']
  previous = found['previous', '']
  assert previous['accuracies'][1:] == found['none', '']['accuracies'][:-1]
  assert {row['autoencoder'] for row in of_table(rows, 'means')} == {name for name, _ in found}
  assert len(pictures()) == 1


# -- two collaborators


def test_grey_is_luma_in_all_channels(shapes):
  x = two_collaborators.grey(shapes.x_test[:5])
  np.testing.assert_allclose(x[..., 1], shapes.x_test[:5] @ [0.299, 0.587, 0.114], atol=1e-6)
  np.testing.assert_array_equal(x[..., 0], x[..., 2])
  assert x.dtype == np.float32


def test_two_collaborators_send_what_is_counted_and_runs_are_made_once():
  rows = two_collaborators.run(quick=True)
  runs = {row['method']: row for row in of_table(rows, 'per seed')}
  plain, pieces = runs['float32'], runs['pieces, components, weights']
  for row in runs.values():
    assert [len(row['accuracies'][name]) for name in two_collaborators.COLLABORATORS] == [2, 2]
    assert [len(row['averaged'][name]) for name in two_collaborators.COLLABORATORS] == [2, 2]
  assert max(plain['errors']) < 1e-6 and 0 < min(pieces['errors']) < 1
  assert plain['bytes of decoders'] == 0 < pieces['bytes of decoders'] < 2 * 45_000
  # The pre-pass takes the model down once more; 35 pieces make 32 latent values each, of a byte and what rANS adds.
  assert pieces['bytes down'] == plain['bytes down'] * 3 // 2
  assert pieces['bytes up'] < 4 * (35 * 32 + 400) < plain['bytes up'] / 30
  assert len(pictures()) == 1
  before = sorted(two_collaborators.FOLDER.iterdir())
  two_collaborators.run(quick=True)
  assert sorted(two_collaborators.FOLDER.iterdir()) == before and len(before) == 2


def test_a_tooth_is_a_drop_at_the_average_and_a_rise_in_the_round_after():
  row = {'accuracies': {'grey': [0.1, 0.5, 0.2, 0.6, 0.2, 0.1]}, 'averaged': {'grey': [0.3, 0.7, 0.4]}}
  # 0.5 falls to 0.3 and comes back to 0.6; 0.6 does not fall.
  assert two_collaborators.drops_and_recovers(row, 'grey').tolist() == [True, False]


def test_what_a_decoder_costs_is_all_but_the_encoder():
  made = network.cosine(64, 8)
  assert set(break_even.arrays(made)) == {'means', 'deviations', '0/weights', '0/scale', '0/bias'}
