"""Registries whose entries are found by being there: classes in the modules of a folder."""

import importlib
import pkgutil
from typing import ClassVar
from typing import Protocol
from typing import TypeVar


class _Named(Protocol):
  name: ClassVar[str]


Base = TypeVar('Base', bound=_Named)


def classes(package: str, base: type[Base]) -> dict[str, type[Base]]:
  """The named classes that the modules of a package define.

  Args:
    package: dotted name of the package; its modules are imported, in the order of their names.
    base: what the classes derive from. It has an attribute `name`, '' for those that are no entries themselves.

  Returns:
    {name: class}.
  """
  found: dict[str, type[Base]] = {}
  for info in pkgutil.iter_modules(importlib.import_module(package).__path__):
    module = importlib.import_module(f'{package}.{info.name}')
    for value in vars(module).values():
      # Not what a module imports, such as the class that its own derives from.
      if isinstance(value, type) and issubclass(value, base) and value.name and value.__module__ == module.__name__:
        if value.name in found:
          raise ValueError(f'{module.__name__} and {found[value.name].__module__} both define {value.name!r}.')
        found[value.name] = value
  return found
