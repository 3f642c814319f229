"""The harness finds benchmarks by their files, writes whole files only, and answers mistakes in one sentence."""

import json
import os

import pytest

from benchmarks import __main__ as command
from benchmarks.lib import harness
from benchmarks.lib import memory


def test_a_benchmark_is_a_file_with_a_function_run(monkeypatch, tmp_path):
  for folder in ('codecs', 'lib', 'devices'):
    (tmp_path / folder).mkdir()
    (tmp_path / folder / '__init__.py').write_text(f'"""About {folder}."""\n')
  text = '"""What it\nmeasures.\n\nMore."""\n\nTHREADS = 3\n\n\ndef run(quick):\n  return []\n'
  (tmp_path / 'codecs' / 'new.py').write_text(text)
  (tmp_path / 'lib' / 'shared.py').write_text('"""No benchmark."""\n\n\ndef helper():\n  return 1\n')
  monkeypatch.setattr(harness, 'FOLDER', tmp_path)
  new = harness.Benchmark('new', 'codecs', 'What it measures.', 3)
  assert harness.benchmarks() == {'new': new} and harness.folders() == {'codecs': 'About codecs.'}
  assert new.module == 'benchmarks.codecs.new' and new.environment['OMP_NUM_THREADS'] == '3'
  (tmp_path / 'devices' / 'new.py').write_text(text)
  with pytest.raises(ValueError, match='codecs/ and devices/ both have a benchmark new'):
    harness.benchmarks()


def test_every_benchmark_and_folder_says_what_it_measures():
  found = harness.benchmarks()
  assert {'throughput', 'rate_distortion', 'published', 'bytes_to_accuracy', 'rotation_curve'} <= set(found)
  summaries = [*(benchmark.summary for benchmark in found.values()), *harness.folders().values()]
  assert all(summary.endswith('.') for summary in summaries), summaries


def test_every_result_is_of_a_benchmark_and_has_a_line_for_each_row():
  names = {benchmark.name for benchmark in harness.benchmarks().values()}
  paths = sorted(harness.RESULTS.glob('*.*'))
  assert {path.stem for path in paths} <= names
  for path in (path for path in paths if path.suffix == '.json'):
    result = json.loads(path.read_text())
    assert result['command'] == f'python -m benchmarks {path.stem}'
    lines = path.read_text().splitlines()
    assert [json.loads(line.rstrip(',')) for line in lines if line.startswith('  ')] == result['rows'], path


def test_executing_prints_a_table_and_writes_a_file(monkeypatch, tmp_path, capsys):
  monkeypatch.setattr(harness, 'RESULTS', tmp_path)
  monkeypatch.setattr(harness.importlib, 'import_module', lambda name: _Fake)
  harness.execute(harness.Benchmark('fake', 'codecs', 'Fake.', 1), quick=True)
  stored = json.loads((tmp_path / 'quick' / 'fake.json').read_text())
  assert stored['rows'] == _Fake.rows
  assert stored['command'] == 'python -m benchmarks fake --quick'
  assert stored['machine']['cores'] >= 1
  printed = capsys.readouterr().out.splitlines()
  assert printed == ['', 'sizes', 'codec  bytes', '-----  -----', 'int8   1,234', 'drive',
                     '', 'errors', 'NMSE', '----', '0.25']


class _Fake:
  rows = [{'table': 'sizes', 'codec': 'int8', 'bytes': 1234}, {'table': 'errors', 'NMSE': 0.25, 'all': [1, 2]},
          {'table': 'sizes', 'codec': 'drive', 'bytes': None}]

  @classmethod
  def run(cls, quick):
    assert quick
    return cls.rows


def test_a_file_that_could_not_be_finished_is_not_there(tmp_path):
  path = tmp_path / 'folder' / 'result.json'
  with pytest.raises(TypeError):
    harness.write_json(path, {'value': object()})
  assert list(path.parent.iterdir()) == []
  harness.write_json(path, {'value': 1})
  with pytest.raises(TypeError):
    harness.write_json(path, {'value': object()})
  assert json.loads(path.read_text()) == {'value': 1}


def test_an_unknown_name_ends_in_one_sentence(capsys):
  with pytest.raises(SystemExit) as exit_:
    command.main(['thruput'])
  assert exit_.value.code == 2
  assert "there is no benchmark 'thruput'; there are " in capsys.readouterr().err


def test_the_fastest_of_several_calls_counts():
  calls = []
  seconds = harness.fastest({'a': lambda: calls.append('a'), 'b': lambda: calls.append('b')}, seconds=0)
  assert set(seconds) == {'a', 'b'} and max(seconds.values()) < 1
  turn = ['a'] * harness.CALLS_PER_TURN + ['b'] * harness.CALLS_PER_TURN
  assert calls == ['a', 'b'] + 5 * turn  # In turns, after one uncounted call of each.


def test_what_is_kept_is_made_once_for_each_settings(tmp_path):
  made = []
  make = lambda: made.append(1) or {'made': len(made), 'rounds': [1, 2]}
  first = harness.once(tmp_path, {'a': 1, 'b': 2}, make)
  assert harness.once(tmp_path, {'b': 2, 'a': 1}, make) == first == {'made': 1, 'rounds': [1, 2]}
  assert harness.once(tmp_path, {'a': 2, 'b': 2}, make)['made'] == 2


def test_a_function_runs_in_a_new_process():
  assert harness.in_new_process(memory.resident) > 1e6
  process, argument = harness.in_new_process(process_and, [1, 'a'])
  assert process != os.getpid() and argument == [1, 'a']


def process_and(argument):
  return [os.getpid(), argument]
