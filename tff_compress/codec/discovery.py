"""Registries whose entries are found by being there: classes in the modules of a folder."""

import importlib
import pkgutil
from typing import TypeVar

Base = TypeVar('Base')


def classes(package: str, base: type[Base]) -> dict[str, type[Base]]:
  """The named classes that the modules of a package define.

  Args:
    package: dotted name of the package; its modules are imported, in the order of their names.
    base: what the classes derive from. It has an attribute `name`, a text, '' for those that are no entries themselves.

  Returns:
    {name: class}.
  """
  found: dict[str, type[Base]] = {}
  for info in pkgutil.iter_modules(importlib.import_module(package).__path__):
    module = importlib.import_module(f'{package}.{info.name}')
    for value in vars(module).values():
      # Not what a module imports, such as the class that its own derives from.
      if not isinstance(value, type) or not issubclass(value, base) or value.__module__ != module.__name__:
        continue
      name = getattr(value, 'name')  # noqa: B009 - no type says that every base has one
      if name in found:
        raise ValueError(f'{module.__name__} and {found[name].__module__} both define {name!r}.')
      if name:
        found[name] = value
  return found
