"""The harness finds benchmarks by their files, writes whole files only, and answers mistakes in one sentence."""

import json

import pytest

from benchmarks import __main__ as command
from benchmarks import harness


def test_a_benchmark_is_a_file_with_a_function_run(monkeypatch, tmp_path):
  (tmp_path / 'new.py').write_text(
      '"""What it measures.\n\nMore."""\n\nTHREADS = 3\n\n\ndef run(quick):\n  return []\n')
  (tmp_path / 'shared.py').write_text('"""No benchmark."""\n\n\ndef helper():\n  return 1\n')
  monkeypatch.setattr(harness, 'FOLDER', tmp_path)
  assert harness.benchmarks() == {'new': 'What it measures.'}
  assert harness.threads('new') == 3
  assert harness.environment('new')['OMP_NUM_THREADS'] == '3'


def test_every_benchmark_says_what_it_measures():
  found = harness.benchmarks()
  assert {'throughput', 'rate_distortion', 'published', 'bytes_to_accuracy', 'rotation_curve'} <= set(found)
  assert all(summary.endswith('.') for summary in found.values()), found


def test_executing_prints_a_table_and_writes_a_file(monkeypatch, tmp_path, capsys):
  monkeypatch.setattr(harness, 'RESULTS', tmp_path)
  monkeypatch.setattr(harness.importlib, 'import_module', lambda name: _Fake)
  harness.execute('fake', quick=True)
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
