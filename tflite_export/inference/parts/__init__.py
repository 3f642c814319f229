"""The parts of recipes, one file each, found by being there. `part.py` says what a part is."""

import importlib
import pkgutil

from tflite_export.inference.part import Part
from tflite_export.inference.part import Storage

_registry: dict[str, type[Part]] = {}


def registry() -> dict[str, type[Part]]:
  """{name: class} of everything in this folder, in the order in which recipes name parts."""
  if not _registry:
    found = []
    for module in pkgutil.iter_modules(__path__):
      imported = importlib.import_module(f'{__name__}.{module.name}')
      found += [value for value in vars(imported).values() if isinstance(value, type) and issubclass(value, Part)
                and value.name and value.__module__ == imported.__name__]
    _registry.update((part.name, part) for part in sorted(found, key=lambda part: (part.position, part.name)))
  return dict(_registry)


def storages() -> dict[str, type[Storage]]:
  """Those that say how weights are stored."""
  return {name: part for name, part in registry().items() if issubclass(part, Storage)}
