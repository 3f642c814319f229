"""Fashion-MNIST's file format, for tests: idx files that they make themselves."""

import gzip
import pathlib
import struct

import numpy as np

NAMES = {
    'x_train': 'train-images-idx3-ubyte',
    'y_train': 'train-labels-idx1-ubyte',
    'x_test': 't10k-images-idx3-ubyte',
    'y_test': 't10k-labels-idx1-ubyte',
}
"""{array: file}."""


def idx(array: np.ndarray) -> bytes:
  """A uint8 array as the content of an idx file."""
  return struct.pack(f'>4B{array.ndim}I', 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write(folder: pathlib.Path) -> pathlib.Path:
  """A small data set for the contract of data sets; what --data-dir is given."""
  pixels = np.random.Generator(np.random.Philox(0)).integers(0, 256, (30, 28, 28), np.uint8)
  labels = np.arange(30, dtype=np.uint8) % 10
  return write_files(folder, {'x_train': idx(pixels[:20]), 'y_train': idx(labels[:20]), 'x_test': idx(pixels[20:]),
                              'y_test': idx(labels[20:])}, packed=True)


def write_files(folder: pathlib.Path, contents: dict[str, bytes | None], packed: bool) -> pathlib.Path:
  """Writes a file for each array, plain or gzip; None: the file is missing. Returns the folder."""
  folder.mkdir(exist_ok=True)
  for array, content in contents.items():
    if content is not None:
      name = NAMES[array] + ('.gz' if packed else '')
      (folder / name).write_bytes(gzip.compress(content, 1) if packed else content)
  return folder
