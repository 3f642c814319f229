"""First weights that a few bytes say: each variable constant, or uniform between two limits, drawn from a seed.

Most initializers are one of the two, Keras's Glorot and He uniform and its zeros and ones among them. A variable that
other initializers made, such as a normal distribution, is replaced by a uniform one of the same variance.

A start, all integers little endian:

    offset  bytes  field
         0      1  version, 1
         1      8  seed
         9    5 n  for each variable: 0 constant or 1 uniform (1 byte), its value or limit (a float32)

Value i of a variable with limit L is (h + 0.5) / 65536 * 2 L - L, h the i-th of 16 random bits drawn from (seed, round
0, all clients, the variable's place in decimal digits, purpose `WEIGHTS`).
"""

from collections.abc import Sequence
import dataclasses
import struct

import numpy as np
import numpy.typing as npt

from tff_compress.codec import checks
from tff_compress.codec import random
from tff_compress.codec.errors import PayloadError
from tff_compress.codec.errors import SpecError
from tff_compress.codec.keys import Draws
from tff_compress.codec.keys import Keys
from tff_compress.codec.keys import MessageKeys
from tff_compress.codec.ops import numpy_ops
from tff_compress.codec.spec import Spec
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops

VERSION = 1
_HEAD = struct.Struct('<BQ')
_VARIABLE = struct.Struct('<Bf')
_CONSTANT, _UNIFORM = 0, 1


@dataclasses.dataclass(frozen=True)
class Start:
  """A way to make first weights.

  Attributes:
    seed: 0 … 2^64-1.
    variables: for each variable, (whether it is uniform, its limit or its value).
  """
  seed: int
  variables: tuple[tuple[bool, float], ...]

  @classmethod
  def like(cls, weights: Sequence[npt.ArrayLike], seed: int) -> 'Start':
    """The `Start` of weights such as these.

    Args:
      weights: float32 arrays, as initializers make them.
      seed: 0 … 2^64-1.

    Raises:
      SpecError: a value is not finite.
    """
    checks.whole_number('seed', seed, SpecError, least=0, most=(1 << 64) - 1)
    variables = []
    for array in weights:
      values = np.asarray(array, np.float32).reshape(-1)
      if not np.isfinite(values).all():
        raise SpecError('first weights must be finite.')
      if values.size == 0 or np.all(values == values[0]):
        variables.append((False, float(values[0]) if values.size else 0.0))
      else:
        variables.append((True, float(np.float32(np.sqrt(3 * np.mean(np.square(values, dtype=np.float64)))))))
    return cls(seed, tuple(variables))

  @staticmethod
  def requests(spec: Spec) -> list[tuple[str, str, int, int]]:
    """[(scope, name, purpose, chunk)] of the keys of `draw`, as `tensorflow.keys.GraphKeys` needs to know."""
    return [('round', str(place), int(random.Purpose.WEIGHTS), chunk) for place, tensor in enumerate(spec.tensors)
            for chunk in range(-(-tensor.size // (2 * random.WORDS_PER_KEY)))]

  def draw(self, xp: Ops, keys: Keys, spec: Spec) -> Array:
    """float32[d]: the variables one behind the other, the same on every runtime.

    Args:
      xp: operation table.
      keys: of round 0 of the start's seed.
      spec: `Spec` of the model's variables.

    Raises:
      SpecError: the spec has another number of variables.
    """
    if len(spec.tensors) != len(self.variables):
      raise SpecError(f'a start is for {len(self.variables)} variables, and the model has {len(spec.tensors)}.')
    parts = []
    for place, ((uniform, amount), tensor) in enumerate(zip(self.variables, spec.tensors)):
      limit = np.float32(amount)
      if uniform:
        drawn = Draws(xp, keys, str(place), 0).of('round', random.Purpose.WEIGHTS).dither(tensor.size)
        parts.append(drawn * (limit + limit) - limit)
      else:
        parts.append(xp.zeros([tensor.size], np.float32) + limit)
    return xp.concat(parts) if parts else xp.zeros([0], np.float32)

  def weights(self, spec: Spec) -> list[np.ndarray]:
    """What `draw` gives in NumPy: float32 arrays of the spec's shapes."""
    drawn = self.draw(numpy_ops, MessageKeys(self.seed, 0, random.SHARED_CLIENT), spec)
    pieces = np.split(drawn, np.cumsum([tensor.size for tensor in spec.tensors])[:-1])
    return [piece.reshape(tensor.shape) for piece, tensor in zip(pieces, spec.tensors)]

  def to_bytes(self) -> bytes:
    """The start as bytes."""
    return _HEAD.pack(VERSION, self.seed) + b''.join(_VARIABLE.pack(*variable) for variable in self.variables)

  @classmethod
  def from_bytes(cls, data: bytes, spec: Spec) -> 'Start':
    """Inverse of `to_bytes` for a model of this spec.

    Raises:
      PayloadError: the bytes are not a start of such a model.
    """
    if len(data) != _HEAD.size + _VARIABLE.size * len(spec.tensors):
      raise PayloadError(f'a start of {len(spec.tensors)} variables has '
                         f'{_HEAD.size + _VARIABLE.size * len(spec.tensors)} bytes, not {len(data)}.')
    version, seed = _HEAD.unpack_from(data)
    if version != VERSION:
      raise PayloadError(f'a start has version {version}; this release reads version {VERSION}.')
    variables = []
    for place in range(len(spec.tensors)):
      kind, amount = _VARIABLE.unpack_from(data, _HEAD.size + place * _VARIABLE.size)
      if kind not in (_CONSTANT, _UNIFORM) or not np.isfinite(amount):
        raise PayloadError('a start holds a variable that is neither constant nor uniform, or not finite.')
      variables.append((kind == _UNIFORM, amount))
    return cls(seed, tuple(variables))
