"""Models by name, and the functions of data.py that need TensorFlow: `batches`, and emnist through TFF."""

import contextlib
import pathlib
import re
import sqlite3
import types

import numpy as np
import pytest
import tensorflow as tf

from tff_compress.simulation import data
from tff_compress.simulation import datasets
from tff_compress.simulation import kinds
from tff_compress.simulation import models
from tff_compress.simulation.data import DataError
from tff_compress.simulation.datasets import fashion_mnist
from tff_compress.simulation.datasets import reading
from tff_compress.simulation.models import ModelError
from tff_compress.simulation.models.base import Layers

# One process imports TensorFlow and TFF for all of them.
pytestmark = pytest.mark.xdist_group('models')

PARAMETERS = {
    'mnist_cnn': 1_199_882,
    'digits_cnn': 38_282,
    'small_cnn': 130_414,
    'all_cnn_c': 1_369_738,
    'cifar_cnn': 550_570,
    'cifar_small': 34_930,
    'tied_lstm': 1_347_776,
    'mlp': 15_910,
    'small_all_cnn': 14_378,
    'logistic': 7_850,
}
"""Of the models that papers and benchmarks have, written down a second time."""


@pytest.fixture(scope='module')
def built():
  """Each model once, with seed 1."""
  return {name: models.build(name, seed=1) for name in models.ARCHITECTURES}


def shapes(model):
  return {variable.name: tuple(variable.shape) for variable in model.trainable_variables}


def some_input(name):
  """Two examples; of texts, six tokens each."""
  known = models.ARCHITECTURES[name]
  if known.kinds == (kinds.TEXT,):
    return np.arange(12, dtype=np.int32).reshape(2, 6)
  return np.random.Generator(np.random.Philox(0)).random((2, *known.input_shape), np.float32)


# ---- architectures
# -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', models.ARCHITECTURES)
def test_models_have_exactly_the_numbers_of_parameters_that_they_declare(built, name):
  declared = models.ARCHITECTURES[name].parameters
  assert built[name].count_params() == declared == PARAMETERS.get(name, declared)
  assert sum(np.prod(shape) for shape in shapes(built[name]).values()) == declared
  assert not built[name].non_trainable_variables


@pytest.mark.parametrize('name', models.ARCHITECTURES)
def test_models_say_what_they_are(name):
  known = models.ARCHITECTURES[name]
  assert known.__module__.rpartition('.')[2] == name
  assert known.layers and known.source and set(known.kinds) <= set(kinds.KINDS)
  assert {kind.example_rank for kind in known.kinds} == {len(known.input_shape)}
  assert '(dropout' in known.layers or not known.dropout


@pytest.mark.parametrize('name', models.ARCHITECTURES)
def test_models_return_logits_for_the_published_shapes(built, name):
  architecture = models.ARCHITECTURES[name]
  assert built[name].input_shape[1:] == architecture.input_shape
  logits = built[name](some_input(name)).numpy()
  assert logits.shape == ((2, 6) if architecture.kinds == (kinds.TEXT,) else (2,)) + (architecture.num_classes,)
  assert logits.dtype == np.float32
  if architecture.num_classes == 1:  # Whether one number is positive is chance: over some seeds it is either.
    others = [models.build(name, seed=seed)(some_input(name)).numpy() for seed in range(2, 10)]
    logits = np.concatenate([logits, *others])
  assert logits.min() < 0 < logits.max()  # neither ReLU nor softmax at the end
  assert abs(logits.sum(axis=-1) - 1).min() > 1e-6


def test_all_cnn_c_has_the_layers_of_the_table(built):
  kernels = [shape for name, shape in shapes(built['all_cnn_c']).items() if 'kernel' in name]
  assert kernels == [
      (3, 3, 3, 96), (3, 3, 96, 96), (3, 3, 96, 96), (3, 3, 96, 192), (3, 3, 192, 192), (3, 3, 192, 192),
      (3, 3, 192, 192),
      (1, 1, 192, 192), (1, 1, 192, 10),
  ]
  assert sum(np.prod(shape) for shape in kernels[1:-1]) == 1_363_968
  strides = [layer.strides[0] for layer in built['all_cnn_c'].layers if 'conv' in layer.name]
  assert strides == [1, 1, 2, 1, 1, 2, 1, 1, 1]


def test_digits_cnn_has_a_tensor_that_is_worth_compressing(built):
  assert max(np.prod(shape) for shape in shapes(built['digits_cnn']).values()) > 20_000


