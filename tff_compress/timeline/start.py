"""First weights that a few bytes say: each variable constant in pieces, or uniform between two limits, from a seed.

Most initializers are one of the two, Keras's Glorot and He uniform, its zeros, and the biases of an LSTM among them. A
variable that other initializers made, such as a normal distribution, is replaced by a uniform one of the same variance.

A start, all integers little endian:

    offset  bytes  field
         0      1  version, 1
         1      8  seed
         9      …  for each variable, one of
                     0 and its limit: a byte and a float32
                     the number of its pieces, 1 … 16, and for each how many values it has and which: a byte, and for
                     each piece a count (`codec.counts`) and a float32

Value i of a variable with limit L is (h + 0.5) / 65536 * 2 L - L, h the i-th of 16 random bits drawn from (seed, round
0, all clients, the variable's place in decimal digits, purpose `WEIGHTS`).
"""

from collections.abc import Sequence
import dataclasses
import struct

import numpy as np
import numpy.typing as npt

from tff_compress.codec import checks
from tff_compress.codec import counts
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

MOST_PIECES = 16

_HEAD = struct.Struct('<BQ')
_FLOAT = struct.Struct('<f')
_MOST = 2.0**64  # As updates may hold.


@dataclasses.dataclass(frozen=True)
class Uniform:
  """Values between -limit and limit."""
  limit: float


@dataclasses.dataclass(frozen=True)
class Pieces:
  """Constant values: ((how many, which), …)."""
  pieces: tuple[tuple[int, float], ...]


@dataclasses.dataclass(frozen=True)
class Start:
  """A way to make first weights.

  Attributes:
    seed: 0 … 2^64-1.
    variables: what each variable is.
  """
  seed: int
  variables: tuple[Uniform | Pieces, ...]

  @classmethod
  def like(cls, weights: Sequence[npt.ArrayLike], seed: int) -> 'Start':
    """The `Start` of weights such as these.

    Args:
      weights: float32 arrays, as initializers make them.
      seed: 0 … 2^64-1.

    Raises:
      SpecError: a value is not a number of at most 2^64.
    """
    checks.whole_number('seed', seed, SpecError, least=0, most=(1 << 64) - 1)
    return cls(seed, tuple(_like(np.asarray(array, np.float32).reshape(-1)) for array in weights))

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
      SpecError: the start is not for such variables.
    """
    if len(spec.tensors) != len(self.variables):
      raise SpecError(f'a start is for {len(self.variables)} variables, and the model has {len(spec.tensors)}.')
    parts = []
    for place, (variable, tensor) in enumerate(zip(self.variables, spec.tensors)):
      if isinstance(variable, Uniform):
        limit = np.float32(variable.limit)
        drawn = Draws(xp, keys, str(place), 0).of('round', random.Purpose.WEIGHTS).dither(tensor.size)
        parts.append(drawn * (limit + limit) - limit)
      elif sum(count for count, _ in variable.pieces) != tensor.size:
        raise SpecError(f'a start is for another model: variable {checks.shown(tensor.name)} has {tensor.size} values, '
                        f'and the start has {sum(count for count, _ in variable.pieces)}.')
      else:
        parts.extend(xp.zeros([count], np.float32) + np.float32(value) for count, value in variable.pieces)
    return xp.concat(parts) if parts else xp.zeros([0], np.float32)

  def vector(self, spec: Spec) -> np.ndarray:
    """What `draw` gives in NumPy: float32[d]."""
    return self.draw(numpy_ops, MessageKeys(self.seed, 0, random.SHARED_CLIENT), spec)

  def weights(self, spec: Spec) -> list[np.ndarray]:
    """The same as float32 arrays of the spec's shapes."""
    return spec.split(numpy_ops, self.vector(spec))

  def to_bytes(self) -> bytes:
    """The start as bytes."""
    parts = [_HEAD.pack(VERSION, self.seed)]
    for variable in self.variables:
      if isinstance(variable, Uniform):
        parts += [b'\0', _FLOAT.pack(variable.limit)]
      else:
        parts.append(bytes([len(variable.pieces)]))
        for count, value in variable.pieces:
          parts += [counts.encode(numpy_ops, np.asarray([count], np.int32)).tobytes(), _FLOAT.pack(value)]
    return b''.join(parts)

  @classmethod
  def from_bytes(cls, data: bytes, spec: Spec) -> 'Start':
    """Inverse of `to_bytes` for a model of this spec.

    Raises:
      PayloadError: the bytes are not a start of such a model.
    """
    if len(data) < _HEAD.size:
      raise PayloadError('a start is cut short.')
    version, seed = _HEAD.unpack_from(data)
    if version != VERSION:
      raise PayloadError(f'a start has version {version}; this release reads version {VERSION}.')
    rest, variables = np.frombuffer(data, np.uint8)[_HEAD.size:], []
    for tensor in spec.tensors:
      variable, rest = _read(rest, tensor.size)
      variables.append(variable)
    if rest.size:
      raise PayloadError('there are bytes behind the end of a start.')
    return cls(seed, tuple(variables))


def _like(values: np.ndarray) -> Uniform | Pieces:
  """What a variable of these values, float32[n], is."""
  if not np.all(np.abs(values) <= _MOST):
    raise SpecError('first weights must be numbers of at most 2^64.')
  begins = np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1])
  if values.size == 0:
    return Pieces(((0, 0.0),))
  if len(begins) <= MOST_PIECES and (len(begins) < values.size or values.size == 1):
    return Pieces(tuple((int(count), float(value))
                        for count, value in zip(np.diff([*begins, values.size]), values[begins])))
  return Uniform(float(np.float32(np.sqrt(3 * np.mean(np.square(values, dtype=np.float64))))))


def _read(rest: np.ndarray, size: int) -> tuple[Uniform | Pieces, np.ndarray]:
  """(a variable of this size, the bytes that follow). Raises PayloadError."""

  def number(rest: np.ndarray) -> tuple[float, np.ndarray]:
    if rest.size < _FLOAT.size:
      raise PayloadError('a start is cut short.')
    value, = _FLOAT.unpack(rest[:_FLOAT.size].tobytes())
    if not abs(value) <= _MOST:
      raise PayloadError('a start holds a value that is not a number of at most 2^64.')
    return value, rest[_FLOAT.size:]

  if not rest.size:
    raise PayloadError('a start is cut short.')
  pieces, rest = int(rest[0]), rest[1:]
  if not pieces:
    limit, rest = number(rest)
    if limit < 0:
      raise PayloadError('a start holds a limit that is below 0.')
    return Uniform(limit), rest
  if pieces > MOST_PIECES:
    raise PayloadError(f'a start holds a variable of {pieces} pieces; the limit is {MOST_PIECES}.')
  found = []
  for _ in range(pieces):
    count, rest = counts.decode_one(numpy_ops, rest)
    value, rest = number(rest)
    found.append((int(count), value))
  if sum(count for count, _ in found) != size:
    raise PayloadError(f'a start is for another model: it has {sum(count for count, _ in found)} values for a variable '
                       f'of {size}.')
  return Pieces(tuple(found)), rest
