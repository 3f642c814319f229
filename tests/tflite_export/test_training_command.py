"""`tflite-export training`: what it writes, what it says, and what it refuses."""

import json
import resource
import types

import numpy as np
import pytest

from tflite_export import cli

pytestmark = pytest.mark.xdist_group('training_command')


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  import tensorflow as tf
  model = tf.keras.Sequential([tf.keras.Input((4,)), tf.keras.layers.Dense(6), tf.keras.layers.Dense(3)])
  path = tmp_path_factory.mktemp('model') / 'model.keras'
  model.save(path)
  return str(path)


def test_a_model_that_was_never_compiled_trains_with_the_options(model, tmp_path, capsys):
  path = tmp_path / 'training.tflite'
  assert cli.main(['training', model, '-o', str(path), '--loss', 'sparse-categorical-crossentropy', '--from-logits',
                   '--optimizer',
                   'momentum', '--learning-rate', '0.2', '--batch-size', '5', '--structure', 'low-rank:2',
                   '--json']) == 0
  said = json.loads(capsys.readouterr().out)
  assert said['bytes'] == path.stat().st_size
  assert said['learning_rate'] == pytest.approx(0.2)
  assert {'train', 'infer', 'get_weights', 'set_weights', 'get_state', 'set_state', 'set_bases',
          'get_factors'} <= set(said['signatures'])


@pytest.mark.parametrize('arguments, message', [
    (['--loss', 'mean-squared-error'], 'compile the model with one, or give --optimizer.'),
    (['--optimizer', 'sgd'], 'compile the model with one, or give --loss.'),
    (['--optimizer', 'sgd', '--loss', 'mean-squared-error', '--structure', 'low-rank:1', '--proximal-mu', '1'],
     '--proximal-mu does not go with --structure low-rank'),
    (['--optimizer', 'adamm'], 'did you mean adam'),
    (['--learning-rate', '0.1'], '--optimizer'),
    (['--batch-size', '0'], 'whole number'),
    (['--structure', 'low-rank'], 'low-rank:R'),
    (['--proximal-mu', 'nan'], 'at least 0'),
])
def test_bad_options_are_one_sentence_and_leave_no_file(model, tmp_path, capsys, arguments, message):
  assert cli.main(['training', model, '-o', str(tmp_path / 'out.tflite'), *arguments]) == 2
  said = capsys.readouterr().err
  assert message in said and said.count('\n') == 1
  assert not list(tmp_path.iterdir())


def test_a_file_that_exists_is_kept(model, tmp_path, capsys):
  (tmp_path / 'out.tflite').write_text('mine')
  assert cli.main(['training', model, '-o', str(tmp_path / 'out.tflite'), '--optimizer', 'sgd', '--loss',
                   'mean-squared-error']) == 2
  assert 'exists already: name another file, remove it, or give --overwrite.' in capsys.readouterr().err
  assert (tmp_path / 'out.tflite').read_text() == 'mine'


@pytest.mark.parametrize('arrays, recipe, message', [
    ({'z': (9, 4)}, 'int8', 'as the model will see them (x in the file of --data).'),
    ({'x': (29, 4), 'y': (29, 3)}, 'prune', 'give training data (x_train and y_train in the file of --data).'),
    ({'x': (9, 4)}, 'int8', 'x of --data has fewer examples than a batch (20)'),
    ({'x_train': (29, 4), 'y_train': (27, 3)}, 'prune', 'x_train of --data has 29 examples and 27 labels'),
])
def test_errors_of_the_library_name_the_options_of_the_command(model, tmp_path, capsys, arrays, recipe, message):
  np.savez(tmp_path / 'data.npz', **{name: np.zeros(shape, np.float32) for name, shape in arrays.items()})
  assert cli.main(['inference', model, '-o', str(tmp_path / 'out.tflite'), '--data', str(tmp_path / 'data.npz'),
                   '--recipe', recipe, '--batch-size', '20', '--loss', 'mean-squared-error']) == 2
  said = capsys.readouterr().err
  assert message in said and said.count('\n') == 1


def test_a_full_disk_is_one_sentence_and_leaves_no_file(model, tmp_path, capsys):
  """With the limit of a process on the size of files, which holds for root too."""
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
  try:
    code = cli.main(['training', model, '-o', str(tmp_path / 'out.tflite'), '--optimizer', 'sgd',
                     '--loss', 'mean-squared-error'])
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  said = capsys.readouterr().err
  assert code == 2 and said.count('\n') == 1 and said.endswith(' cannot be written: File too large.\n')
  assert not list(tmp_path.iterdir())


def test_the_command_knows_the_losses_and_the_optimizers_that_can_be_exported():
  import tensorflow as tf

  from tflite_export.cli import training as command
  from tflite_export.training import losses
  from tflite_export.training import optimizers
  assert {name.replace('-', '_') for name in command.LOSSES} == set(losses.LABELS)
  for name in command.LOSSES:
    made = command.loss(types.SimpleNamespace(loss=name, from_logits=True))
    assert made.fn is getattr(tf.keras.losses, name.replace('-', '_'))
  for name in command.OPTIMIZERS:
    rule = optimizers.of(command.optimizer(name, 0.5)).rule
    assert isinstance(rule, optimizers.Adam if name == 'adam' else optimizers.Sgd)