def test_tied_lstm_uses_one_variable_for_input_and_output(built):
  assert sorted(shapes(built['tied_lstm']).values()) == [(96,), (96, 1024), (256, 96), (256, 1024), (1024,),
                                                         (10_017, 96)]
  model = models.build('tied_lstm', num_classes=20)
  tokens = np.array([[3]], np.int32)
  table = model.get_layer('embedding').embeddings
  before = model(tokens).numpy()
  table.assign(tf.tensor_scatter_nd_update(table, [[7]], [2 * table[7]]))  # not the input token
  change = model(tokens).numpy() / before
  np.testing.assert_allclose(change[0, 0, 7], 2, rtol=1e-5)
  np.testing.assert_allclose(np.delete(change[0, 0], 7), 1, rtol=1e-5)


def test_tied_lstm_embeddings_have_norm_one_at_the_start_and_after_a_keras_step():
  model = models.build('tied_lstm', num_classes=20)
  table = model.get_layer('embedding').embeddings
  start = table.numpy()
  np.testing.assert_allclose(np.linalg.norm(start, axis=1), 1, rtol=1e-5)
  model.compile(tf.keras.optimizers.SGD(1.0), tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
  tokens = np.arange(20, dtype=np.int32).reshape(2, 10)
  model.train_on_batch(tokens, tokens)
  assert np.abs(table.numpy() - start).max() > 1e-3
  np.testing.assert_allclose(np.linalg.norm(table.numpy(), axis=1), 1, rtol=1e-5)


def test_tied_lstm_survives_saving(tmp_path):
  model = models.build('tied_lstm', num_classes=20)
  model.save(tmp_path / 'model.keras')
  loaded = tf.keras.models.load_model(tmp_path / 'model.keras')
  tokens = np.arange(6, dtype=np.int32).reshape(1, 6)
  np.testing.assert_array_equal(loaded(tokens), model(tokens))
  assert loaded.count_params() == model.count_params()


def test_variables_have_the_same_names_in_every_model_built(built):
  for name, model in built.items():
    assert shapes(models.build(name)) == shapes(model)
  assert list(shapes(built['mnist_cnn']))[:2] == ['conv1/kernel:0', 'conv1/bias:0']


@pytest.mark.parametrize('name', [name for name, known in models.ARCHITECTURES.items() if known.dropout])
def test_dropout_layers_are_put_in_when_asked_for(name):
  layers = models.build(name, dropout=True).layers
  assert any(isinstance(layer, tf.keras.layers.Dropout) for layer in layers)


@pytest.mark.parametrize('name', ['mnist_cnn', 'all_cnn_c'])
def test_dropout_is_there_only_when_asked_for(built, name):
  def rates(model):
    return [layer.rate for layer in model.layers if isinstance(layer, tf.keras.layers.Dropout)]

  model = models.build(name, seed=1, dropout=True)
  assert rates(built[name]) == []
  assert rates(model) == ([0.25, 0.5] if name == 'mnist_cnn' else [0.2, 0.5, 0.5])
  assert model.count_params() == PARAMETERS[name]
  for plain, dropped in zip(built[name].get_weights(), model.get_weights()):
    np.testing.assert_array_equal(plain, dropped)


@pytest.mark.parametrize(
    'name,shape,classes,count',
    [
        ('mlp', (8, 8, 1), 4, 64 * 20 + 20 + 20 * 4 + 4),
        ('digits_cnn', (28, 28, 1), 62, 160 + 4640 + 14 * 14 * 32 * 64 + 64 + 64 * 62 + 62),
        ('mnist_cnn', (6, 6, 3), 2, 27 * 32 + 32 + 18_496 + 64 * 128 + 128 + 128 * 2 + 2),
    ],
)
def test_other_shapes_and_numbers_of_classes(name, shape, classes, count):
  model = models.build(name, input_shape=shape, num_classes=classes)
  assert model.input_shape == (None, *shape) and model.output_shape == (None, classes)
  assert model.count_params() == count


def test_the_model_of_the_guide_has_the_parameters_that_it_declares():
  guide = pathlib.Path(__file__).resolve().parents[2] / 'docs' / 'adding-a-dataset.md'
  *_, text = re.findall(r'^```python\n(.*?)^```$', guide.read_text(encoding='utf-8'), re.MULTILINE | re.DOTALL)
  module = types.ModuleType('example')
  exec(compile(text, 'example', 'exec'), module.__dict__)
  known = module.WideMLP
  make = Layers(known.name, 0, False, known.kinds[0])
  assert known.build(make, known.input_shape, known.num_classes).count_params() == known.parameters


# ---- seeds
# -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', models.ARCHITECTURES)
def test_the_same_seed_gives_identical_weights_whatever_the_global_seed_is(built, name):
  np.random.seed(5)
  tf.random.set_seed(5)
  again = models.build(name, seed=1)
  other = models.build(name, seed=2)
  for first, second, third, variable in zip(built[name].get_weights(), again.get_weights(), other.get_weights(),
                                            again.weights):
    np.testing.assert_array_equal(first, second)
    if 'bias' not in variable.name:
      assert (first != third).mean() > 0.9


def test_building_leaves_the_global_generators_as_they_were():
  tf.random.set_seed(11)
  np.random.seed(11)
  expected = tf.random.uniform([4]).numpy(), np.random.random(4)
  tf.random.set_seed(11)
  np.random.seed(11)
  models.build('all_cnn_c', dropout=True)
  np.testing.assert_array_equal(tf.random.uniform([4]), expected[0])
  np.testing.assert_array_equal(np.random.random(4), expected[1])


def test_layers_of_the_same_shape_start_out_different(built):
  layers = [layer.get_weights()[0] for layer in built['all_cnn_c'].layers if layer.name in ('conv5', 'conv6', 'conv7')]
  for first, second in ((0, 1), (0, 2), (1, 2)):
    assert abs(np.corrcoef(layers[first].ravel(), layers[second].ravel())[0, 1]) < 0.01


# ---- bad arguments
# -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'name,arguments',
    [
        ('resnet', {}),
        ('x' * 10**6, {}),
        (None, {}),
        ('mlp', dict(dropout=True)),
        ('mlp', dict(seed=-1)),
        ('mlp', dict(seed=0.5)),
        ('mlp', dict(seed=True)),
        ('mlp', dict(seed=None)),
        ('mlp', dict(num_classes=1)),
        ('mlp', dict(num_classes=2.0)),
        ('mlp', dict(num_classes=10**9)),
        ('mlp', dict(input_shape=784)),
        ('mlp', dict(input_shape=(784,))),
        ('mlp', dict(input_shape=(28, 28, 0))),
        ('mlp', dict(input_shape=(28, 28, None))),
        ('mlp', dict(input_shape=(10**5, 10**5, 1))),
        ('mnist_cnn', dict(input_shape=(5, 28, 1))),
        ('small_cnn', dict(input_shape=(28, 6, 1))),
        ('digits_cnn', dict(input_shape=(1, 8, 1))),
        ('tied_lstm', dict(input_shape=(28, 28, 1))),
        ('tied_lstm', dict(input_shape=(0,))),
        ('table_mlp', dict(input_shape=(8, 8, 1))),
        ('table_mlp', dict(input_shape=(None,))),
        ('table_mlp', dict(num_classes=0)),
    ],
)
def test_bad_arguments_are_refused_with_one_short_sentence(name, arguments):
  with pytest.raises(ModelError) as caught:
    models.build(name, **arguments)
  text = str(caught.value)
  assert text.endswith('.') and '\n' not in text and len(text.replace(', '.join(models.names()), '')) < 200


