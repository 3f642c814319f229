"""Symbols that an entropy coder writes, as streams of a message: never more than a byte above their fixed width.

A stream is a count n and then n bytes, which the coder wrote; or n = 0 and then the symbols packed at the width that
their alphabet needs, as `pack` writes them. It is the first only where that is shorter, so a reader knows before it
looks at a stream how long it can be.

Variables whose symbols have the same coder and alphabet are a group. Its symbols are a stream for each variable, with
its own tables and positions, or one stream of all of them, whichever is shorter:

    one variable:   count | stream
    several:        1 | count | stream, or 0 | counts | streams
"""

import dataclasses

import numpy as np

from tff_compress.codec import counts
from tff_compress.codec.coders.pack import Pack
from tff_compress.codec.stage import Coder
from tff_compress.codec.stage import Integers
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops
from tff_compress.codec.table import Scalar

_PACK = Pack()


def packed_size(signal: Integers) -> Scalar:
  """Bytes of the symbols at their fixed width. Raises CodecError where that is too wide to be packed."""
  return _PACK.output(signal).size


@dataclasses.dataclass(frozen=True)
class Group:
  """What one coder writes of a message.

  Attributes:
    coder: the stage.
    low, high: the alphabet.
    segments: positions of the segments, each with at least one symbol.
    sizes: their numbers of symbols.
  """
  coder: Coder
  low: int
  high: int
  segments: tuple[int, ...]
  sizes: tuple[int, ...]

  @property
  def together(self) -> 'Group':
    """The group with all its symbols as those of one segment."""
    return dataclasses.replace(self, segments=self.segments[:1], sizes=(sum(self.sizes),))

  @property
  def coding(self) -> tuple[Coder, int, int]:
    return self.coder, self.low, self.high

  @property
  def packed(self) -> np.ndarray:
    """int32[n]: what the symbols of each segment take when they are packed."""
    return np.asarray([packed_size(Integers(size, self.low, self.high)) for size in self.sizes], np.int32)

  def stream_sizes(self, xp: Ops, payload: Array) -> tuple[bool, np.ndarray, np.ndarray]:
    """The bytes of the streams of a valid group, which the payload starts with, in NumPy.

    Returns:
      (whether all are one, int32[n]: the bytes of each, the bytes that follow)
    """
    together = len(self.sizes) > 1 and bool(payload[0])
    group = self.together if together else self
    numbers, rest = counts.decode(xp, payload[len(self.sizes) > 1:], len(group.sizes))
    lengths = np.where(numbers > 0, numbers, group.packed)
    return together, lengths, rest[np.sum(lengths, dtype=np.int64):]

  def encode(self, xp: Ops, symbols: list[Array]) -> Array:
    """List of int32[n], one for each segment -> uint8[n]."""
    return _encode(xp, self, xp.concat(symbols))

  def decode(self, xp: Ops, payload: Array) -> tuple[list[Array], Array]:
    """Reads the group from the front of a byte string.

    Returns:
      (list of int32[n], one for each segment; the bytes that follow)

    Raises:
      PayloadError: the bytes are not what `encode` writes.
    """
    symbols, length = xp.apart(_decode, (self,), payload)
    return xp.split(symbols, self.sizes), payload[length:]


def cut(xp: Ops, payload: Array, sizes: Array) -> tuple[list[Array], Array]:
  """Takes strings of int32[n] bytes from the front of a byte string.

  Returns:
    (list of uint8[m]: the n strings, the bytes that follow)

  Raises:
    PayloadError: there are not as many bytes.
  """
  available = xp.long(xp.size(payload))
  fits = xp.all(sizes >= 0) & (xp.total(sizes) <= available)
  xp.require(fits, 'a payload is cut short.')
  # In a graph the rest runs all the same: it finds nothing, rather than one byte in many strings.
  sizes = xp.where(fits, sizes, xp.constant(0, np.int32))
  *parts, rest = xp.split(payload, xp.concat([sizes, xp.vector(available - xp.total(sizes))]))
  return parts, rest


# Functions of one stream do not know its size before they run: a graph has one of each for all variables of a model.


