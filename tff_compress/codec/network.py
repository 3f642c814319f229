"""Small feed-forward networks that give the same bits everywhere, and the file that holds a trained one.

Weights are int8 with a scale per output. A layer's inputs are split into whole numbers of a few bits, scaled by a power
of two for each row, so that every sum of products is a whole number of at most 2^24: exact in float32, whatever order
or hardware adds it up (docs/random-numbers.md, "Exactness"). Two such parts give inputs a precision of at least 2^-13
of a row's largest value.

The file of an autoencoder, all integers little endian, arrays in C order:

    offset  bytes  field
         0      8  magic "TFCAUTO1"
         8      4  length L of the values that are encoded together
        12      4  number v of variables with a normalisation of their own, 0 for none
        16      2  number of layers of the encoder
        18      2  number of layers of the decoder
        20    4 v  sizes of the variables
                …  their means, float32[v], and standard deviations, float32[v]
                …  for each layer: inputs k (4 bytes), outputs m (4), positions that share it (4), activation (1: 0
                   none, 1 ReLU, 2 the layer's input is added to its output and passed through ReLU), int8[k, m]
                   weights, float32[m] scales, float32[m] biases
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import functools
import hashlib
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from tff_compress.codec import sums
from tff_compress.codec.errors import ArtefactError
from tff_compress.codec.ops import numpy_ops
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops

_MAGIC = b'TFCAUTO1'
_HEAD = struct.Struct('<8sIIHH')
_LAYER = struct.Struct('<IIIB')
MAX_LENGTH = 1 << 26
MAX_BYTES = 1 << 30
"""Longer inputs and larger files are refused."""
MAX_LAYERS = 64

NONE, RELU, RESIDUAL = 0, 1, 2
ACTIVATIONS = (NONE, RELU, RESIDUAL)

_EXACT = 24  # float32 holds whole numbers of so many bits.
_WEIGHT = 7
_PIECE = 1 << 10  # Inputs that are added up in float32.


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
  """y = activation(x W scale + bias), for each of several positions alike.

  Attributes:
    weights: int8[k, m]; in a graph that learns it, a tensor of any dtype with such numbers.
    scale, bias: float32[m]; there, tensors too.
    positions: how many pieces of k values the input has; each is multiplied by the same weights.
    activation: `NONE`, `RELU` or `RESIDUAL`.
  """
  weights: Array
  scale: Array
  bias: Array
  positions: int = 1
  activation: int = NONE

  @property
  def inputs(self) -> int:
    """Values in, all positions together."""
    return self.positions * self.weights.shape[0]

  @property
  def outputs(self) -> int:
    return self.positions * self.weights.shape[1]

  @classmethod
  def of(cls, weights: npt.ArrayLike, bias: npt.ArrayLike | None = None, positions: int = 1,
         activation: int = NONE) -> 'Layer':
    """A layer whose weights, float[k, m], are rounded to int8: scale = max |column| / 127."""
    weights = np.asarray(weights, np.float32)
    integers, scale = rounded(numpy_ops, weights)
    bias = np.zeros(weights.shape[1], np.float32) if bias is None else np.asarray(bias, np.float32)
    return cls(integers.astype(np.int8), scale, bias, positions, activation)

  def apply(self, xp: Ops, x: Array) -> Array:
    """float32[n, inputs] -> float32[n, outputs]."""
    inputs, outputs = self.weights.shape
    rows = xp.reshape(x, [-1, inputs])
    y = _product(xp, rows, self.weights) * self.scale + self.bias
    if self.activation == RESIDUAL:
      y = y + rows
    if self.activation != NONE:
      y = xp.maximum(y, xp.constant(0, np.float32))
    return xp.reshape(y, [-1, self.positions * outputs])


def rounded(xp: Ops, weights: Array) -> tuple[Array, Array]:
  """(float32[k, m] of whole numbers -127 … 127, float32[m]): weights as multiples of each column's scale."""
  largest = xp.reduce_max(xp.transpose(xp.abs(weights), [1, 0]))[:, 0]
  scale = xp.where(largest > 0, largest / np.float32(127), xp.constant(1, np.float32))
  return xp.minimum(xp.maximum(xp.floor(weights / scale + np.float32(0.5)), np.float32(-127)), np.float32(127)), scale


def _product(xp: Ops, rows: Array, weights: Array) -> Array:
  """float32[n, k], int8[k, m] -> float32[n, m]: the product of rows rounded to two parts, each added up exactly."""
  inputs = weights.shape[0]
  bits = _EXACT - _WEIGHT - (min(inputs, _PIECE) - 1).bit_length() - 1
  up, unit = sums.scale(xp, bits, xp.reduce_max(xp.abs(rows)))
  rest = rows * up
  coarse = xp.floor(rest + np.float32(0.5))
  # What was rounded off is at most 1/2: with as many bits more it is no larger than the first part.
  finer = xp.floor((rest - coarse) * np.float32(2**bits) + np.float32(0.5))
  return _total(xp, coarse, weights) * unit + _total(xp, finer, weights) * (unit * np.float32(2.0**-bits))


