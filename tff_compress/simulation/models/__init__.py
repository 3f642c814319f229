"""Keras models by name: one file each, found by being there. Initial weights depend on the seed alone.

The architectures are those of the papers whose results are reproduced here, with exactly their numbers of parameters,
plus small ones for tests. All models return logits: train them with `from_logits=True`. They are not compiled. A new
model is a file in this folder with a class that derives from `Architecture`; docs/adding-a-dataset.md has an example.

Importing this package does not import TensorFlow; `build` does.
"""

from __future__ import annotations

from collections.abc import Mapping
import math
import types
from typing import Any

from tff_compress.codec import checks
from tff_compress.codec import discovery
from tff_compress.codec.errors import CompressionError
from tff_compress.simulation.kinds import Kind
from tff_compress.simulation.models.base import Architecture
from tff_compress.simulation.models.base import Layers
from tff_compress.simulation.models.base import ModelError

__all__ = ['ARCHITECTURES', 'Architecture', 'ModelError', 'architecture', 'build', 'check_kind', 'names']

# With these, the largest dense layer of any model here stays below 2**29 parameters.
MAX_INPUT_VALUES = 2**17
MAX_CLASSES = 2**20

ARCHITECTURES: Mapping[str, type[Architecture]] = types.MappingProxyType(discovery.classes(__name__, Architecture))
"""{name: class} of all models."""


def names() -> tuple[str, ...]:
  """The names that `build` knows."""
  return tuple(ARCHITECTURES)


def architecture(name: str) -> type[Architecture]:
  """What is known of a model.

  Raises:
    ModelError: there is none of this name.
  """
  if name not in ARCHITECTURES:
    raise ModelError(f'There is no model {str(name)[:40]!r}: use one of {", ".join(ARCHITECTURES)}.')
  return ARCHITECTURES[name]


def check_kind(name: str, kind: Kind, data: str, error: type[CompressionError] = ModelError) -> None:
  """Refuses a model that is not for a kind of data.

  Args:
    name: of the model.
    kind: of the data set.
    data: the name of the data set.
    error: class of the error that is raised.

  Raises:
    `error`: the two do not go together.
  """
  if kind not in architecture(name).kinds:
    theirs = ' or '.join(known.name for known in ARCHITECTURES[name].kinds)
    fitting = [other for other, known in ARCHITECTURES.items() if kind in known.kinds]
    raise error(f'The model {name} is for data of the kind {theirs}, and {data} is of the kind {kind.name}: use one of '
                f'{", ".join(fitting)}.')


def build(
    name: str,
    *,
    input_shape: tuple[int | None, ...] | None = None,
    num_classes: int | None = None,
    seed: int = 0,
    dropout: bool = False,
) -> Any:
  """Builds a Keras model.

  docs/datasets-and-models.md says what the models are made of. Hidden activations are ReLU (the LSTM has its own). The
  layers have fixed names, so that a variable is called the same in every model built, for example `conv1/kernel:0`. The
  same seed gives the same initial weights, bit for bit on one machine; every tensor has its own seed derived from
  `seed`, and no global generator is read or set.

  Args:
    name: a key of `ARCHITECTURES`.
    input_shape: of one example: (h, w, c) of an image, (features,) of a row of a table, (length,) or (None,) of a text,
      which is int32 tokens; None: as published.
    num_classes: how many outputs; None: as published.
    seed: a whole number >= 0.
    dropout: whether to put in the dropout layers of a model that has them.

  Returns:
    A `tf.keras.Model` with float32 logits [batch, num_classes], or [batch, length, num_classes] of a text.

  Raises:
    ModelError: there is no such model, or it cannot have this shape, number of classes, seed or dropout.
  """
  known = architecture(name)
  if dropout and not known.dropout:
    raise ModelError(f'{name} has no dropout layers: leave dropout out.')
  shape = known.checked_shape(input_shape)
  least = min(kind.least_outputs for kind in known.kinds)
  classes = known.num_classes
  if num_classes is not None:
    classes = checks.whole_number('num_classes', num_classes, ModelError, least=least, most=MAX_CLASSES)
  seed = checks.whole_number('seed', seed, ModelError, least=0)
  if math.prod(n or 1 for n in shape) > MAX_INPUT_VALUES:
    raise ModelError(f'input_shape {shape} has more than {MAX_INPUT_VALUES} values: use smaller examples.')
  return known.build(Layers(name, seed, dropout, known.kinds[0]), shape, classes)
