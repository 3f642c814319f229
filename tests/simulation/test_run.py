"""Simulated runs: what a configuration may be, the same clients for every codec, and going on where a run was cut
short."""

import contextlib
import csv
import dataclasses
import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from tff_compress import processes
from tff_compress.simulation import folder as folder_lib
from tff_compress.simulation import report
from tff_compress.simulation.config import RunConfig
from tff_compress.simulation.config import settings
from tff_compress.simulation.folder import Folder
from tff_compress.simulation.folder import FolderError
from tff_compress.simulation.run import compare
from tff_compress.simulation.run import run
from tff_compress.simulation.run import variants
from tff_compress.simulation.settings import ConfigError

pytestmark = pytest.mark.xdist_group('tff')

SMALL = RunConfig(model='mlp', clients=8, clients_per_round=4, rounds=4, client_learning_rate=0.2,
                  uplink='uniform:bits=4 | pack', downlink='float16', ema=0.5, evaluate_every=2,
                  evaluation_examples=200, seed=5, checkpoint_every=1, workers=0)


def untimed(rounds):
  return [{name: value for name, value in entry.items() if name != 'seconds'} for entry in rounds]


# ---- configurations
# ----------------------------------------------------------------------------------------------------


BAD = {
    'rounds': dict(rounds=0), 'rounds text': dict(rounds='4'), 'rounds fraction': dict(rounds=4.5),
    'rounds bool': dict(rounds=True),
    'rate nan': dict(client_learning_rate=float('nan')), 'rate inf': dict(client_learning_rate=float('inf')),
    'rate zero': dict(server_learning_rate=0), 'rate text': dict(client_learning_rate='0.1'),
    'momentum': dict(client_momentum=1.0), 'ema': dict(ema=1.0), 'seed': dict(seed=-1), 'seed large': dict(seed=2**64),
    'dataset': dict(dataset='mnist'), 'model': dict(model='resnet'), 'algorithm': dict(algorithm='sgd'),
    'weighting': dict(weighting='x'),
    'uplink': dict(uplink='xyzzy'), 'downlink': dict(downlink='hadamard'),
    'downlink of TFF': dict(downlink='tff:hadamard:bits=1'),
    'baseline': dict(uplink='tff:gzip'), 'baseline bits': dict(uplink='tff:hadamard:bits=99'),
    'clients': dict(clients=3, clients_per_round=4), 'no clients': dict(clients=None),
    'dropout': dict(dropout=True, model='mlp'),
    'server momentum': dict(server_momentum=0.5, server_optimizer='adam'), 'emnist only': dict(max_clients=3),
    'feedback momentum': dict(feedback_momentum=0.5), 'feedback': dict(error_feedback='yes'),
    'downlink changes': dict(downlink_changes=1), 'since': dict(downlink_since='start'),
    'feedback decay': dict(feedback_decay=1.1), 'drop after': dict(feedback_drop_after=-1),
    'states': dict(state_clients=0),
    'state bytes': dict(state_bytes=1.5), 'steps': dict(local_steps=0),
    'steps and epochs': dict(local_steps=3, local_epochs=2),
    'method': dict(uplink='dgc:q=1'), 'p': dict(uplink='stc:p=0'), 'method down': dict(downlink='dgc'),
    'feedback of a baseline': dict(error_feedback=True, uplink='tff:compression_aggregator'),
    'feedback of a method': dict(error_feedback=False, uplink='dgc'),
    'momentum of a method': dict(feedback_momentum=0.5, uplink='dgc'),
    'feedback that a method has not': dict(error_feedback=True, uplink='fetchsgd'),
    'downlink of a vote': dict(downlink='int8', uplink='signum'),
    'changes of a vote': dict(downlink_changes=True, uplink='signum'),
    'weighting of a vote': dict(weighting='examples', uplink='signum'),
    'steps of a method': dict(local_steps=3, uplink='fedpaq'),
    'changes of a prepass': dict(uplink='autoencoder-prepass', downlink_changes=True),
    'downlink of a prepass': dict(downlink='rpn', uplink='autoencoder-prepass'),
    'feedback of a prepass': dict(error_feedback=True, uplink='autoencoder-prepass'),
    'output': dict(output=''), 'output nul': dict(output='a\0b'), 'flag': dict(only_digits=1),
}


