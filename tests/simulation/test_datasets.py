"""What every data set has to be, whoever adds one: the tests take them from the registry.

One that is read from files is tested with small ones, which `write(folder)` in tests/simulation/files/MODULE.py makes.
"""

import dataclasses
import importlib
import inspect
import json
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tff_compress.simulation import config
from tff_compress.simulation import data
from tff_compress.simulation import datasets
from tff_compress.simulation import kinds
from tff_compress.simulation import models
from tff_compress.simulation import splits
from tff_compress.simulation.config import ConfigError
from tff_compress.simulation.config import RunConfig
from tff_compress.simulation.data import DataError
from tff_compress.simulation.datasets.base import Bundled

NAMES = datasets.names()
FROM_FILES = [name for name, source in datasets.SOURCES.items() if source.files]


@pytest.fixture(scope='module', params=NAMES)
def loaded(request, tmp_path_factory):
  """Each data set in turn, loaded twice."""
  path = None
  if request.param in FROM_FILES:
    module = datasets.SOURCES[request.param].__module__.rpartition('.')[2]
    try:
      files = importlib.import_module(f'tests.simulation.files.{module}')
    except ModuleNotFoundError:
      pytest.fail(f'write tests/simulation/files/{module}.py, whose write(folder) makes small files of '
                  f'{request.param} and returns what --data-dir is given')
    path = files.write(tmp_path_factory.mktemp(module))
  return tuple(datasets.load(request.param, path=path, download=False) for _ in range(2))


def test_arrays_are_what_its_kind_says(loaded):
  dataset, _ = loaded
  source = datasets.SOURCES[dataset.name]
  assert dataset.kind is source.kind in kinds.KINDS
  # `Dataset` checks the values itself; here is that it checked those of this kind.
  assert dataset.x_train.dtype == dataset.kind.x_dtype and dataset.y_train.dtype == dataset.kind.y_dtype
  assert len(dataset.input_shape) == dataset.kind.example_rank and len(dataset.x_test) >= 1
  assert dataset.num_classes >= dataset.kind.least_outputs


def test_loading_again_gives_the_same(loaded):
  for field in dataclasses.fields(data.Dataset):
    first, second = (getattr(dataset, field.name) for dataset in loaded)
    if isinstance(first, np.ndarray):
      np.testing.assert_array_equal(first, second)
    else:
      assert first == second


@pytest.mark.parametrize('text', ['iid', 'dirichlet:0.5', 'natural'])
def test_it_is_dealt_out_to_clients(loaded, text):
  dataset, _ = loaded
  if text == 'natural' and dataset.client_ids is None:
    with pytest.raises(splits.SplitError, match='no natural clients'):
      splits.split(text, dataset.labels, None, 0)
    return
  parts = splits.split(text, dataset.labels, None if text == 'natural' else 4, 0, client_ids=dataset.client_ids)
  np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(dataset.y_train)))
  assert dataset.labels.dtype.kind == 'i' and len(np.unique(dataset.labels)) >= 2


def test_a_model_of_its_kind_takes_it(loaded):
  dataset, _ = loaded
  fitting = [name for name, model in models.ARCHITECTURES.items() if dataset.kind in model.kinds]
  assert fitting, f'there is no model for data of the kind {dataset.kind.name}: write one'


