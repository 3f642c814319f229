"""What a part of a recipe is: one thing that is done to a model before, or while, it becomes a file.

    distill, prune, cluster, qat    `Change`: what is done to the Keras model, most of it by training
    float32, float16, dynamic, int8 `Storage`: how the file stores weights and computes; one of them
    sparse                          `Part`: anything else that the converter is told

A part is one file in `parts/`, found by being there: texts of recipes, the command's help, the guide's table and the
tests read the same registry. docs/adding-a-recipe-part.md shows a whole one.

Nothing here, and nothing at the top of a part's file, imports TensorFlow: recipes are read, and help is shown, without.
"""

import dataclasses
from typing import Any
from typing import ClassVar

from tff_compress.codec import checks
from tflite_export.errors import ExportError

TRAINING_DATA = 'training data'
LOSS = 'a loss'
STUDENT = 'a student'
EXAMPLES = 'examples'
"""What a part may need: (x, y) to train with; a loss for that; a model that is trained in the place of the one that was
given; examples of inputs."""

ZEROS = 'zeros'
SHARED_VALUES = 'shared values'
"""What a part may leave in weights, for those after it to keep."""


def parameter(default: int | float, low: int | float, high: int | float, written: str) -> Any:
  """The parameter of a part: the one field that a part may have.

  Args:
    default: its value where the recipe has none; a part with a whole number takes whole numbers.
    low, high: limits, both included.
    written: what stands for it in help and documents: 'SHARE'.
  """
  return dataclasses.field(default=default, metadata={'low': low, 'high': high, 'written': written})


@dataclasses.dataclass(frozen=True)
class Part:
  """A part of recipes. Derive from `Change` or `Storage` where it is one of these; a field is its parameter.

  Class attributes:
    name: the word that names it in a recipe.
    summary: what it does, one line for help and documents: 'stores zeros as gaps'.
    position: where it stands in a recipe: from small to large, equal ones by name.
    needs: tuple of what it needs, such as `EXAMPLES`.
    provides: tuple of what other parts need no more because of it.
    leaves: tuple of what it leaves in weights, such as `ZEROS`.
    storage: name of the storage that a recipe with it has where it names none.
    advice: what to do where the file is too far from the model, without a full stop; '': what the storage says.
    examples: texts of recipes that it is tested in.
  """
  name: ClassVar[str] = ''
  summary: ClassVar[str] = ''
  position: ClassVar[int] = 0
  needs: ClassVar[tuple[str, ...]] = ()
  provides: ClassVar[tuple[str, ...]] = ()
  leaves: ClassVar[tuple[str, ...]] = ()
  storage: ClassVar[str] = ''
  advice: ClassVar[str] = ''
  examples: ClassVar[tuple[str, ...]] = ()

  @classmethod
  def of(cls, text: str | None) -> 'Part':
    """The part with the parameter of this text; None: its default.

    Raises:
      ExportError: it has no parameter, or none of this kind or size.
    """
    if text is None:
      return cls()
    for field in dataclasses.fields(cls):
      default: Any = field.default
      try:
        value = type(default)(text)
      except ValueError:
        continue
      if field.metadata['low'] <= value <= field.metadata['high']:
        return cls(**{field.name: value})
    raise ExportError(f'{cls.name}:{text[:40]} is not possible: it takes {cls.limits() or "no number"}.')

  @classmethod
  def limits(cls) -> str:
    """What its parameter may be: 'a number from 0.1 to 0.99'; '' where it has none."""
    for field in dataclasses.fields(cls):
      low, high = field.metadata['low'], field.metadata['high']
      return checks.whole_number_text(low, high) if isinstance(field.default, int) else checks.number_text(low, high)
    return ''

  @classmethod
  def form(cls) -> str:
    """How it is written: 'prune:SHARE'."""
    return ':'.join([cls.name, *(field.metadata['written'] for field in dataclasses.fields(cls))])

  @classmethod
  def parameter_text(cls) -> str:
    """'SHARE is a number from 0.1 to 0.99, by default 0.8'; '' where it has no parameter."""
    return ''.join(f'{field.metadata["written"]} is {cls.limits()}, by default {field.default}'
                   for field in dataclasses.fields(cls))

  def check(self, recipe: Any) -> None:
    """Raises ExportError where it does not go with the other parts of a `recipes.Recipe`."""
    del recipe

  def configure(self, converter: Any, inputs: dict, batches: Any) -> None:
    """Sets options of the `tf.lite.TFLiteConverter`; the storage's come first.

    Args:
      converter: that of the file.
      inputs: {name: tf.TensorSpec} of the model.
      batches: function that yields ('infer', {input: array}) for each batch of the examples; None where no part needs
        them.
    """
    del converter, inputs, batches

  def __str__(self):
    values = [getattr(self, field.name) for field in dataclasses.fields(self)]
    return self.name if self == type(self)() else ':'.join([self.name, *map(str, values)])


class Change(Part):
  """A part that changes the Keras model before it is converted."""

  def change(self, model: Any, trainer: Any, student: Any, keep: frozenset[str]) -> Any:
    """Returns the changed model, another one; `model` itself stays as it is.

    Args:
      model: Keras model.
      trainer: `finetuning.Trainer` with the training data; None where no part of the recipe needs any.
      student: Keras model, or None.
      keep: what earlier parts left in the weights and what this one has to keep, such as `ZEROS`.

    Raises:
      ExportError: it cannot be done to this model.
    """
    raise NotImplementedError


class Storage(Part):
  """A part that says how the file stores weights and computes. A recipe has one.

  Class attributes:
    bits: of a weight in the file.
    tolerance: how far outputs may be from the model's: ||found - wanted|| / ||wanted||. At 1 a file knows no more than
      one that answers 0.
  """
  position = 50
  bits: ClassVar[int] = 32
  tolerance: ClassVar[float] = 1e-3
  advice = 'some layer computes otherwise on a device'
