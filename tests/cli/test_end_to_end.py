"""Commands that train, on the digits for two rounds: the bytes they print are those of frames."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tff_compress import cli
from tff_compress import codec as codec_lib
from tff_compress import wire
from tff_compress.simulation import folder

pytestmark = pytest.mark.xdist_group('tff')

SMALL = ['--model', 'mlp', '--clients', '4', '--clients-per-round', '2', '--rounds', '2']
VALUES = 64 * 20 + 20 + 20 * 10 + 10
"""Parameters of the mlp on digits."""


def frame_bytes(codec):
  """Bytes of one message of the mlp on digits, header included."""
  shapes = {'dense1/kernel': (64, 20), 'dense1/bias': (20,), 'dense2/kernel': (20, 10), 'dense2/bias': (10,)}
  spec = codec_lib.Spec(tuple(codec_lib.TensorSpec(name, shape) for name, shape in shapes.items()))
  return codec_lib.parse(codec).plan(spec).payload_size + wire.FRAME_OVERHEAD


def test_run(tmp_path, capsys):
  out = tmp_path / 'run'
  arguments = ['run', '--uplink', 'hadamard | uniform:bits=2 | pack', '--downlink', 'int8', '--output', str(out),
               '--json', *SMALL]
  assert cli.main(arguments) == 0
  shown = json.loads(capsys.readouterr().out)
  assert shown['status'] == 'finished' and shown['parameters'] == VALUES
  for entry in shown['rounds']:
    assert entry['uplink_bytes'] == 2 * frame_bytes('hadamard | uniform:bits=2 | pack')
    assert entry['downlink_bytes'] == 2 * frame_bytes('int8')
    assert 0 <= entry['accuracy'] <= 1
  for name in ('result.json', 'metrics.csv', 'report.html', 'accuracy_rounds.png', 'accuracy_bytes.png'):
    assert (out / name).stat().st_size > 0
  with open(out / 'metrics.csv', encoding='utf-8', newline='') as file:
    assert [float(row['accuracy']) for row in csv.DictReader(file)] == [entry['accuracy'] for entry in shown['rounds']]

  # The same command again has nothing to do.
  before = (out / 'result.json').read_bytes()
  assert cli.main(arguments) == 0
  captured = capsys.readouterr()
  assert json.loads(captured.out)['rounds'] == shown['rounds'] and captured.err == ''
  assert (out / 'result.json').read_bytes() == before

  # Another run does not fit into this folder.
  assert cli.main(['run', '--uplink', 'int8', '--output', str(out), *SMALL]) == 2
  assert 'output folder' in capsys.readouterr().err


def test_a_folder_whose_name_is_no_text_in_a_locale_without_unicode(tmp_path):
  """Where Python takes every byte above 127 of a path for no text."""
  out = os.path.join(os.fsencode(tmp_path), 'выход 😀 '.encode() + b'\xff')
  command = [sys.executable, '-m', 'tff_compress.cli', 'run', '--uplink', 'stc', '--output', out, '--json', *SMALL]
  done = subprocess.run(command, capture_output=True, timeout=300, check=False,
                        env={**os.environ, 'LC_ALL': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'})
  assert done.returncode == 0, done.stderr
  shown = json.loads(done.stdout)
  assert shown['report'].encode(errors='surrogateescape') == os.path.join(out, b'report.html')
  assert set(os.listdir(out)) == {
      b'accuracy_bytes.png', b'accuracy_rounds.png', b'checkpoints', b'clients', b'command.txt', b'metrics.csv',
      b'report.html', b'result.json', b'tensorboard'}
  with open(os.path.join(out, b'command.txt'), 'rb') as file:
    assert out in file.read()
  # From another locale, it is the same folder.
  assert folder.read_result(os.fsdecode(out))['rounds'] == shown['rounds']


def test_compare(tmp_path, capsys):
  out = tmp_path / 'comparison'
  assert cli.main(['compare', '--uplink', 'int8', '--downlink', 'int8', '--output', str(out), '--json', *SMALL]) == 0
  plain, int8 = json.loads(capsys.readouterr().out)['summary']
  assert plain['uplink_bytes'] == 2 * 2 * frame_bytes('float32') and int8['uplink_bytes'] == 2 * 2 * frame_bytes('int8')
  assert int8['difference'] == pytest.approx(100 * (int8['accuracy'] - plain['accuracy']))
  # Eight bits lose next to nothing: the runs share clients, data and initial weights.
  assert abs(int8['difference']) < 3
  page = (out / 'report.html').read_text()
  assert cli.main(['report', str(out)]) == 0
  assert (out / 'report.html').read_text() == page


def test_inspect_takes_the_spec_of_a_keras_model(tmp_path, capsys):
  import tensorflow as tf
  layers = tf.keras.layers
  model = tf.keras.Sequential([layers.Dense(3, input_shape=(5,), name='dense'), layers.BatchNormalization(name='norm')])
  model.save(tmp_path / 'model.h5')
  spec = codec_lib.Spec.of(model)
  update = {tensor.name: np.ones(tensor.shape, np.float32) for tensor in spec.tensors}
  assert len(update) == 4  # The moving statistics are not part of an update.
  (tmp_path / 'frame').write_bytes(wire.pack('int8', update, seed=1, round=2, client=3))
  arguments = ['inspect', str(tmp_path / 'frame'), '--codec', 'int8', '--spec', str(tmp_path / 'model.h5'), '--seed',
               '1']
  assert cli.main([*arguments, '--json']) == 0
  shown = json.loads(capsys.readouterr().out)
  assert [v['name'] for v in shown['variables']] == [tensor.name for tensor in spec.tensors]
  assert all(v['mean'] == 1 for v in shown['variables'])