@pytest.mark.parametrize('name', FROM_FILES)
def test_what_is_missing_says_where_to_get_it(name, tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  with pytest.raises(DataError, match='--data-dir|check the path') as caught:
    datasets.load(name, path=tmp_path / 'missing', download=False)
  assert str(caught.value).endswith('.') and '\n' not in str(caught.value)


@pytest.mark.parametrize('name', [name for name in NAMES if name not in FROM_FILES])
def test_what_is_read_from_no_path_refuses_one(name):
  with pytest.raises(DataError, match=f'^{name} .* is not read from a path: leave --data-dir out.$'):
    datasets.load(name, path='/')


@pytest.mark.parametrize('name', NAMES)
def test_it_says_what_it_is(name):
  source = datasets.SOURCES[name]
  assert source.__module__.rpartition('.')[2] == name.replace('-', '_')
  assert source.summary and source.summary[-1] != '.' and '|' not in source.summary
  assert issubclass(source, Bundled) == (not source.files) and (not issubclass(source, Bundled) or source.origin)
  assert inspect.getdoc(inspect.getmodule(source))
  for option in dataclasses.fields(source):
    assert f'{name}: ' in config.settings()[option.name].help


def test_options_are_for_the_data_sets_that_declare_them():
  assert {'max_clients', 'only_digits'} <= set(datasets.options())
  with pytest.raises(DataError, match='^max_clients and only_digits are for emnist: leave them out for digits.$'):
    datasets.load('digits', only_digits=False)
  assert datasets.check_options('digits', {'max_clients': None, 'only_digits': True}) == {}
  assert datasets.check_options('emnist', {'only_digits': False}) == {'only_digits': False}


# ---- a newcomer's

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_the_two_files_of_the_guide_are_enough(tmp_path):
  guide = (ROOT / 'docs' / 'adding-a-dataset.md').read_text(encoding='utf-8')
  shutil.copytree(ROOT / 'tff_compress', tmp_path / 'tff_compress', ignore=shutil.ignore_patterns('__pycache__'))
  paths = re.findall(r'saved as `(tff_compress/\S+\.py)`', guide, re.IGNORECASE)
  blocks = re.findall(r'^```python\n(.*?)^```$', guide, re.MULTILINE | re.DOTALL)
  assert len(paths) == len(blocks) == 2
  for path, text in zip(paths, blocks):
    assert not (tmp_path / path).exists(), f'{path} is an example of the guide: give yours another name'
    (tmp_path / path).write_text(text, encoding='utf-8')
  program = ('''
import json
from tff_compress import cli
from tff_compress import simulation
from tff_compress.simulation.config import RunConfig
dataset = simulation.load('breast-cancer')
config = RunConfig(dataset='breast-cancer', model='wide_mlp')
parts = simulation.split(config.split, dataset.labels, config.clients, config.seed)
try:
  simulation.load('unknown')
except simulation.DataError as error:
  print(json.dumps([dataset.x_train.shape, len(dataset.x_test), len(parts), str(error)]))
cli.main(['run', '--help'])
''')
  done = subprocess.run([sys.executable, '-c', program], cwd=tmp_path, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  first, _, help_text = done.stdout.partition('\n')
  shape, tests, clients, error = json.loads(first)
  assert shape[1] == 30 and shape[0] + tests == 569 and clients == 20 and 'breast-cancer' in error
  assert 'breast-cancer' in help_text and 'wide_mlp' in help_text


# ---- models and data sets


@pytest.mark.parametrize('dataset, model, fitting', [
    ('digits', 'tied_lstm', 'digits_cnn'), ('wine', 'digits_cnn', 'table_mlp'), ('sentences', 'mlp', 'tied_lstm'),
    ('diabetes', 'mlp', 'table_mlp')])
def test_a_model_of_another_kind_is_refused_before_anything_is_loaded(dataset, model, fitting):
  with pytest.raises(ConfigError, match=f'^The model {model} is for data of the kind .*{dataset}.*{fitting}.*\\.$'):
    RunConfig(dataset=dataset, model=model)
  RunConfig(dataset=dataset, model=fitting)


# ---- kinds


BAD = {
    'table nan': (kinds.TABLE, dict(x_train=np.full((4, 3), np.nan, np.float32)), 'x_train has values that are NaN'),
    'table rank': (kinds.TABLE, dict(x_train=np.zeros((4, 3, 1), np.float32)), r'shape \[n, features\]'),
    'number': (kinds.REGRESSION, dict(y_test=np.arange(2, dtype=np.int32)), 'y_test must be a float32 array'),
    'number inf': (kinds.REGRESSION, dict(y_test=np.full(2, np.inf, np.float32)), 'y_test has values that are NaN'),
    'outputs': (kinds.REGRESSION, dict(num_classes=3), 'leave num_classes at 1'),
    'token': (kinds.TEXT, dict(x_train=np.full((4, 3), 9, np.int32)), 'tokens that do not lie between 0 and 3'),
    'target': (kinds.TEXT, dict(y_train=np.full((4, 3), -1, np.int32)), 'y_train must lie between 0 and 3'),
    'one target': (kinds.TEXT, dict(y_train=np.zeros((4, 2), np.int32)), 'one target per token'),
}


def small(kind, **replaced):
  rows = np.arange(12).reshape(4, 3) % 4
  x = rows.astype(kind.x_dtype)
  y = rows if kind is kinds.TEXT else np.arange(4)
  y = y.astype(kind.y_dtype)
  arrays = dict(name='mine', x_train=x, y_train=y, x_test=x[:2], y_test=y[:2], num_classes=4, kind=kind)
  if kind is kinds.REGRESSION:
    arrays['num_classes'] = 1
  return data.Dataset(**{**arrays, **replaced})


@pytest.mark.parametrize('kind, replaced, says', BAD.values(), ids=BAD)
def test_arrays_that_are_not_of_their_kind_are_refused(kind, replaced, says):
  small(kind)
  with pytest.raises(DataError, match=f'^mine: .*{says}.*\\.$'):
    small(kind, **replaced)


def test_numbers_are_dealt_out_by_the_tenth_of_the_data_they_are_in():
  labels = kinds.REGRESSION.labels(np.random.Generator(np.random.Philox(0)).normal(size=1000).astype(np.float32))
  np.testing.assert_array_equal(np.bincount(labels), np.full(10, 100))
