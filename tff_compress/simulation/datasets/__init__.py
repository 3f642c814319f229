"""Data sets by name: one file each, found by being there.

`load(name)` returns a `Dataset`. A new data set is a file in this folder with a class that derives from `Source`, or
from `Bundled` where it is read from no path; docs/adding-a-dataset.md has an example. Its fields are its options.

Files are treated as hostile; what reads them is in reading.py. Importing this package needs NumPy only: scikit-learn,
h5py, TensorFlow and TFF are imported by the data sets that need them, when they are loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
import os
import pathlib
import types
from typing import Any

from tff_compress.codec import discovery
from tff_compress.codec.errors import CompressionError
from tff_compress.simulation import settings
from tff_compress.simulation.data import DataError
from tff_compress.simulation.data import Dataset
from tff_compress.simulation.datasets.base import Source

__all__ = ['SOURCES', 'check_options', 'load', 'names', 'options', 'source']

SOURCES: Mapping[str, type[Source]] = types.MappingProxyType(discovery.classes(__name__, Source))
"""{name: class} of all data sets."""


def names() -> tuple[str, ...]:
  """The names that `load` knows."""
  return tuple(SOURCES)


def source(name: str) -> type[Source]:
  """The class of a data set.

  Raises:
    DataError: there is none of this name.
  """
  if name not in SOURCES:
    raise DataError(f'There is no data set {str(name)[:40]!r}: use one of {", ".join(SOURCES)}.')
  return SOURCES[name]


def options() -> dict[str, dict[str, settings.Setting]]:
  """{option: {name of a data set that has it: what it is there}}."""
  found: dict[str, dict[str, settings.Setting]] = {}
  for name, kind in SOURCES.items():
    for option, declared in _declared(kind).items():
      found.setdefault(option, {})[name] = declared
  return found


def check_options(name: str, given: Mapping[str, Any], error: type[CompressionError] = DataError) -> dict[str, Any]:
  """The options that a data set has, of those that are given.

  Args:
    name: of a data set.
    given: {option: value}. Options of other data sets may be there with what they are where nothing is said.
    error: class of the error that is raised.

  Raises:
    `error`: an option is for other data sets.
    TypeError: no data set has such an option.
  """
  known, own = options(), _declared(source(name))
  for option, value in given.items():
    if option not in known:
      raise TypeError(f'no data set has an option {option!r}')
    if option not in own and all(value != declared.default for declared in known[option].values()):
      owners = list(known[option])
      theirs = _declared(SOURCES[owners[0]])
      raise error(f'{" and ".join(theirs)} are for {" and ".join(owners)}: leave them out for {name}.')
  return {option: value for option, value in given.items() if option in own}


def load(name: str = 'digits', *, path: str | os.PathLike | None = None, download: bool = True,
         **given: Any) -> Dataset:
  """Loads a data set by name; docs/datasets-and-models.md says what they are.

  Args:
    name: one of `names()`.
    path: the folder or the file to read; None for where it usually is.
    download: whether it may be downloaded when it is not found; few can be.
    **given: options, which are those of the data set: see `options()`. emnist has
      max_clients: at most this many writers, a fixed random choice, and the test examples of the same writers;
      only_digits: ten labels; False: all 62.

  Returns:
    A `Dataset`.

  Raises:
    DataError: there is no such data set, it is not found, a file is not what it should be, or an option is for others.
    TypeError: no data set has such an option.
  """
  kind = source(name)
  return kind(**check_options(name, given)).load(None if path is None else pathlib.Path(path), download)


def _declared(kind: type) -> Mapping[str, settings.Setting]:
  return settings.settings_of(kind)
