"""CIFAR-10 (Krizhevsky 2009): ten kinds of animals and vehicles in colour."""

import os

import numpy as np

from tff_compress.simulation.data import DataError
from tff_compress.simulation.data import Dataset
from tff_compress.simulation.datasets import reading
from tff_compress.simulation.datasets.base import Source

_FILES = {'train': tuple(f'data_batch_{number}.bin' for number in range(1, 6)), 'test': ('test_batch.bin',)}
_FOLDER = 'cifar-10-batches-bin'
_RECORD = 1 + 3 * 32 * 32
_RECORDS = 10_000  # in each file


class Cifar10(Source):
  name = 'cifar10'
  summary = ('32x32 in colour, the binary version: `--data-dir` is the folder of data_batch_1.bin to data_batch_5.bin '
             'and test_batch.bin, the folder around it, or the archive cifar-10-binary.tar.gz')
  files = 'the archive or its folder'

  def load(self, path, download):
    get_it = (f'pass --data-dir with cifar-10-binary.tar.gz or its folder {_FOLDER}; the Python version, of '
              'pickles, is not read')
    if path is None:
      raise DataError(f'cifar10 is not downloaded: {get_it}.')
    wanted = [name for names in _FILES.values() for name in names]
    if os.path.isdir(path):
      folder = path / _FOLDER if os.path.isdir(path / _FOLDER) else path
      files = {name: reading.content(folder / name, _check_size) for name in wanted if os.path.exists(folder / name)}
    else:
      files = reading.tar_gz(path, wanted, _check_size, 2 * len(wanted) * _RECORDS * _RECORD, 'cifar-10-binary.tar.gz')
    missing = next((name for name in wanted if name not in files), None)
    if missing:
      raise DataError(f'{path} has no {missing}: {get_it}.')
    arrays = {}
    for part, names in _FILES.items():
      # A record is the label, then 32x32 red values, as many green and as many blue ones.
      records = np.frombuffer(b''.join(files.pop(name) for name in names), np.uint8).reshape(-1, _RECORD)
      arrays[f'y_{part}'] = records[:, 0].astype(np.int32)
      arrays[f'x_{part}'] = reading.from_bytes(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return Dataset(self.name, arrays['x_train'], arrays['y_train'], arrays['x_test'], arrays['y_test'], 10)


def _check_size(name: object, size: int) -> None:
  if not 0 < size <= _RECORDS * _RECORD or size % _RECORD:
    raise DataError(f'{name} has {size} bytes, which is not 1 to {_RECORDS} images of {_RECORD} bytes: '
                    'give the original file.')
