"""`tflite-export training`: what it writes, what it says, and what it refuses."""

import json

import pytest

from tflite_export import cli

pytestmark = pytest.mark.xdist_group('training_command')


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  import tensorflow as tf  # pylint: disable=g-import-not-at-top
  model = tf.keras.Sequential([tf.keras.Input((4,)), tf.keras.layers.Dense(6), tf.keras.layers.Dense(3)])
  path = tmp_path_factory.mktemp('model') / 'model.keras'
  model.save(path)
  return str(path)


def test_a_model_that_was_never_compiled_trains_with_the_options(model, tmp_path, capsys):
  path = tmp_path / 'training.tflite'
  assert cli.main(['training', model, '-o', str(path), '--loss', 'sparse-categorical-crossentropy', '--from-logits', '--optimizer',
                   'momentum', '--learning-rate', '0.2', '--batch-size', '5', '--structure', 'low-rank:2', '--json']) == 0
  said = json.loads(capsys.readouterr().out)
  assert said['bytes'] == path.stat().st_size
  assert said['learning_rate'] == pytest.approx(0.2)
  assert {'train', 'infer', 'get_weights', 'set_weights', 'get_state', 'set_state', 'set_bases', 'get_factors'} <= set(said['signatures'])


@pytest.mark.parametrize('arguments, message', [
    (['--loss', 'mean-squared-error'], 'optimizer'),
    (['--optimizer', 'sgd'], 'loss'),
    (['--optimizer', 'adamm'], 'did you mean adam'),
    (['--learning-rate', '0.1'], '--optimizer'),
    (['--batch-size', '0'], 'whole number'),
    (['--structure', 'low-rank'], 'low-rank:R'),
    (['--proximal-mu', 'nan'], 'not negative'),
])
def test_bad_options_are_one_sentence_and_leave_no_file(model, tmp_path, capsys, arguments, message):
  assert cli.main(['training', model, '-o', str(tmp_path / 'out.tflite'), *arguments]) == 2
  said = capsys.readouterr().err
  assert message in said and said.count('\n') == 1
  assert not list(tmp_path.iterdir())


def test_a_file_that_exists_is_kept(model, tmp_path, capsys):
  (tmp_path / 'out.tflite').write_text('mine')
  assert cli.main(['training', model, '-o', str(tmp_path / 'out.tflite'), '--optimizer', 'sgd', '--loss', 'mean-squared-error']) == 2
  assert 'exists already' in capsys.readouterr().err
  assert (tmp_path / 'out.tflite').read_text() == 'mine'
