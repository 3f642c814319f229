"""Named codecs: one file each, a frozen dataclass whose `text` property is the codec it stands for. Found by the
registry."""

import dataclasses
from typing import ClassVar

from tff_compress.codec import discovery

_registry: dict[str, type['Preset']] = {}


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
  examples: ClassVar[tuple[str, ...]] = ('',)
  feedback: ClassVar[bool] = False
  changes: ClassVar[str] = ''

  @property
  def text(self) -> str:
    """The codec's text, without presets in it."""
    raise NotImplementedError


def registry() -> dict[str, type[Preset]]:
  """{name: preset class} of everything in this folder."""
  if not _registry:
    _registry.update(discovery.classes(__name__, Preset))
  return dict(_registry)
