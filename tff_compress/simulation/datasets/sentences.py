"""Sentences of a few words, made up: characters to predict, of writers who prefer different words."""

import numpy as np

from tff_compress.simulation import kinds
from tff_compress.simulation import splits
from tff_compress.simulation.data import Dataset
from tff_compress.simulation.datasets.base import Bundled

VOCABULARY = ' .abcdefghijklmnopqrstuvwxyz'
"""The characters; a token is a position in it."""

WRITERS = 20
LENGTH = 32

# A sentence has one word of each.
_WORDS = (('the', 'a', 'my', 'no', 'every'), ('small', 'red', 'old', 'quiet', 'happy', 'wet'),
          ('dog', 'cat', 'bird', 'fish', 'child', 'king'), ('sees', 'finds', 'takes', 'likes', 'leaves'),
          ('the', 'a', 'my', 'no', 'every'), ('stone', 'house', 'apple', 'boat', 'letter', 'moon'))


class Sentences(Bundled):
  name = 'sentences'
  summary = (f"synthetic: sentences such as 'the small dog sees a boat.' in pieces of {LENGTH} characters out of "
             f'{len(VOCABULARY)}, of which the next is predicted; {WRITERS} writers as clients, with 60 pieces each '
             'for training and 10 for testing, always the same')
  kind = kinds.TEXT
  origin = 'is made up'

  def make(self):
    pieces = np.stack([_pieces(writer, 70) for writer in range(WRITERS)])
    train, test = (part.reshape(-1, LENGTH + 1) for part in (pieces[:, :60], pieces[:, 60:]))
    return Dataset(self.name, train[:, :-1], train[:, 1:], test[:, :-1], test[:, 1:], len(VOCABULARY),
                   np.repeat(np.arange(WRITERS), 60), self.kind)


def _pieces(writer: int, count: int) -> np.ndarray:
  """int32 [count, LENGTH + 1]: consecutive pieces of what a writer writes; each begins with the last token of the one
  before."""
  rng = splits.generator('data/sentences', writer)
  preferences = [rng.dirichlet(np.ones(len(words))) for words in _WORDS]
  text = ''
  while len(text) <= count * LENGTH:
    text += ' '.join(words[rng.choice(len(words), p=shares)] for words, shares in zip(_WORDS, preferences)) + '. '
  tokens = np.array([VOCABULARY.index(character) for character in text], np.int32)
  return np.stack([tokens[start:start + LENGTH + 1] for start in range(0, count * LENGTH, LENGTH)])
