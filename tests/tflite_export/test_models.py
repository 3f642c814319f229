"""Models from files: what Keras writes is read, or refused with the way that works; code in files is not run."""

import json
import os
import shutil
import zipfile

import h5py
import numpy as np
import pytest
import tensorflow as tf

from tflite_export import inference
from tflite_export import models
from tflite_export.errors import ExportError
from tflite_export.errors import FileError
from tflite_export.inference import comparison
from tflite_export.inference import parts

pytestmark = pytest.mark.xdist_group('tflite_inference')

layers = tf.keras.layers
X = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)


@pytest.fixture(scope='module', name='model')
def _model():
  made = tf.keras.Sequential([layers.Input((3,)), layers.Dense(4, activation='relu'), layers.Dense(2)])
  made.compile('adam', tf.keras.losses.MeanSquaredError())
  return made


@pytest.fixture(scope='module', name='folder')
def _folder(tmp_path_factory, model):
  """The same model in every form."""
  folder = tmp_path_factory.mktemp('models')
  model.save(folder / 'model.keras')
  model.save(folder / 'model.h5')
  model.save(folder / 'saved', save_format='tf')
  model.export(folder / 'exported')
  model.save_weights(folder / 'model.weights.h5')
  return folder


@pytest.mark.parametrize('name', ['model.keras', 'model.h5', 'saved'])
def test_what_keras_saves_is_loaded_with_its_loss(folder, model, name):
  loaded = models.load(folder / name)
  np.testing.assert_allclose(loaded.predict(X, verbose=0), model.predict(X, verbose=0), rtol=1e-6)
  assert loaded.loss is not None


@pytest.mark.parametrize('name', ['выход 😀', os.fsdecode(b'bad\xff\xfe'), '[a]*?'])
def test_a_model_may_be_in_a_file_of_any_name(folder, model, tmp_path, name):
  where = str(tmp_path / name)
  shutil.copytree(folder, where)
  for form in ('model.keras', 'model.h5', 'saved'):
    path = os.path.join(where, name + form)
    os.rename(os.path.join(where, form), path)
    np.testing.assert_allclose(models.load(path).predict(X, verbose=0), model.predict(X, verbose=0), rtol=1e-6)
  exported = models.load(os.path.join(where, 'exported'), layers=False)
  made = inference.export_inference(exported, recipe='float32', path=os.path.join(where, name + '.tflite'))
  with open(os.path.join(where, name + '.tflite'), 'rb') as file:
    assert file.read() == made.data


def test_an_exported_function_predicts_but_does_not_train(folder, model):
  with pytest.raises(ExportError, match='no Keras layers'):
    models.load(folder / 'exported')
  loaded = models.load(folder / 'exported', layers=False)
  made = inference.export_inference(loaded, recipe='float32')
  found = comparison.Predictor(made, 'tf.lite').predict({'x': X})
  np.testing.assert_allclose(found, model.predict(X, verbose=0), atol=1e-5)
  assert inference.export_inference(loaded, recipe='int8', representative_data=X).check_edgetpu().compatible
  *storages, last = parts.storages()
  with pytest.raises(ExportError, match=f'choose from {", ".join(storages)} and {last}'):
    inference.export_inference(loaded, recipe='prune+int8', representative_data=X, train_data=(X, X[:, :2]))


def rewritten(source, target, change):
  """A .keras file with other JSON: `change` takes a member's name and value and returns the value."""
  with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, 'w') as new:
    for name in old.namelist():
      data = old.read(name)
      new.writestr(name, json.dumps(change(name, json.loads(data))) if name.endswith('.json') else data)
  return target


def test_newer_keras_is_told_the_way_that_works(folder, tmp_path):
  def newest(name, value):
    return {**value, 'keras_version': '3.15.1'} if name == 'metadata.json' else value
  newer = rewritten(folder / 'model.keras', tmp_path / 'newer.keras', newest)
  shutil.copy(folder / 'model.h5', tmp_path / 'newer.h5')
  with h5py.File(tmp_path / 'newer.h5', 'a') as file:
    file.attrs['keras_version'] = '3.15.1'
  for path in (newer, tmp_path / 'newer.h5'):
    with pytest.raises(ExportError, match='Keras 3.*model.export') as caught:
      models.load(path)
    assert str(caught.value).endswith('.')


@pytest.mark.parametrize('form', ['keras', 'h5', 'tf'])
def test_python_code_in_a_file_is_not_run(form, tmp_path):
  witness, name = tmp_path / 'witness', str(tmp_path / 'witness')
  made = tf.keras.Sequential([layers.Input((3,)), layers.Lambda(lambda x: (open(name, 'a').close(), x)[1])])
  witness.unlink()
  path = tmp_path / ('model' if form == 'tf' else f'model.{form}')
  made.save(path, save_format=form)
  witness.unlink(missing_ok=True)
  for needs_layers in (True, False):
    with pytest.raises(ExportError, match='Lambda layer'):
      models.load(path, layers=needs_layers)
  assert not witness.exists()


def test_modules_that_a_file_names_are_not_imported(folder, tmp_path):
  def change(name, value):
    if name == 'config.json':
      value['config']['layers'][1].update(module='antigravity', class_name='Dense')
    return value
  path = rewritten(folder / 'model.keras', tmp_path / 'model.keras', change)
  with pytest.raises(ExportError, match='antigravity'):
    models.load(path)


def test_a_loss_that_is_unknown_does_not_keep_a_model_from_loading(tmp_path):
  made = tf.keras.Sequential([layers.Input((3,)), layers.Dense(2)])

  def unusual(y, p):
    return tf.reduce_mean(tf.abs(y - p))
  made.compile('adam', unusual)
  made.save(tmp_path / 'model.h5')
  assert models.load(tmp_path / 'model.h5').built


def test_what_is_no_model_is_one_sentence(folder, tmp_path):
  (tmp_path / 'text.keras').write_text('no')
  (tmp_path / 'text.h5').write_text('no')
  (tmp_path / 'model.txt').write_text('no')
  with h5py.File(tmp_path / 'arrays.h5', 'w') as file:
    file['x'] = X
  (tmp_path / 'cut.keras').write_bytes((folder / 'model.keras').read_bytes()[:3000])
  (tmp_path / 'cut.h5').write_bytes((folder / 'model.h5').read_bytes()[:3000])
  (tmp_path / 'saved').mkdir()
  (tmp_path / 'saved' / 'saved_model.pb').write_text('no')
  (tmp_path / 'empty').mkdir()
  for path in (*sorted(tmp_path.iterdir()), tmp_path / 'absent.keras', folder / 'model.weights.h5', 'a\0.keras'):
    with pytest.raises((ExportError, FileError)) as caught:
      models.load(path, layers=False)
    assert str(caught.value).endswith('.') and '\n' not in str(caught.value), path


def test_flipped_bits_are_a_sentence_or_a_model(folder, tmp_path):
  for name in ('model.keras', 'model.h5'):
    data = bytearray((folder / name).read_bytes())
    for position in np.random.default_rng(0).integers(0, len(data), 12):
      data[position] ^= 0xff
      (tmp_path / name).write_bytes(data)
      try:
        models.load(tmp_path / name)
      except (ExportError, FileError) as error:
        assert str(error).endswith('.') and '\n' not in str(error)
      data[position] ^= 0xff
