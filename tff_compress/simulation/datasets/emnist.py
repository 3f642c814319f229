"""Federated EMNIST (Caldas et al. 2018, LEAF): handwriting with its writers as clients."""

from __future__ import annotations

from collections.abc import Iterable
import dataclasses
import os
import pathlib
import sqlite3
from typing import ClassVar

import numpy as np

from tff_compress.codec import files as files_lib
from tff_compress.simulation import splits
from tff_compress.simulation.data import DataError
from tff_compress.simulation.data import Dataset
from tff_compress.simulation.datasets import reading
from tff_compress.simulation.datasets.base import option
from tff_compress.simulation.datasets.base import Source

SQLITE = 'emnist_all.sqlite'
H5 = {True: 'fed_emnist_digitsonly_{}.h5', False: 'fed_emnist_{}.h5'}


@dataclasses.dataclass(frozen=True)
class Emnist(Source):
  """Its options are its fields."""
  name: ClassVar[str] = 'emnist'
  summary: ClassVar[str] = (
      'Federated EMNIST (LEAF) with its writers as clients, 28x28, background 1 and ink 0 as TFF gives it: '
      f"TFF's {SQLITE} or its earlier fed_emnist_*.h5 pair in `--data-dir`, else TFF's cache or download")
  files: ClassVar[str] = "the folder of TFF's files"

  max_clients: int | None = option(
      None, 'use at most this many writers, a fixed random choice, and their test examples; none: all of them',
      least=1, most=2**20)
  only_digits: bool = option(True, 'the ten digits alone; false: all 62 characters')

  @property
  def num_classes(self) -> int:
    return 10 if self.only_digits else 62

  def load(self, path, download):
    h5 = [H5[self.only_digits].format(part) for part in ('train', 'test')]
    get_it = f"pass --data-dir with the folder that has TFF's {SQLITE}, or {h5[0]} and {h5[1]}"
    if path is not None:
      if os.path.isfile(path) and path.name in (SQLITE, *h5):
        path = path.parent
      if os.path.exists(path / SQLITE):
        return self._read_sqlite(path)
      if not all(os.path.exists(path / name) for name in h5):
        raise DataError(f'{path} has no emnist files: {get_it}.')
      return self._read_h5([path / name for name in h5])
    cache = reading.home() / '.tff'
    if not download and not os.path.exists(cache / SQLITE):
      raise DataError(f'emnist is not on this machine: {get_it}, or allow the download.')
    return self._read_sqlite(cache)

  def _choose(self, ids: Iterable[str]) -> list[str]:
    ids = sorted(ids)
    if self.max_clients is None or self.max_clients >= len(ids):
      return ids
    # Not the first: the ids are in the order of the collection campaigns.
    rng = splits.generator('data/emnist-writers', 0)
    return [ids[i] for i in np.sort(rng.permutation(len(ids))[:self.max_clients])]

  def _dataset(self, parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Dataset:
    (train_ids, x_train, y_train), (_, x_test, y_test) = parts
    return Dataset(self.name, x_train, y_train, x_test, y_test, self.num_classes, train_ids)

  def _read_sqlite(self, folder: pathlib.Path) -> Dataset:
    with files_lib.readable(str(folder)) as cache:
      return self._read_cache(folder, cache)

  def _read_cache(self, folder: pathlib.Path, cache: str) -> Dataset:
    """What `_read_sqlite` does, with TensorFlow given the folder under the name `cache`."""
    file = folder / SQLITE
    get_it = f"pass --data-dir with the folder that has TFF's {SQLITE}"
    again = f'delete {file} and let TFF download it again, or {get_it}'
    if os.path.exists(file):
      reading.file_size(file, limit=2**40)
    try:
      import tensorflow as tf
      import tensorflow_federated as tff
    except ImportError:
      raise DataError('emnist is read by TensorFlow Federated: install tensorflow-federated.') from None
    try:
      sources = tff.simulation.datasets.emnist.load_data(only_digits=self.only_digits, cache_dir=cache)
    except Exception as error:  # Any network, file, SQL or TFF error: all of them mean that the file is not usable.
      if not os.path.exists(file):
        raise DataError('emnist is not on this machine and could not be downloaded '
                        f'({files_lib.reason(error)}): {get_it}.') from None
      raise DataError(f'{file} cannot be read ({files_lib.reason(error)}): {again}.') from None
    parts = []
    ids = None
    for source in sources:
      try:
        if ids is None:
          ids = self._choose(source.client_ids)
          # TFF pastes the id into its query, so a quote in it would choose other rows.
          if any("'" in client for client in ids):
            raise DataError(f'{file} has writers with a quote in their name: {again}.')
        collector = reading.Collector(file)
        # One pipeline for all clients: building one for each takes minutes.
        examples = tf.data.Dataset.from_tensor_slices(ids).flat_map(
            lambda client, source=source: source.serializable_dataset_fn(client).map(
                lambda example: (client, example['pixels'], example['label'])
            )
        )
        for client, pixels, label in examples.batch(1024).as_numpy_iterator():
          collector.add(np.char.decode(client.astype('S'), 'utf-8'), pixels, label)
      except (tf.errors.OpError, sqlite3.Error, UnicodeDecodeError, TypeError) as error:
        raise DataError(f'{file} cannot be read ({files_lib.reason(error)}): {again}.') from None
      parts.append(collector.arrays())
    return self._dataset(parts)

  def _read_h5(self, files: list[pathlib.Path]) -> Dataset:
    parts = []
    ids = None
    for file in files:
      collector = reading.Collector(file)
      with reading.h5(file) as opened:
        clients = opened['examples']
        if ids is None:
          ids = self._choose(clients.keys())
        for client in ids:
          if client not in clients:
            continue  # A writer may have no test examples.
          pixels, label = clients[client]['pixels'], clients[client]['label']
          reading.check_h5(file, client, pixels, 'f', (28, 28), collector.room)
          reading.check_h5(file, client, label, 'iu', (), collector.room)
          if len(pixels) != len(label):
            raise DataError(f'{file}: writer {client[:40]!r} has {len(pixels)} images and {len(label)} labels: '
                            'give the original file.')
          if len(label):
            collector.add(np.full(len(label), client), pixels[()], label[()])
      parts.append(collector.arrays())
    return self._dataset(parts)
