"""Specs: the names, shapes and dtypes of a model's variables. Shapes never come from the wire."""

import collections
import dataclasses
import math

import numpy as np

from tff_compress.codec.errors import SpecError

LOSSLESS_DTYPES = ('int8', 'uint8', 'int16', 'uint16', 'int32', 'uint32', 'int64', 'uint64', 'bool')
"""Variables of these dtypes are not compressed: their little-endian bytes are sent as they are."""

FLOAT_DTYPES = ('float32', 'float16', 'float64', 'bfloat16')
"""Variables of these dtypes pass through the codec as float32 and come back in their own dtype."""


@dataclasses.dataclass(frozen=True)
class TensorSpec:
  """One variable: its name, shape (tuple of ints) and dtype (a name such as 'float32')."""
  name: str
  shape: tuple
  dtype: str = 'float32'

  def __post_init__(self):
    if self.dtype not in FLOAT_DTYPES + LOSSLESS_DTYPES:
      raise SpecError(f'variable {self.name!r} has dtype {self.dtype}, which cannot be sent; use a number or bool dtype.')
    if any(not isinstance(n, int) or n < 0 for n in self.shape):
      raise SpecError(f'variable {self.name!r} needs a fully known shape, not {self.shape}.')
    try:
      length = len(self.name.encode('utf-8'))
    except UnicodeEncodeError:
      raise SpecError(f'variable name {self.name!r} holds half a surrogate pair, which is not a character.') from None
    if length > 65535:
      raise SpecError('a variable name is longer than 65535 bytes.')
    if self.size >= 1 << 31:
      raise SpecError(f'variable {self.name!r} has {self.size} values; the limit is 2^31-1.')

  @property
  def size(self):
    """Number of values."""
    return math.prod(self.shape)

  @property
  def is_float(self):
    return self.dtype in FLOAT_DTYPES

  @property
  def itemsize(self):
    """Bytes per value, uncompressed."""
    return 2 if self.dtype == 'bfloat16' else np.dtype(self.dtype).itemsize


@dataclasses.dataclass(frozen=True)
class Spec:
  """The variables of a model, in order. Make one with `Spec.of(model_or_update)`."""
  tensors: tuple

  def __post_init__(self):
    names = [t.name for t in self.tensors]
    for name, count in collections.Counter(names).items():
      if count > 1:
        raise SpecError(f'{count} variables are named {name!r}; names must differ.')

  @classmethod
  def of(cls, source):
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
      variables = source.trainable_variables
      names = unique_names([v.name.split(':')[0] for v in variables])
      return cls(tuple(TensorSpec(n, tuple(v.shape), np.dtype(v.dtype.as_numpy_dtype).name if hasattr(v.dtype, 'as_numpy_dtype') else str(v.dtype))
                       for n, v in zip(names, variables)))
    if isinstance(source, collections.abc.Mapping):
      tensors = []
      for name, value in source.items():
        if not isinstance(name, str):
          raise SpecError(f'an update is a mapping of variable name to array, but a key is {name!r}.')
        try:
          value = np.asarray(value)
        except ValueError:
          raise SpecError(f'variable {name!r} is not an array: its rows differ in length.') from None
        tensors.append(TensorSpec(name, tuple(value.shape), value.dtype.name))
      return cls(tuple(tensors))
    raise SpecError('a spec is made from a Keras model or from a mapping of variable name to array, '
                    f'not from {type(source).__name__}.')

  @property
  def parameters(self):
    """Number of values over all variables."""
    return sum(t.size for t in self.tensors)

  @property
  def uncompressed_bytes(self):
    """Bytes of all variables in their own dtype, without any framing."""
    return sum(t.size * t.itemsize for t in self.tensors)

  def check(self, update):
    """Raises SpecError unless the update is a mapping with exactly these names and shapes."""
    if not isinstance(update, collections.abc.Mapping):
      raise SpecError(f'an update is a mapping of variable name to array, not {type(update).__name__}.')
    expected = {t.name for t in self.tensors}
    if set(update) != expected:
      missing, extra = sorted(expected - set(update)), sorted(str(n) for n in set(update) - expected)
      raise SpecError('the update does not fit the spec: '
                      + '; '.join(filter(None, [missing and f'missing {", ".join(missing[:5])}',
                                                extra and f'unexpected {", ".join(extra[:5])}'])) + '.')
    for tensor in self.tensors:
      shape = np.shape(update[tensor.name])
      if tuple(shape) != tensor.shape:
        raise SpecError(f'variable {tensor.name!r} has shape {tuple(shape)} but the spec says {tensor.shape}.')


def unique_names(names):
  """Appends _1, _2, … to repeated names."""
  seen = collections.Counter()
  result = []
  for name in names:
    result.append(f'{name}_{seen[name]}' if seen[name] else name)
    seen[name] += 1
  return result
