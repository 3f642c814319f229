"""The parts of recipes, one file each, found by being there. `part.py` says what a part is."""

from tff_compress.codec import discovery
from tflite_export.inference.part import Part
from tflite_export.inference.part import Storage

_registry: dict[str, type[Part]] = {}


def registry() -> dict[str, type[Part]]:
  """{name: class} of everything in this folder, in the order in which recipes name parts."""
  if not _registry:
    found = discovery.classes(__name__, Part)
    _registry.update(sorted(found.items(), key=lambda entry: (entry[1].position, entry[0])))
  return dict(_registry)


def storages() -> dict[str, type[Storage]]:
  """Those that say how weights are stored."""
  return {name: part for name, part in registry().items() if issubclass(part, Storage)}