def _total(xp: Ops, numbers: Array, weights: Array) -> Array:
  """The product of whole numbers, rounded once to float32: exact for `_PIECE` inputs, and those are added as
  integers."""
  parts = [xp.matmul(numbers[:, start:start + _PIECE], xp.cast(weights[start:start + _PIECE], np.float32))
           for start in range(0, weights.shape[0], _PIECE)]
  if len(parts) == 1:
    return parts[0]
  return xp.cast(xp.totals(xp.stack_last([xp.cast(part, np.int32) for part in parts])), np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class Autoencoder:
  """An encoder and a decoder for pieces of `length` values.

  Attributes:
    length: number of values L that are encoded together.
    encoder, decoder: tuples of `Layer`, L -> latent and latent -> L values.
    sizes: numbers of values of the variables that have a normalisation of their own; () for none.
    means, deviations: float32, one for each of these.
  """
  length: int
  encoder: tuple[Layer, ...]
  decoder: tuple[Layer, ...]
  sizes: tuple[int, ...] = ()
  means: Array = dataclasses.field(default_factory=lambda: np.zeros(0, np.float32))
  deviations: Array = dataclasses.field(default_factory=lambda: np.zeros(0, np.float32))

  def __post_init__(self) -> None:
    widths = [self.length]
    for layer in (*self.encoder, *self.decoder):
      _check(layer.inputs == widths[-1], f'a layer takes {layer.inputs} values and is given {widths[-1]}')
      _check(layer.activation != RESIDUAL or layer.outputs == layer.inputs,
             'a residual layer has as many outputs as inputs')
      widths.append(layer.outputs)
    _check(self.encoder and self.decoder, 'there is no layer in the encoder or the decoder')
    _check(widths[-1] == self.length, f'the decoder gives {widths[-1]} values instead of {self.length}')
    _check(self.latent < self.length, f'{self.latent} latent values of {self.length} compress nothing')

  @property
  def latent(self) -> int:
    """Number of values that the encoder makes of a piece."""
    return self.encoder[-1].outputs

  @property
  def linear(self) -> bool:
    """Whether decoding a sum gives the sum of what is decoded, but for the mean and biases."""
    return all(layer.activation == NONE for layer in self.decoder)

  @property
  def summable(self) -> bool:
    """Whether it does so altogether: there is neither a mean nor a bias."""
    return self.linear and not np.any(self.means) and not any(np.any(layer.bias) for layer in self.decoder)

  def chunks(self, size: int) -> int:
    """How many pieces `size` values are cut into; the last is filled with zeros."""
    return -(-size // self.length)

  def encode(self, xp: Ops, x: Array, size: int) -> Array:
    """float32[size] -> float32[chunks * latent]."""
    return xp.reshape(self.latents(xp, self.pieces(xp, x, size)), [-1]) if size else x

  def pieces(self, xp: Ops, x: Array, size: int) -> Array:
    """float32[size] -> float32[chunks, length], normalised: what the encoder's layers are given."""
    inverse = 1 / self.deviations
    return self._cut(xp, self._by_variable(xp, x, lambda part, i: (part - self.means[i]) * inverse[i]), size)

  def latents(self, xp: Ops, pieces: Array) -> Array:
    """float32[chunks, length] -> float32[chunks, latent]: the encoder's layers."""
    return _forward(xp, pieces, self.encoder)

  def decode(self, xp: Ops, values: Array, size: int) -> Array:
    """float32[chunks * latent] -> float32[size]."""
    if not size:
      return values
    x = _forward(xp, xp.reshape(values, [-1, self.latent]), self.decoder)
    x = xp.reshape(x, [-1])[:size]
    return self._by_variable(xp, x, lambda part, i: part * self.deviations[i] + self.means[i])

  def _cut(self, xp: Ops, x: Array, size: int) -> Array:
    missing = self.chunks(size) * self.length - size
    if missing:
      x = xp.concat([x, xp.zeros([missing], np.float32)])
    return xp.reshape(x, [-1, self.length])

  def _by_variable(self, xp: Ops, x: Array, function: Callable[[Array, int], Array]) -> Array:
    """float32[sum of sizes]: function(values, i) of each variable i that has a normalisation of its own."""
    starts = np.cumsum((0, *self.sizes))
    parts = [function(x[starts[i]:starts[i + 1]], i) for i in range(len(self.sizes))]
    return xp.concat(parts) if len(parts) > 1 else parts[0] if parts else x

  @functools.cached_property
  def packed(self) -> bytes:
    """The file's bytes."""
    parts = [_HEAD.pack(_MAGIC, self.length, len(self.sizes), len(self.encoder), len(self.decoder)),
             np.asarray(self.sizes, '<u4').tobytes(), np.asarray(self.means, '<f4').tobytes(),
             np.asarray(self.deviations, '<f4').tobytes()]
    for layer in (*self.encoder, *self.decoder):
      parts += [_LAYER.pack(*layer.weights.shape, layer.positions, layer.activation),
                layer.weights.astype('<i1').tobytes(),
                layer.scale.astype('<f4').tobytes(), layer.bias.astype('<f4').tobytes()]
    return b''.join(parts)

  @property
  def digest(self) -> str:
    """32 hexadecimal digits that name it: the first half of the file's SHA-256."""
    return hashlib.sha256(self.packed).hexdigest()[:32]

  @property
  def decoder_bytes(self) -> int:
    """How much of the file a receiver needs: all but the encoder's layers."""
    return len(self.packed) - sum(_layer_bytes(layer) for layer in self.encoder)


def unpack(data: bytes) -> Autoencoder:
  """The `Autoencoder` in a file's bytes.

  Raises:
    ArtefactError: they are not such a file.
  """
  reader = _Reader(data)
  magic, length, variables, encoder, decoder = reader.struct(_HEAD)
  _check(magic == _MAGIC, 'it does not begin as one')
  _check(0 < length <= MAX_LENGTH, f'{length} values cannot be encoded together')
  _check(encoder + decoder <= MAX_LAYERS, f'{encoder + decoder} layers are too many')
  sizes = tuple(int(size) for size in reader.array('<u4', variables))
  means, deviations = reader.array('<f4', variables), reader.array('<f4', variables)
  _check(np.all(np.isfinite(means)) and np.all(np.isfinite(deviations)) and np.all(deviations > 0),
         'a normalisation is not a number above 0')
  layers = []
  for _ in range(encoder + decoder):
    inputs, outputs, positions, activation = reader.struct(_LAYER)
    _check(inputs and outputs and positions and max(inputs, outputs) * positions <= MAX_LENGTH,
           'a layer has a size of 0 or is too large')
    _check(activation in ACTIVATIONS, f'there is no activation {activation}')
    weights = reader.array('<i1', inputs * outputs).reshape(inputs, outputs)
    scale, bias = reader.array('<f4', outputs), reader.array('<f4', outputs)
    _check(np.all(np.isfinite(scale)) and np.all(np.isfinite(bias)), 'a scale or bias is not a number')
    layers.append(Layer(weights, scale, bias, positions, activation))
  _check(reader.rest == 0, f'{reader.rest} bytes are left over')
  return Autoencoder(length, tuple(layers[:encoder]), tuple(layers[encoder:]), sizes, means, deviations)


def cosine(length: int, latent: int) -> Autoencoder:
  """The autoencoder that keeps the first cosines of each piece (DCT-II), to compare what is learned with."""
  angles = np.pi / length * (np.arange(length)[:, None] + 0.5) * np.arange(latent)
  basis = np.cos(angles) * np.where(np.arange(latent) == 0, np.sqrt(1 / length), np.sqrt(2 / length))
  return Autoencoder(length, (Layer.of(basis),), (Layer.of(basis.T),))


def _forward(xp: Ops, x: Array, layers: Sequence[Layer]) -> Array:
  for layer in layers:
    x = layer.apply(xp, x)
  return x


def _layer_bytes(layer: Layer) -> int:
  return _LAYER.size + layer.weights.size + 8 * layer.weights.shape[1]


def _check(condition: object, problem: str) -> None:
  if not condition:
    raise ArtefactError(f'this is not the file of an autoencoder: {problem}.')


class _Reader:
  """Reads a file's bytes from the front; what is missing is an ArtefactError before anything is allocated."""

  def __init__(self, data: bytes) -> None:
    _check(len(data) <= MAX_BYTES, 'it is too large')
    self._data, self._at = memoryview(data), 0

  @property
  def rest(self) -> int:
    return len(self._data) - self._at

  def struct(self, kind: struct.Struct) -> tuple[Any, ...]:
    return kind.unpack(self._take(kind.size))

  def array(self, dtype: str, count: int) -> np.ndarray:
    return np.frombuffer(self._take(count * np.dtype(dtype).itemsize), dtype).astype(np.dtype(dtype).newbyteorder('='))

  def _take(self, size: int) -> memoryview:
    _check(size <= self.rest, 'it is cut short')
    self._at += size
    return self._data[self._at - size:self._at]
