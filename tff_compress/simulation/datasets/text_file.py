"""A data set of one's own: any text, whose next character is predicted."""

import numpy as np

from tff_compress.simulation import kinds
from tff_compress.simulation.data import DataError
from tff_compress.simulation.data import Dataset
from tff_compress.simulation.datasets import reading
from tff_compress.simulation.datasets.base import Source
from tff_compress.simulation.datasets.base import TEST_FRACTION

LENGTH = 80
"""Characters in a piece, as in LEAF's Shakespeare (Caldas et al. 2018)."""


class TextFile(Source):
  name = 'text-file'
  summary = (f'the text in the file `--data-dir`, UTF-8, cut into pieces of {LENGTH} characters, of which the next is '
             'predicted; the last fifth of them is for testing. The vocabulary is the characters that it has, in the '
             'order of their code points')
  kind = kinds.TEXT
  files = 'the file'

  def load(self, path, download):
    if path is None:
      raise DataError('text-file needs the file to read: pass --data-dir FILE.txt.')
    vocabulary, tokens = np.unique(reading.text(path), return_inverse=True)
    count = (len(tokens) - 1) // LENGTH
    if count < 2 or len(vocabulary) < 2:
      raise DataError(f'{path} has {len(tokens)} characters, of which {len(vocabulary)} differ: give a text of at '
                      f'least {2 * LENGTH + 1} characters.')
    tokens = tokens.astype(np.int32)
    x, y = (tokens[start:start + count * LENGTH].reshape(count, LENGTH) for start in (0, 1))
    train = min(count - 1, round((1 - TEST_FRACTION) * count))
    return Dataset(self.name, x[:train], y[:train], x[train:], y[train:], len(vocabulary), kind=self.kind)