@pytest.mark.parametrize('changes', BAD.values(), ids=BAD)
def test_bad_settings_are_refused_in_one_sentence_that_names_them(changes):
  with pytest.raises(ConfigError) as caught:
    RunConfig(**changes)
  text = str(caught.value)
  assert next(iter(changes)) in text and text.endswith('.') and '\n' not in text


def test_a_configuration_survives_json():
  config = RunConfig(client_learning_rate=1, ema=0, uplink='tff:hadamard:bits=2', output='somewhere')
  again = RunConfig(**json.loads(json.dumps(config.as_dict())))
  assert again == config and type(again.client_learning_rate) is float


def test_what_is_not_said_is_settled_by_uplink_and_downlink():
  stc = RunConfig(uplink='stc', downlink='stc', feedback_decay=0.5, feedback_drop_after=7)
  assert stc.feedback == processes.ErrorFeedback(decay=0.5, drop_after=7) and stc.changes == 'last'
  assert RunConfig(uplink='stc').feedback and not RunConfig(uplink='stc', error_feedback=False).has_memory
  assert RunConfig(downlink='rpn').changes == 'start' and RunConfig(downlink='int8').changes == ''
  assert not RunConfig(downlink='stc', downlink_changes=False).has_memory
  assert RunConfig(downlink='int8', downlink_changes=True, downlink_since='start').changes == 'start'
  assert RunConfig(uplink='dgc:momentum=0.5', feedback_decay=0.5).feedback == processes.ErrorFeedback(decay=0.5,
                                                                                                      momentum=0.5)
  assert RunConfig(uplink='fetchsgd', feedback_decay=0.5).feedback is None
  vote = RunConfig(uplink='signsgd-majority')
  assert vote.downlink == 'signsgd' and vote.feedback is None and vote.has_memory
  assert RunConfig(**json.loads(json.dumps(vote.as_dict()))) == vote
  assert RunConfig(uplink='fedpaq:steps=3').steps == 3 and RunConfig(local_steps=4).steps == 4
  assert RunConfig().steps is None
  assert [(c.uplink, c.downlink)
          for c in variants(RunConfig(downlink='int8'), ['dgc', 'signum', ('signum', None), 'stc'])] == [
      ('dgc', 'int8'), ('signum', 'signsgd'), ('signum', 'signsgd'), ('stc', 'int8')]


def test_settings_reach_the_process():
  import tensorflow_federated as tff

  from tff_compress.simulation import engine
  weighting = tff.learning.ClientWeighting
  for config, expected in (
      (RunConfig(uplink='stc', downlink='stc', feedback_decay=0.5), dict(
          uplink='stc', downlink=processes.Changes('stc'), error_feedback=processes.ErrorFeedback(decay=0.5),
          client_weighting=weighting.NUM_EXAMPLES)),
      (RunConfig(uplink='dgc:p=1/4', downlink='rpn', feedback_drop_after=3, weighting='uniform'), dict(
          uplink={0: 'topk:1/4 | float32'}, downlink=processes.Changes('rpn', since='start'),
          error_feedback=processes.ErrorFeedback(momentum=0.9, drop_after=3), client_weighting=weighting.UNIFORM)),
      (RunConfig(uplink='signsgd-majority:step=0.5', feedback_decay=0.5), dict(
          uplink='signsgd', downlink=processes.Changes('signsgd', residual=False, step=0.5), error_feedback=False,
          client_weighting=weighting.UNIFORM))):
    assert engine.process_arguments(config, model=None) == {**expected, 'needs': config.method.needs}


def test_every_server_optimizer_that_is_a_setting_can_be_made():
  from tff_compress.keras import optimizers
  for name in settings()['server_optimizer'].words:
    assert optimizers.of_server(name, 0.1)


def test_variants_have_folders_of_their_own():
  configs = variants(dataclasses.replace(SMALL, output='out'), [
      'float32', 'int8', ('int8', 'int8'), 'hadamard | uniform:bits=2 | pack', 'hadamard|uniform:bits=2|pack'])
  assert len({config.output for config in configs}) == 5
  assert all(os.path.dirname(config.output) == 'out' and ' ' not in config.output for config in configs)
  assert [config.downlink for config in configs[1:3]] == ['float16', 'int8']
  with pytest.raises(ConfigError, match='same output folder'):
    compare([configs[0], dataclasses.replace(configs[1], output='./out/float32')])


# ---- folders
# -----------------------------------------------------------------------------------------------------------


def entry(number):
  return {'round': number, 'uplink_bytes': 10, 'accuracy': None, 'loss': 0.5}


