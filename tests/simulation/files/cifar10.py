"""CIFAR-10's file format, for tests: the binary version, with few images."""

import numpy as np

RECORDS = np.random.Generator(np.random.Philox(1)).integers(0, 256, (60, 3073), np.uint8)
RECORDS[:, 0] = np.arange(60) % 10


def cifar10_files(**replaced):
  names = [f'data_batch_{number}' for number in range(1, 6)] + ['test_batch']
  files = {name: RECORDS[10 * i:10 * i + 10].tobytes() for i, name in enumerate(names)}
  return {f'{name}.bin': content for name, content in {**files, **replaced}.items() if content is not None}


def write(folder):
  """A small data set for the contract of data sets; what --data-dir is given."""
  return write_cifar10(folder)


def write_cifar10(folder, **replaced):
  folder.mkdir(exist_ok=True)
  for name, content in cifar10_files(**replaced).items():
    (folder / name).write_bytes(content)
  return folder
