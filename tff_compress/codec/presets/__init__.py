"""Named codecs: one file each, a frozen dataclass whose `text` property is the codec it stands for. Found by the
registry."""

import dataclasses
import importlib
import pkgutil
from typing import ClassVar

_registry = {}


@dataclasses.dataclass(frozen=True)
class Preset:
  """Base class of presets.

  Class attributes:
    name: the word that names it.
    summary: one line for `tff-compress codecs`.
    source: where it is from.
    page: where it is described, from the folder docs/.
    examples: parameter texts that the contract suite tries.
    feedback: whether it loses so much that its sender should remember what, and send it later.
    changes: for a model as a whole (''), or for what changed in it since the 'last' message, or since the 'start'.
  """
  name: ClassVar[str] = ''
  summary: ClassVar[str] = ''
  source: ClassVar[str] = ''
  page: ClassVar[str] = 'choosing-a-codec.md'
  examples: ClassVar[tuple] = ('',)
  feedback: ClassVar[bool] = False
  changes: ClassVar[str] = ''

  @property
  def text(self):
    """The codec's text, without presets in it."""
    raise NotImplementedError


def registry():
  """{name: preset class} of everything in this folder."""
  if not _registry:
    for module in pkgutil.iter_modules(__path__):
      found = importlib.import_module(f'{__name__}.{module.name}')
      for value in vars(found).values():
        if isinstance(value, type) and issubclass(value, Preset) and value.name and value.__module__ == found.__name__:
          _registry[value.name] = value
  return dict(_registry)
