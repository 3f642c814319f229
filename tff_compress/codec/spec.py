"""Specs: the names, shapes and dtypes of a model's variables. Shapes never come from the wire."""

import collections
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import math
import re
from typing import Any
from typing import Protocol
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from tff_compress.codec.checks import shown
from tff_compress.codec.errors import SpecError
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops

LOSSLESS_DTYPES = ('int8', 'uint8', 'int16', 'uint16', 'int32', 'uint32', 'int64', 'uint64', 'bool')
"""Variables of these dtypes are not compressed: their little-endian bytes are sent as they are."""

FLOAT_DTYPES = ('float32', 'float16', 'float64', 'bfloat16')
"""Variables of these dtypes pass through the codec as float32 and come back in their own dtype."""

MAX_NAME = 65535
"""Longest name of a variable, in bytes of UTF-8."""

MAX_VALUES = (1 << 31) - 1
"""Most values of a variable, and of variables that are joined."""

MAX_DIMENSIONS = 32
"""NumPy makes arrays of no more."""

# Fingerprints are made of a text in which names end at tabs and line feeds.
_UNPRINTABLE = re.compile('[\x00-\x1f\x7f-\x9f\u2028\u2029]')


class _Model(Protocol):
  """A Keras model, which has no types."""

  @property
  def trainable_variables(self) -> Sequence[Any]:
    """Variables with a name, a shape and a dtype."""


@dataclasses.dataclass(frozen=True)
class TensorSpec:
  """One variable: its name, shape (tuple of ints) and dtype (a name such as 'float32')."""
  name: str
  shape: tuple[int, ...]
  dtype: str = 'float32'

  def __post_init__(self) -> None:
    name = self._checked_name()
    if self.dtype not in FLOAT_DTYPES + LOSSLESS_DTYPES:
      raise SpecError(f'variable {name} has dtype {self.dtype}, which cannot be sent; use a number or bool dtype.')
    if not isinstance(self.shape, tuple) or any(type(n) is not int or n < 0 for n in self.shape):
      raise SpecError(f'variable {name} needs a fully known shape, a tuple of whole numbers, not {self.shape!r}.')
    if len(self.shape) > MAX_DIMENSIONS:
      raise SpecError(f'variable {name} has {len(self.shape)} dimensions; the limit is {MAX_DIMENSIONS}.')
    # NumPy multiplies the sizes that are not 0 also where an array holds nothing.
    if any(n > MAX_VALUES for n in self.shape) or math.prod(n or 1 for n in self.shape) > MAX_VALUES:
      raise SpecError(f'variable {name} is too large: the sizes of its dimensions, leaving out zeros, multiply to at '
                      'most 2^31-1.')

  def _checked_name(self) -> str:
    """The name as errors show it."""
    if not isinstance(self.name, str) or not self.name:
      raise SpecError(f'the name of a variable is a text of at least one character, not {self.name!r}.')
    name = shown(self.name)
    try:
      length = len(self.name.encode('utf-8'))
    except UnicodeEncodeError:
      raise SpecError(f'variable name {name} holds half a surrogate pair, which is not a character.') from None
    if length > MAX_NAME:
      raise SpecError(f'variable name {name} has {length} bytes; the limit is {MAX_NAME}.')
    if _UNPRINTABLE.search(self.name):
      raise SpecError(f'variable name {name} holds a control character, such as a tab or a line feed: rename it.')
    return name

  @property
  def size(self) -> int:
    """Number of values."""
    return math.prod(self.shape)

  @property
  def is_float(self) -> bool:
    return self.dtype in FLOAT_DTYPES

  @property
  def itemsize(self) -> int:
    """Bytes per value, uncompressed."""
    return 2 if self.dtype == 'bfloat16' else np.dtype(self.dtype).itemsize


