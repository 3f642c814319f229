"""Registries whose entries are found by being there: classes in the modules of a folder. And names of packages that are
imported when they are used."""

from collections.abc import Callable
from collections.abc import Mapping
import importlib
import pkgutil
import sys
from typing import Any
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


def lazily(package: str, names: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
  """`__getattr__` and `__dir__` of a package whose names are imported when they are used (PEP 562).

  Args:
    package: its `__name__`. Its `__all__` is what `__dir__` lists beside what is imported.
    names: {name: dotted name of the module that has it}; a module that is itself the name ends with it.
  """

  def get(name: str) -> Any:
    if name not in names:
      raise AttributeError(f'module {package!r} has no attribute {name!r}')
    module = importlib.import_module(names[name])
    return module if names[name] == f'{package}.{name}' else getattr(module, name)

  def listed() -> list[str]:
    module = sys.modules[package]
    return sorted([*vars(module), *module.__all__])

  return get, listed
