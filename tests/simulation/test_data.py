"""Data sets: what they hold, and that files which lie, are cut short or are hostile are refused cheaply.

The functions that need TensorFlow (`batches`, emnist through TFF) are tested in test_models.py.
"""

import gzip
import hashlib
import io
import os
import pathlib
import struct
import subprocess
import sys
import tarfile
import tracemalloc
import zipfile

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from tests.simulation.files import fashion_mnist as fashion_files
from tests.simulation.files.cifar10 import cifar10_files
from tests.simulation.files.cifar10 import RECORDS
from tests.simulation.files.cifar10 import write_cifar10
from tests.simulation.files.emnist import write_h5_pair
from tests.simulation.files.emnist import writer
from tests.simulation.files.fashion_mnist import idx
from tff_compress.codec.errors import CompressionError
from tff_compress.simulation import data
from tff_compress.simulation import datasets
from tff_compress.simulation.data import DataError
from tff_compress.simulation.datasets import fashion_mnist
from tff_compress.simulation.datasets import reading

RNG = np.random.Generator(np.random.Philox(0))
PIXELS = RNG.integers(0, 256, (30, 28, 28), np.uint8)
LABELS = np.arange(30, dtype=np.uint8) % 10


def write_idx_folder(folder, packed, **replaced):
  arrays = {'x_train': idx(PIXELS[:20]), 'y_train': idx(LABELS[:20]), 'x_test': idx(PIXELS[20:]),
            'y_test': idx(LABELS[20:])}
  return fashion_files.write_files(folder, {**arrays, **replaced}, packed)


def npy(array):
  stream = io.BytesIO()
  np.lib.format.write_array(stream, array, allow_pickle=True)
  return stream.getvalue()


def npy_with_header(header, values=b'', version=b'\x01\x00'):
  length = len(header).to_bytes(2 if version == b'\x01\x00' else 4, 'little')
  return b'\x93NUMPY' + version + length + header + values


def write_zip(path, members, compression=zipfile.ZIP_STORED):
  with zipfile.ZipFile(path, 'w', compression) as archive:
    for name, content in members.items():
      archive.writestr(name, content)
  return path


def good_members(**replaced):
  arrays = {'x_train': npy(PIXELS[:20]), 'y_train': npy(LABELS[:20]), 'x_test': npy(PIXELS[20:]),
            'y_test': npy(LABELS[20:])}
  return {f'{name}.npy': content for name, content in {**arrays, **replaced}.items()}


def refused(*, match=None, peak=8e6, **arguments):
  """The message with which `load` refuses; checks that it is one sentence and that little memory was taken."""
  tracemalloc.start()
  try:
    with pytest.raises(DataError, match=match) as caught:
      datasets.load(**arguments)
    assert tracemalloc.get_traced_memory()[1] < peak
  finally:
    tracemalloc.stop()
  text = str(caught.value)
  assert text.endswith('.') and '\n' not in text
  return text


# ---- digits
# ------------------------------------------------------------------------------------------------------------


def test_digits_are_scikit_learns_digits_with_a_fixed_stratified_fifth_for_testing():
  digits = datasets.load()
  assert digits.name == 'digits' and digits.num_classes == 10 and digits.input_shape == (8, 8, 1)
  assert digits.x_train.shape == (1438, 8, 8, 1) and digits.x_test.shape == (359, 8, 8, 1)
  assert digits.x_train.dtype == np.float32 and digits.y_train.dtype == np.int32
  np.testing.assert_allclose(np.bincount(digits.y_test), np.bincount(digits.y_train) / 4, atol=1)
  assert digits.x_train.min() == 0 and digits.x_train.max() == 1
  assert digits.client_ids is None
  found = hashlib.sha256(digits.x_test.tobytes() + digits.y_test.tobytes()).hexdigest()[:16]
  assert found == '9e6a9dcae4ed7ece'


def test_digits_training_and_test_examples_are_all_of_the_digits():
  from sklearn.datasets import load_digits

  digits = datasets.load('digits')
  joined = np.concatenate([digits.x_train, digits.x_test]).reshape(1797, 64)
  expected = (load_digits().data / 16).astype(np.float32)
  np.testing.assert_array_equal(np.unique(joined, axis=0), np.unique(expected, axis=0))


def test_arrays_of_a_dataset_cannot_be_written():
  digits = datasets.load()
  for array in (digits.x_train, digits.y_train, digits.x_test, digits.y_test):
    with pytest.raises(ValueError):
      array[0] = 0


def test_the_callers_arrays_stay_writeable():
  x, y = np.zeros((2, 1, 1, 1), np.float32), np.arange(2, dtype=np.int32)
  made = data.Dataset('mine', x, y, x, y, 2)
  x[0] = 1
  assert not made.x_train.flags.writeable


# ---- names and options
# -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['', 'mnist', 'Digits', None, 3, 'x' * 10**6])
def test_unknown_names_are_answered_with_the_known_ones(name):
  known = ', '.join(datasets.names())
  assert len(refused(name=name, match=known)) - len(known) < 100


@pytest.mark.parametrize(
    'arguments',
    [
        dict(name='digits', path='/'),
        dict(name='digits', max_clients=3),
        dict(name='npz'),
        dict(name='cifar10'),
        dict(name='cifar10', path='/', max_clients=3),
        dict(name='colour-shapes', path='/'),
        dict(name='npz', path='x.npz', only_digits=False),
        dict(name='emnist', max_clients=0),
        dict(name='emnist', max_clients=True),
        dict(name='emnist', max_clients=1.5),
    ],
)
def test_options_that_do_not_belong_to_a_data_set_are_refused(arguments):
  refused(**arguments)


