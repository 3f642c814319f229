"""Data sets for simulations, as plain NumPy arrays that have been checked.

`load(name)` returns a `Dataset`. Files are treated as hostile: every size is checked against a limit and against the
size of the file before memory is taken for it, nothing is unpickled, and whatever is wrong is reported as a `DataError`
with one sentence that says what to do.

Importing this module needs NumPy only.  scikit-learn (digits), h5py and TFF (emnist) and TensorFlow (`batches`, and the
download of fashion-mnist) are imported when they are needed.
"""

from __future__ import annotations

import ast
import dataclasses
import gzip
import math
import os
import pathlib
import sqlite3
import stat
import struct
import tarfile
import zipfile
import zlib

import numpy as np

from tff_compress.codec import files as files_lib
from tff_compress.codec.errors import CompressionError
from tff_compress.simulation import splits

__all__ = ['NAMES', 'DataError', 'Dataset', 'batches', 'load']

NAMES = ('digits', 'fashion-mnist', 'emnist', 'cifar10', 'colour-shapes', 'npz')

# The limits are above every data set this is meant for (the largest, all of EMNIST, has 527 million pixels), and low
# enough that a file that claims more is refused and not tried.
MAX_VALUES = 2**29  # per array; 2 GiB as float32
MAX_BYTES = 2**31  # of one file, and of the arrays in it before conversion
MAX_CLASSES = 100_000

# Where Debian's package dataset-fashion-mnist puts its files.
FASHION_MNIST_FOLDER = pathlib.Path('/usr/share/datasets/fashion-mnist')

_FASHION_MNIST_FILES = {
    'x_train': 'train-images-idx3-ubyte',
    'y_train': 'train-labels-idx1-ubyte',
    'x_test': 't10k-images-idx3-ubyte',
    'y_test': 't10k-labels-idx1-ubyte',
}
_EMNIST_SQLITE = 'emnist_all.sqlite'
_EMNIST_H5 = {True: 'fed_emnist_digitsonly_{}.h5', False: 'fed_emnist_{}.h5'}

_CIFAR10_FILES = {'train': tuple(f'data_batch_{number}.bin' for number in range(1, 6)), 'test': ('test_batch.bin',)}
_CIFAR10_FOLDER = 'cifar-10-batches-bin'
_CIFAR10_RECORD = 1 + 3 * 32 * 32
_CIFAR10_RECORDS = 10_000  # in each file

SHAPES = ('disc', 'square', 'triangle', 'cross', 'ring')
COLOURS = ('warm', 'cold')

_CHUNK = 2**20
_TEST_FRACTION = 0.2


class DataError(CompressionError):
  """Data that cannot be found or cannot be used; the message is one sentence that says what to do."""


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
  """A classification data set in memory, checked when it is made and read-only afterwards.

  Attributes:
    name: what `load` was asked for.
    x_train: float32 [n, h, w, c], every value in [0, 1].
    y_train: int32 [n], every value in [0, num_classes).
    x_test: float32 [m, h, w, c], likewise.
    y_test: int32 [m], likewise.
    num_classes: the number of labels, at least 2.
    client_ids: who each training example belongs to, integers or strings [n], where the data says so; else None.

  Raises:
    DataError: the arrays are not as described here.
  """

  name: str
  x_train: np.ndarray
  y_train: np.ndarray
  x_test: np.ndarray
  y_test: np.ndarray
  num_classes: int
  client_ids: np.ndarray | None = None

  def __post_init__(self):
    for part in ('train', 'test'):
      x, y = getattr(self, f'x_{part}'), getattr(self, f'y_{part}')
      if not isinstance(x, np.ndarray) or x.dtype != np.float32 or x.ndim != 4:
        raise DataError(f'{self.name}: x_{part} must be a float32 array of shape [n, h, w, c].')
      if not isinstance(y, np.ndarray) or y.dtype != np.int32 or y.ndim != 1:
        raise DataError(f'{self.name}: y_{part} must be an int32 array of shape [n].')
      if x.size == 0:
        raise DataError(f'{self.name}: x_{part} has shape {x.shape} and so no values: give at least one example.')
      if len(x) != len(y):
        raise DataError(f'{self.name}: x_{part} has {len(x)} examples and y_{part} has {len(y)} labels: '
                        'give one label per example.')
      # Written so that NaN fails it too.
      if not (x.min() >= 0 and x.max() <= 1):
        raise DataError(
            f'{self.name}: x_{part} has values that are NaN or outside [0, 1]: clean or rescale them first.')
      if y.min() < 0 or y.max() >= self.num_classes:
        raise DataError(f'{self.name}: the labels in y_{part} must lie between 0 and {self.num_classes - 1}.')
    if self.x_train.shape[1:] != self.x_test.shape[1:]:
      raise DataError(
          f'{self.name}: training examples have shape {self.x_train.shape[1:]} and test examples '
          f'{self.x_test.shape[1:]}: '
          'give both the same shape.'
      )
    if self.num_classes < 2:
      raise DataError(f'{self.name}: all examples have the same label: give at least two labels.')
    if self.client_ids is not None and (
        not isinstance(self.client_ids, np.ndarray)
        or self.client_ids.dtype.kind not in 'iuU'
        or self.client_ids.shape != self.y_train.shape
    ):
      raise DataError(f'{self.name}: client_ids must be one integer or string per training example.')
    for field in ('x_train', 'y_train', 'x_test', 'y_test', 'client_ids'):
      array = getattr(self, field)
      if array is not None:
        # A view, so that the caller's own array stays as writeable as it was.
        array = array.view()
        array.flags.writeable = False
        object.__setattr__(self, field, array)

  @property
  def input_shape(self) -> tuple[int, int, int]:
    """(h, w, c) of one example."""
    return self.x_train.shape[1:]


