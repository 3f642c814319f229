"""TFF's earlier .h5 files of EMNIST, for tests: with few writers."""

import io

import numpy as np
import pytest


def write(folder):
  """A small data set for the contract of data sets; what --data-dir is given."""
  clients = {f'f{i}': writer(3, i / 10, i) for i in range(10)}
  return write_h5_pair(folder, clients, clients)


def write_h5_pair(folder, train, test):
  h5py = pytest.importorskip('h5py')
  for part, clients in (('train', train), ('test', test)):
    made = io.BytesIO()
    with h5py.File(made, 'w') as file:
      examples = file.create_group('examples')
      for name, arrays in clients.items():
        group = examples.create_group(name)
        for key, value in arrays.items():
          if callable(value):
            value(group, key)
          else:
            group.create_dataset(key, data=value)
    (folder / f'fed_emnist_digitsonly_{part}.h5').write_bytes(made.getvalue())
  return folder


def writer(count, value, label):
  return {'pixels': np.full((count, 28, 28), value, np.float32), 'label': np.full(count, label, np.int32)}
