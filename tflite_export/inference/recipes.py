"""Recipes: what is done to a model before and while it becomes a file, as a short text.

    prune:0.9 + cluster:16 + int8          written without spaces: 'prune:0.9+cluster:16+int8'

Parts stand in the order of `parts.registry()`: what changes the model, how weights are stored, what else the converter
is told. `parse(str(recipe)) == recipe`.
"""

import dataclasses
import difflib
from typing import Any

from tflite_export.errors import ExportError
from tflite_export.inference import parts
from tflite_export.inference.part import Change
from tflite_export.inference.part import EXAMPLES
from tflite_export.inference.part import Part
from tflite_export.inference.part import Storage
from tflite_export.inference.part import TRAINING_DATA

DEFAULT_STORAGE = 'float32'

COMPARED = ('float32', 'float16', 'dynamic', 'int8', 'qat', 'prune+int8', 'prune-2:4+int8', 'cluster+int8', 'prune+qat',
            'prune:0.9+cluster+int8')
"""What `tflite-export compare` tries where nothing else is asked for."""


@dataclasses.dataclass(frozen=True)
class Recipe:
  """A parsed recipe.

  Attributes:
    parts: tuple of `Part`, in the order of `parts.registry()`.
  """
  parts: tuple[Part, ...]

  def __str__(self):
    return '+'.join(map(str, self.parts))

  def __contains__(self, name: str) -> bool:
    return any(part.name == name for part in self.parts)

  @property
  def changes(self) -> list[Change]:
    """The parts that change the model."""
    return [part for part in self.parts if isinstance(part, Change)]

  @property
  def storage(self) -> Storage:
    """How the file stores weights: as a part says, or as another part has it by default."""
    named = [part for part in self.parts if isinstance(part, Storage)]
    implied = next((part.storage for part in self.parts if part.storage), DEFAULT_STORAGE)
    return named[0] if named else parts.storages()[implied]()

  @property
  def conversion(self) -> list[Part]:
    """What sets options of the converter, in order: the storage, then the other parts."""
    return [self.storage, *(part for part in self.parts if not isinstance(part, Storage))]

  @property
  def needs(self) -> frozenset[str]:
    """What its parts need: `part.TRAINING_DATA` and others."""
    provided = {what for part in self.parts for what in part.provides}
    return frozenset(need for part in self.conversion for need in part.needs) - provided

  @property
  def leaves(self) -> frozenset[str]:
    """What its parts leave in weights: `part.ZEROS` and others."""
    return frozenset(what for part in self.parts for what in part.leaves)

  @property
  def trains(self) -> bool:
    """Whether it needs training data."""
    return TRAINING_DATA in self.needs

  @property
  def calibrates(self) -> bool:
    """Whether it needs representative data."""
    return EXAMPLES in self.needs

  @property
  def advice(self) -> str:
    """What to do where the file is too far from the model, without a full stop."""
    return next(part.advice for part in (*self.parts, self.storage) if part.advice)


def parse(text: Any) -> Recipe:
  """Reads a recipe.

  Args:
    text: parts with + between them, or a `Recipe`.

  Returns:
    Recipe

  Raises:
    ExportError: a part does not exist, or the parts do not go together.
  """
  if isinstance(text, Recipe):
    return text
  if not isinstance(text, str) or not text.strip():
    raise ExportError(f"a recipe is a text such as 'int8' or 'prune+int8', not {str(text)[:60]!r}.")
  found = [_part(written.strip()) for written in text.split('+')]
  order = list(parts.registry())
  if len({part.name for part in found}) < len(found):
    raise ExportError(f'{text[:80]!r} names a part twice: name each once.')
  ordered = sorted(found, key=lambda part: order.index(part.name))
  if ordered != found:
    raise ExportError(f'{text[:80]!r} is not in the order in which things are done: write '
                      f'{str(Recipe(tuple(ordered)))!r}.')
  storages = [part.name for part in found if isinstance(part, Storage)]
  if len(storages) > 1:
    raise ExportError(f'weights are stored in one way: choose {" or ".join(storages)}.')
  recipe = Recipe(tuple(found))
  for left in sorted(recipe.leaves):
    names = [part.name for part in found if left in part.leaves]
    if len(names) > 1:
      raise ExportError(f'{" and ".join(names)} do the same thing in two ways: choose one.')
  for part in found:
    part.check(recipe)
  return recipe


def _part(written: str) -> Part:
  """The part that a text such as 'prune:0.9' names."""
  known = parts.registry()
  name, colon, value = (written, '', '') if written in known else written.partition(':')
  if name not in known:
    close = difflib.get_close_matches(written, known, 1)
    hint = f'did you mean {close[0]}' if close else f'there are {", ".join(known)}'
    raise ExportError(f'recipes have no part {written[:60]!r}: {hint}.')
  return known[name].of(value if colon else None)
