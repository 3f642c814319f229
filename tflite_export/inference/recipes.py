"""Recipes: what is done to a model before and while it becomes a file, as a short text.

    prune:0.9 + cluster:16 + int8          written without spaces: 'prune:0.9+cluster:16+int8'

Parts that train come first, in the order of `PARTS`, then how weights are stored. `parse(str(recipe)) == recipe`.
"""

import dataclasses
import difflib

from tflite_export.errors import ExportError


@dataclasses.dataclass(frozen=True)
class Part:
  """A part of recipes.

  Attributes:
    name: as it is written.
    summary: what it does, in a few words.
    trains: whether it needs training data.
    stores: whether it says how weights are stored.
    default: value of its parameter; None if it has none.
    low, high: limits of the parameter, both included; whole numbers where the default is one.
  """
  name: str
  summary: str
  trains: bool = False
  stores: bool = False
  default: object = None
  low: float = 0
  high: float = 0

  def value(self, text):
    """The parameter from its text."""
    try:
      value = type(self.default)(text)
      if not self.low <= value <= self.high:
        raise ValueError
      return value
    except (TypeError, ValueError):
      kind = 'whole number' if isinstance(self.default, int) else 'number'
      wanted = 'it takes no number' if self.default is None else f'it takes a {kind} from {self.low} to {self.high}'
      raise ExportError(f'{self.name}:{text[:40]} is not possible: {wanted}.') from None


PARTS = {part.name: part for part in (
    Part('distill', 'teach a smaller model (student=) what the model says', trains=True),
    Part('prune', 'set the smallest weights to zero, this share of them', trains=True, default=0.8, low=0.1, high=0.99),
    Part('prune-2:4', 'set the two smallest of every four weights to zero', trains=True),
    Part('cluster', 'let weights share this many values per layer', trains=True, default=16, low=2, high=256),
    Part('qat', 'train with the rounding of int8 in place', trains=True),
    Part('float32', 'store weights as they are', stores=True),
    Part('float16', 'store weights in 16 bits, compute in 32', stores=True),
    Part('dynamic', 'store weights in 8 bits, inputs and outputs stay float32', stores=True),
    Part('int8', 'weights, activations, inputs and outputs in 8 bits', stores=True),
    Part('sparse', 'store zeros as gaps', stores=True),
)}
"""All parts, in the order in which a recipe names them."""

COMPARED = ('float32', 'float16', 'dynamic', 'int8', 'qat', 'prune+int8', 'prune-2:4+int8', 'cluster+int8', 'prune+qat',
            'prune:0.9+cluster+int8')
"""What `tflite-export compare` tries where nothing else is asked for."""


@dataclasses.dataclass(frozen=True)
class Recipe:
  """A parsed recipe.

  Attributes:
    parts: tuple of (name, parameter or None), in the order of `PARTS`.
  """
  parts: tuple

  def __str__(self):
    return '+'.join(name if value in (None, PARTS[name].default) else f'{name}:{value}' for name, value in self.parts)

  def __contains__(self, name):
    return any(part == name for part, _ in self.parts)

  def parameter(self, name):
    """The parameter of a part."""
    return dict(self.parts)[name]

  @property
  def trains(self):
    """Whether it needs training data."""
    return any(PARTS[name].trains for name, _ in self.parts)

  @property
  def storage(self):
    """'float32', 'float16', 'dynamic' or 'int8'."""
    stored = [name for name, _ in self.parts if PARTS[name].stores and name != 'sparse']
    return stored[0] if stored else 'int8' if 'qat' in self else 'float32'

  @property
  def calibrates(self):
    """Whether it needs representative data."""
    return self.storage == 'int8' and 'qat' not in self


def parse(text):
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
  parts = []
  for written in text.split('+'):
    written = written.strip()
    name, _, value = (written, '', '') if written in PARTS else written.partition(':')
    if name not in PARTS:
      close = difflib.get_close_matches(written, PARTS, 1)
      hint = f'did you mean {close[0]}' if close else f'there are {", ".join(PARTS)}'
      raise ExportError(f'recipes have no part {written[:60]!r}: {hint}.')
    parts.append((name, PARTS[name].value(value) if value or written.endswith(':') else PARTS[name].default))
  names = [name for name, _ in parts]
  order = [name for name in PARTS if name in names]
  if len(set(names)) < len(names):
    raise ExportError(f'{text[:80]!r} names a part twice: name each once.')
  if order != names:
    raise ExportError(f'{text[:80]!r} is not in the order in which things are done: write '
                      f'{str(Recipe(tuple((name, dict(parts)[name]) for name in order)))!r}.')
  _check(names)
  return Recipe(tuple(parts))


def _check(names):
  """Refuses parts that do not go together."""
  stored = [name for name in names if PARTS[name].stores and name != 'sparse']
  if len(stored) > 1:
    raise ExportError(f'weights are stored in one way: choose {" or ".join(stored)}.')
  if 'prune' in names and 'prune-2:4' in names:
    raise ExportError('prune and prune-2:4 do the same thing in two ways: choose one.')
  if 'qat' in names and stored not in ([], ['int8']):
    raise ExportError(f'qat makes an int8 file, so {stored[0]} cannot follow it: leave one of them out.')
  if 'sparse' not in names:
    return
  if 'qat' in names or stored in (['int8'], ['dynamic']):
    raise ExportError('8-bit weights cannot be stored sparse: LiteRT 2.3 refuses such files (its XNNPACK delegate '
                      'fails to prepare); leave sparse out and compress the file, where zeros take next to nothing.')
  if not {'prune', 'prune-2:4'} & set(names):
    raise ExportError('sparse storage takes a pruned model: put prune or prune-2:4 before it.')