def test_no_two_variants_have_one_folder_whatever_their_texts():
  # The third is the second again, and the first has the name that it would get for that.
  for texts in (['drive:2', 'drive', 'drive '], ['uniform|pack', 'uniform | pack', 'uniform  |pack']):
    configs = variants(dataclasses.replace(SMALL, output='out'), texts)
    assert len({config.output for config in configs}) == len(texts)


def test_folders_of_something_else_are_not_touched(tmp_path):
  (tmp_path / 'thesis.tex').write_text('years of work')
  with pytest.raises(FolderError, match='is not empty and holds no run'):
    Folder(str(tmp_path), SMALL.as_dict())
  assert os.listdir(tmp_path) == ['thesis.tex']
  with pytest.raises(FolderError, match='cannot be used'):
    Folder(str(tmp_path / 'thesis.tex'), SMALL.as_dict())


DAMAGED = {
    'empty': '', 'cut': '{', 'list': '[]', 'bare': '{"format": 1}', 'nested': '[' * 100_000, 'bytes': '\x00\xff',
    'rounds': '{"format": 1, "status": "finished", "config": {}, "parameters": 1, "rounds": [{}]}',
    'version': '{"format": 9, "status": "finished", "config": {}, "parameters": 1, "rounds": []}',
}


@pytest.mark.parametrize('text', DAMAGED.values(), ids=DAMAGED)
def test_damaged_results_are_refused(tmp_path, text):
  (tmp_path / 'result.json').write_text(text, encoding='latin-1')
  with pytest.raises(FolderError) as caught:
    Folder(str(tmp_path), SMALL.as_dict()).read()
  assert str(caught.value).endswith('.') and 'result.json' in str(caught.value)


@pytest.mark.parametrize('changes, words', [
    (dict(uplink='int8'), "uplink='uniform:bits=4 | pack', not 'int8'"), (dict(uplink='dgc'), "not 'dgc'"),
    (dict(feedback_decay=0.5), 'feedback_decay=1.0, not 0.5'), (dict(seed=6), 'seed=5, not 6'),
    (dict(rounds=1), 'a run of 2 rounds, more than 1'), (dict(rounds=9, workers=3, checkpoint_every=7), None)])
def test_a_run_goes_on_only_with_its_own_settings(tmp_path, changes, words):
  Folder(str(tmp_path), SMALL.as_dict()).write_result('finished', [entry(1), entry(2)], parameters=9)
  other = Folder(str(tmp_path), dataclasses.replace(SMALL, **changes).as_dict())
  if words is None:
    assert len(other.read()['rounds']) == 2
  else:
    with pytest.raises(FolderError, match=words):
      other.read()


def test_two_processes_do_not_run_in_one_folder(tmp_path):
  folder = Folder(str(tmp_path), SMALL.as_dict())
  with folder.locked():
    with pytest.raises(FolderError, match='another process is running'):
      with Folder(str(tmp_path), SMALL.as_dict()).locked():
        pass
  with folder.locked():
    pass


