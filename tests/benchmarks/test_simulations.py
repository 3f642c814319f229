"""Benchmarks of simulated runs: each run is made once, scores are what they say, comparisons are paired by seed."""

import json

import numpy as np
import pytest

from benchmarks.codecs import methods
from benchmarks.lib import harness
from benchmarks.lib import scores
from benchmarks.lib import simulations
from benchmarks.published import non_iid
from benchmarks.published import rpn
from benchmarks.published import structured
from benchmarks.rounds import client_store
from benchmarks.training import methods_to_accuracy
from tff_compress.simulation import run as run_lib

pytestmark = pytest.mark.thorough

UP, DOWN, CLIENTS = 100, 400, 10
TRAINING = methods_to_accuracy, non_iid, structured, rpn


@pytest.fixture
def trained(monkeypatch, tmp_path):
  """Runs that take no time: list of the configurations that were trained; accuracy rises by 0.1 a round up to 0.8."""
  configs = []

  def run(config, on_round):
    configs.append(config)
    rounds = []
    for number in range(1, config.rounds + 1):
      evaluated = number % config.evaluate_every == 0 or number == config.rounds
      rounds.append({'round': number, 'clients': CLIENTS, 'accuracy': min(0.8, 0.1 * number) if evaluated else None,
                     'uplink_bytes': UP, 'downlink_bytes': DOWN, 'uplink_bytes_total': UP * number,
                     'downlink_bytes_total': DOWN * number})
      on_round(rounds[-1])
    return run_lib.RunResult(config, 'finished', 7, tuple(rounds))

  monkeypatch.setattr(simulations, 'FOLDER', tmp_path / 'simulations')
  monkeypatch.setattr(harness, 'RESULTS', tmp_path / 'results')
  monkeypatch.setattr(run_lib, 'run', run)
  return configs


def test_a_run_is_trained_once_and_another_for_other_settings(trained):
  first = simulations.finished(uplink='int8', rounds=2)
  assert simulations.finished(rounds=2, uplink='int8') == first and len(trained) == 1
  simulations.finished(uplink='int8', rounds=2, seed=1)
  assert [config.seed for config in trained] == [0, 1]
  stored = [json.loads(path.read_text())['settings'] for path in simulations.FOLDER.iterdir()]
  assert {'uplink': 'int8', 'rounds': 2, 'seed': 1} in stored


def test_the_score_is_the_first_mean_of_three_rounds_that_reaches_the_target(trained):
  del trained
  score = simulations.score(simulations.finished(rounds=10), 0.6)
  # Rounds 5, 6 and 7 have the mean 0.6 (0.5, 0.6 and 0.7).
  assert score['round'] == 7
  assert score['MB up'] == pytest.approx(7 * UP / 1e6) and score['MB down'] == pytest.approx(7 * DOWN / 1e6)
  assert score['bytes up'] == UP / CLIENTS and score['bytes down'] == DOWN / CLIENTS
  assert score['final accuracy'] == pytest.approx(0.8)
  missed = simulations.score(simulations.finished(rounds=10), 0.81)
  assert missed['round'] is missed['MB up'] is missed['MB down'] is None


def test_a_run_that_diverges_counts_as_guessing():
  entry = {'round': 1, 'clients': 1, 'accuracy': 0.7, 'uplink_bytes': UP, 'downlink_bytes': DOWN}
  for rounds in ([], [entry]):
    score = simulations.score({'status': 'diverged', 'rounds': rounds}, 0.6)
    assert score['final accuracy'] == pytest.approx(0.1) and score['round'] is None


def test_the_error_of_a_mean_is_that_of_independent_values():
  mean, error = scores.mean_and_error([1.0, 2.0, 6.0])
  assert mean == 3 and error == pytest.approx(np.sqrt(7 / 3))
  assert scores.mean_and_error([1.0]) == (1.0, None)
  assert scores.mean_and_error([]) == (None, None)


def test_losses_are_paired_by_seed():
  rows = [{'method': method, 'seed': seed, 'round': 3, 'MB up': 1.0, 'MB down': 2.0, 'bytes up': 1, 'bytes down': 1,
           'final accuracy': 0.7 + 0.1 * seed - loss, 'loss': 100 * loss}
          for seed in range(3) for method, loss in (('float32', 0.0), ('other', 0.01))]
  other = methods_to_accuracy.summary(rows)[1]
  assert other['loss'] == pytest.approx(1) and other['loss, s.e.'] == pytest.approx(0, abs=1e-12)
  assert other['MB'] == 3 and other['reached'] == '3 of 3' and other['final accuracy'] == pytest.approx(0.79)


@pytest.mark.parametrize('benchmark', TRAINING, ids=lambda module: module.__name__)
def test_quick_runs_train_little_and_give_a_table_of_means(trained, benchmark):
  rows = benchmark.run(quick=True)
  assert 2 <= len(trained) <= 12 and max(config.rounds for config in trained) <= 40
  means = [row for row in rows if row['table'] == 'means']
  assert means and all(row['seeds'] == 1 for row in means)
  for path in harness.RESULTS.rglob('*.png'):
    assert path.parent.name == 'quick' and path.stat().st_size > 5000


@pytest.mark.parametrize('benchmark', TRAINING, ids=lambda module: module.__name__)
def test_full_runs_have_settings_that_go_together(trained, benchmark):
  rows = benchmark.run(quick=False)
  assert len(trained) == len({repr(config) for config in trained})
  assert not list(harness.RESULTS.rglob('quick'))
  assert {row['seeds'] for row in rows if row['table'] == 'means'} <= {2, 3, 5}


def test_all_methods_of_the_non_iid_curve_make_the_same_number_of_iterations(trained):
  non_iid.run(quick=False)
  assert {config.rounds * config.local_steps for config in trained} == {non_iid.ITERATIONS, non_iid.LONG}


def test_every_fifth_update_is_whole():
  config = run_lib.RunConfig(uplink=rpn.every_fifth(10))
  assert config.method.uplink == 'rpn @4 float32 @5 rpn @9 float32 @10 rpn'


def test_the_printed_ratios_of_sbc_are_below_what_its_formula_says_and_payloads_have():
  rows = methods.configurations(methods.positions(quick=True))
  assert [round(row['formula']) for row in rows] == [2784, 3947, 39468]
  for row in rows:
    assert row['printed'] < row['measured'] <= row['formula'] * 1.001
    assert row['measured'] == pytest.approx(row['formula'], rel=0.05)


def test_the_store_holds_what_was_written_and_another_process_reads_it(tmp_path):
  written = client_store.measure('write', tmp_path, 1000, 20)
  # 20 residuals, and less than 100 bytes beside each.
  assert 20 * 4000 < 1e6 * written['MB stored'] < 20 * 4100
  assert client_store.measure('read', tmp_path, 1000, 20)['ms to read'] > 0
