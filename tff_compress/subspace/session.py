"""What server and clients of one run do with updates, changes and key frames in the shared subspace.

A message from a client, all integers little endian:

    offset  bytes  field
         0      1  bits per coordinate, 1 … 4
         1      2  scale, a bfloat16
         3      n  levels: ceil(k bits / 8) bytes
       3+n      4  CRC-32 of 12 bytes that are not sent, fingerprint, round and client, and of all before

A change, for everybody:

    offset  bytes  field
         0      1  bits per coordinate (bits 0-2), bits that clients send per coordinate in the next round (3-5), and
                   whether the model is coded as a key frame afterwards (bit 7)
         1      2  scale, a bfloat16
         3      n  levels: ceil(k bits / 8) bytes

A record of no bytes is a round in which the model stayed as it was. k is nowhere sent: see `rate`. A key frame:

    offset  bytes  field
         0      4  the version that it gives
         4      1  bits that clients send per coordinate in the next round
         5     24  what the rule remembers: energy, signal, spent, each a float64
        29      n  frame of the model's variables

Server and clients each have a copy, an OrderedDict:

    model: float32[d], the variables one behind the other.
    round: int32 scalar, the number of the coming round, which is the model's version.
    bits: int32 scalar, bits per coordinate of the clients' next messages.
    rule: what `Rate` remembers.
"""

import collections
from collections.abc import Mapping
import dataclasses
import functools
import hashlib
from typing import Any
from typing import Protocol
from typing import TypeAlias

import numpy as np

from tff_compress.codec import floats
from tff_compress.codec.keys import Keys
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops
from tff_compress.codec.table import Scalar
from tff_compress.subspace import levels
from tff_compress.subspace.coordinates import Coordinates
from tff_compress.subspace.rate import Rate

Copy: TypeAlias = Mapping[str, Any]

UPLOAD_OVERHEAD = 7
"""Bytes of a client's message beside its levels."""

CHANGE_OVERHEAD = 3
"""Bytes of a change beside its levels."""

_KEY_FRAME = 128
_STATE_BYTES = 29


class Runtime(Protocol):
  """What a session needs beside the table of operations: `runtime.NumpyRuntime`, or one for graphs."""

  def keys(self, round: Scalar, client: Scalar) -> Keys:
    """The keys of a message; `client` is an int32 scalar with the number's 32 bits."""

  def encode_model(self, model: Array, round: Scalar) -> Array:
    """float32[d] -> uint8[n], the frame of a key frame."""

  def decode_model(self, frame: Array) -> Array:
    """Inverse of `encode_model`: uint8[n] -> float32[d]."""


