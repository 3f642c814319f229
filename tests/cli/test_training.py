"""`run`, `compare`, `demo` and `report` without training: what they ask for, what they print, and how they end."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest

from tff_compress import cli
from tff_compress import processes
from tff_compress.cli.progress import Progress
from tff_compress.runtime.errors import NotMergeableError
from tff_compress.simulation import config as config_lib
from tff_compress.simulation import folder
from tff_compress.simulation import run as run_lib
from tff_compress.simulation.report import plots
from tff_compress.simulation.report.runs import FLOAT32

PARAMETERS = 1000


def entry(number, config):
  """What a round measures: a codec whose text is longer is a little worse and sends less."""
  up, down = (32 if text in FLOAT32 else 8 for text in (config.uplink, config.downlink))
  count = config.clients_per_round * PARAMETERS // 8
  suffix = '_estimate' if config.baseline else ''
  return {'round': number, 'clients': config.clients_per_round, 'failed_clients': 0, 'examples': 100, 'train_loss': 1.0,
          'train_accuracy': 0.5, 'loss': 1.0, 'accuracy': 0.5 + number / 100 - len(config.uplink) / 1000,
          'seconds': 0.5,
          f'uplink_bytes{suffix}': count * up, f'uplink_bits_per_parameter{suffix}': up,
          f'uplink_ratio{suffix}': 32 / up,
          'downlink_bytes': count * down, 'downlink_bits_per_parameter': down, 'downlink_ratio': 32 / down}


@pytest.fixture
def trained(monkeypatch):
  """Stands in for training; the list of all configurations that were asked for, and of `resume`."""
  asked = []
  def compare(configs, *, on_round, on_prepass, resume):
    results = []
    for position, config in enumerate(configs):
      asked.append((config, resume))
      rounds = [entry(number, config) for number in range(1, config.rounds + 1)]
      for item in rounds:
        on_round(position, item)
      results.append(run_lib.RunResult(config, 'finished', PARAMETERS, tuple(rounds), config.output))
    return results
  monkeypatch.setattr(run_lib, 'compare', compare)
  for name in ('plot_rounds', 'plot_bytes'):  # They take most of the time, and have tests of their own.
    monkeypatch.setattr(plots, name, lambda series, theme: b'PNG')
  monkeypatch.setenv('TF_CPP_MIN_LOG_LEVEL', '3')  # The command sets it, and this puts it back.
  return asked


def test_help_names_every_setting(capsys):
  for command in ('run', 'compare'):
    assert cli.main([command, '--help']) == 0
    shown = capsys.readouterr().out
    for name in config_lib.settings():
      assert '--' + name.replace('_', '-') in shown


def test_run_without_flags_is_the_default_run(trained, capsys):
  assert cli.main(['run']) == 0
  assert trained == [(run_lib.RunConfig(), True)]
  captured = capsys.readouterr()
  assert 'auto' in captured.out and 'Report' not in captured.out
  # One line a round where no terminal is.
  assert captured.err.count('\n') == run_lib.RunConfig().rounds and 'round 20/20, accuracy 69.6 %' in captured.err


def test_compare_without_uplinks_compares_the_default_with_float32(trained):
  assert cli.main(['compare']) == 0
  assert [(config.uplink, config.downlink) for config, _ in trained] == [('float32', 'float32'), ('auto', 'auto')]


def test_flags_win_over_the_file(trained, tmp_path):
  (tmp_path / 'run.yaml').write_text('rounds: 3\nuplink: drive\nclient_learning_rate: 1e-2\n')
  assert cli.main(['run', '--config', str(tmp_path / 'run.yaml'), '--rounds', '2', '--server-momentum', '0.9', '--ema',
                   'none']) == 0
  assert trained[0][0] == run_lib.RunConfig(rounds=2, uplink='drive', client_learning_rate=0.01, server_momentum=0.9)


def test_restart_is_asked_for(trained):
  assert cli.main(['run', '--rounds', '1', '--restart']) == 0
  assert trained[0][1] is False


def test_json_alone_is_on_standard_output(trained, tmp_path, capsys):
  assert cli.main(['run', '--rounds', '4', '--uplink', 'int8', '--json', '--output', str(tmp_path / 'out')]) == 0
  shown = json.loads(capsys.readouterr().out)
  assert [item['round'] for item in shown['rounds']] == [1, 2, 3, 4] and shown['status'] == 'finished'
  assert shown['config']['uplink'] == 'int8' and shown['summary'][0]['uplink_ratio'] == 4
  assert os.path.isfile(shown['report'])


def test_compare_trains_every_pair_with_every_seed(trained, tmp_path, capsys):
  out = tmp_path / 'out'
  assert cli.main(['compare', '--uplink', 'int8', '--uplink', 'drive', '--downlink', 'float32', '--seeds', '2',
                   '--seed', '5',
                   '--rounds', '3', '--output', str(out)]) == 0
  assert [(c.uplink, c.downlink, c.seed) for c, _ in trained] == [
      (up, 'float32', seed) for seed in (5, 6) for up in ('float32', 'int8', 'drive')]
  # Nothing else differs: same clients, same data.
  assert len({dataclasses.replace(c, uplink='float32', seed=0, output=None) for c, _ in trained}) == 1
  assert len({c.output for c, _ in trained}) == 6 and all(c.output.startswith(str(out)) for c, _ in trained)
  shown = capsys.readouterr().out
  for uplink in ('float32', 'int8', 'drive'):
    assert f'\n{uplink} ' in shown
  assert '± 0.00' in shown and f'Report: {out / "report.html"}' in shown
  page = (out / 'report.html').read_text()
  assert 'tff-compress compare --uplink int8 --uplink drive' in page and str(out) in page


def test_compare_pairs_uplinks_and_downlinks_in_order(trained, tmp_path):
  assert cli.main(['compare', '--uplink', 'int8', '--uplink', 'drive', '--downlink', 'int8', '--downlink', 'float16',
                   '--rounds', '1',
                   '--output', str(tmp_path / 'out')]) == 0
  assert [(c.uplink, c.downlink) for c, _ in trained] == [('float32', 'float32'), ('int8', 'int8'),
                                                          ('drive', 'float16')]


def test_compare_takes_methods_with_what_belongs_to_them(trained, tmp_path, capsys):
  assert cli.main(['compare', '--uplink', 'stc:p=1/400', '--uplink', 'dgc', '--uplink', 'signsgd-majority', '--uplink',
                   'int8',
                   '--uplink', 'stc @5 stc:p=1/50', '--rounds', '1', '--output', str(tmp_path / 'out')]) == 0
  assert [(c.uplink, c.downlink, c.feedback is not None) for c, _ in trained] == [
      ('float32', 'float32', False), ('stc:p=1/400', 'float32', True), ('dgc', 'float32', True),
      ('signsgd-majority', 'signsgd', False), ('int8', 'float32', False), ('stc @5 stc:p=1/50', 'float32', True)]
  shown = capsys.readouterr().out
  for row in ('stc:p=1/400', 'dgc', 'signsgd-majority', 'int8', 'stc @5 stc:p=1/50'):
    assert f'\n{row} ' in shown
  assert len({c.output for c, _ in trained}) == 6


@pytest.mark.parametrize('plain', ['float32', 'none'])
def test_float32_is_not_trained_twice(trained, tmp_path, plain):
  assert cli.main(['compare', '--uplink', 'int8', '--uplink', plain, '--uplink', 'int8', '--rounds', '1', '--output',
                   str(tmp_path)]) == 0
  assert [c.uplink for c, _ in trained] == ['int8', plain]


def test_compare_takes_lists_from_the_file(trained, tmp_path):
  (tmp_path / 'c.yaml').write_text('uplink: [int8, "*/bias => float32; * => uniform | pack"]\nseeds: 2\nrounds: 1\n'
                                   f'output: {tmp_path / "o"}\n')
  assert cli.main(['compare', '--config', str(tmp_path / 'c.yaml')]) == 0
  assert len(trained) == 6 and trained[2][0].uplink == '*/bias => float32; * => uniform | pack'


def test_rows_are_sorted_by_total_bytes_or_what_is_asked_for(trained, tmp_path, capsys):
  arguments = ['compare', '--uplink', 'drive', '--uplink', 'uniform:bits=8 | pack', '--downlink', 'none', '--downlink',
               'int8', '--rounds', '2', '--output', str(tmp_path), '--json']
  def uplinks(*more):
    assert cli.main([*arguments, *more]) == 0
    return [row['uplink'] for row in json.loads(capsys.readouterr().out)['summary']]
  assert uplinks() == ['float32', 'drive', 'uniform:bits=8 | pack']
  assert uplinks('--sort', 'ratio') == ['float32', 'uniform:bits=8 | pack', 'drive']
  assert 'aria-sort="descending"><button>×&nbsp;both' in (tmp_path / 'report.html').read_text(encoding='utf-8')


def test_an_estimate_is_marked_in_table_and_json(trained, tmp_path, capsys):
  arguments = ['compare', '--uplink', 'tff:compression_aggregator', '--rounds', '2', '--output', str(tmp_path)]
  assert cli.main(arguments) == 0
  assert '≈' in capsys.readouterr().out
  assert cli.main([*arguments, '--json']) == 0
  plain, baseline = json.loads(capsys.readouterr().out)['summary']
  for name in ('uplink_bytes', 'total_bytes'):
    assert f'{name}_estimate' in baseline and name not in baseline and name in plain


def test_demo_goes_both_ways_and_begins_anew(trained, tmp_path, capsys):
  assert cli.main(['demo', '--output', str(tmp_path)]) == 0
  assert len(trained) == 4 and not any(resume for _, resume in trained)
  links = [(c.uplink, c.downlink) for c, _ in trained]
  assert links[0] == ('float32', 'float32') and all('float32' not in pair for pair in links[1:])
  assert capsys.readouterr().out.endswith(f'Report: {tmp_path / "report.html"}\n')


@pytest.mark.parametrize('arguments, says', [
    (['run', '--rounds', '0'], '--rounds must be'),
    (['run', '--rounds', '-3'], 'rounds'),
    (['run', '--rounds', 'nan'], '--rounds must be a whole number'),
    (['run', '--rounds', '1e3'], '--rounds must be a whole number'),
    (['run', '--client-learning-rate', 'nan'], '--client-learning-rate must be'),
    (['run', '--client-learning-rate', 'inf'], '--client-learning-rate must be'),
    (['run', '--client-learning-rate', '0'], '--client-learning-rate must be'),
    (['run', '--clients', '5', '--clients-per-round', '6'], '--clients-per-round is 6'),
    (['run', '--uplink', 'hadamrd | pack'], 'did you mean hadamard'),
    (['run', '--uplink', 'eden | pack'], 'hadamard:key=client'),
    (['run', '--uplink', ''], 'uplink'),
    (['run', '--downlink', 'tff:compression_aggregator'], 'downlink'),
    (['run', '--uplink', 'tff:hadamard:bits=99'], 'N from 1 to 16'),
    (['run', '--model', 'resnet'], 'model'),
    (['run', '--round', '3'], 'did you mean --rounds'),
    (['run', '--dropout', 'perhaps'], 'true or false'),
    (['run', '--config', 'missing.yaml'], 'missing.yaml'),
    (['run', '--output', ''], 'output'),
    (['run', '--seed', str(2**64)], 'seed'),
    (['run', '--uplink', 'dgcc'], 'did you mean dgc'),
    (['run', '--uplink', 'stc:p=0'], 'above 0 and at most 1'),
    (['run', '--uplink', 'dgc:p=1.5'], 'above 0 and at most 1'),
    (['run', '--uplink', 'dgc', '--error-feedback', 'false'], 'leave them out'),
    (['run', '--uplink', 'signum', '--downlink', 'int8'], 'leave it out'),
    (['run', '--downlink', 'dgc'], 'give it as uplink'),
    (['run', '--uplink', 'int8 @9 drive @9 int8'], 'must rise'),
    (['run', '--local-steps', '3', '--local-epochs', '2'], 'takes the place'),
    (['run', '--feedback-decay', '2'], '--feedback-decay must be'),
    (['run', '--workers', '0'], '--workers must be a whole number from 1 to 256'),
    (['run', '--max-clients', '3'], '--max-clients and --only-digits are for emnist'),
    (['run', '--state-bytes', '1e3'], 'whole number'),
    (['compare', '--uplink', 'stc', '--uplink', 'signum', '--downlink', 'stc'], 'leave it out'),
    (['compare', '--uplink', 'int8', '--seeds', '0'], 'seeds'),
    (['compare', '--uplink', 'int8', '--seeds', '99999'], 'seeds'),
    (['compare', '--uplink', 'int8', '--seeds', '2', '--seed', str(2**64 - 1)], 'seed'),
    (['compare', '--uplink', 'int8', '--downlink', 'int8', '--downlink', 'drive'], '1 uplink and 2 downlinks'),
    (['compare', '--uplink', 'int8', '--uplink', 'nothing'], 'there is no stage'),
    (['report', 'missing'], 'missing'),
    (['report'], 'DIR'),
    (['report', '.', '--sort', 'acuracy'], 'did you mean accuracy'),
    (['compare', '--uplink', 'int8', '--sort', 'uplink'], '--sort'),
])
def test_bad_input_is_one_sentence_and_trains_nothing(trained, arguments, says, capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert cli.main(arguments) == 2
  captured = capsys.readouterr()
  assert captured.out == '' and captured.err.count('\n') == 1 and says in captured.err
  assert not trained and not os.listdir(tmp_path)


@pytest.mark.parametrize('line, says', [
    ('round: 3', 'did you mean rounds?'), ('seeds: 3', 'there is no setting'), ('rounds: .nan', 'whole number'),
    ('client_learning_rate: .inf', 'client_learning_rate'), ('uplink: [int8]', 'must be a text'),
    ('rounds: 3\nrounds: 4', 'twice'),
])
def test_a_bad_file_is_one_sentence_and_trains_nothing(trained, line, says, capsys, tmp_path):
  (tmp_path / 'run.yaml').write_text(line)
  assert cli.main(['run', '--config', str(tmp_path / 'run.yaml')]) == 2
  captured = capsys.readouterr()
  assert captured.err.count('\n') == 1 and says in captured.err and not trained


@pytest.mark.thorough
def test_missing_data_is_one_sentence_before_tensorflow_is_imported(tmp_path):
  for flags in (['--dataset', 'npz', '--data-dir', str(tmp_path / 'none.npz')],
                ['--dataset', 'fashion-mnist', '--data-dir', str(tmp_path)],
                ['--split', 'dirichlet:0'], ['--clients', '5000', '--clients-per-round', '1']):
    code = ('import sys; from tff_compress import cli; code = cli.main(sys.argv[1:]); '
            'sys.exit(99 if "tensorflow" in sys.modules else code)')
    done = subprocess.run([sys.executable, '-c', code, 'run', *flags], capture_output=True, text=True, timeout=120,
                          check=False)
    assert done.returncode == 2, done.stderr
    assert done.stdout == '' and done.stderr.count('\n') == 1 and 'min_examples' not in done.stderr


GOES_ON = 'Stopped. The same command goes on from there.'
BEGINS_AGAIN = 'Stopped. There is no checkpoint yet: the same command begins again.'


@pytest.mark.parametrize('arguments, saved, says', [
    (['run', '--output', '{folder}'], True, GOES_ON), (['run', '--output', '{folder}'], False, BEGINS_AGAIN),
    (['run', '--output', '{folder}', '--restart'], True,
     'Stopped. The same command without --restart goes on from there.'),
    (['run', '--output', '{folder}', '--restart'], False, BEGINS_AGAIN),
    (['run'], False, 'Stopped. With --output DIR, a run that was stopped can go on.'),
    (['compare', '--uplink', 'int8', '--output', '{folder}'], True, GOES_ON),
    (['compare', '--uplink', 'int8', '--output', '{folder}'], False, BEGINS_AGAIN),
    (['demo', '--output', '{folder}'], True, 'Stopped.'),
])
def test_interrupt_is_130_and_says_how_to_go_on(arguments, saved, says, monkeypatch, tmp_path, capsys):
  def compare(configs, *, on_round, on_prepass, resume):
    del on_prepass, resume
    on_round(0, entry(1, configs[0]))
    if configs[0].output:
      os.makedirs(os.path.join(configs[0].output, 'checkpoints', 'round_1' if saved else 'round_1_temp77'))
    raise KeyboardInterrupt
  monkeypatch.setattr(run_lib, 'compare', compare)
  assert cli.main([text.format(folder=tmp_path) for text in arguments]) == 130
  assert capsys.readouterr().err.splitlines()[-1] == says


def test_what_several_workers_cannot_do_is_bad_input(monkeypatch, capsys):
  def compare(configs, *, on_round, on_prepass, resume):
    raise NotMergeableError('this computation aggregates what depends on another aggregation: use workers=1.')
  monkeypatch.setattr(run_lib, 'compare', compare)
  assert cli.main(['run', '--uplink', 'tff:compression_aggregator', '--workers', '2']) == 2
  assert capsys.readouterr().err == ('tff-compress: tff:compression_aggregator: this computation aggregates what '
                                     'depends on another aggregation: use --workers 1.\n')


def test_a_state_that_cannot_be_used_is_bad_input_and_the_command_may_be_given_again(monkeypatch, capsys, tmp_path):
  def compare(configs, *, on_round, on_prepass, resume):
    del configs, on_round, on_prepass, resume
    raise processes.StateError("the state of client '3' in clients/3.state is damaged: remove it.")
  monkeypatch.setattr(run_lib, 'compare', compare)
  assert cli.main(['run', '--uplink', 'stc', '--output', str(tmp_path)]) == 2
  captured = capsys.readouterr()
  assert captured.out == ''
  assert captured.err == "tff-compress: the state of client '3' in clients/3.state is damaged: remove it.\n"


def test_training_that_never_came_to_a_round_is_bad_input(monkeypatch, capsys):
  def compare(configs, *, on_round, on_prepass, resume):
    del on_round, on_prepass, resume
    return [run_lib.RunResult(configs[0], 'diverged', PARAMETERS, ())]
  monkeypatch.setattr(run_lib, 'compare', compare)
  assert cli.main(['run']) == 2
  assert 'lower --client-learning-rate' in capsys.readouterr().err


def test_one_of_several_that_never_came_to_a_round_is_left_out_and_named(monkeypatch, capsys, tmp_path):
  def compare(configs, *, on_round, on_prepass, resume):
    del on_round, on_prepass, resume
    return [run_lib.RunResult(config, 'diverged', PARAMETERS, (entry(1, config),) if config.uplink == 'float32' else ())
            for config in configs]
  monkeypatch.setattr(run_lib, 'compare', compare)
  assert cli.main(['compare', '--uplink', 'int8', '--output', str(tmp_path)]) == 0
  captured = capsys.readouterr()
  assert 'int8 / float32, seed 0' in captured.err and 'left out' in captured.err and 'diverged' in captured.out


def test_a_prepass_has_a_line_per_group_and_says_what_it_cost(monkeypatch, capsys):
  def compare(configs, *, on_round, on_prepass, resume):
    del resume
    costs = {'prepass_uplink_bytes': 3_100_000, 'prepass_downlink_bytes': 12_000_000, 'prepass_seconds': 41.2}
    for number, clients in ((1, 5), (1, 10), (2, 5)):
      on_prepass(0, {'round': number, 'prepass_clients': clients, **costs}, 10 if number == 1 else 5)
    rounds = [{**entry(1, configs[0]), **costs, 'prepass_clients': 10, 'uplink_fallbacks': 4}]
    on_round(0, rounds[0])
    return [run_lib.RunResult(configs[0], 'finished', PARAMETERS, tuple(rounds))]
  monkeypatch.setattr(run_lib, 'compare', compare)
  assert cli.main(['run', '--rounds', '1', '--uplink', 'autoencoder-prepass', '--clients-per-round', '5']) == 0
  captured = capsys.readouterr()
  lines = [line.partition(': ')[2] for line in captured.err.splitlines()]
  assert lines[:3] == ['pre-pass: 5 of 10 clients learned',
                       'pre-pass: 10 of 10 clients learned, 3.1 MB up, 12 MB down, 41 s',
                       'pre-pass again before round 2: 5 of 5 clients learned, 3.1 MB up, 12 MB down, 41 s']
  assert lines[3].endswith('4 of 5 clients with the fallback')
  assert 'MB pre-pass' in captured.out and '15.1' in captured.out


def test_report_makes_the_page_of_a_comparison_again(trained, tmp_path, capsys):
  out = tmp_path / 'out'
  assert cli.main(['compare', '--uplink', 'int8', '--rounds', '2', '--output', str(out), '--json']) == 0
  before = json.loads(capsys.readouterr().out)
  for config, _ in trained:  # What training would have left.
    os.makedirs(config.output)
    result = {'format': 1, 'status': 'finished', 'config': config.as_dict(), 'parameters': PARAMETERS,
              'rounds': [entry(number, config) for number in (1, 2)]}
    with open(os.path.join(config.output, 'result.json'), 'w', encoding='utf-8') as file:
      json.dump(result, file)
  page = (out / 'report.html').read_bytes()
  (out / 'report.html').unlink()
  assert cli.main(['report', str(out), '--json']) == 0
  assert json.loads(capsys.readouterr().out) == before
  assert (out / 'report.html').read_bytes() == page  # With the command that made the runs.


def test_a_damaged_result_is_left_out_of_a_report_and_named(trained, tmp_path, capsys):
  assert cli.main(['compare', '--uplink', 'int8', '--rounds', '1', '--output', str(tmp_path)]) == 0
  for config, _ in trained:
    os.makedirs(config.output)
    folder.Folder(config.output, config.as_dict()).write_result('finished', [entry(1, config)], parameters=PARAMETERS)
  capsys.readouterr()
  plain, int8 = (os.path.join(config.output, 'result.json') for config, _ in trained)
  with open(plain, 'w', encoding='utf-8') as file:
    file.write('{')
  assert cli.main(['report', str(tmp_path)]) == 0
  captured = capsys.readouterr()
  assert captured.err == f'Left out: {plain} is damaged.\n'
  assert '\nint8 ' in captured.out and '\nfloat32 ' not in captured.out and ' 1 round ' in captured.out
  with open(int8, 'w', encoding='utf-8') as file:
    file.write('[]')
  assert cli.main(['report', str(tmp_path)]) == 2
  assert capsys.readouterr().err.splitlines()[-1] == (
      f'tff-compress: {tmp_path} has no result.json of a run with at least one round that can be read.')


class _Terminal:
  """Standard error that says it is a terminal."""

  def __init__(self):
    self.text = ''

  def isatty(self):
    return True

  def write(self, text):
    self.text += text

  def flush(self):
    pass


def test_a_terminal_gets_a_bar_and_no_lines(trained, monkeypatch):
  terminal = _Terminal()
  monkeypatch.setattr(sys, 'stderr', terminal)
  assert cli.main(['run', '--rounds', '3', '--uplink', 'int8']) == 0
  assert '3/3' in terminal.text and 'int8' in terminal.text and '\n' not in terminal.text.strip('\n')


def test_rounds_that_were_done_before_count_as_done(monkeypatch):
  terminal = _Terminal()
  monkeypatch.setattr(sys, 'stderr', terminal)
  config = run_lib.RunConfig(rounds=10)
  with Progress([config, config], every=0) as progress:
    progress.round(1, entry(7, config))
  assert '17/20' in terminal.text