def test_unknown_options_are_refused():
  with pytest.raises(TypeError):
    datasets.load('digits', seed=3)


def test_importing_and_loading_digits_needs_no_tensorflow():
  code = (
      'import sys; from tff_compress.simulation import load, split; d = load(); split("iid", d.y_train, 3, 0);'
      'heavy = ("tensorflow", "tensorflow_federated", "keras", "h5py"); '
      'sys.exit(any(name.split(".")[0] in heavy for name in sys.modules))'
  )
  assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0


def test_importing_needs_numpy_only():
  code = (
      'import sys; import tff_compress.simulation;'
      'heavy = ("tensorflow", "tensorflow_federated", "keras", "h5py", "sklearn", "scipy");'
      'sys.exit(any(name.split(".")[0] in heavy for name in sys.modules))'
  )
  assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0


def test_errors_are_value_errors_of_this_package():
  assert issubclass(DataError, CompressionError) and issubclass(DataError, ValueError)


# ---- Dataset
# -----------------------------------------------------------------------------------------------------------


def dataset(**replaced):
  x, y = np.full((4, 2, 2, 1), 0.5, np.float32), np.arange(4, dtype=np.int32)
  return data.Dataset(**{**dict(name='mine', x_train=x, y_train=y, x_test=x[:2], y_test=y[:2], num_classes=4),
                         **replaced})


@pytest.mark.parametrize(
    'replaced',
    [
        dict(x_train=np.zeros((4, 2, 2, 1))),
        dict(x_train=np.zeros((4, 2, 2), np.float32)),
        dict(x_train=np.zeros((0, 2, 2, 1), np.float32), y_train=np.zeros(0, np.int32)),
        dict(x_train=np.zeros((3, 2, 2, 1), np.float32)),
        dict(x_train=[[[[0.0]]]]),
        dict(x_train=np.full((4, 2, 2, 1), np.nan, np.float32)),
        dict(x_train=np.full((4, 2, 2, 1), np.inf, np.float32)),
        dict(x_test=np.full((2, 2, 2, 1), -0.1, np.float32)),
        dict(x_test=np.full((2, 2, 2, 1), 1.1, np.float32)),
        dict(x_test=np.zeros((2, 3, 2, 1), np.float32)),
        dict(y_train=np.arange(4)),
        dict(y_train=np.zeros((4, 1), np.int32)),
        dict(y_test=np.array([0, 4], np.int32)),
        dict(y_test=np.array([0, -1], np.int32)),
        dict(num_classes=3),
        dict(y_train=np.zeros(4, np.int32), y_test=np.zeros(2, np.int32), num_classes=1),
        dict(client_ids=np.arange(3)),
        dict(client_ids=np.zeros(4)),
        dict(client_ids=['a'] * 4),
        dict(client_ids=np.array(['a'] * 4, object)),
    ],
)
def test_a_dataset_is_checked_when_it_is_made(replaced):
  dataset()
  with pytest.raises(DataError) as caught:
    dataset(**replaced)
  assert str(caught.value).startswith('mine: ')


# ---- fashion-mnist
# -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('packed', [True, False])
def test_idx_files_are_read_plain_and_packed(tmp_path, packed):
  loaded = datasets.load('fashion-mnist', path=write_idx_folder(tmp_path, packed))
  assert loaded.num_classes == 10 and loaded.client_ids is None
  np.testing.assert_array_equal(loaded.x_train, (PIXELS[:20, ..., np.newaxis] / 255).astype(np.float32))
  np.testing.assert_array_equal(loaded.x_test, (PIXELS[20:, ..., np.newaxis] / 255).astype(np.float32))
  np.testing.assert_array_equal(loaded.y_train, LABELS[:20])
  np.testing.assert_array_equal(loaded.y_test, LABELS[20:])


@pytest.mark.thorough
@pytest.mark.skipif(not fashion_mnist.FOLDER.exists(), reason="Debian's dataset-fashion-mnist is not installed")
def test_the_original_fashion_mnist():
  loaded = datasets.load('fashion-mnist')
  assert loaded.x_train.shape == (60000, 28, 28, 1) and loaded.x_test.shape == (10000, 28, 28, 1)
  assert (np.bincount(loaded.y_train) == 6000).all() and (np.bincount(loaded.y_test) == 1000).all()
  assert loaded.y_train[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]
  assert abs(float(loaded.x_train.mean(dtype=np.float64)) - 0.2860) < 1e-4


def test_debians_folder_comes_before_kerass_cache(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path / 'home'))
  cache = tmp_path / 'home' / '.keras' / 'datasets' / 'fashion-mnist'
  cache.mkdir(parents=True)
  write_idx_folder(cache, True, y_test=idx(LABELS[20:][::-1]))
  monkeypatch.setattr(fashion_mnist, 'FOLDER', tmp_path / 'debian')
  assert datasets.load('fashion-mnist', download=False).y_test[0] == LABELS[-1]
  write_idx_folder(tmp_path / 'debian', True)
  assert datasets.load('fashion-mnist', download=False).y_test[0] == LABELS[20]