def load(
    name: str = 'digits',
    *,
    path: str | os.PathLike | None = None,
    max_clients: int | None = None,
    only_digits: bool = True,
    download: bool = True,
) -> Dataset:
  """Loads a data set by name.

  | name            | what it is                                                                                      |
  |-----------------|-------------------------------------------------------------------------------------------------|
  | `digits`        | scikit-learn's bundled 8x8 digits: 1,797 examples, a fixed stratified fifth of them for testing |
  | `fashion-mnist` | the four original idx files, plain or .gz, 28x28: in `path`, else where Debian's dataset-       |
  |                 | fashion-mnist puts them, else in Keras's cache, else downloaded there by Keras                  |
  | `emnist`        | Federated EMNIST (LEAF) with its writers as clients, 28x28, background 1 and ink 0 as TFF gives |
  |                 | it: TFF's emnist_all.sqlite or its earlier fed_emnist_*.h5 pair in `path`, else TFF's cache or  |
  |                 | download                                                                                        |
  | `cifar10`       | the binary version, 32x32 in colour: `path` is the folder of data_batch_1.bin to                |
  |                 | data_batch_5.bin and test_batch.bin, the folder around it, or the archive                       |
  |                 | cifar-10-binary.tar.gz                                                                          |
  | `colour-shapes` | synthetic, 32x32 in colour: five shapes in warm or cold colours make ten labels; 5,000 examples |
  |                 | for training, 1,000 for testing, always the same. Without colour the shape is seen, and at      |
  |                 | times the colour guessed from the brightness                                                    |
  | `npz`           | the .npz file `path` with x_train, y_train, and x_test, y_test; without these two, or with x, y |
  |                 | only, a fixed stratified fifth is held out for testing; client_ids (per training example) if    |
  |                 | there                                                                                           |

  In an .npz, images are [n, h, w] or [n, h, w, c]; integers are intensities 0 to 255 and are divided by 255; floats
  must lie in [0, 1]; labels are integers from 0 on.

  Args:
    name: one of the above.
    path: the folder (fashion-mnist, emnist, cifar10) or the file (npz, cifar10) to read.
    max_clients: emnist: at most this many writers, a fixed random choice, and the test examples of the same writers.
    only_digits: emnist: ten labels; False: all 62.
    download: whether fashion-mnist and emnist may be downloaded when they are not found.

  Returns:
    A `Dataset`.

  Raises:
    DataError: there is no such data set, it is not found, or a file is not what it should be.
  """
  if name not in NAMES:
    raise DataError(f'There is no data set {str(name)[:40]!r}: use one of {", ".join(NAMES)}.')
  if name != 'emnist' and (max_clients is not None or not only_digits):
    raise DataError(f'max_clients and only_digits are for emnist: leave them out for {name}.')
  if path is not None:
    path = pathlib.Path(path)
  if name == 'digits':
    if path is not None:
      raise DataError('digits comes with scikit-learn and is not read from a path: leave --data-dir out.')
    return _digits()
  if name == 'fashion-mnist':
    return _fashion_mnist(path, download)
  if name == 'cifar10':
    return _cifar10(path)
  if name == 'colour-shapes':
    if path is not None:
      raise DataError('colour-shapes is made up and not read from a path: leave --data-dir out.')
    return _colour_shapes()
  if name == 'emnist':
    if max_clients is not None and (isinstance(max_clients, bool) or not isinstance(max_clients, int)
                                    or max_clients < 1):
      raise DataError(f'max_clients must be a whole number of at least 1, not {max_clients!r}.')
    return _emnist(path, max_clients, only_digits, download)
  if path is None:
    raise DataError('npz needs the file to read: pass --data-dir FILE.npz.')
  return _npz(path)