@pytest.mark.parametrize('name', [name for name, known in models.ARCHITECTURES.items() if kinds.IMAGE in known.kinds])
def test_the_smallest_allowed_images_work(name):
  smallest = models.ARCHITECTURES[name].smallest
  model = models.build(name, input_shape=(smallest, smallest, 1))
  assert model(np.ones((1, smallest, smallest, 1), np.float32)).shape == (1, models.ARCHITECTURES[name].num_classes)


# ---- training
# ----------------------------------------------------------------------------------------------------------


def test_digits_cnn_learns_the_digits():
  digits = datasets.load('digits')
  model = models.build('digits_cnn', seed=3)
  model.compile(tf.keras.optimizers.SGD(0.1), tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                ['accuracy'])
  model.fit(data.batches(digits.x_train, digits.y_train, batch_size=20, epochs=6, seed=0), verbose=0)
  test = data.batches(digits.x_test, digits.y_test, batch_size=100, seed=None)
  assert model.evaluate(test, verbose=0)[1] > 0.9


# ---- batches
# -----------------------------------------------------------------------------------------------------------


def examples(count):
  return np.arange(count, dtype=np.float32).reshape(count, 1), np.arange(count, dtype=np.int32)


def collect(dataset):
  return [(x.tolist(), y.tolist()) for x, y in dataset.as_numpy_iterator()]


