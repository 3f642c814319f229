"""`tflite-export encoder` and `decoder`."""

import json

import numpy as np
import pytest

from tflite_export import cli
from tflite_export import encoder
from tflite_export import flatbuffer

pytestmark = pytest.mark.xdist_group('encoder')


@pytest.fixture
def spec(tmp_path):
  path = tmp_path / 'model.npz'
  np.savez(path, **{'dense/kernel': np.zeros((30, 10), np.float32), 'steps': np.zeros(2, np.int64)})
  return str(path)


def test_an_encoder_is_written_and_described(spec, tmp_path, capsys):
  path = tmp_path / 'encoder.tflite'
  assert cli.main(['encoder', 'uniform:2|pack', spec, '-o', str(path), '--json']) == 0
  said = capsys.readouterr()
  described = json.loads(said.out)
  assert described.pop('file') == str(path)
  update = {'dense/kernel': np.zeros((30, 10), np.float32), 'steps': np.zeros(2, np.int64)}
  expected = encoder.export_encoder('uniform:bits=2 | pack', update)
  assert described == expected.describe() and path.read_bytes() == expected.data
  assert '300 parameters' not in said.out and '302 parameters' in said.err


def test_a_decoder_says_what_goes_in_and_comes_out(spec, tmp_path, capsys):
  path = tmp_path / 'decoder.tflite'
  assert cli.main(['decoder', 'hadamard | float16', spec, '-o', str(path), '--words', 'passed']) == 0
  lines = [line.split() for line in capsys.readouterr().out.splitlines()]
  assert ['values_0', 'uint8', '600'] in lines and ['update_0', 'float32', '300'] in lines
  # 256 values and 256 once more: 512 signs, 32 to a word.
  assert ['words_0', 'int32', '16'] in lines and ['0', 'round', 'dense/kernel', '1', '0', '16'] in lines
  assert not flatbuffer.operators(path).foreign


@pytest.mark.parametrize('arguments, message', [
    (['encoder', 'unifrm | pack', 'SPEC', '-o', 'OUT'], 'did you mean uniform'),
    (['encoder', 'drive', 'absent.json', '-o', 'OUT'], 'absent.json cannot be read'),
    (['decoder', 'drive', 'SPEC', '-o', 'TAKEN'], 'exists already'),
    (['encoder', 'bias => drive', 'SPEC', '-o', 'OUT'], 'is a preset'),
    (['encoder', 'bias => float32', 'SPEC', '-o', 'OUT'], "no rule of the codec matches variable 'dense/kernel'"),
    (['decoder', 'drive', 'SPEC', '-o', 'OUT', '--error-feedback'], '--error-feedback'),
    (['encoder', 'drive', 'SPEC', '-o', 'OUT', '--words', 'pased'], 'did you mean passed'),
])
def test_bad_input_is_one_line_and_writes_nothing(spec, tmp_path, capsys, arguments, message):
  (tmp_path / 'taken').write_bytes(b'')
  before = sorted(tmp_path.iterdir())
  places = {'SPEC': spec, 'OUT': str(tmp_path / 'out'), 'TAKEN': str(tmp_path / 'taken')}
  assert cli.main([places.get(text, text) for text in arguments]) == 2
  said = capsys.readouterr()
  *progress, error = said.err.splitlines()
  assert message in error and not said.out and len(progress) <= 1
  assert sorted(tmp_path.iterdir()) == before