def test_what_is_not_there_says_where_to_get_it(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  monkeypatch.setattr(fashion_mnist, 'FOLDER', tmp_path / 'none')
  refused(name='fashion-mnist', download=False, match="install Debian's dataset-fashion-mnist or pass --data-dir")
  refused(name='fashion-mnist', path=tmp_path, match="has no train-images-idx3-ubyte .*install Debian's")
  refused(name='fashion-mnist', path=tmp_path / 'none', match='not a folder.*--data-dir')
  refused(name='emnist', download=False, match='pass --data-dir.*emnist_all.sqlite')
  refused(name='emnist', path=tmp_path, match='pass --data-dir.*emnist_all.sqlite')
  refused(name='npz', path=tmp_path / 'none.npz', match='none.npz cannot be opened')


@pytest.mark.parametrize('array', sorted(fashion_files.NAMES))
def test_each_of_the_four_files_is_needed(tmp_path, array):
  folder = write_idx_folder(tmp_path, True, **{array: None})
  refused(name='fashion-mnist', path=folder, match=fashion_files.NAMES[array])


def header(ndim=3, shape=(20, 28, 28), magic=(0, 0, 8)):
  return struct.pack(f'>4B{len(shape)}I', *magic, ndim, *shape)


BAD_IMAGE_FILES = {
    'empty': b'',
    'one byte': b'\0',
    'header cut': header()[:15],
    'no values': header(),
    'one value missing': idx(PIXELS[:20])[:-1],
    'one byte too many': idx(PIXELS[:20]) + b'\0',
    'signed bytes': header(magic=(0, 0, 9)) + PIXELS[:20].tobytes(),
    'wrong magic': header(magic=(1, 0, 8)) + PIXELS[:20].tobytes(),
    'two dimensions claimed': header(ndim=2) + PIXELS[:20].tobytes(),
    'labels': idx(LABELS[:20]),
    'no images': header(shape=(0, 28, 28)),
    'no rows': header(shape=(20, 0, 28)),
    'more than any memory': header(shape=(2**32 - 1,) * 3) + PIXELS[:20].tobytes(),
    'more than it has': header(shape=(2**19, 28, 28)) + PIXELS[:20].tobytes(),
    'not 28x28': idx(PIXELS[:20].reshape(20, 14, 56)),
    'fewer than labels': idx(PIXELS[:19]),
}


@pytest.mark.parametrize('packed', [True, False])
@pytest.mark.parametrize('content', BAD_IMAGE_FILES.values(), ids=BAD_IMAGE_FILES)
def test_image_files_that_lie_or_are_cut_are_refused(tmp_path, packed, content):
  refused(name='fashion-mnist', path=write_idx_folder(tmp_path, packed, x_train=content))


BAD_LABEL_FILES = {
    'label 10': idx(np.full(20, 10, np.uint8)),
    'one label missing': idx(LABELS[:20])[:-1],
    'more than images': idx(LABELS[:21]),
    'images': idx(PIXELS[:20]),
    'no labels': idx(LABELS[:0]),
}


@pytest.mark.parametrize('content', BAD_LABEL_FILES.values(), ids=BAD_LABEL_FILES)
def test_label_files_that_lie_or_are_cut_are_refused(tmp_path, content):
  refused(name='fashion-mnist', path=write_idx_folder(tmp_path, True, y_train=content))


def test_a_packed_file_cut_anywhere_or_damaged_is_refused(tmp_path):
  write_idx_folder(tmp_path, True)
  file = tmp_path / (fashion_files.NAMES['y_train'] + '.gz')
  whole = file.read_bytes()
  for end in range(len(whole)):
    file.write_bytes(whole[:end])
    refused(name='fashion-mnist', path=tmp_path)
  for at in range(10, len(whole)):  # before that: time stamp and system of origin, which do not matter
    file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
    refused(name='fashion-mnist', path=tmp_path)


def test_a_bomb_is_not_unpacked_beyond_what_its_header_claims(tmp_path):
  bomb = header(shape=(20, 28, 28)) + bytes(100_000_000)
  folder = write_idx_folder(tmp_path, True, x_train=bomb)
  assert (folder / (fashion_files.NAMES['x_train'] + '.gz')).stat().st_size < 1_000_000
  refused(name='fashion-mnist', path=folder, match='does not hold')


def test_a_small_packed_file_that_claims_much_is_refused_before_memory_is_taken(tmp_path):
  folder = write_idx_folder(tmp_path, True, x_train=header(shape=(500_000, 28, 28)) + bytes(100_000))
  refused(name='fashion-mnist', path=folder, match='does not fit its size', peak=3e6)


@pytest.mark.parametrize('kind', ['folder', 'pipe', 'device', 'loop'])
def test_what_is_not_a_regular_file_is_refused_and_not_waited_for(tmp_path, kind):
  write_idx_folder(tmp_path, False, x_train=None)
  file = tmp_path / fashion_files.NAMES['x_train']
  if kind == 'folder':
    file.mkdir()
  elif kind == 'pipe':
    os.mkfifo(file)
  elif kind == 'device':
    file.symlink_to('/dev/zero')
  else:
    file.symlink_to(file)
  refused(name='fashion-mnist', path=tmp_path, match='has no' if kind == 'loop' else 'is not a file')


def test_a_file_above_the_limits_is_refused(tmp_path, monkeypatch):
  write_idx_folder(tmp_path, True)
  monkeypatch.setattr(reading, 'MAX_VALUES', 20 * 784 - 1)
  refused(name='fashion-mnist', path=tmp_path, match='more than 15679 values')


# ---- cifar10
# -----------------------------------------------------------------------------------------------------------

def tar_of(files, kind=tarfile.USTAR_FORMAT):
  stream = io.BytesIO()
  with tarfile.open(fileobj=stream, mode='w', format=kind) as archive:
    folder = tarfile.TarInfo('cifar-10-batches-bin')
    folder.type = tarfile.DIRTYPE
    archive.addfile(folder)
    for name, content in files.items():
      info = tarfile.TarInfo(f'cifar-10-batches-bin/{name}')
      info.size = len(content)
      archive.addfile(info, io.BytesIO(content))
  return stream.getvalue()


def write_archive(path, tar):
  path.write_bytes(gzip.compress(tar, 1))
  return path


def claimed(name, size):
  """The header of a file in an archive."""
  info = tarfile.TarInfo(name)
  info.size = size
  return info.tobuf(tarfile.GNU_FORMAT)


def link(name):
  info = tarfile.TarInfo(name)
  info.type, info.linkname = tarfile.SYMTYPE, '/etc/passwd'
  return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize('form', ['folder', 'folder around it', 'archive', 'archive of the pax format'])
def test_cifar10_is_read_from_its_folder_and_its_archive(tmp_path, form):
  if form.startswith('folder'):
    write_cifar10(tmp_path if form == 'folder' else tmp_path / 'cifar-10-batches-bin')
    path = tmp_path
  else:
    kind = tarfile.PAX_FORMAT if 'pax' in form else tarfile.GNU_FORMAT
    path = write_archive(tmp_path / 'any.tar.gz', tar_of({'readme.html': b'x' * 700, **cifar10_files()}, kind))
  loaded = datasets.load('cifar10', path=path)
  assert loaded.num_classes == 10 and loaded.input_shape == (32, 32, 3) and loaded.client_ids is None
  np.testing.assert_array_equal(loaded.y_train, RECORDS[:50, 0])
  np.testing.assert_array_equal(loaded.y_test, RECORDS[50:, 0])
  # 1024 red values row by row, then the green and the blue ones: row 2, column 3 is at 1 + 2 * 32 + 3.
  np.testing.assert_array_equal(loaded.x_train[7, 2, 3], RECORDS[7, 68::1024].astype(np.float32) / np.float32(255))
  np.testing.assert_array_equal(loaded.x_test[9, 31, 31], RECORDS[59, 1024::1024].astype(np.float32) / np.float32(255))


def test_cifar10_that_is_not_there_or_pickled_says_what_to_get(tmp_path):
  refused(name='cifar10', match='cifar-10-binary.tar.gz')
  refused(name='cifar10', path=tmp_path, match='has no data_batch_1.bin.*cifar-10-binary.tar.gz')
  refused(name='cifar10', path=tmp_path / 'none.tar.gz', match='cannot be opened')
  (tmp_path / 'data_batch_1').write_bytes(b'\x80\x03}q\x01.')
  refused(name='cifar10', path=tmp_path, match='has no data_batch_1.bin.*of pickles, is not read')
  archive = write_archive(tmp_path / 'a.tar.gz', tar_of({'data_batch_1': b'\x80\x03}q\x01.'}))
  refused(name='cifar10', path=archive, match='has no data_batch_1.bin')


BAD_BATCHES = {
    'empty': b'',
    'one byte missing': RECORDS[:10].tobytes()[:-1],
    'one byte too many': RECORDS[:10].tobytes() + b'\0',
    'too many images': bytes(3073 * 10_001),
    'label 10': b'\x0a' + bytes(3072),
    'missing': None,
}


@pytest.mark.parametrize('form', ['folder', 'archive'])
@pytest.mark.parametrize('content', BAD_BATCHES.values(), ids=BAD_BATCHES)
def test_cifar10_files_that_lie_or_are_cut_are_refused(tmp_path, form, content):
  if form == 'folder':
    path = write_cifar10(tmp_path, data_batch_3=content)
  else:
    path = write_archive(tmp_path / 'a.tar.gz', tar_of(cifar10_files(data_batch_3=content)))
  refused(name='cifar10', path=path, match='data_batch_3|between 0 and 9')


def test_a_cifar10_archive_that_is_cut_or_damaged_is_refused(tmp_path):
  tar = tar_of(cifar10_files())
  path = tmp_path / 'a.tar.gz'
  for end in list(range(0, len(tar) - 10240, 5003)) + [512, 513, 1024]:
    refused(name='cifar10', path=write_archive(path, tar[:end]))
  packed = gzip.compress(tar, 1)
  for end in (0, 1, 9, 100, len(packed) // 2, len(packed) - 1):
    path.write_bytes(packed[:end])
    refused(name='cifar10', path=path)
  for at in (0, 124, 148, 512, 512 + 124, 512 + 150):  # names, sizes, checksums of headers
    write_archive(path, tar[:at] + bytes([tar[at] ^ 0x40]) + tar[at + 1:])
    refused(name='cifar10', path=path, match='cannot be read|has no')


HOSTILE_ARCHIVES = {
    'no archive': b'x' * 5000,
    'a bomb': claimed('other', 2**40) + bytes(1000),
    'many bombs': 2 * (claimed('other', 50_000_000) + bytes(50_000_384)) + claimed('other', 2**29),
    'a negative size': claimed('data_batch_1.bin', -512),
    'twice the same': tar_of(cifar10_files())[:-10240] + tar_of(cifar10_files()),
    'a link in place of a file': tar_of(cifar10_files(data_batch_2=None))[:-10240] + link('data_batch_2.bin'),
}


@pytest.mark.parametrize('tar', HOSTILE_ARCHIVES.values(), ids=HOSTILE_ARCHIVES)
def test_hostile_cifar10_archives_are_refused_with_little_memory(tmp_path, tar):
  refused(name='cifar10', path=write_archive(tmp_path / 'a.tar.gz', tar), match='a.tar.gz')


# ---- colour-shapes
# -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def colour_shapes():
  return datasets.load('colour-shapes')


@pytest.mark.thorough
def test_colour_shapes_are_always_the_same_and_balanced(colour_shapes):
  assert colour_shapes.x_train.shape == (5000, 32, 32, 3) and colour_shapes.x_test.shape == (1000, 32, 32, 3)
  assert (np.bincount(colour_shapes.y_train) == 500).all() and (np.bincount(colour_shapes.y_test) == 100).all()
  again = datasets.load('colour-shapes')
  np.testing.assert_array_equal(again.x_test, colour_shapes.x_test)
  assert len(np.unique(np.concatenate([again.x_train, again.x_test]).reshape(6000, -1)[:, :96], axis=0)) == 6000


@pytest.mark.thorough
def test_the_colour_of_a_shape_shows_in_colour_only(colour_shapes):
  """Warm shapes have more red than blue, cold ones the reverse; in brightness they overlap."""
  x, warm = colour_shapes.x_test.astype(np.float64), colour_shapes.y_test % 2 == 0
  # What stands out from the corner, which is background.
  difference = x - x[:, :3, :3].mean((1, 2), keepdims=True)
  inside = np.sqrt((difference**2).sum(-1, keepdims=True)) > 0.45
  mean = np.where(inside, x, 0).sum((1, 2)) / np.maximum(inside.sum((1, 2)), 1)
  right = lambda value: max(np.mean((value > t) == warm) for t in np.quantile(value, np.linspace(0, 1, 101)))
  assert right(mean[:, 0] - mean[:, 2]) > 0.85
  assert right(mean @ [0.299, 0.587, 0.114]) < 0.7


# ---- npz
# ---------------------------------------------------------------------------------------------------------------


def test_npz_with_all_four_arrays(tmp_path):
  arrays = dict(x_train=PIXELS[:20], y_train=LABELS[:20], x_test=PIXELS[20:], y_test=LABELS[20:])
  np.savez_compressed(tmp_path / 'd.npz', **arrays, unrelated=np.array([None]))
  loaded = datasets.load('npz', path=tmp_path / 'd.npz')
  assert loaded.num_classes == 10 and loaded.input_shape == (28, 28, 1)
  np.testing.assert_array_equal(loaded.x_train[..., 0], (PIXELS[:20] / 255).astype(np.float32))
  np.testing.assert_array_equal(loaded.y_test, LABELS[20:])
  assert loaded.x_train.flags.c_contiguous


@pytest.mark.parametrize('names', [('x', 'y'), ('x_train', 'y_train')])
def test_npz_without_test_examples_gets_a_fixed_stratified_fifth(tmp_path, names):
  values = np.arange(100, dtype=np.float32).reshape(100, 1, 1, 1) / 100
  labels = np.repeat([0, 1, 2, 5], 25)
  ids = np.array([f'client {i % 7}' for i in range(100)])
  np.savez(tmp_path / 'd.npz', **dict(zip(names, (values, labels))), client_ids=ids)
  loaded = datasets.load('npz', path=tmp_path / 'd.npz')
  again = datasets.load('npz', path=str(tmp_path / 'd.npz'))
  assert loaded.num_classes == 6
  assert np.bincount(loaded.y_test).tolist() == [5, 5, 5, 0, 0, 5]
  np.testing.assert_array_equal(loaded.x_test, again.x_test)
  for x, y in ((loaded.x_train, loaded.y_train), (loaded.x_test, loaded.y_test)):
    np.testing.assert_array_equal(labels[np.rint(x.ravel() * 100).astype(int)], y)
  np.testing.assert_array_equal(ids[np.rint(loaded.x_train.ravel() * 100).astype(int)], loaded.client_ids)
  assert sorted(np.concatenate([loaded.x_train, loaded.x_test]).ravel()) == sorted(values.ravel())


def test_a_label_with_one_example_stays_in_training(tmp_path):
  np.savez(tmp_path / 'd.npz', x=PIXELS[:5], y=np.array([0, 0, 0, 0, 1]))
  loaded = datasets.load('npz', path=tmp_path / 'd.npz')
  assert 1 in loaded.y_train and loaded.y_test.tolist() == [0]
  np.savez(tmp_path / 'd.npz', x=PIXELS[:2], y=np.array([0, 1]))
  refused(name='npz', path=tmp_path / 'd.npz', match='add x_test and y_test')


@pytest.mark.parametrize(
    'stored',
    [
        PIXELS[:20].astype('>i4'),
        PIXELS[:20].astype(np.int64),
        np.asfortranarray(PIXELS[:20]),
        PIXELS[:20] / 255,
        (PIXELS[:20] / 255).astype('>f4'),
        (PIXELS[:20] / 255).astype(np.float32)[..., np.newaxis],
    ],
)
def test_images_of_any_plain_type_are_the_same_images(tmp_path, stored):
  np.savez(tmp_path / 'd.npz', x_train=stored, y_train=LABELS[:20].astype('>u8'), x_test=PIXELS[20:],
           y_test=LABELS[20:])
  loaded = datasets.load('npz', path=tmp_path / 'd.npz')
  assert loaded.x_train.dtype == np.float32 and loaded.x_train.dtype.isnative
  np.testing.assert_allclose(loaded.x_train[..., 0], PIXELS[:20] / 255, atol=1e-7)
  np.testing.assert_array_equal(loaded.y_train, LABELS[:20])


@pytest.mark.parametrize(
    'replaced',
    [
        dict(x_train=PIXELS[:20].astype(np.int16) + 1),
        dict(x_train=PIXELS[:20].astype(np.int16) - 1),
        dict(x_train=PIXELS[:20].astype(np.float32)),
        dict(x_train=np.full((20, 28, 28), np.nan)),
        dict(x_train=np.full((20, 28, 28), np.inf)),
        dict(x_train=np.full((20, 28, 28), 1e300)),
        dict(x_train=PIXELS[:20] > 3),
        dict(x_train=PIXELS[:20].astype(complex)),
        dict(x_train=PIXELS[:20].astype(np.longdouble)),
        dict(x_train=PIXELS[:20].reshape(20, -1)),
        dict(x_train=PIXELS[:20, :14]),
        dict(x_train=PIXELS[:0]),
        dict(x_train=np.float32(0.5)),
        dict(x_train=PIXELS[:19]),
        dict(y_train=LABELS[:20].astype(float)),
        dict(y_train=LABELS[:20].astype(int) - 1),
        dict(y_train=np.arange(20) * 10_000),
        dict(y_train=np.full(20, 2**63, np.uint64)),
        dict(y_train=LABELS[:20].reshape(20, 1)),
        dict(y_train=LABELS[:0]),
        dict(y_train=LABELS[:19]),
        dict(y_train=np.zeros(20, int), y_test=np.zeros(10, int)),
        dict(y_train=LABELS[:20].astype(str)),
        dict(client_ids=np.arange(19)),
        dict(client_ids=np.arange(20) / 2),
        dict(client_ids=np.zeros(20, 'S3')),
        dict(client_ids=np.array('x')),
    ],
)
def test_npz_arrays_that_are_no_data_set_are_refused(tmp_path, replaced):
  arrays = dict(x_train=PIXELS[:20], y_train=LABELS[:20], x_test=PIXELS[20:], y_test=LABELS[20:])
  np.savez(tmp_path / 'd.npz', **{**arrays, **replaced})
  with np.errstate(all='raise'):
    refused(name='npz', path=tmp_path / 'd.npz')


@pytest.mark.parametrize(
    'names',
    [(), ('x',), ('y',), ('x_train',), ('x', 'y_train'), ('x', 'y', 'x_train'), ('x_train', 'y_train', 'x_test')]
)
def test_npz_with_other_arrays_says_which_to_save(tmp_path, names):
  np.savez(tmp_path / 'd.npz', other=LABELS, **{name: LABELS if name[0] == 'y' else PIXELS for name in names})
  refused(name='npz', path=tmp_path / 'd.npz', match='save x_train, y_train, x_test, y_test')


class Trap:
  """Unpickling one of these creates a file."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return (pathlib.Path.touch, (pathlib.Path(self.path),))


def test_objects_are_never_unpickled(tmp_path):
  trap = np.array([Trap(tmp_path / 'sprung')] * 20, object)
  for replaced in ({'y_train': npy(trap)}, {'client_ids': npy(trap)}):
    refused(name='npz', path=write_zip(tmp_path / 'd.npz', good_members(**replaced)), match='never objects|not objects')
    assert not (tmp_path / 'sprung').exists()
  # The trap is one: NumPy springs it when it is allowed to.
  np.lib.format.read_array(io.BytesIO(npy(trap)), allow_pickle=True)
  assert (tmp_path / 'sprung').exists()


def u1(shape, values=b''):
  return npy_with_header(b"{'descr': '|u1', 'fortran_order': False, 'shape': " + shape + b'}', values)


def typed(descr, values=b''):
  return npy_with_header(b"{'descr': " + descr + b", 'fortran_order': False, 'shape': (20,)}", values)


BAD_NPY_MEMBERS = {
    'empty': b'',
    'magic only': b'\x93NUMPY',
    'one value missing': npy(PIXELS[:20])[:-1],
    'header cut': npy(PIXELS[:20])[:40],
    'one byte too many': npy(PIXELS[:20]) + b'\0',
    'version 3': npy(PIXELS[:20]).replace(b'NUMPY\x01', b'NUMPY\x03'),
    'more than it has': u1(b'(500000, 28, 28)', bytes(1000)),
    'no values, too long': u1(b'(0, 99999999999999999999)'),
    'negative': u1(b'(-1, -1)', bytes(1)),
    'truth values': u1(b'(True, 1)', bytes(1)),
    'forty dimensions': u1(b'(' + b'1,' * 40 + b')', bytes(1)),
    'shape no tuple': u1(b'20', bytes(20)),
    'order no truth value': npy_with_header(b"{'descr': '|u1', 'fortran_order': 1, 'shape': (20,)}", bytes(20)),
    'record': typed(b"[('a', '|u1')]", bytes(20)),
    'records in a string': typed(b"'u1,u1'", bytes(40)),
    'nonsense type': typed(b"'nonsense'", bytes(20)),
    'raw bytes': typed(b"'|V1'", bytes(20)),
    'strings of no length': typed(b"'<U0'"),
    'objects': typed(b"'|O'", bytes(160)),
    'dates': typed(b"'<M8[s]'", bytes(160)),
    'keys missing': npy_with_header(b"{'shape': (20,)}", bytes(20)),
    'list': npy_with_header(b'[1, 2]', bytes(20)),
    'call': npy_with_header(b'__import__("os").getcwd()', bytes(20)),
    'nested': npy_with_header(b'(' * 5000, bytes(20)),
    'nested signs': npy_with_header(b'-' * 9000 + b'1', bytes(20)),
    'long number': npy_with_header(b'9' * 9000, bytes(20)),
    'null byte': npy_with_header(b'\0', bytes(20)),
    'long header': npy_with_header(b' ' * 20_000_000, version=b'\x02\x00'),
}


@pytest.mark.parametrize('array', BAD_NPY_MEMBERS.values(), ids=BAD_NPY_MEMBERS)
def test_npy_members_that_lie_or_are_cut_are_refused(tmp_path, array):
  refused(name='npz', path=write_zip(tmp_path / 'd.npz', good_members(x_train=array), zipfile.ZIP_DEFLATED))


def test_strings_with_impossible_characters_are_refused(tmp_path):
  for order in '<>':
    values = np.full(20, 0x110000, f'{order}u4').tobytes()
    array = npy_with_header(f"{{'descr': '{order}U1', 'fortran_order': False, 'shape': (20,)}}".encode(), values)
    refused(name='npz', path=write_zip(tmp_path / 'd.npz', good_members(client_ids=array)),
            match='impossible characters')


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path):
  bomb = npy_with_header(b"{'descr': '|u1', 'fortran_order': False, 'shape': (20, 28, 28)}", bytes(100_000_000))
  path = write_zip(tmp_path / 'd.npz', good_members(x_train=bomb), zipfile.ZIP_DEFLATED)
  assert path.stat().st_size < 1_000_000
  refused(name='npz', path=path, match='does not fit its size')


def test_an_archive_that_claims_too_much_in_all_is_refused(tmp_path, monkeypatch):
  monkeypatch.setattr(reading, 'MAX_BYTES', 30_000)
  black = np.zeros((20, 28, 28), np.uint8)  # 15,680 bytes each
  path = write_zip(tmp_path / 'd.npz', good_members(x_train=npy(black), x_test=npy(black)), zipfile.ZIP_DEFLATED)
  assert path.stat().st_size < 30_000
  refused(name='npz', path=path, match='unpacks to more than')


def test_a_member_that_lies_about_its_size_is_refused(tmp_path):
  path = write_zip(tmp_path / 'd.npz', good_members(), zipfile.ZIP_DEFLATED)
  whole = path.read_bytes()
  true_size = struct.pack('<I', len(good_members()['x_train.npy']))
  for claim in (0, 100, 2**31, 2**32 - 1):
    path.write_bytes(whole.replace(true_size, struct.pack('<I', claim)))
    refused(name='npz', path=path)


@pytest.mark.parametrize('compression', [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_packed_otherwise_are_refused(tmp_path, compression):
  refused(name='npz', path=write_zip(tmp_path / 'd.npz', good_members(), compression), match='save it with numpy.savez')


def test_an_archive_with_a_huge_directory_is_refused(tmp_path):
  members = {f'{i}': b'' for i in range(3000)}
  refused(name='npz', path=write_zip(tmp_path / 'd.npz', {**good_members(), **members}), match='not an .npz file')


def test_an_archive_with_a_member_twice_is_refused(tmp_path):
  path = write_zip(tmp_path / 'd.npz', good_members())
  with pytest.warns(UserWarning), zipfile.ZipFile(path, 'a') as archive:
    archive.writestr('x_train.npy', npy(PIXELS[:20]))
  refused(name='npz', path=path, match='twice')


def test_files_that_are_no_npz_are_refused(tmp_path):
  for content in (b'', b'PK', b'PK\x05\x06' + bytes(18), bytes(1000), npy(PIXELS), gzip.compress(bytes(100))):
    (tmp_path / 'd.npz').write_bytes(content)
    refused(name='npz', path=tmp_path / 'd.npz')


SMALL = dict(x_train=PIXELS[:4, :2, :2], y_train=LABELS[:4], x_test=PIXELS[:2, :2, :2], y_test=LABELS[:2])


@pytest.fixture(scope='module')
def damaged(tmp_path_factory):
  """Writes an .npz with some bytes changed, and the path of it."""
  folder = tmp_path_factory.mktemp('damaged')
  np.savez_compressed(folder / 'good.npz', **SMALL)
  whole = (folder / 'good.npz').read_bytes()

  def write(change):
    (folder / 'bad.npz').write_bytes(change(bytearray(whole)))
    return folder / 'bad.npz'

  return len(whole), write


def test_an_npz_cut_anywhere_is_refused(damaged):
  length, write = damaged
  for end in range(0, length, 3):
    refused(name='npz', path=write(lambda whole, end=end: whole[:end]))


@pytest.mark.thorough
@hypothesis.settings(max_examples=300, deadline=None, derandomize=True)
@hypothesis.given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=6))
def test_a_damaged_npz_is_refused_or_gives_the_same_data(damaged, changes):
  length, write = damaged

  def change(whole):
    for where, mask in changes:
      whole[int(where * length)] ^= mask
    return whole

  try:
    loaded = datasets.load('npz', path=write(change))
  except DataError:
    return
  # Dates and attributes of the members do not matter, but a checksum protects every value. A name that was changed can
  # turn four arrays into two, of which a part is held out.
  if len(loaded.x_train) == 4:
    np.testing.assert_array_equal(loaded.y_train, SMALL['y_train'])
    np.testing.assert_array_equal(loaded.x_train[..., 0], (SMALL['x_train'] / 255).astype(np.float32))


# ---- text-file
# --------------------------------------------------------------------------------------------------------


def test_a_text_is_cut_into_pieces_and_the_last_are_for_testing(tmp_path):
  text = ''.join(chr(ord('a') + i * i % 7) + ('ß' if i % 50 == 0 else '') for i in range(1000))
  (tmp_path / 't.txt').write_text(text, encoding='utf-8')
  loaded = datasets.load('text-file', path=tmp_path / 't.txt')
  vocabulary = sorted(set(text))
  assert loaded.num_classes == len(vocabulary) and loaded.x_train.shape == (10, 80) and loaded.x_test.shape == (2, 80)
  read = [''.join(vocabulary[token] for token in part.ravel())
          for part in (loaded.x_train, loaded.y_train, loaded.x_test, loaded.y_test)]
  assert read == [text[:800], text[1:801], text[800:960], text[801:961]]


@pytest.mark.parametrize('content, says', [
    (b'', 'none or more'), (b'x' * 160, '160 characters'), (b'x' * 5000, 'of which 1 differ'),
    (b'ab\xff' * 100, 'no text in UTF-8.*save it as UTF-8'), (b'\xed\xa0\x80' * 100, 'no text in UTF-8'),
])
def test_what_is_no_text_is_refused(tmp_path, content, says):
  (tmp_path / 't.txt').write_bytes(content)
  refused(name='text-file', path=tmp_path / 't.txt', match=says)


def test_a_text_above_the_limit_is_refused_before_it_is_read(tmp_path):
  with open(tmp_path / 't.txt', 'wb') as file:
    file.truncate(reading.MAX_TEXT + 1)
  refused(name='text-file', path=tmp_path / 't.txt', match='shorter text')
  refused(name='text-file', path=tmp_path, match='not a file')
  refused(name='text-file', match='--data-dir FILE.txt')


# ---- emnist from .h5
# ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', ['emnist', 'выход 😀', os.fsdecode(b'bad\xff')])
def test_emnist_keeps_its_writers(tmp_path, name):
  tmp_path = tmp_path / name
  tmp_path.mkdir()
  write_h5_pair(tmp_path, {'f1': writer(3, 0.5, 7), 'f0': writer(2, 0.25, 1)}, {'f1': writer(1, 1, 9)})
  loaded = datasets.load('emnist', path=tmp_path)
  assert loaded.client_ids.tolist() == ['f0'] * 2 + ['f1'] * 3
  assert loaded.y_train.tolist() == [1, 1, 7, 7, 7] and loaded.y_test.tolist() == [9]
  assert loaded.x_train[:, 0, 0, 0].tolist() == [0.25] * 2 + [0.5] * 3
  assert loaded.num_classes == 10 and loaded.input_shape == (28, 28, 1)
  by_file = datasets.load('emnist', path=tmp_path / 'fed_emnist_digitsonly_train.h5')
  np.testing.assert_array_equal(by_file.x_train, loaded.x_train)


def test_emnist_with_fewer_writers_has_the_test_examples_of_the_same(tmp_path):
  clients = {f'f{i:02}': writer(2, i / 100, i % 10) for i in range(30)}
  write_h5_pair(tmp_path, clients, clients)
  loaded = datasets.load('emnist', path=tmp_path, max_clients=8)
  assert len(set(loaded.client_ids)) == 8
  assert loaded.client_ids.tolist() != [name for name in sorted(clients)[:8] for _ in range(2)]
  np.testing.assert_array_equal(loaded.x_train, loaded.x_test)
  assert len(set(datasets.load('emnist', path=tmp_path, max_clients=99).client_ids)) == 30


@pytest.mark.parametrize(
    'bad',
    [
        {'pixels': np.zeros((2, 28, 28), np.float32)},
        {'pixels': np.zeros((2, 28, 27), np.float32), 'label': np.zeros(2, int)},
        {'pixels': np.zeros((2, 28, 28), np.uint8), 'label': np.zeros(2, int)},
        {'pixels': np.zeros((2, 28, 28), np.float32), 'label': np.zeros(2)},
        {'pixels': np.zeros((2, 28, 28), np.float32), 'label': np.zeros(3, int)},
        {'pixels': np.zeros((2, 28, 28), np.float32), 'label': np.zeros((2, 1), int)},
        {'pixels': np.full((2, 28, 28), np.nan, np.float32), 'label': np.zeros(2, int)},
        {'pixels': np.full((2, 28, 28), 2, np.float32), 'label': np.zeros(2, int)},
        {'pixels': np.zeros((2, 28, 28), np.float32), 'label': np.full(2, 10)},
        {'pixels': np.zeros((2, 28, 28), np.float32), 'label': np.full(2, -1)},
        {'pixels': np.zeros((2, 28, 28), np.float32), 'label': np.full(2, 2**40)},
        {'pixels': lambda group, key: group.create_group(key), 'label': np.zeros(2, int)},
        # No stored values at all: HDF5 would fill 2 GiB with zeros.
        {
            'pixels': lambda group, key: group.create_dataset(key, (700_000, 28, 28), 'f4', chunks=(1, 28, 28)),
            'label': np.zeros(700_000, 'u1'),
        },
    ],
)
def test_h5_files_that_are_no_emnist_are_refused(tmp_path, bad):
  write_h5_pair(tmp_path, {'f0': writer(2, 0, 1), 'f1': bad}, {'f0': writer(2, 0, 1)})
  refused(name='emnist', path=tmp_path)


def test_h5_files_that_would_read_other_files_are_refused(tmp_path):
  (tmp_path / 'other').write_bytes(writer(2, 0.5, 1)['pixels'].tobytes())

  def external(group, key):
    group.create_dataset(key, (2, 28, 28), 'f4', external=[(str(tmp_path / 'other'), 0, 6272)])

  write_h5_pair(tmp_path, {'f0': {'pixels': external, 'label': np.zeros(2, int)}}, {'f0': writer(2, 0, 1)})
  refused(name='emnist', path=tmp_path, match='expected arrays')


def test_h5_files_that_link_to_other_files_are_refused(tmp_path):
  h5py = pytest.importorskip('h5py')
  with h5py.File(tmp_path / 'other.h5', 'w') as file:
    file['pixels'] = writer(2, 0.5, 1)['pixels']

  def link(group, key):
    group[key] = h5py.ExternalLink(str(tmp_path / 'other.h5'), 'pixels')

  write_h5_pair(tmp_path, {'f0': {'pixels': link, 'label': np.zeros(2, int)}}, {'f0': writer(2, 0, 1)})
  refused(name='emnist', path=tmp_path, match='expected arrays')


def test_h5_files_that_are_no_h5_are_refused(tmp_path):
  pytest.importorskip('h5py')
  for content in (b'', b'x' * 1000):
    for part in ('train', 'test'):
      (tmp_path / f'fed_emnist_digitsonly_{part}.h5').write_bytes(content)
    refused(name='emnist', path=tmp_path)


def test_h5_files_without_writers_are_refused(tmp_path):
  refused(name='emnist', path=write_h5_pair(tmp_path, {}, {}), match='no examples')