def test_every_epoch_has_every_example_once_in_another_order():
  batches = collect(data.batches(*examples(23), batch_size=5, epochs=3, seed=1))
  assert [len(y) for _, y in batches] == [5, 5, 5, 5, 3] * 3
  epochs = [sum((y for _, y in batches[start : start + 5]), []) for start in (0, 5, 10)]
  assert all(sorted(epoch) == list(range(23)) for epoch in epochs)
  assert epochs[0] != epochs[1] != epochs[2] != list(range(23))
  assert all([[float(label)] for label in y] == x for x, y in batches)


def test_the_order_depends_on_the_seed_alone():
  tf.random.set_seed(1)
  dataset = data.batches(*examples(50), batch_size=7, seed=(4, 2))
  first = collect(dataset)
  tf.random.set_seed(2)
  assert collect(dataset) == first
  assert collect(data.batches(*examples(50), batch_size=7, seed=(4, 2))) == first
  for other in (4, (4, 2, 0), (4, 3)):
    assert collect(data.batches(*examples(50), batch_size=7, seed=other)) != first


def test_without_a_seed_the_order_is_kept():
  batches = collect(data.batches(*examples(6), batch_size=4, epochs=2, seed=None))
  assert [y for _, y in batches] == [[0, 1, 2, 3], [4, 5]] * 2


def test_a_client_without_examples_gives_no_batches_of_the_same_type():
  empty = data.batches(*examples(0), batch_size=4, epochs=2, seed=0)
  assert collect(empty) == []
  assert empty.element_spec == data.batches(*examples(9), batch_size=4, seed=0).element_spec


def test_batches_have_the_types_of_the_arrays_and_an_open_size():
  digits = datasets.load('digits')
  spec = data.batches(digits.x_train, digits.y_train, batch_size=20, seed=0).element_spec
  assert spec == (tf.TensorSpec([None, 8, 8, 1], tf.float32), tf.TensorSpec([None], tf.int32))


@pytest.mark.parametrize(
    'arguments',
    [
        dict(batch_size=0),
        dict(batch_size=-1),
        dict(batch_size=2.0),
        dict(batch_size=True),
        dict(epochs=0),
        dict(epochs=1.5),
        dict(seed=-1),
        dict(seed='a'),
        dict(y=np.arange(4)),
        dict(y=np.int32(1)),
        dict(x=np.float32(1)),
    ],
)
def test_bad_batch_arguments_are_refused(arguments):
  x, y = examples(5)
  with pytest.raises(DataError):
    data.batches(**{**dict(x=x, y=y, batch_size=2, seed=0), **arguments})


# ---- emnist through TFF
# ------------------------------------------------------------------------------------------------


def example(value, label, size=28 * 28):
  features = {
      'pixels': tf.train.Feature(float_list=tf.train.FloatList(value=[value] * size)),
      'label': tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
  }
  return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


def write_database(folder, rows, tables=True):
  """rows: (split, client, serialized example)."""
  with contextlib.closing(sqlite3.connect(folder / 'emnist_all.sqlite')) as database, database:
    if tables:
      database.execute('CREATE TABLE examples (split_name TEXT, client_id TEXT, serialized_example_proto BLOB)')
      database.execute('CREATE TABLE client_metadata (client_id TEXT, split_name TEXT, num_examples INTEGER)')
      database.executemany('INSERT INTO examples VALUES (?, ?, ?)', rows)
      clients = sorted({(client, split) for split, client, _ in rows}, key=repr)
      database.executemany('INSERT INTO client_metadata VALUES (?, ?, 0)', clients)
    else:
      database.execute('CREATE TABLE other (x TEXT)')
  return folder


GOOD_ROWS = [
    ('digits_only_train', 'f1', example(0.5, 7)),
    ('digits_only_train', 'f0', example(0.25, 1)),
    ('digits_only_train', 'f1', example(0.75, 8)),
    ('digits_only_test', 'f1', example(1, 9)),
    ('digits_only_test', 'f0', example(0, 2)),
    ('all_train', 'f0', example(0.5, 61)),
    ('all_test', 'f0', example(0.5, 60)),
]