@dataclasses.dataclass(frozen=True)
class Session:
  """A run's agreement.

  Attributes:
    size: d, number of values of the model.
    seed: session seed, 0 … 2^64-1.
    rate: the rule for k.
    runtime: of the table of operations that is used.
  """
  size: int
  seed: int
  rate: Rate
  runtime: Runtime = dataclasses.field(compare=False, repr=False)

  @functools.cached_property
  def space(self) -> Coordinates:
    return Coordinates(self.size)

  @functools.cached_property
  def fingerprint(self) -> bytes:
    """4 bytes that differ, nearly surely, for another run."""
    return hashlib.sha256(repr(self).encode()).digest()[:4]

  # -- everybody

  def begin(self, xp: Ops, model: Array, energy: Array, bits: Scalar) -> collections.OrderedDict[str, Any]:
    """The copy of version 0.

    Args:
      xp: operation table.
      model: float32[d].
      energy: float64 scalar, ||W_0||^2 as the server sent it.
      bits: int32 scalar, bits per coordinate of the first messages.
    """
    return collections.OrderedDict(model=model, round=xp.constant(0, np.int32), bits=xp.integer(bits),
                                   rule=self.rate.begin(xp, energy))

  def kept(self, xp: Ops, copy: Copy) -> Scalar:
    """k of the coming round."""
    return self.rate.kept(xp, self.space, copy['rule'], copy['round'])

  def move(self, xp: Ops, copy: Copy, record: Array) -> collections.OrderedDict[str, Any]:
    """The copy after a change.

    Raises:
      PayloadError: the record is none of this round.
    """
    return xp.cond(xp.size(record) > 0, lambda: self._moved(xp, copy, record),
                   lambda: collections.OrderedDict(copy, round=copy['round'] + xp.constant(1, np.int32)))

  def _moved(self, xp: Ops, copy: Copy, record: Array) -> collections.OrderedDict[str, Any]:
    moved = self._before_coding(xp, copy, record)
    coded = lambda: self.runtime.decode_model(self.runtime.encode_model(moved['model'], moved['round']))
    model = xp.cond(xp.cast(record[0], np.int32) >= _KEY_FRAME, coded, lambda: moved['model'])
    return collections.OrderedDict(moved, model=model)

  def _before_coding(self, xp: Ops, copy: Copy, record: Array) -> collections.OrderedDict[str, Any]:
    """The copy after a change, but for its model being coded as a key frame."""
    kept = self.kept(xp, copy)
    flags = xp.cast(record[0], np.int32)
    bits, following = flags % 8, xp.shift_right(flags, 3) % 8
    found, scale = xp.apart(read_levels, (), record[1:], kept, bits)
    keys = self.runtime.keys(copy['round'], xp.constant(-1, np.int32))
    # First the rotation of whole numbers, which is exact, then one product and one difference.
    model = copy['model'] - self.space.lift(xp, keys, xp.cast(found, np.float32)) * scale
    return collections.OrderedDict(
        model=model, round=copy['round'] + xp.constant(1, np.int32), bits=following,
        rule=self.rate.after(xp, self.space, copy['rule'], kept, energy_of(xp, found, scale)))

  def key_frame(self, xp: Ops, copy: Copy, record: Array) -> Array:
    """uint8[n]: the base that gives what `move` makes of a copy, with a change that says that its model is coded."""
    moved = self._before_coding(xp, copy, record)
    rule = xp.concat([xp.raw_bytes(xp.reshape(moved['rule'][name], [1])) for name in ('energy', 'signal', 'spent')])
    return xp.concat([xp.integers_to_bytes(xp.vector(moved['round']), 4),
                      xp.integers_to_bytes(xp.vector(moved['bits']), 1), rule,
                      self.runtime.encode_model(moved['model'], moved['round'])])

  def from_key_frame(self, xp: Ops, record: Array) -> collections.OrderedDict[str, Any]:
    """The copy that a key frame gives. Raises PayloadError where the record is none."""
    xp.require(xp.size(record) > _STATE_BYTES, 'a key frame is cut short.')
    numbers = xp.raw_values(record[5:_STATE_BYTES], 'float64')
    rule = collections.OrderedDict(energy=numbers[0], signal=numbers[1], spent=numbers[2])
    return collections.OrderedDict(
        model=self.runtime.decode_model(record[_STATE_BYTES:]), round=xp.integers_from_bytes(record[:4], 4)[0],
        bits=xp.integers_from_bytes(record[4:5], 1)[0], rule=rule)

  # -- a client

  def upload(self, xp: Ops, copy: Copy, update: Array, client: Scalar) -> Array:
    """uint8[n]: a client's message.

    Args:
      xp: operation table.
      copy: the client's.
      update: float32[d], the weights before training less those after.
      client: int32 scalar with the 32 bits of the client's number.
    """
    keys, bits = self.runtime.keys(copy['round'], client), copy['bits']
    values = self.space.project(xp, keys, update, self.kept(xp, copy))
    packed, scale = levels.encode(xp, self.space.rotated(xp, keys, values), bits)
    body = xp.concat([xp.integers_to_bytes(xp.vector(bits), 1), xp.integers_to_bytes(scale, 2), packed])
    return xp.concat([body, self._check(xp, copy['round'], client, body)])

  # -- the server

  def read(self, xp: Ops, number: Scalar, client: Scalar, kept: Scalar, message: Array) -> Array:
    """float32[k]: a client's coordinates.

    Args:
      xp: operation table.
      number, client: int32 scalars, of the round and the client that the message must be of.
      kept: k of the round.
      message: uint8[n].

    Raises:
      PayloadError: the message is none of this round and client.
    """
    xp.require(xp.size(message) >= UPLOAD_OVERHEAD, 'a message is cut short.')
    body = message[:-4]
    xp.require(xp.equal(message[-4:], self._check(xp, number, client, body)),
               'a message was damaged on the way, or is of another run, round or client: its checksum does not match.')
    bits = xp.cast(body[0], np.int32)
    found, scale = read_levels(xp, body[1:], kept, bits)
    keys = self.runtime.keys(number, client)
    return self.space.rotated_back(xp, keys, xp.cast(found, np.float32)) * scale

  def change(self, xp: Ops, copy: Copy, mean: Array, *, rate: Array, bits: Scalar, next_bits: Scalar,
             key_frame: Scalar) -> Array:
    """uint8[n]: the record that moves everybody's model.

    Args:
      xp: operation table.
      copy: the server's.
      mean: float32[k], of the clients' coordinates.
      rate: float32 scalar, the server's learning rate.
      bits: bits per coordinate, 1 … 4.
      next_bits: those of the clients in the next round.
      key_frame: boolean scalar, whether the model is coded afterwards.
    """
    kept = xp.cast(xp.size(mean), np.float32)
    values = mean * (xp.constant(self.space.padded, np.float32) / kept * rate)
    packed, scale = levels.encode(xp, values, bits)
    flags = xp.integer(bits) + 8 * xp.integer(next_bits) + _KEY_FRAME * xp.cast(key_frame, np.int32)
    return xp.concat([xp.integers_to_bytes(xp.vector(flags), 1), xp.integers_to_bytes(scale, 2), packed])

  def _check(self, xp: Ops, number: Scalar, client: Scalar, body: Array) -> Array:
    numbers = xp.integers_to_bytes(xp.concat([xp.vector(number), xp.vector(client)]), 4)
    fingerprint = xp.constant(np.frombuffer(self.fingerprint, np.uint8), np.uint8)
    return xp.integers_to_bytes(xp.reshape(xp.crc32(xp.concat([fingerprint, numbers, body])), [1]), 4)


def read_levels(xp: Ops, body: Array, kept: Scalar, bits: Scalar) -> tuple[Array, Array]:
  """(int32[k] levels, float32 scalar scale) of a scale and levels, uint8[n].

  Raises:
    PayloadError: they are none of k coordinates and this number of bits.
  """
  xp.require((bits >= 1) & (bits <= levels.MOST_BITS), 'a message has a number of bits per coordinate other than 1 … 4.')
  xp.require(xp.size(body) >= 2, 'a message is cut short.')
  bits = xp.minimum(xp.maximum(bits, 1), levels.MOST_BITS)
  scale = floats.from_bfloat16(xp, xp.integers_from_bytes(body[:2], 2))[0]
  xp.require(floats.is_amount(xp, scale), 'a scale is not a number from 0 to 2^88.')
  return levels.decode(xp, body[2:], kept, bits), scale


def energy_of(xp: Ops, found: Array, scale: Array) -> Array:
  """float64 scalar: ||z||^2 of levels and their scale."""
  wide = xp.cast(scale, np.float64)
  return xp.cast(xp.total(found * found), np.float64) * (wide * wide)