@dataclasses.dataclass(frozen=True)
class Spec:
  """The variables of a model, in order. Make one with `Spec.of(model_or_update)`."""
  tensors: tuple[TensorSpec, ...]

  def __post_init__(self) -> None:
    for name, count in collections.Counter(tensor.name for tensor in self.tensors).items():
      if count > 1:
        raise SpecError(f'{count} variables are named {shown(name)}; names must differ.')

  @classmethod
  def of(cls, source: 'SpecSource') -> 'Spec':
    """Makes a spec.

    Args:
      source: a Keras model (its trainable variables are taken, named layer/variable), a mapping of name to array, or
        a Spec.

    Raises:
      SpecError: the source is none of these, or a variable cannot be sent.
    """
    if isinstance(source, Spec):
      return source
    if hasattr(source, 'trainable_variables'):
      variables, containers = source.trainable_variables, _sequential(source)
      names = unique_names([_variable_name(v, containers) for v in variables])
      return cls(tuple(TensorSpec(n, tuple(v.shape), np.dtype(v.dtype.as_numpy_dtype).name
                                  if hasattr(v.dtype, 'as_numpy_dtype') else str(v.dtype))
                       for n, v in zip(names, variables)))
    if isinstance(source, Mapping):
      tensors = []
      for name, value in source.items():
        if not isinstance(name, str):
          raise SpecError(f'an update is a mapping of variable name to array, but a key is {name!r}.')
        try:
          value = np.asarray(value)
        except ValueError:
          raise SpecError(f'variable {shown(name)} is not an array: its rows differ in length.') from None
        tensors.append(TensorSpec(name, tuple(value.shape), value.dtype.name))
      return cls(tuple(tensors))
    raise SpecError('a spec is made from a Keras model or from a mapping of variable name to array, '
                    f'not from {type(source).__name__}.')

  @property
  def parameters(self) -> int:
    """Number of values over all variables."""
    return sum(t.size for t in self.tensors)

  @property
  def uncompressed_bytes(self) -> int:
    """Bytes of all variables in their own dtype, without any framing."""
    return sum(t.size * t.itemsize for t in self.tensors)

  def split(self, xp: Ops, vector: Array) -> list[Array]:
    """A vector of all values, the variables one behind the other -> an array of its shape for each, in order.

    Raises:
      SpecError: it has another number of values.
    """
    if vector.shape[0] not in (self.parameters, None):  # None in graphs, where it is not known yet.
      raise SpecError(f'a vector has {vector.shape[0]} values, and the model {self.parameters}.')
    parts = xp.split(vector, [tensor.size for tensor in self.tensors])
    return [xp.reshape(part, tensor.shape) for part, tensor in zip(parts, self.tensors)]

  def join(self, xp: Ops, arrays: Iterable[Array]) -> Array:
    """Inverse of `split`, of arrays of one dtype."""
    return xp.concat([xp.reshape(array, [-1]) for array in arrays])

  def check(self, update: Mapping[str, npt.ArrayLike]) -> None:
    """Raises SpecError unless the update is a mapping with exactly these names and shapes."""
    if not isinstance(update, Mapping):
      raise SpecError(f'an update is a mapping of variable name to array, not {type(update).__name__}.')
    expected = {t.name for t in self.tensors}
    if set(update) != expected:
      missing = sorted(name[:60] for name in expected - set(update))
      extra = sorted(str(name)[:60] for name in set(update) - expected)
      raise SpecError('the update does not fit the spec: '
                      + '; '.join(filter(None, [f'missing {", ".join(missing[:5])}' if missing else '',
                                                f'unexpected {", ".join(extra[:5])}' if extra else ''])) + '.')
    for tensor in self.tensors:
      shape = np.shape(update[tensor.name])
      if tuple(shape) != tensor.shape:
        raise SpecError(f'variable {shown(tensor.name)} has shape {tuple(shape)} but the spec says {tensor.shape}.')


SpecSource: TypeAlias = Spec | Mapping[str, npt.ArrayLike] | _Model
"""What a spec can be made of: a Keras model, a mapping of variable name to array, or a spec."""


def _variable_name(variable: Any, containers: set[str]) -> str:
  """What a variable of a Keras model is called: as in Keras 2, layer/variable, also in Keras 3, where `name` has no
  layer.
  """
  path = getattr(variable, 'path', None)
  if not path:
    return variable.name.split(':')[0]
  parts = path.split('/')
  # In Keras 2, a Sequential adds nothing to the names of what it holds.
  while len(parts) > 2 and parts[0] in containers:
    parts = parts[1:]
  return '/'.join(parts)


def _sequential(model: Any) -> set[str]:
  """The names of the Sequential models that a Keras model is or holds."""
  names = {model.name} if any(kind.__name__ == 'Sequential' for kind in type(model).__mro__) else set()
  return names.union(*(_sequential(layer) for layer in getattr(model, 'layers', ())))


def unique_names(names: Sequence[str]) -> list[str]:
  """Appends _1, _2, … to repeated names."""
  seen: collections.Counter[str] = collections.Counter()
  result: dict[str, None] = {}
  for name in names:
    unique = name
    while unique in result:
      seen[name] += 1
      unique = f'{name}_{seen[name]}'
    result[unique] = None
  return list(result)