def test_emnist_from_tffs_cache_keeps_its_writers(tmp_path):
  loaded = datasets.load('emnist', path=write_database(tmp_path, GOOD_ROWS))
  assert loaded.client_ids.tolist() == ['f0', 'f1', 'f1']
  assert loaded.y_train.tolist() == [1, 7, 8] and loaded.y_test.tolist() == [2, 9]
  assert loaded.x_train[:, 0, 0, 0].tolist() == [0.25, 0.5, 0.75]
  assert loaded.input_shape == (28, 28, 1) and loaded.num_classes == 10
  one = datasets.load('emnist', path=tmp_path / 'emnist_all.sqlite', max_clients=1)
  assert len(set(one.client_ids)) == 1 and len(one.y_test) == 1
  letters = datasets.load('emnist', path=tmp_path, only_digits=False)
  assert letters.num_classes == 62 and letters.y_train.tolist() == [61]


def test_emnist_is_found_in_tffs_own_cache(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  (tmp_path / '.tff').mkdir()
  write_database(tmp_path / '.tff', GOOD_ROWS)
  assert datasets.load('emnist', download=False).y_train.tolist() == [1, 7, 8]


TEST_ROW = ('digits_only_test', 'f0', example(0, 2))
BAD_DATABASES = {
    'no rows': [],
    'no test rows': [('digits_only_train', 'f0', example(0, 2))],
    'label above': [('digits_only_train', 'f0', example(0, 10)), TEST_ROW],
    'label below': [('digits_only_train', 'f0', example(0, -1)), TEST_ROW],
    'pixels above': [('digits_only_train', 'f0', example(1.5, 1)), TEST_ROW],
    'pixels NaN': [('digits_only_train', 'f0', example(float('nan'), 1)), TEST_ROW],
    'too few pixels': [('digits_only_train', 'f0', example(0, 1, size=783)), TEST_ROW],
    'no example': [('digits_only_train', 'f0', b'nonsense'), TEST_ROW],
    'nothing': [('digits_only_train', 'f0', None), TEST_ROW],
    'client is nobody': [('digits_only_train', None, example(0, 2)), ('digits_only_train', 'f0', example(0, 2)),
                         TEST_ROW],
    'client with a quote': [('digits_only_train', "f0' --", example(0, 2)), TEST_ROW],
}


@pytest.mark.parametrize('rows', BAD_DATABASES.values(), ids=BAD_DATABASES)
def test_databases_that_are_no_emnist_are_refused(tmp_path, rows):
  with pytest.raises(DataError) as caught:
    datasets.load('emnist', path=write_database(tmp_path, rows))
  assert '\n' not in str(caught.value) and str(caught.value).endswith('.')


def test_emnist_that_cannot_be_downloaded_says_where_to_put_it(tmp_path, monkeypatch):
  def offline(*args, **kwargs):
    raise OSError('no network')

  monkeypatch.setenv('HOME', str(tmp_path))
  monkeypatch.setattr('urllib.request.urlopen', offline)
  with pytest.raises(DataError, match='could not be downloaded .*no network.*pass --data-dir'):
    datasets.load('emnist')


def test_fashion_mnist_that_cannot_be_downloaded_says_where_to_get_it(tmp_path, monkeypatch):
  def offline():
    raise Exception('URL fetch failure')

  monkeypatch.setenv('HOME', str(tmp_path))
  monkeypatch.setattr(fashion_mnist, 'FOLDER', tmp_path / 'none')
  monkeypatch.setattr(tf.keras.datasets.fashion_mnist, 'load_data', offline)
  with pytest.raises(DataError, match="could not be downloaded: install Debian's dataset-fashion-mnist"):
    datasets.load('fashion-mnist')


def test_files_that_are_no_database_are_refused(tmp_path):
  with pytest.raises(DataError, match='delete .* or pass --data-dir'):
    datasets.load('emnist', path=write_database(tmp_path, [], tables=False))
  for content in (b'', b'x' * 5000):
    (tmp_path / 'emnist_all.sqlite').write_bytes(content)
    with pytest.raises(DataError):
      datasets.load('emnist', path=tmp_path)


def test_emnist_beyond_the_memory_limit_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(reading, 'MAX_VALUES', 2 * 784)
  with pytest.raises(DataError, match='max_clients'):
    datasets.load('emnist', path=write_database(tmp_path, GOOD_ROWS))