def batches(x, y, *, batch_size: int, seed: splits.Seed | None, epochs: int = 1):
  """A client's examples as a `tf.data.Dataset` of (x, y) batches, ready for TFF or Keras.

  Every epoch goes through all examples once, in an order of its own that depends only on `seed` and the epoch; the last
  batch of an epoch is smaller when batch_size does not divide n. The order is fixed when the data set is made, so going
  through it twice gives the same batches, and no global or stateful generator takes part. A client without examples
  gives no batches.

  Args:
    x: array [n, ...].
    y: array [n, ...].
    batch_size: examples per batch, at least 1.
    seed: see `splits.generator`; None keeps the order of x, for evaluation.
    epochs: how many times to go through the examples, at least 1.

  Returns:
    A `tf.data.Dataset` of (x [b, ...], y [b, ...]) with the dtypes of x and y and an unknown b.

  Raises:
    DataError: x and y differ in length, or batch_size, epochs or seed is not usable.
  """
  for name, value in (('batch_size', batch_size), ('epochs', epochs)):
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
      raise DataError(f'{name} must be a whole number of at least 1, not {value!r}.')
  x, y = np.asarray(x), np.asarray(y)
  if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
    raise DataError(f'x has shape {x.shape} and y has shape {y.shape}: give one label per example.')
  if seed is None:
    order = np.tile(np.arange(len(x)), (epochs, 1))
  else:
    try:
      rng = splits.generator('data/batches', seed)
    except ValueError as error:
      raise DataError(str(error)) from None
    order = np.stack([rng.permutation(len(x)) for _ in range(epochs)])

  import tensorflow as tf

  # The order travels inside the data set because tf.data's own shuffle also depends on the global seed, and gives
  # another order each time the data set is gone through.
  def epoch(indices):
    return tf.data.Dataset.from_tensor_slices(indices).batch(batch_size)

  def gather(indices):
    return tf.gather(x, indices), tf.gather(y, indices)

  return tf.data.Dataset.from_tensor_slices(order).flat_map(epoch).map(gather)


# ---- digits
# ------------------------------------------------------------------------------------------------------------


def _digits() -> Dataset:
  try:
    from sklearn.datasets import load_digits
  except ImportError:
    raise DataError('The digits come with scikit-learn: install scikit-learn.') from None
  digits = load_digits()
  x = (digits.images[..., np.newaxis] / 16).astype(np.float32)
  y = digits.target.astype(np.int32)
  train, test = _holdout('digits', y)
  return Dataset('digits', x[train], y[train], x[test], y[test], num_classes=10)