def test_writing_replaces_a_file_or_leaves_it(tmp_path, monkeypatch):
  folder = Folder(str(tmp_path), SMALL.as_dict())
  folder.write_result('running', [{**entry(1), 'loss': float('nan')}], parameters=9)
  assert folder.read()['rounds'][0]['loss'] is None

  def fail(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(os, 'replace', fail)
  with pytest.raises(FolderError, match='result.json cannot be written: No space left on device'):
    folder.write_result('running', [entry(1), entry(2)])
  assert os.listdir(tmp_path) == ['result.json'] and len(folder.read()['rounds']) == 1


# ---- runs on a TFF worker
# ----------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def whole(tmp_path_factory, tff_runtime):
  """A run that was not interrupted."""
  del tff_runtime
  seen = []
  result = run(dataclasses.replace(SMALL, output=str(tmp_path_factory.mktemp('whole'))), on_round=seen.append)
  return result, seen


def table(folder):
  with open(os.path.join(folder, 'metrics.csv'), newline='') as file:
    return list(csv.DictReader(file))


def events(folder):
  """{name: [(step, value)]} of the TensorBoard files, in the order they were written."""
  import tensorflow as tf
  found = {}
  board = os.path.join(folder, 'tensorboard')
  for name in sorted(os.listdir(board)):
    for record in tf.compat.v1.train.summary_iterator(os.path.join(board, name)):
      for value in record.summary.value:
        found.setdefault(value.tag, []).append((record.step, float(tf.make_ndarray(value.tensor))))
  return found


def check_files(result):
  """Everything in the folder says what the result says."""
  saved = folder_lib.read_result(result.folder)
  assert saved['status'] == result.status and saved['rounds'] == list(result.rounds)
  assert saved['config'] == result.config.as_dict() and saved['parameters'] == result.parameters
  rows = table(result.folder)
  assert [int(row['round']) for row in rows] == [entry['round'] for entry in result.rounds]
  for name in ('uplink_bytes', 'downlink_bytes_total', 'train_loss', 'accuracy'):
    expected = [entry[name] for entry in result.rounds]
    assert [None if row[name] == '' else float(row[name]) for row in rows] == expected
    steps = [(entry['round'], pytest.approx(entry[name])) for entry in result.rounds if entry[name] is not None]
    assert events(result.folder)[name] == steps
  assert sorted(os.listdir(result.folder)) == ['checkpoints', 'metrics.csv', 'result.json', 'tensorboard']


def test_a_run_reports_every_round(whole):
  result, seen = whole
  assert result.status == 'finished' and [entry['round'] for entry in result.rounds] == [1, 2, 3, 4]
  assert seen == list(result.rounds)
  assert [entry['accuracy'] is None for entry in result.rounds] == [True, False, True, False]
  assert result.accuracy == result.rounds[-1]['accuracy'] > 0.3 and result.rounds[-1]['loss'] == result.loss
  assert result.rounds[-1]['train_loss'] < result.rounds[0]['train_loss']
  for direction, bits in (('uplink', 4), ('downlink', 16)):
    sizes = [entry[f'{direction}_bytes'] for entry in result.rounds]
    assert [entry[f'{direction}_bytes_total'] for entry in result.rounds] == [sum(sizes[:i]) for i in (1, 2, 3, 4)]
    assert sizes[0] > 4 * result.parameters * bits / 8
    for entry in result.rounds:
      assert entry['clients'] == 4 and entry['failed_clients'] == 0
      per_value = 8 * entry[f'{direction}_bytes'] / 4 / result.parameters
      assert entry[f'{direction}_bits_per_parameter'] == pytest.approx(per_value)
      assert entry[f'{direction}_ratio'] == pytest.approx(32 / per_value)
  check_files(result)


def test_a_finished_run_is_returned_at_once(whole):
  result, _ = whole

  def fail(record):
    raise AssertionError('a round was trained')

  assert run(result.config, on_round=fail) == result
  with pytest.raises(FolderError, match="holds a run with uplink="):
    run(dataclasses.replace(result.config, uplink='int8'))


KILLED = textwrap.dedent('''
    import os, signal, sys
    from tff_compress.simulation.config import RunConfig
    from tff_compress.simulation.run import run
    def kill(entry):
      # The second round is being written, or not, when the process ends.
      if entry['round'] == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    run(RunConfig(**eval(sys.argv[1])), on_round=kill)
    ''')


def test_a_killed_run_goes_on_and_ends_as_if_nothing_had_happened(whole, tmp_path):
  config = dataclasses.replace(SMALL, output=str(tmp_path), workers=1)
  process = subprocess.run([sys.executable, '-c', KILLED, repr(config.as_dict())], stdin=subprocess.DEVNULL,
                           capture_output=True, timeout=300)
  assert process.returncode == -signal.SIGKILL, process.stderr.decode()[-2000:]
  cut = folder_lib.read_result(str(tmp_path))
  assert cut['status'] == 'running' and 1 <= len(cut['rounds']) <= 2
  # What other moments would have left behind.
  for name in ('.tff-compress-x7', '.tff-compress-x8', 'checkpoints/round_9_temp1234'):
    os.makedirs(tmp_path / name, exist_ok=True) if 'round' in name else (tmp_path / name).write_text('half a')
  trained = []
  result = run(dataclasses.replace(config, workers=0), on_round=lambda entry: trained.append(entry['round']))
  assert trained and trained[-1] == 4 and trained[0] in (1, 2, 3)
  assert untimed(result.rounds) == untimed(whole[0].rounds)
  check_files(result)


def test_rounds_behind_the_last_checkpoint_are_trained_again(whole, tmp_path):
  """As when a process ends after a round was written and before its checkpoint was; and Ctrl-C, which leaves valid
  files."""
  config = dataclasses.replace(SMALL, output=str(tmp_path), checkpoint_every=2)

  def interrupt(record):
    if record['round'] == 3:
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    run(config, on_round=interrupt)
  saved = folder_lib.read_result(str(tmp_path))
  assert saved['status'] == 'running' and untimed(saved['rounds']) == untimed(whole[0].rounds[:3])
  assert [row['round'] for row in table(tmp_path)] == ['1', '2', '3']
  assert os.listdir(tmp_path / 'checkpoints') == ['round_2']
  # A checkpoint that the disk has lost half of is passed over.
  os.makedirs(tmp_path / 'checkpoints' / 'round_3')
  (tmp_path / 'checkpoints' / 'round_3' / 'saved_model.pb').write_bytes(b'half')
  trained = []
  result = run(config, on_round=lambda entry: trained.append(entry['round']))
  assert trained == [3, 4] and untimed(result.rounds) == untimed(whole[0].rounds)
  check_files(result)


def test_a_run_cut_short_at_its_very_end_has_nothing_left_to_train(whole, tmp_path):
  """As when a process ends between its last checkpoint and the word that it has finished."""
  config = dataclasses.replace(SMALL, output=str(tmp_path))
  shutil.copytree(whole[0].folder, tmp_path, dirs_exist_ok=True)
  Folder(str(tmp_path), config.as_dict()).write_result('running', list(whole[0].rounds), parameters=whole[0].parameters)
  result = run(config, on_round=lambda entry: pytest.fail('a round was trained'))
  assert result.status == 'finished' and result.rounds == whole[0].rounds
  check_files(result)


def test_codecs_see_the_same_clients_and_examples(whole):
  uplinks = ['hadamard | uniform:bits=2 | pack', 'tff:compression_aggregator']
  configs = variants(dataclasses.replace(SMALL, rounds=2), uplinks)
  results = [whole[0], *compare(configs)]
  for number in (0, 1):
    assert len({result.rounds[number]['examples'] for result in results}) == 1
  # Before the first update arrives, nothing that was learned can differ.
  for name in ('train_loss', 'train_accuracy', 'downlink_bytes'):
    assert len({result.rounds[0][name] for result in results}) == 1, name
  assert len({result.rounds[1]['train_loss'] for result in results}) == 3
  baseline = results[2].rounds[1]
  assert 'uplink_bytes' not in baseline and 'uplink_ratio' not in baseline
  assert baseline['uplink_bytes_total_estimate'] == 2 * baseline['uplink_bytes_estimate'] > 0
  # It leaves tensors of up to 20,000 values alone, and this model has no other.
  assert baseline['uplink_bytes_estimate'] == 4 * 4 * results[2].parameters


@pytest.mark.parametrize('uplink', ['float32', 'uniform:bits=2 | pack'])
def test_what_is_evaluated_is_the_average_for_float32_as_for_codecs(uplink, tff_runtime, monkeypatch):
  """Of two runs that differ in `ema` alone, one is evaluated with the averages of the other's weights."""
  del tff_runtime
  from tff_compress.keras.blueprint import Blueprint
  assigned, assign = [], Blueprint.assign
  def recorded(blueprint, weights):
    assigned.append([np.array(w) for w in weights.trainable])
    assign(blueprint, weights)
  monkeypatch.setattr(Blueprint, 'assign', recorded)
  config = dataclasses.replace(SMALL, uplink=uplink, evaluate_every=1, rounds=3, ema=None)
  plain, averaged = run(config), run(dataclasses.replace(config, ema=0.75))
  weights, averages = assigned[:3], assigned[3:]
  for first, second, third, *found in zip(*weights, *averages, strict=True):
    expected = [first, 0.75 * first + 0.25 * second]
    expected.append(0.75 * expected[1] + 0.25 * third)
    for one, other in zip(found, expected, strict=True):
      np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
  losses = [[entry['loss'] for entry in result.rounds] for result in (plain, averaged)]
  assert losses[0][0] == losses[1][0] and losses[0][1:] != losses[1][1:]
  assert [entry['train_loss'] for entry in plain.rounds] == [entry['train_loss'] for entry in averaged.rounds]


def test_divergence_is_a_result(tmp_path):
  config = dataclasses.replace(SMALL, client_learning_rate=1e6, local_epochs=3, output=str(tmp_path), ema=None)
  result = run(config)
  assert result.status == 'diverged' and len(result.rounds) < 4
  assert run(config) == result


def test_a_run_whose_clients_remember_goes_on_as_if_nothing_had_happened(tmp_path, tff_runtime):
  """Stopped two rounds after its last checkpoint: the clients' states go back to it with the server's."""
  del tff_runtime
  config = dataclasses.replace(SMALL, uplink='concat | topk:1/20 | float32', downlink='concat | topk:1/10 | float32',
                               rounds=6,
                               error_feedback=True, downlink_changes=True, checkpoint_every=3)
  whole = run(config)
  first, last = whole.rounds[0], whole.rounds[-1]
  # At first everyone needs the whole model; then most have it, and receive a tenth of it per round that they missed.
  assert first['downlink_ratio'] < 1.01 and first['uplink_ratio'] > 8
  assert last['downlink_bytes'] < 0.6 * first['downlink_bytes']
  assert last['train_loss'] < first['train_loss'] and last['client_states_bytes'] > 4 * 2 * 4 * whole.parameters

  def stop(entry):
    if entry['round'] == 5:
      raise KeyboardInterrupt

  cut = dataclasses.replace(config, output=str(tmp_path))
  with pytest.raises(KeyboardInterrupt):
    run(cut, on_round=stop)
  trained = []
  again = run(cut, on_round=trained.append)
  assert [entry['round'] for entry in trained] == [4, 5, 6]
  assert untimed(again.rounds) == untimed(whole.rounds)

  # A state that was damaged is refused before anything changes; without the file, its client starts anew.
  longer = dataclasses.replace(cut, rounds=7)
  states = list((tmp_path / 'clients').iterdir())
  before = {path: path.read_bytes() for path in states}
  assert before
  for path, data in before.items():
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
  with pytest.raises(processes.StateError, match='is damaged'):
    run(longer)
  assert sorted((tmp_path / 'clients').iterdir()) == sorted(states) and len(
      folder_lib.read_result(str(tmp_path))['rounds']) == 6
  for path in states:
    path.unlink()
  assert [entry['round'] for entry in run(longer).rounds] == [1, 2, 3, 4, 5, 6, 7]


@pytest.fixture(name='one_process')
def fixture_one_process(monkeypatch):
  """All runs of a test share the process whose clients remember: to build it takes most of the time."""
  from tff_compress.keras import learning
  built, build = [], learning.build_with_memory
  monkeypatch.setattr(learning, 'build_with_memory', lambda *args, **kwargs: built[0] if built else (
      built.append(build(*args, **kwargs)) or built[0]))


def test_when_checkpoints_are_made_does_not_change_what_is_trained(tmp_path, tff_runtime, one_process, monkeypatch):
  """A limit of states leaves three of four clients of a round theirs, whatever is kept for going on, stopped or not."""
  del tff_runtime, one_process
  config = dataclasses.replace(SMALL, uplink='concat | topk:1/20 | float32', downlink='float16', error_feedback=True,
                               clients=6, rounds=6, evaluate_every=6, local_steps=2)
  unlimited = untimed(run(config).rounds)
  config = dataclasses.replace(config, state_bytes=unlimited[0]['client_states_bytes'] - 1)
  whole = untimed(run(config).rounds)
  state = unlimited[0]['client_states_bytes'] // 4
  assert [entry['client_states_bytes'] // state for entry in whole] == [3] * 6
  assert whole[-1]['train_loss'] != unlimited[-1]['train_loss']  # The limit is felt.

  def stop(entry):
    if entry['round'] in (3, 5) and entry['round'] not in stopped:
      stopped.append(entry['round'])
      raise KeyboardInterrupt

  for every, seconds, stops in ((1, None, False), (2, None, True), (4, None, True), (None, 0, True),
                                (None, 1000, False)):
    if seconds is not None:
      monkeypatch.setattr(folder_lib, '_CHECKPOINT_SECONDS', seconds)
    cut = dataclasses.replace(config, checkpoint_every=every, output=str(tmp_path / f'{every} {seconds}'))
    stopped, result = [] if stops else [3, 5], None
    while result is None:
      with contextlib.suppress(KeyboardInterrupt):
        result = run(cut, on_round=stop)
    assert untimed(result.rounds) == whole and stopped == [3, 5], (every, seconds)


REMEMBERING = dataclasses.replace(SMALL, uplink='concat | topk:1/20 | float32', error_feedback=True, downlink='float16',
                                  clients=4, clients_per_round=2, rounds=3, evaluate_every=3, local_steps=1)


def test_an_output_folder_may_have_any_name(tmp_path, tff_runtime, one_process):
  del tff_runtime, one_process
  whole = untimed(run(REMEMBERING).rounds)

  def stop(entry):
    if entry['round'] == 2:
      raise KeyboardInterrupt

  for name in ('выход/a', 'a b', '😀', os.fsdecode(b'bad\xff\xfe'), '[*]?'):
    config = dataclasses.replace(REMEMBERING, output=str(tmp_path / name))
    with pytest.raises(KeyboardInterrupt):
      run(config, on_round=stop)
    trained = []
    result = run(config, on_round=trained.append)
    assert untimed(result.rounds) == whole and len(trained) in (1, 2), ascii(name)
    assert sorted(os.listdir(config.output)) == ['checkpoints', 'clients', 'metrics.csv', 'result.json', 'tensorboard']
    assert run(config).rounds == result.rounds


@contextlib.contextmanager
def file_sizes_below(limit, process=0):
  """A block in which a process cannot write larger files: as on a full disk, for root too."""
  limits = resource.prlimit(process, resource.RLIMIT_FSIZE)
  resource.prlimit(process, resource.RLIMIT_FSIZE, (limit, limits[1]))
  try:
    yield
  finally:
    resource.prlimit(process, resource.RLIMIT_FSIZE, limits)


def unfinished(folder):
  """Names of files that are not whole."""
  left = [name for _, folders, names in os.walk(folder) for name in folders + names]
  return [name for name in left if 'temp' in name or name.startswith('.')]


def test_states_of_clients_that_the_disk_has_no_room_for_are_named_and_the_run_goes_on_later(tmp_path, tff_runtime,
                                                                                             one_process):
  """TFF's worker writes them."""
  del one_process
  whole, config = untimed(run(REMEMBERING).rounds), dataclasses.replace(REMEMBERING, output=str(tmp_path))
  with contextlib.ExitStack() as stack:
    with pytest.raises(processes.StateError) as caught:
      run(config, on_round=lambda entry: stack.enter_context(file_sizes_below(1000, tff_runtime.pids[0])))
  assert str(caught.value) == f'the states of clients in {tmp_path}/clients cannot be written: File too large.'
  assert not unfinished(tmp_path) and untimed(run(config).rounds) == whole


@pytest.mark.parametrize('name', ['checkpoints/round_3', 'tensorboard', 'result.json'])
def test_what_a_run_has_no_room_for_is_named_and_nothing_is_half_written(tmp_path, name):
  rounds = [{'round': number, 'clients': number, **{f'{"a" * 40}{i}': 0.5 for i in range(20)}} for number in (1, 2, 3)]
  state = {'state': [np.zeros(10_000)], 'average': [np.ones(3)]}
  folder = Folder(str(tmp_path), {'rounds': 3})
  with folder.locked():
    journal = folder_lib.Journal(folder, 1, {'parameters': 1})
    journal.resume(None, state)
    for count in (1, 2):
      journal.write(rounds[:count], state, last=False)
    journal.wait()
    board, = (tmp_path / 'tensorboard').iterdir()
    limit = {'checkpoints/round_3': 20_000, 'tensorboard': board.stat().st_size + 10, 'result.json': 100}[name]
    with file_sizes_below(limit), pytest.raises(FolderError) as caught:
      journal.write(rounds, state, last=False)
      journal.wait()
    journal.close()
    assert str(caught.value) == f'{tmp_path}/{name} cannot be written: File too large.'
    assert not unfinished(tmp_path)
    again = folder_lib.Journal(folder, 1, {'parameters': 1})
    kept, saved = again.resume(folder_lib.read_result(str(tmp_path)), state)
    assert len(kept) == 2 and np.array_equal(saved['state'][0], state['state'][0])
    again.close()
  assert [row['round'] for row in table(tmp_path)] == ['1', '2']
  assert events(tmp_path)['clients'] == [(1, 1), (2, 2)]


def test_a_folder_that_became_read_only_is_refused_before_anything_is_read_or_trained(tmp_path, monkeypatch):
  config = dataclasses.replace(SMALL, output=str(tmp_path))
  Folder(str(tmp_path), config.as_dict()).write_result('running', [], parameters=1)
  opened = os.open

  def read_only(path, flags, *more, **others):
    if flags & os.O_CREAT:
      raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)
    return opened(path, flags, *more, **others)

  from tff_compress.simulation import datasets
  monkeypatch.setattr(datasets, 'load', lambda *unused, **unused_too: pytest.fail('data was loaded'))
  monkeypatch.setattr(os, 'open', read_only)
  with pytest.raises(FolderError, match='cannot be written: Read-only file system.$'):
    run(config)
  monkeypatch.setattr(os, 'remove', lambda path: read_only(path, os.O_CREAT))
  with pytest.raises(FolderError, match='cannot be removed: Read-only file system.$'):
    run(config, resume=False)


def test_a_round_in_which_nobody_uploads_is_a_round(tff_runtime):
  del tff_runtime
  config = dataclasses.replace(SMALL, uplink='cmfl:threshold=1.0,decay=1.0', downlink=None, clients=4, rounds=3)
  result = run(config)
  first, silent, third = result.rounds
  # Who never took part uploads; then all run against the others.
  assert first['uplink_ratio'] == pytest.approx(1, rel=1e-2)
  assert silent['uplink_bytes'] == silent['uplink_bits_per_parameter'] == 0 and silent['uplink_ratio'] is None
  assert third['uplink_bytes'] == first['uplink_bytes']  # Nothing has moved that an update could run against.
  entry, = report.summarize([report.Run.of(result)])
  # A third of float32's bytes were not sent.
  assert entry.uplink_ratio == pytest.approx(1.5 * first['uplink_ratio'], rel=1e-3)


def test_a_method_by_name_with_local_steps_and_a_limit_of_states(tff_runtime):
  del tff_runtime
  config = dataclasses.replace(SMALL, uplink='dgc:p=1/20,warmup=0', downlink=None, rounds=3, local_steps=2,
                               state_clients=3)
  result = run(config)
  for entry in result.rounds:
    assert entry['examples'] == 4 * 2 * config.batch_size and entry['uplink_ratio'] > 10
    # Residual and velocity of three clients at most, though four took part.
    assert 3 * 2 * 4 * result.parameters <= entry['client_states_bytes'] < 4 * 2 * 4 * result.parameters


def test_a_prepass_is_in_the_totals_and_survives_what_cuts_a_run_short(tmp_path, tff_runtime, one_process, monkeypatch):
  """Cut short in the pre-pass, between it and round 1, and before the pre-pass of a later round: the numbers are the
  same."""
  del tff_runtime, one_process
  from tff_compress.keras import training
  config = dataclasses.replace(
      SMALL, uplink='autoencoder-prepass:latent=4,length=64,least=100,coder=pack,tolerance=0.6', downlink=None,
      rounds=7, evaluate_every=7)
  learned, trained = [], []
  listen = dict(on_prepass=lambda costs, clients: learned.append((costs['round'], costs['prepass_clients'], clients)),
                on_round=lambda entry: trained.append(entry['round']))
  whole = run(config, **listen)
  first, rounds = [(1, 4, 8), (1, 8, 8)], whole.rounds
  again = [(entry['round'], 4, 4) for entry in rounds[1:] if entry['prepass_clients']]
  assert learned == first + again and again and [entry['prepass_clients'] for entry in rounds[:5]] == [8, 0, 0, 0, 0]
  assert 0 < sum(entry['uplink_fallbacks'] for entry in rounds) < 7 * 4
  for direction in ('uplink', 'downlink'):
    sent = [entry[f'{direction}_bytes'] + entry[f'prepass_{direction}_bytes'] for entry in rounds]
    assert rounds[-1][f'{direction}_bytes_total'] == sum(sent) and sent[0] > rounds[0][f'{direction}_bytes']

  def stop(*unused):
    raise KeyboardInterrupt

  cut = dataclasses.replace(config, output=str(tmp_path))
  with pytest.raises(KeyboardInterrupt):
    run(cut, on_prepass=stop)
  assert folder_lib.read_result(str(tmp_path)) is None
  learned.clear()
  with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
    patched.setattr(training.Trainer, 'next', stop)
    run(cut, **listen)
  assert learned == first and folder_lib.read_result(str(tmp_path))['prepass']['prepass_clients'] == 8
  learned.clear()
  trained.clear()
  with pytest.raises(KeyboardInterrupt):
    run(cut, on_prepass=stop, on_round=listen['on_round'])  # Only the pre-pass of a later round is left.
  assert trained == list(range(1, again[0][0]))
  result = run(cut, **listen)
  assert learned == again and trained == [1, 2, 3, 4, 5, 6, 7]
  timeless = lambda entry: {**entry, 'seconds': 0, 'prepass_seconds': 0}
  assert [timeless(entry) for entry in result.rounds] == [timeless(entry) for entry in whole.rounds]
  assert [int(row['prepass_clients']) for row in table(tmp_path)] == [entry['prepass_clients'] for entry in rounds]
