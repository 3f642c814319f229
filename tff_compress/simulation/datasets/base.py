"""What a data set by name is: base classes, and what several of them share."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any
from typing import ClassVar

import numpy as np

from tff_compress.simulation import kinds
from tff_compress.simulation import settings
from tff_compress.simulation import splits
from tff_compress.simulation.data import DataError
from tff_compress.simulation.data import Dataset

TEST_FRACTION = 0.2


@dataclasses.dataclass(frozen=True)
class Source:
  """Base class of data sets by name. One with options is a frozen dataclass whose fields they are.

  Class attributes:
    name: the word that names it.
    summary: what it is, for tables in documents.
    kind: one of `kinds.KINDS`.
    files: what `--data-dir` is given: a folder or file, in a few words; '' where it is not read from a path.
  """

  name: ClassVar[str] = ''
  summary: ClassVar[str] = ''
  kind: ClassVar[kinds.Kind] = kinds.IMAGE
  files: ClassVar[str] = ''

  def __post_init__(self) -> None:
    settings.check_all(self, DataError)

  def load(self, path: pathlib.Path | None, download: bool) -> Dataset:
    """Reads it, or makes it.

    Args:
      path: folder or file to read; None for where it usually is.
      download: whether it may be downloaded where it is not found.

    Raises:
      DataError: it is not found, or a file is not what it should be.
    """
    raise NotImplementedError


class Bundled(Source):
  """Base class of data sets that are read from no path.

  Class attributes:
    origin: how it gets here, as the middle of a sentence: 'comes with scikit-learn'.
  """

  origin: ClassVar[str] = ''

  def load(self, path: pathlib.Path | None, download: bool) -> Dataset:
    if path is not None:
      raise DataError(f'{self.name} {self.origin} and is not read from a path: leave --data-dir out.')
    return self.make()

  def make(self) -> Dataset:
    """Makes it."""
    raise NotImplementedError


def option(default: Any, text: str, **limits: Any) -> Any:
  """A field of a `Source`: what it is where nothing is said, what it does, and the limits of a number.

  It is a setting of runs (`tff_compress.simulation.settings`) by being declared, with a flag and its help.
  """
  return settings.setting(default, 'data', text, **limits)


def hold_out(name: str, x: np.ndarray, y: np.ndarray, *, num_classes: int = 1, kind: kinds.Kind = kinds.IMAGE,
             client_ids: np.ndarray | None = None, standardize: bool = False) -> Dataset:
  """A `Dataset` of examples that come in one piece: a fixed fifth of each label is for testing.

  Args:
    name: of the data set.
    x, y: examples and targets, as `kind` says.
    num_classes, kind: as `Dataset` has them.
    client_ids: who each example belongs to, [n]; or None.
    standardize: whether to shift and scale the columns of x [n, features], and targets that are numbers, to mean 0 and
      variance 1 over the training examples. A column of one value becomes 0.

  Raises:
    DataError: no label has two examples, or the arrays are not as `Dataset` says.
  """
  train, test = holdout(name, kind.labels(y))
  if standardize:
    x = _standardized(x, train)
    y = _standardized(y, train) if y.dtype.kind == 'f' else y
  return Dataset(name, x[train], y[train], x[test], y[test], num_classes,
                 None if client_ids is None else client_ids[train], kind)


def holdout(name: str, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """(training, test) indices, ascending: a fifth of each label, but at least one example stays for training."""
  rng = splits.generator('data/holdout', 0)
  is_test = np.zeros(len(labels), bool)
  for label in np.unique(labels):
    members = np.flatnonzero(labels == label)
    held = min(max(1, round(TEST_FRACTION * len(members))), len(members) - 1)
    is_test[rng.permutation(members)[:held]] = True
  if not is_test.any():
    raise DataError(f'{name}: no label has two examples, so none can be held out for testing: add x_test and y_test.')
  return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def _standardized(values: np.ndarray, train: np.ndarray) -> np.ndarray:
  mean, spread = values[train].mean(axis=0, dtype=np.float64), values[train].std(axis=0, dtype=np.float64)
  return ((values - mean) / np.where(spread > 0, spread, 1)).astype(np.float32)