def _holdout(name: str, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(training, test) indices, ascending: a fifth of each label, but at least one example stays for training."""
  rng = splits.generator('data/holdout', 0)
  is_test = np.zeros(len(labels), bool)
  for label in np.unique(labels):
    members = np.flatnonzero(labels == label)
    held = min(max(1, round(_TEST_FRACTION * len(members))), len(members) - 1)
    is_test[rng.permutation(members)[:held]] = True
  if not is_test.any():
    raise DataError(f'{name}: no label has two examples, so none can be held out for testing: add x_test and y_test.')
  return np.flatnonzero(~is_test), np.flatnonzero(is_test)


# ---- fashion-mnist
# -----------------------------------------------------------------------------------------------------


def _fashion_mnist(path: pathlib.Path | None, download: bool) -> Dataset:
  get_it = "install Debian's dataset-fashion-mnist or pass --data-dir with the folder of the four idx files"
  if path is not None:
    if not os.path.isdir(path):
      raise DataError(f'{path} is not a folder: pass --data-dir with the folder of the four fashion-mnist idx files.')
    files, missing = _idx_files(path)
    if missing:
      raise DataError(f'{path} has no {missing} (plain or .gz): {get_it}.')
  else:
    cache = _home() / '.keras' / 'datasets' / 'fashion-mnist'
    for folder in (FASHION_MNIST_FOLDER, cache):
      files, missing = _idx_files(folder)
      if not missing:
        break
    else:
      if not download:
        raise DataError(f'fashion-mnist is not on this machine: {get_it}.')
      try:
        import tensorflow as tf

        tf.keras.datasets.fashion_mnist.load_data()
      except Exception:  # Keras turns every network failure into a bare Exception.
        raise DataError(f'fashion-mnist is not on this machine and could not be downloaded: {get_it}.') from None
      files, missing = _idx_files(cache)
      if missing:
        raise DataError(f'Keras did not leave {missing} in {cache}: {get_it}.')
  arrays = {}
  for part in ('train', 'test'):
    images, labels = files[f'x_{part}'], files[f'y_{part}']
    arrays[f'y_{part}'] = _read_idx(labels, 1).astype(np.int32)
    pixels = _read_idx(images, 3)
    if pixels.shape[1:] != (28, 28):
      raise DataError(
          f'{images} holds images of {pixels.shape[1]}x{pixels.shape[2]}: give the original files of 28x28.')
    arrays[f'x_{part}'] = _from_bytes(pixels)[..., np.newaxis]
  return Dataset('fashion-mnist', num_classes=10, **arrays)


def _idx_files(folder: pathlib.Path) -> tuple[dict[str, pathlib.Path], str | None]:
  """The four files by array name, and the name of the first that is missing."""
  files = {}
  for array, name in _FASHION_MNIST_FILES.items():
    found = [candidate for candidate in (folder / f'{name}.gz', folder / name) if os.path.exists(candidate)]
    if not found:
      return files, name
    files[array] = found[0]
  return files, None


def _read_idx(path: pathlib.Path, ndim: int) -> np.ndarray:
  """uint8 array of ndim dimensions from an idx file, plain or gzip.

  The format: bytes 0, 0, 8 (unsigned byte), ndim; ndim sizes as big-endian uint32; the values in C order; nothing else.
  """
  size = _file_size(path)
  try:
    with open(path, 'rb') as raw:
      packed = raw.read(2) == b'\x1f\x8b'
      raw.seek(0)
      stream = gzip.GzipFile(fileobj=raw) if packed else raw
      header = stream.read(4 + 4 * ndim)
      if len(header) < 4 + 4 * ndim or header[:4] != bytes([0, 0, 8, ndim]):
        raise DataError(f'{path} is not an idx file of bytes with {ndim} dimension(s): give the original file.')
      shape = struct.unpack(f'>{ndim}I', header[4:])
      count = math.prod(shape)
      if not 0 < count <= MAX_VALUES:
        raise DataError(f'{path} claims the shape {shape}, which is empty or more than {MAX_VALUES} values: '
                        'give the original file.')
      # Deflate cannot pack more than 1032 bytes into one, so a header that lies about a small file is caught here.
      if count + len(header) > size * 1032 if packed else count + len(header) != size:
        raise DataError(
            f'{path} claims the shape {shape}, which does not fit its size of {size} bytes: give the original file.')
      values = _read_exactly(stream, count)
      if values is None or stream.read(1):
        raise DataError(f'{path} does not hold the {count} values it claims: give the original file.')
  except (OSError, EOFError, zlib.error) as error:
    raise DataError(f'{path} cannot be read ({_one_line(error)}): give the original file.') from None
  return np.frombuffer(values, np.uint8).reshape(shape)


# ---- cifar10
# -----------------------------------------------------------------------------------------------------------


def _cifar10(path: pathlib.Path | None) -> Dataset:
  get_it = (f'pass --data-dir with cifar-10-binary.tar.gz or its folder {_CIFAR10_FOLDER}; the Python version, of '
            'pickles, is not read')
  if path is None:
    raise DataError(f'cifar10 is not downloaded: {get_it}.')
  wanted = [name for names in _CIFAR10_FILES.values() for name in names]
  if os.path.isdir(path):
    folder = path / _CIFAR10_FOLDER if os.path.isdir(path / _CIFAR10_FOLDER) else path
    files = {name: _cifar10_file(folder / name) for name in wanted if os.path.exists(folder / name)}
  else:
    files = _cifar10_archive(path, wanted)
  missing = next((name for name in wanted if name not in files), None)
  if missing:
    raise DataError(f'{path} has no {missing}: {get_it}.')
  arrays = {}
  for part, names in _CIFAR10_FILES.items():
    # A record is the label, then 32x32 red values, as many green and as many blue ones.
    records = np.frombuffer(b''.join(files.pop(name) for name in names), np.uint8).reshape(-1, _CIFAR10_RECORD)
    arrays[f'y_{part}'] = records[:, 0].astype(np.int32)
    arrays[f'x_{part}'] = _from_bytes(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
  return Dataset('cifar10', num_classes=10, **arrays)


def _cifar10_file(path: pathlib.Path) -> bytes:
  size = _file_size(path)
  _check_cifar10_size(path, size)
  try:
    with open(path, 'rb') as stream:
      content = _read_exactly(stream, size)
  except OSError as error:
    raise DataError(f'{path} cannot be read ({_one_line(error)}): give the original file.') from None
  if content is None:
    raise DataError(f'{path} is cut short: give the original file.')
  return content


def _check_cifar10_size(name, size: int) -> None:
  if not 0 < size <= _CIFAR10_RECORDS * _CIFAR10_RECORD or size % _CIFAR10_RECORD:
    raise DataError(f'{name} has {size} bytes, which is not 1 to {_CIFAR10_RECORDS} images of {_CIFAR10_RECORD} bytes: '
                    'give the original file.')


def _cifar10_archive(path: pathlib.Path, wanted: list[str]) -> dict[str, bytes]:
  """The wanted files of a .tar.gz by name.

  `tarfile` reads the headers only: what it opens takes the memory that a header claims.
  """
  _file_size(path)
  block, too_large = tarfile.BLOCKSIZE, f'{path} unpacks to more than cifar-10-binary.tar.gz: give the original file.'
  files, room = {}, 2 * len(wanted) * _CIFAR10_RECORDS * _CIFAR10_RECORD
  try:
    with gzip.open(path, 'rb') as stream:
      # Two blocks of zeros end an archive.
      while any(header := stream.read(block)):
        info = tarfile.TarInfo.frombuf(header, 'utf-8', 'surrogateescape')
        name, padding = info.name.rpartition('/')[2], -info.size % block
        room -= block + info.size + padding
        if info.size < 0 or room < 0:
          raise DataError(too_large)
        if info.isreg() and name in wanted:
          _check_cifar10_size(f'{path}: {name}', info.size)
          if name in files:
            raise DataError(f'{path} has {name} twice: give the original file.')
          files[name] = _read_exactly(stream, info.size)
          if files[name] is None:
            raise DataError(f'{path} is cut short: give the original file.')
          stream.read(padding)
        else:
          stream.seek(info.size + padding, os.SEEK_CUR)
      # Up to the checksum, which is at the end.
      while rest := stream.read(_CHUNK):
        room -= len(rest)
        if room < 0:
          raise DataError(too_large)
  except (OSError, EOFError, zlib.error, tarfile.HeaderError) as error:
    raise DataError(f'{path} cannot be read as .tar.gz ({_one_line(error)}): give the original file.') from None
  return files


# ---- colour-shapes
# -----------------------------------------------------------------------------------------------------


def _colour_shapes() -> Dataset:
  *train, (x_test, y_test) = (_shapes_in_colour(1000, part) for part in range(6))
  x_train, y_train = map(np.concatenate, zip(*train))
  return Dataset('colour-shapes', x_train, y_train, x_test, y_test, num_classes=len(SHAPES) * len(COLOURS))


def _shapes_in_colour(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """(images, labels): label 2 i + j is shape i in colour j; place, size, angle, shade and background vary, with
  noise."""
  rng = splits.generator('data/colour-shapes', seed)
  between = lambda low, high: rng.uniform(low, high, (count, 1, 1))
  y = np.arange(count) % (len(SHAPES) * len(COLOURS))
  rng.shuffle(y)
  place = np.arange(32) / 16 - 31 / 32  # of the pixels' centres, from -1 to 1
  angle, size = between(0, 2 * np.pi), between(0.35, 0.7)
  down, right = place[:, np.newaxis] - between(-0.3, 0.3), place - between(-0.3, 0.3)
  u = (np.cos(angle) * right + np.sin(angle) * down) / size
  v = (np.cos(angle) * down - np.sin(angle) * right) / size
  radius, longer, shorter = np.hypot(u, v), np.maximum(abs(u), abs(v)), np.minimum(abs(u), abs(v))
  inside = np.choose((y // 2)[:, np.newaxis, np.newaxis], [
      radius < 0.9, longer < 0.8, (v > -0.5) & (np.sqrt(3) * abs(u) + v < 1), (shorter < 0.3) & (longer < 1),
      (0.55 < radius) & (radius < 1)])
  # Hues in degrees: purple to yellow, and green to blue.
  warm = (y % 2 == 0)[:, np.newaxis, np.newaxis]
  shape = _rgb(np.where(warm, between(-45, 60), between(140, 245)), between(0.4, 1), between(0.5, 1))
  background = _rgb(between(0, 360), between(0, 0.6), between(0, 0.7))
  image = np.where(inside[..., np.newaxis], shape, background) + rng.normal(0, 0.08, (count, 32, 32, 3))
  return _from_bytes(np.clip(np.rint(255 * image), 0, 255).astype(np.uint8)), y.astype(np.int32)


def _rgb(hue, saturation, value):
  """Red, green and blue [..., 3] of colours by hue (degrees), saturation and value."""
  sector = (np.array([5, 3, 1]) + hue[..., np.newaxis] / 60) % 6
  missing = saturation[..., np.newaxis] * np.clip(np.minimum(sector, 4 - sector), 0, 1)
  return value[..., np.newaxis] * (1 - missing)


# ---- npz
# ---------------------------------------------------------------------------------------------------------------


def _npz(path: pathlib.Path) -> Dataset:
  arrays = _read_npz(path, ('x_train', 'y_train', 'x_test', 'y_test', 'x', 'y', 'client_ids'))
  names = set(arrays) - {'client_ids'}
  layouts = ({'x_train', 'y_train', 'x_test', 'y_test'}, {'x_train', 'y_train'}, {'x', 'y'})
  if names not in layouts:
    raise DataError(
        f'{path} has the arrays {", ".join(sorted(names)) or "(none)"}: '
        'save x_train, y_train, x_test, y_test, or x_train, y_train, or x, y.'
    )
  for array in names:
    convert = _images if array.startswith('x') else _labels
    arrays[array] = convert(f'{path}: {array}', arrays[array])
  ids = arrays.get('client_ids')
  if 'x_test' not in names:
    x, y = (arrays['x'], arrays['y']) if 'x' in names else (arrays['x_train'], arrays['y_train'])
    for what, array in (('labels', y), ('client ids', ids)):
      if array is not None and array.shape != (len(x),):
        raise DataError(f'{path} has {len(x)} examples and {what} of shape {array.shape}: give one per example.')
    train, test = _holdout(str(path), y)
    x_train, y_train, x_test, y_test = x[train], y[train], x[test], y[test]
    ids = ids if ids is None else ids[train]
  else:
    x_train, y_train, x_test, y_test = (arrays[array] for array in ('x_train', 'y_train', 'x_test', 'y_test'))
  # The shapes are checked by Dataset; this only has to survive empty arrays.
  num_classes = 1 + max(int(y.max(initial=0)) for y in (y_train, y_test))
  return Dataset('npz', x_train, y_train, x_test, y_test, num_classes, ids)


def _images(name: str, array: np.ndarray) -> np.ndarray:
  if array.dtype.kind not in 'uif' or array.ndim not in (3, 4) or array.size == 0:
    raise DataError(
        f'{name} is {array.dtype} {array.shape}: give images as a non-empty numeric array [n, h, w] or [n, h, w, c].')
  if array.dtype.kind == 'f':
    # Before the conversion, in which a huge value would overflow with a warning.
    if not (array.min() >= 0 and array.max() <= 1):
      raise DataError(
          f'{name} has values that are NaN or outside [0, 1]: clean or rescale them, or save 0 to 255 as uint8.')
    array = array.astype(np.float32)
  else:
    if array.min() < 0 or array.max() > 255:
      raise DataError(f'{name} has integers outside 0 to 255: save intensities as uint8 or as floats in [0, 1].')
    array = _from_bytes(array)
  return array[..., np.newaxis] if array.ndim == 3 else array


def _labels(name: str, array: np.ndarray) -> np.ndarray:
  if array.dtype.kind not in 'ui' or array.ndim != 1 or array.size == 0:
    raise DataError(f'{name} is {array.dtype} {array.shape}: give labels as a non-empty integer array [n].')
  if array.min() < 0 or array.max() >= MAX_CLASSES:
    raise DataError(f'{name} must hold labels between 0 and {MAX_CLASSES - 1}: number the labels from 0.')
  return array.astype(np.int32)


def _read_npz(path: pathlib.Path, wanted: tuple[str, ...]) -> dict[str, np.ndarray]:
  """The wanted arrays that an .npz file has. Reads numbers and strings only, never objects."""
  size = _file_size(path)
  arrays = {}
  budget = MAX_BYTES
  try:
    with open(path, 'rb') as raw:
      _check_zip_directory(path, raw, size)
      with zipfile.ZipFile(raw) as archive:
        members = {}
        for info in archive.infolist():
          if info.filename in members:
            raise DataError(f'{path} has the member {info.filename[:40]!r} twice: save it with numpy.savez.')
          members[info.filename] = info
        for name in wanted:
          info = members.get(f'{name}.npy')
          if info is None:
            continue
          if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 0x1:
            raise DataError(f'{path}: {name} is encrypted or packed in an unusual way: save it with numpy.savez.')
          budget -= info.file_size
          if budget < 0:
            raise DataError(f'{path} unpacks to more than {MAX_BYTES} bytes: save fewer examples or smaller types.')
          with archive.open(info) as stream:
            arrays[name] = _read_npy(f'{path}: {name}', stream, info.file_size)
  except (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError,
          struct.error) as error:
    raise DataError(f'{path} cannot be read as .npz ({_one_line(error)}): save it with numpy.savez.') from None
  return arrays


def _check_zip_directory(path: pathlib.Path, raw, size: int) -> None:
  """Refuses archives whose directory zipfile would need much memory for, or that numpy.savez does not write."""
  raw.seek(max(0, size - 42))
  tail = raw.read(42)
  end = tail[-22:]
  plain = len(end) == 22 and end[:4] == b'PK\x05\x06' and end[-2:] == b'\0\0'
  # A zip64 locator just before would override the sizes that are checked here.
  if not plain or tail[:4] == b'PK\x06\x07' or struct.unpack('<I', end[12:16])[0] > 2**16:
    raise DataError(f'{path} is not an .npz file: save it with numpy.savez.')
  raw.seek(0)


def _read_npy(name: str, stream, size: int) -> np.ndarray:
  """An array of numbers or strings from a .npy stream of which `size` bytes are claimed to exist."""
  start = stream.read(8)
  length_bytes = {b'\x93NUMPY\x01\x00': 2, b'\x93NUMPY\x02\x00': 4}.get(start)
  if length_bytes is None:
    raise DataError(f'{name} is not a .npy array of version 1 or 2: save it with numpy.savez.')
  length = int.from_bytes(stream.read(length_bytes), 'little')
  # NumPy's own reader takes memory for a header of any length before it looks at it.
  if length > 10_000:
    raise DataError(f'{name} has a header of {length} bytes: save it with numpy.savez.')
  try:
    header = ast.literal_eval(stream.read(length).decode('latin1').strip())
    descr, fortran_order, shape = header['descr'], header['fortran_order'], header['shape']
    if not isinstance(descr, str) or not isinstance(fortran_order, bool) or not isinstance(shape, tuple):
      raise TypeError
    if len(shape) > 4 or not all(type(n) is int and 0 <= n <= MAX_VALUES for n in shape):
      raise TypeError
    dtype = np.dtype(descr)
  except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError):
    raise DataError(
        f'{name} has a header that describes no plain array: save numbers with numpy.savez, not objects.') from None
  if dtype.kind not in 'uifU' or dtype.itemsize == 0 or (dtype.kind == 'f' and dtype.itemsize > 8):
    raise DataError(f'{name} has the type {str(dtype)[:40]}: save integers or floats, and never objects.')
  count = math.prod(shape)
  nbytes = count * dtype.itemsize
  if count > MAX_VALUES or nbytes != size - (8 + length_bytes + length):
    raise DataError(
        f'{name} claims the shape {str(shape)[:60]}, which does not fit its size of {size} bytes: save it again.')
  values = _read_exactly(stream, nbytes)
  if values is None or stream.read(1):
    raise DataError(f'{name} does not hold the {count} values it claims: save it again.')
  if dtype.kind == 'U':
    # Anything above the last code point would make Python strings that cannot be made.
    if nbytes and np.frombuffer(values,
                                np.uint32 if dtype.isnative else np.dtype(np.uint32).newbyteorder()).max() > 0x10FFFF:
      raise DataError(f'{name} has strings with impossible characters: save it again.')
  array = np.frombuffer(values, dtype).reshape(shape, order='F' if fortran_order else 'C')
  return np.ascontiguousarray(array, dtype.newbyteorder('='))


# ---- emnist
# ------------------------------------------------------------------------------------------------------------


def _emnist(path: pathlib.Path | None, max_clients: int | None, only_digits: bool, download: bool) -> Dataset:
  num_classes = 10 if only_digits else 62
  h5 = [_EMNIST_H5[only_digits].format(part) for part in ('train', 'test')]
  get_it = f"pass --data-dir with the folder that has TFF's {_EMNIST_SQLITE}, or {h5[0]} and {h5[1]}"
  if path is not None:
    if os.path.isfile(path) and path.name in (_EMNIST_SQLITE, *h5):
      path = path.parent
    if os.path.exists(path / _EMNIST_SQLITE):
      return _emnist_sqlite(path, max_clients, only_digits, num_classes)
    if not all(os.path.exists(path / name) for name in h5):
      raise DataError(f'{path} has no emnist files: {get_it}.')
    parts = _emnist_h5([path / name for name in h5], max_clients, num_classes)
    return _emnist_dataset(parts, num_classes)
  cache = _home() / '.tff'
  if not download and not os.path.exists(cache / _EMNIST_SQLITE):
    raise DataError(f'emnist is not on this machine: {get_it}, or allow the download.')
  return _emnist_sqlite(cache, max_clients, only_digits, num_classes)


def _chosen(ids, max_clients: int | None) -> list[str]:
  ids = sorted(ids)
  if max_clients is None or max_clients >= len(ids):
    return ids
  # Not the first: the ids are in the order of the collection campaigns.
  rng = splits.generator('data/emnist-writers', 0)
  return [ids[i] for i in np.sort(rng.permutation(len(ids))[:max_clients])]


def _emnist_dataset(parts, num_classes: int) -> Dataset:
  (train_ids, x_train, y_train), (_, x_test, y_test) = parts
  return Dataset('emnist', x_train, y_train, x_test, y_test, num_classes, train_ids)


class _Collector:
  """Gathers the examples of many clients and refuses to grow beyond the limit."""

  def __init__(self, source):
    self._source = source
    self._ids, self._x, self._y = [], [], []
    self.room = MAX_VALUES

  def add(self, ids, x, y) -> None:
    self.room -= x.size
    if self.room < 0:
      raise DataError(f'{self._source} has more than {MAX_VALUES} pixels: load fewer writers with max_clients.')
    self._ids.append(ids)
    self._x.append(np.asarray(x, np.float32))
    self._y.append(y)

  def arrays(self):
    if not self._x:
      raise DataError(f'{self._source} has no examples for these writers: give the original file.')
    x = np.concatenate(self._x)[..., np.newaxis]
    self._x = []  # A gigabyte that is not needed twice.
    y = np.concatenate(self._y)
    if y.min() < 0 or y.max() >= MAX_CLASSES:
      raise DataError(f'{self._source} has labels outside its range: give the original file.')
    return np.concatenate(self._ids), x, y.astype(np.int32)


def _emnist_sqlite(folder: pathlib.Path, max_clients: int | None, only_digits: bool, num_classes: int) -> Dataset:
  with files_lib.readable(str(folder)) as cache:
    return _from_sqlite(folder, cache, max_clients, only_digits, num_classes)


def _from_sqlite(folder: pathlib.Path, cache: str, max_clients: int | None, only_digits: bool,
                 num_classes: int) -> Dataset:
  """What `_emnist_sqlite` does, with TensorFlow given the folder under the name `cache`."""
  file = folder / _EMNIST_SQLITE
  get_it = f"pass --data-dir with the folder that has TFF's {_EMNIST_SQLITE}"
  again = f'delete {file} and let TFF download it again, or {get_it}'
  if os.path.exists(file):
    _file_size(file, limit=2**40)
  try:
    import tensorflow as tf
    import tensorflow_federated as tff
  except ImportError:
    raise DataError('emnist is read by TensorFlow Federated: install tensorflow-federated.') from None
  try:
    sources = tff.simulation.datasets.emnist.load_data(only_digits=only_digits, cache_dir=cache)
  except Exception as error:  # Any network, file, SQL or TFF error: all of them mean that the file is not usable.
    if not os.path.exists(file):
      raise DataError(
          f'emnist is not on this machine and could not be downloaded ({_one_line(error)}): {get_it}.') from None
    raise DataError(f'{file} cannot be read ({_one_line(error)}): {again}.') from None
  parts = []
  ids = None
  for source in sources:
    try:
      if ids is None:
        ids = _chosen(source.client_ids, max_clients)
        # TFF pastes the id into its query, so a quote in it would choose other rows.
        if any("'" in client for client in ids):
          raise DataError(f'{file} has writers with a quote in their name: {again}.')
      collector = _Collector(file)
      # One pipeline for all clients: building one for each takes minutes.
      examples = tf.data.Dataset.from_tensor_slices(ids).flat_map(
          lambda client, source=source: source.serializable_dataset_fn(client).map(
              lambda example: (client, example['pixels'], example['label'])
          )
      )
      for client, pixels, label in examples.batch(1024).as_numpy_iterator():
        collector.add(np.char.decode(client.astype('S'), 'utf-8'), pixels, label)
    except (tf.errors.OpError, sqlite3.Error, UnicodeDecodeError, TypeError) as error:
      raise DataError(f'{file} cannot be read ({_one_line(error)}): {again}.') from None
    parts.append(collector.arrays())
  return _emnist_dataset(parts, num_classes)


def _emnist_h5(files: list[pathlib.Path], max_clients: int | None, num_classes: int):
  try:
    import h5py
  except ImportError:
    raise DataError('Files ending in .h5 are read by h5py: install h5py.') from None
  parts = []
  ids = None
  for file in files:
    _file_size(file)
    collector = _Collector(file)
    try:
      with files_lib.readable(str(file)) as alias, h5py.File(alias, 'r') as opened:
        clients = opened['examples']
        if ids is None:
          ids = _chosen(clients.keys(), max_clients)
        for client in ids:
          if client not in clients:
            continue  # A writer may have no test examples.
          pixels, label = clients[client]['pixels'], clients[client]['label']
          _check_h5(file, client, pixels, 'f', (28, 28), collector.room)
          _check_h5(file, client, label, 'iu', (), collector.room)
          if len(pixels) != len(label):
            raise DataError(f'{file}: writer {client[:40]!r} has {len(pixels)} images and {len(label)} labels: '
                            'give the original file.')
          if len(label):
            collector.add(np.full(len(label), client), pixels[()], label[()])
    except (OSError, KeyError, AttributeError, RuntimeError, TypeError, ValueError) as error:
      if isinstance(error, DataError):
        raise
      raise DataError(f'{file} cannot be read ({_one_line(error)}): give the original file.') from None
    parts.append(collector.arrays())
  return parts


def _check_h5(file: pathlib.Path, client: str, stored, kinds: str, shape: tuple[int, ...], room: int) -> None:
  """Refuses what would need much memory to read, or would read other files."""
  import h5py

  usable = (
      isinstance(stored, h5py.Dataset)
      and stored.dtype.kind in kinds
      and stored.dtype.itemsize <= 8
      and len(stored.shape) == 1 + len(shape)
      and stored.shape[1:] == shape
      and stored.size <= room
      and math.prod(stored.chunks or ()) <= 2**24
      and not stored.is_virtual
      and not stored.external
      and os.path.samefile(stored.file.filename, file)
  )
  if not usable:
    raise DataError(f'{file}: writer {client[:40]!r} does not have the expected arrays, or too many examples: '
                    'give the original file.')


# ---- shared
# ------------------------------------------------------------------------------------------------------------


def _file_size(path: pathlib.Path, limit: int = MAX_BYTES) -> int:
  """The size in bytes of a regular file of at most `limit` bytes."""
  try:
    status = os.stat(path)
  except (OSError, ValueError) as error:
    raise DataError(f'{path} cannot be opened ({_one_line(error)}): check the path.') from None
  # A pipe or a device has no size that could be checked.
  if not stat.S_ISREG(status.st_mode):
    raise DataError(f'{path} is not a file: check the path.')
  if not 0 < status.st_size <= limit:
    raise DataError(f'{path} has {status.st_size} bytes, which is none or more than {limit}: give another file.')
  return status.st_size


def _home() -> pathlib.Path:
  # Keras and TFF ask os.path for it, and pathlib's own way raises where there is none.
  return pathlib.Path(os.path.expanduser('~'))


def _read_exactly(stream, count: int) -> bytearray | None:
  """`count` bytes, or None if the stream has fewer; memory grows with what is there, not with what is claimed."""
  values = bytearray()
  while len(values) < count:
    chunk = stream.read(min(_CHUNK, count - len(values)))
    if not chunk:
      return None
    values += chunk
  return values


def _from_bytes(intensities: np.ndarray) -> np.ndarray:
  """float32 in [0, 1] from integers 0 to 255, without an intermediate array."""
  return np.divide(intensities, np.float32(255), dtype=np.float32, casting='unsafe')


def _one_line(error: BaseException) -> str:
  text = ' '.join(str(error).split()) or type(error).__name__
  return text if len(text) <= 120 else text[:117] + '...'