def _encode(xp: Ops, group: Group, symbols: Array) -> Array:
  """int32[sum of sizes] -> uint8[n]."""
  if len(group.sizes) == 1:
    return _write(xp, group, symbols)
  costs = xp.each(_cost, group.coding, xp.split(symbols, group.sizes))
  together = xp.total(xp.apart(_cost, group.coding, symbols)) <= xp.total(xp.concat(costs))
  return xp.cond(together,
                 lambda: xp.concat([xp.constant([1], np.uint8), _write(xp, group.together, symbols)]),
                 lambda: xp.concat([xp.constant([0], np.uint8), _write(xp, group, symbols)]))


def _write(xp: Ops, group: Group, symbols: Array) -> Array:
  """Counts and streams: int32[sum of sizes] -> uint8[n]."""
  numbers, streams = zip(*xp.each(_stream, group.coding, xp.split(symbols, group.sizes)))
  return xp.concat([counts.encode(xp, xp.concat(numbers)), *streams])


def _stream(xp: Ops, coder: Coder, low: int, high: int, symbols: Array) -> tuple[Array, Array]:
  """int32[d] -> (int32[1]: the count, uint8[n]: the stream)."""
  signal = Integers(xp.size(symbols), low, high)
  stream, _ = coder.encode(xp, symbols, None, signal)
  number = xp.vector(xp.size(stream))
  return xp.cond(_with_count(xp, number)[0] < packed_size(signal) + 1, lambda: (number, stream),
                 lambda: (xp.constant([0], np.int32), _PACK.encode(xp, symbols, None, signal)[0]))


def _cost(xp: Ops, coder: Coder, low: int, high: int, symbols: Array) -> Array:
  """Bytes of a stream and its count, int32[1]: what `Stage.cost` says in place of the coder's bytes."""
  signal = Integers(xp.size(symbols), low, high)
  number = xp.vector(coder.cost(xp, symbols, signal))
  return xp.minimum(_with_count(xp, number), xp.vector(packed_size(signal) + 1))


def _with_count(xp: Ops, numbers: Array) -> Array:
  """int32[n] counts -> int32[n]: the bytes that they and as many bytes take."""
  return counts.size(xp, numbers) + numbers


def _decode(xp: Ops, group: Group, payload: Array) -> tuple[Array, Scalar]:
  """Inverse of `_encode`: (int32[sum of sizes], the group's number of bytes)."""
  if len(group.sizes) == 1:
    return _read(xp, group, payload)
  xp.require(xp.size(payload) >= 1, 'a payload is cut short.')
  mark = xp.cast(payload[:1], np.int32)
  xp.require(mark <= 1, 'whether symbols stand together is neither 0 nor 1.')
  symbols, length = xp.cond(xp.all(mark > 0), lambda: xp.apart(_read, (group.together,), payload[1:]),
                            lambda: xp.apart(_read, (group,), payload[1:]))
  return symbols, length + 1


def _read(xp: Ops, group: Group, payload: Array) -> tuple[Array, Scalar]:
  """Inverse of `_write`, with the number of bytes read."""
  numbers, rest = counts.decode(xp, payload, len(group.sizes))
  packed = xp.constant(group.packed, np.int32)
  entropy_coded = numbers > 0
  xp.require((_with_count(xp, numbers) < packed + xp.constant(1, np.int32)) | xp.equal(numbers, 0),
             'symbols are sent in a longer way than packed.')
  lengths = xp.where(entropy_coded, numbers, packed)
  streams, rest = cut(xp, rest, lengths)
  symbols = xp.each(_read_stream, group.coding, entropy_coded, xp.constant(group.sizes, np.int32), streams)
  joined = xp.concat([xp.reshape(part, [size]) for part, size in zip(symbols, group.sizes)])
  return joined, xp.size(payload) - xp.size(rest)


def _read_stream(xp: Ops, coder: Coder, low: int, high: int, entropy_coded: Scalar, size: Scalar,
                 stream: Array) -> Array:
  """Inverse of `_stream`."""
  return xp.cond(entropy_coded, lambda: xp.apart(_decode_stream, (coder, low, high), size, stream),
                 lambda: xp.apart(_decode_stream, (_PACK, low, high), size, stream))


def _decode_stream(xp: Ops, coder: Coder, low: int, high: int, size: Scalar, stream: Array) -> Array:
  return coder.decode(xp, stream, {}, None, Integers(size, low, high))
