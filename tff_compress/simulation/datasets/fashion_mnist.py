"""Fashion-MNIST (Xiao et al. 2017): ten kinds of clothes."""

import os
import pathlib

import numpy as np

from tff_compress.simulation.data import DataError
from tff_compress.simulation.data import Dataset
from tff_compress.simulation.datasets import reading
from tff_compress.simulation.datasets.base import Source

# Where Debian's package dataset-fashion-mnist puts its files.
FOLDER = pathlib.Path('/usr/share/datasets/fashion-mnist')

FILES = {
    'x_train': 'train-images-idx3-ubyte',
    'y_train': 'train-labels-idx1-ubyte',
    'x_test': 't10k-images-idx3-ubyte',
    'y_test': 't10k-labels-idx1-ubyte',
}


class FashionMnist(Source):
  name = 'fashion-mnist'
  summary = ('the four original idx files, plain or .gz, 28x28: in `--data-dir`, else where Debian\'s '
             "dataset-fashion-mnist puts them, else in Keras's cache, else downloaded there by Keras")
  files = 'the folder of the four idx files'

  def load(self, path, download):
    get_it = "install Debian's dataset-fashion-mnist or pass --data-dir with the folder of the four idx files"
    if path is not None:
      if not os.path.isdir(path):
        raise DataError(f'{path} is not a folder: pass --data-dir with the folder of the four fashion-mnist idx files.')
      files, missing = _find(path)
      if missing:
        raise DataError(f'{path} has no {missing} (plain or .gz): {get_it}.')
    else:
      cache = reading.home() / '.keras' / 'datasets' / 'fashion-mnist'
      for folder in (FOLDER, cache):
        files, missing = _find(folder)
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
        files, missing = _find(cache)
        if missing:
          raise DataError(f'Keras did not leave {missing} in {cache}: {get_it}.')
    arrays = {}
    for part in ('train', 'test'):
      images, labels = files[f'x_{part}'], files[f'y_{part}']
      arrays[f'y_{part}'] = reading.idx(labels, 1).astype(np.int32)
      pixels = reading.idx(images, 3)
      if pixels.shape[1:] != (28, 28):
        raise DataError(
            f'{images} holds images of {pixels.shape[1]}x{pixels.shape[2]}: give the original files of 28x28.')
      arrays[f'x_{part}'] = reading.from_bytes(pixels)[..., np.newaxis]
    return Dataset(self.name, arrays['x_train'], arrays['y_train'], arrays['x_test'], arrays['y_test'], 10)


def _find(folder: pathlib.Path) -> tuple[dict[str, pathlib.Path], str | None]:
  """The four files by array name, and the name of the first that is missing."""
  files: dict[str, pathlib.Path] = {}
  for array, name in FILES.items():
    found = [candidate for candidate in (folder / f'{name}.gz', folder / name) if os.path.exists(candidate)]
    if not found:
      return files, name
    files[array] = found[0]
  return files, None
