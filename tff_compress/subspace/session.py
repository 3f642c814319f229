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
                   whether the model is coded as a key frame afterwards (bit 7); bit 6 is 0
         1      2  scale, a bfloat16
         3      n  levels: ceil(k bits / 8) bytes

A record of no bytes is a round in which the model stayed as it was. k is nowhere sent: see `rate`. A base, for who has
no model:

    offset  bytes  field
         0      1  what follows: 0 a start (`timeline.start`), 1 a key frame, 2 the first model
         1     29  facts of the copy that it gives
        30      n  the start; or a frame of the model's variables, and in a key frame with momentum one of the
                   velocity, each behind a count of its bytes

Facts of a copy:

    offset  bytes  field
         0      4  round
         4      1  bits
         5     24  rule: energy, signal, spent, each a float64

Server and clients each have a copy, an OrderedDict:

    model: float32[d], the variables one behind the other.
    round: int32 scalar, the number of the coming round, which is the model's version.
    bits: int32 scalar, bits per coordinate of the clients' next messages.
    rule: what `Rate` remembers.
    velocity: float32[d], with momentum alone.
    anchor: int32 scalar, the round whose coordinates are used; in what `place` gives alone (see `fixed_form`).

All that a copy is: its facts, the model and, with momentum, the velocity, as float32. The digest in messages is CRC-32
of the fingerprint and of this.
"""

import collections
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
import hashlib
from typing import Any
from typing import Protocol
from typing import TypeAlias

import numpy as np

from tff_compress.codec import counts
from tff_compress.codec import floats
from tff_compress.codec.keys import JoinedKeys
from tff_compress.codec.keys import Keys
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops
from tff_compress.codec.table import Scalar
from tff_compress.subspace import levels
from tff_compress.subspace import placement
from tff_compress.subspace.coordinates import Coordinates
from tff_compress.subspace.rate import Rate
from tff_compress.timeline import history

Copy: TypeAlias = Mapping[str, Any]

UPLOAD_OVERHEAD = 7
"""Bytes of a client's message beside its levels."""

CHANGE_OVERHEAD = 3
"""Bytes of a change beside its levels."""

START, KEY_FRAME, FIRST = 0, 1, 2
"""Kinds of bases."""

_CODED = 128  # The flag of a change after which the model is coded.
_RULE = ('energy', 'signal', 'spent')
_FACTS = 5 + 8 * len(_RULE)  # Bytes.
_MOST = 2.0**256  # Above whatever the rule remembers: values are below 2^128.


class Runtime(Protocol):
  """What a session needs beside the table of operations: `runtime.NumpyRuntime`, or one for graphs."""

  def keys(self, round: Scalar, client: Scalar) -> Keys:
    """The keys of a message; `round` and `client` are int32 scalars with the numbers' 32 bits."""

  def draw(self, start: Array) -> Array:
    """uint8[n], a start -> float32[d]."""

  def encode_model(self, model: Array, round: Scalar, kind: int) -> Array:
    """float32[d] -> uint8[n], the frame of a key frame (`KEY_FRAME`) or of a first model (`FIRST`)."""

  def decode_model(self, frame: Array, kind: int) -> Array:
    """Inverse of `encode_model`: uint8[n] -> float32[d]."""


@dataclasses.dataclass(frozen=True)
class Session:
  """A run's agreement.

  Attributes:
    size: d, number of values of the model.
    seed: session seed, 0 … 2^64-1.
    rate: the rule for k.
    momentum: of the server, 0 … 1 without 1: everybody keeps the velocity v = momentum v + change, and moves by it.
    runtime: of the table of operations that is used.
  """
  size: int
  seed: int
  rate: Rate
  momentum: float
  runtime: Runtime = dataclasses.field(compare=False, repr=False)

  @functools.cached_property
  def space(self) -> Coordinates:
    return Coordinates(self.size)

  @functools.cached_property
  def fingerprint(self) -> bytes:
    """4 bytes that differ, nearly surely, for another run."""
    return hashlib.sha256(repr(self).encode()).digest()[:4]

  # -- everybody

  def begin(self, xp: Ops, model: Array, bits: Scalar, version: Scalar = 0) -> collections.OrderedDict[str, Any]:
    """The server's copy of a first model.

    Args:
      xp: operation table.
      model: float32[d].
      bits: int32 scalar, bits per coordinate of the first messages.
      version: int32 scalar, that the model gets.
    """
    wide = xp.cast(model, np.float64)
    energy = xp.reduce_sum(wide * wide)[0]
    copy = collections.OrderedDict(model=model, round=xp.integer(version), bits=xp.integer(bits),
                                   rule=self.rate.begin(xp, energy))
    return self._with_velocity(xp, copy)

  def _with_velocity(self, xp: Ops, copy: Copy) -> collections.OrderedDict[str, Any]:
    velocity = {'velocity': xp.zeros([self.size], np.float32)} if self.momentum else {}
    return collections.OrderedDict(copy, **velocity)

  def kept(self, xp: Ops, copy: Copy) -> Scalar:
    """k of the coming round."""
    return self.rate.kept(xp, self.space, copy['rule'], _coordinates(copy))

  def move(self, xp: Ops, copy: Copy, record: Array) -> collections.OrderedDict[str, Any]:
    """The copy after a change.

    Raises:
      PayloadError: the record is none of this round.
    """
    return self.advance(xp, copy, record)[0]

  def advance(self, xp: Ops, copy: Copy, record: Array) -> tuple[collections.OrderedDict[str, Any], Array]:
    """(the copy after a change, uint8[n] the base that gives it: of no bytes unless the change says that the model is
    coded).

    Raises:
      PayloadError: the record is none of this round.
    """
    nothing = lambda: xp.zeros([0], np.uint8)
    return xp.cond(
        xp.size(record) > 0, lambda: self._advanced(xp, copy, record),
        lambda: (collections.OrderedDict(copy, round=copy['round'] + xp.constant(1, np.int32)), nothing()))

  def _advanced(self, xp: Ops, copy: Copy, record: Array) -> tuple[collections.OrderedDict[str, Any], Array]:
    moved = self._before_coding(xp, copy, record)
    names = self.vectors

    def coded() -> tuple[list[Array], Array]:
      frames = [self.runtime.encode_model(moved[name], moved['round'], KEY_FRAME) for name in names]
      return [self.runtime.decode_model(frame, KEY_FRAME) for frame in frames], self._base(xp, moved, KEY_FRAME, frames)

    vectors, base = xp.cond(xp.cast(record[0], np.int32) >= _CODED, coded,
                            lambda: ([moved[name] for name in names], xp.zeros([0], np.uint8)))
    return collections.OrderedDict(moved, **dict(zip(names, vectors))), base

  @property
  def vectors(self) -> list[str]:
    """Names of the vectors of a copy."""
    return ['model', 'velocity'] if self.momentum else ['model']

  def _before_coding(self, xp: Ops, copy: Copy, record: Array) -> collections.OrderedDict[str, Any]:
    """The copy after a change, but for its model being coded as a key frame."""
    kept = self.kept(xp, copy)
    found, scale, following = xp.apart(read_change, (), record, kept)
    keys = self.runtime.keys(copy['round'], xp.constant(-1, np.int32))
    # First the rotation of whole numbers, which is exact, then one operation at a time.
    change = self.space.lift(xp, keys, xp.cast(found, np.float32)) * scale
    moved = collections.OrderedDict(copy, round=copy['round'] + xp.constant(1, np.int32), bits=following)
    if self.momentum:
      change = copy['velocity'] * np.float32(self.momentum) + change
      moved['velocity'] = change
    moved['model'] = copy['model'] - change
    # A change goes on moving the model: all in all 1 / (1 - momentum) times as far.
    gain = xp.opaque(xp.constant((1 - self.momentum)**-2, np.float64))
    moved['rule'] = self.rate.after(xp, self.space, copy['rule'], kept, energy_of(xp, found, scale) * gain)
    return moved

  def base(self, xp: Ops, copy: Copy, kind: int, start: Array | None = None) -> Array:
    """uint8[n]: the record that gives a first copy; `advance` gives those of key frames.

    Args:
      xp: operation table.
      copy: the server's, of a model that its codec does not change; see `first`.
      kind: `START` or `FIRST`.
      start: uint8[n], the bytes of a `Start`.
    """
    if start is not None:
      return xp.concat([xp.constant([kind], np.uint8), *self._facts(xp, copy), start])
    return self._base(xp, copy, kind, [self.runtime.encode_model(copy['model'], copy['round'], kind)])

  def first(self, xp: Ops, model: Array, bits: Scalar,
            version: Scalar = 0) -> tuple[collections.OrderedDict[str, Any], Array]:
    """(the server's copy of a first model as it arrives, uint8[n] the base that gives it); see `begin`."""
    frame = self.runtime.encode_model(model, xp.integer(version), FIRST)
    copy = self.begin(xp, self.runtime.decode_model(frame, FIRST), bits, version)
    return copy, self._base(xp, copy, FIRST, [frame])

  def _base(self, xp: Ops, copy: Copy, kind: int, frames: Sequence[Array]) -> Array:
    counted = (part for frame in frames for part in (counts.encode(xp, xp.vector(xp.size(frame))), frame))
    return xp.concat([xp.constant([kind], np.uint8), *self._facts(xp, copy), *counted])

  def from_base(self, xp: Ops, record: Array) -> collections.OrderedDict[str, Any]:
    """The copy that a base gives.

    Raises:
      PayloadError: the record is no base of this model.
    """
    xp.require(xp.size(record) > _FACTS, 'a base is cut short.')
    kind = xp.cast(record[0], np.int32)
    xp.require(kind <= FIRST, 'a base is of a kind that this release does not know.')
    facts, body = record[1:_FACTS + 1], record[_FACTS + 1:]
    zeros = lambda: xp.zeros([self.size], np.float32)

    def vectors_of(kind: int) -> tuple[Array, ...]:
      frames = xp.apart(take_frames, (len(self.vectors) if kind == KEY_FRAME else 1,), body)
      return tuple([*(self.runtime.decode_model(frame, kind) for frame in frames), zeros()][:2])

    vectors = xp.cond(
        xp.equal(kind, START), lambda: (self.runtime.draw(body), zeros()),
        lambda: xp.cond(xp.equal(kind, KEY_FRAME), lambda: vectors_of(KEY_FRAME), lambda: vectors_of(FIRST)))
    return self._copy_of(xp, facts, vectors)

  def content(self, xp: Ops, copy: Copy) -> Array:
    """uint8[n]: all that a copy is."""
    return xp.concat([*self._facts(xp, copy), *(xp.raw_bytes(copy[name]) for name in self.vectors)])

  def from_content(self, xp: Ops, content: Array) -> collections.OrderedDict[str, Any]:
    """Inverse of `content`.

    Raises:
      PayloadError: the bytes are no copy of this model.
    """
    content = xp.static_bytes(content, _FACTS + 4 * self.size * len(self.vectors))
    vectors = xp.raw_values(content[_FACTS:], 'float32')
    return self._copy_of(xp, content[:_FACTS], [vectors[:self.size], vectors[self.size:]])

  def digest(self, xp: Ops, copy: Copy) -> Array:
    """uint8[4], of a copy: two that differ in one bit have different ones."""
    return history.digest_of(xp, self._fingerprint(xp), self.content(xp, copy))

  def _facts(self, xp: Ops, copy: Copy) -> list[Array]:
    rule = [xp.raw_bytes(xp.reshape(copy['rule'][name], [1])) for name in _RULE]
    return [xp.integers_to_bytes(xp.vector(copy['round']), 4), xp.integers_to_bytes(xp.vector(copy['bits']), 1), *rule]

  def _copy_of(self, xp: Ops, facts: Array, vectors: Sequence[Array]) -> collections.OrderedDict[str, Any]:
    number, bits, rule = xp.apart(read_facts, (), facts)
    copy = collections.OrderedDict(
        model=vectors[0], round=number, bits=bits,
        rule=collections.OrderedDict((name, rule[i]) for i, name in enumerate(_RULE)))
    if self.momentum:
      copy['velocity'] = vectors[1]
    return copy

  def _fingerprint(self, xp: Ops) -> Array:
    return xp.constant(np.frombuffer(self.fingerprint, np.uint8), np.uint8)

  def placement(self, xp: Ops, held: Copy, number: Scalar, target: Array, *, bits: Scalar, next_bits: Scalar) -> Array:
    """uint8[n]: the record that leads from the anchor to the model of round `number`.

    Args:
      xp: operation table.
      held: the copy of the anchor.
      number: int32 scalar, after that of the anchor.
      target: float32[k], what the anchor less the model is in the anchor's coordinates.
      bits: of each of these, 4 … 8.
      next_bits: bits per coordinate of the clients' next messages.
    """
    return placement.encode(xp, target, number - held['round'], bits, next_bits)

  def place(self, xp: Ops, held: Copy, record: Array) -> collections.OrderedDict[str, Any]:
    """The present copy, by a placement on top of the copy that is held; what is held itself by a record of no bytes.

    Raises:
      PayloadError: the record is no placement on this copy.
    """
    here = collections.OrderedDict(held, anchor=held['round'])

    def placed() -> collections.OrderedDict[str, Any]:
      numbers, scale, rounds, bits = xp.apart(placement.decode, (), record, self.kept(xp, here))
      keys = self.runtime.keys(held['round'], xp.constant(-1, np.int32))
      away = self.space.lift(xp, keys, xp.cast(numbers, np.float32)) * scale
      return collections.OrderedDict(here, model=held['model'] - away, round=held['round'] + rounds, bits=bits)

    return xp.cond(xp.size(record) > 0, placed, lambda: here)

  # -- a client

  def _keys(self, copy: Copy, client: Scalar) -> Keys:
    """Of the client's message: rotation and places are the anchor's."""
    own = self.runtime.keys(copy['round'], client)
    return JoinedKeys(self.runtime.keys(copy['anchor'], client), own) if 'anchor' in copy else own

  def upload(self, xp: Ops, copy: Copy, update: Array, client: Scalar) -> Array:
    """uint8[n]: a client's message.

    Args:
      xp: operation table.
      copy: the client's.
      update: float32[d], the weights before training less those after.
      client: int32 scalar with the 32 bits of the client's number.
    """
    keys, bits = self._keys(copy, client), copy['bits']
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

  def change(self, xp: Ops, copy: Copy, mean: Array, *, learning_rate: Array, bits: Scalar, next_bits: Scalar,
             key_frame: Scalar) -> Array:
    """uint8[n]: the record that moves everybody's model.

    Args:
      xp: operation table.
      copy: the server's.
      mean: float32[k], of the clients' coordinates.
      learning_rate: float32 scalar, the server's learning rate.
      bits: bits per coordinate, 1 … 4.
      next_bits: those of the clients in the next round.
      key_frame: boolean scalar, whether the model is coded afterwards.
    """
    kept = xp.cast(xp.size(mean), np.float32)
    values = mean * (xp.constant(self.space.padded, np.float32) / kept * learning_rate)
    packed, scale = levels.encode(xp, values, bits)
    flags = xp.integer(bits) + 8 * xp.integer(next_bits) + _CODED * xp.cast(key_frame, np.int32)
    return xp.concat([xp.integers_to_bytes(xp.vector(flags), 1), xp.integers_to_bytes(scale, 2), packed])

  def _check(self, xp: Ops, number: Scalar, client: Scalar, body: Array) -> Array:
    numbers = xp.integers_to_bytes(xp.concat([xp.vector(number), xp.vector(client)]), 4)
    return history.digest_of(xp, self._fingerprint(xp), xp.concat([numbers, body]))


def _coordinates(copy: Copy) -> Scalar:
  """The round whose coordinates are used."""
  return copy['anchor'] if 'anchor' in copy else copy['round']


def read_levels(xp: Ops, body: Array, kept: Scalar, bits: Scalar) -> tuple[Array, Array]:
  """(int32[k] levels, float32 scalar scale) of a scale and levels, uint8[n].

  Raises:
    PayloadError: they are none of k coordinates and this number of bits.
  """
  xp.require((bits >= 1) & (bits <= levels.MOST_BITS),
             'a message has another number of bits per coordinate than 1 … 4.')
  xp.require(xp.size(body) >= 2, 'a message is cut short.')
  bits = xp.minimum(xp.maximum(bits, 1), levels.MOST_BITS)
  scale = floats.from_bfloat16(xp, xp.integers_from_bytes(body[:2], 2))[0]
  xp.require(floats.is_amount(xp, scale), 'a scale is not a number from 0 to 2^88.')
  return levels.decode(xp, body[2:], kept, bits), scale


def read_change(xp: Ops, record: Array, kept: Scalar) -> tuple[Array, Array, Scalar]:
  """(int32[k] levels, float32 scalar scale, bits of the clients' next messages) of a change, uint8[n].

  Raises:
    PayloadError: it is none of k coordinates.
  """
  xp.require(xp.size(record) > 0, 'a change is cut short.')
  flags = xp.cast(record[0], np.int32)
  following = xp.shift_right(flags, 3) % 16
  xp.require((following >= 1) & (following <= levels.MOST_BITS),
             'a change has another number of bits for the next messages than 1 … 4.')
  found, scale = read_levels(xp, record[1:], kept, flags % 8)
  return found, scale, following


def read_facts(xp: Ops, facts: Array) -> tuple[Scalar, Scalar, Array]:
  """(round, bits, float64[3] what the rule remembers) of a copy's facts, uint8[29].

  Raises:
    PayloadError: no copy has them.
  """
  number, bits = xp.integers_from_bytes(facts[:4], 4)[0], xp.integers_from_bytes(facts[4:5], 1)[0]
  rule = xp.raw_values(facts[5:], 'float64')
  xp.require(number >= 0, 'a copy of the model has a round above 2^31 - 1.')
  xp.require((bits >= 1) & (bits <= levels.MOST_BITS),
             'a copy of the model has another number of bits for the next messages than 1 … 4.')
  xp.require((rule >= 0) & (rule <= _MOST), 'a copy of the model has an energy that is not a number from 0 to 2^256.')
  return number, bits, rule


def take_frames(xp: Ops, count: int, body: Array) -> tuple[Array, ...]:
  """Frames (uint8[n]), each behind a count of its bytes, which are all of a byte string.

  Raises:
    PayloadError: it is cut short, or longer.
  """
  frames = []
  for _ in range(count):
    frame, body = counts.take(xp, body)
    frames.append(frame)
  xp.require(xp.equal(xp.size(body), 0), 'a base has bytes behind its end.')
  return tuple(frames)


def energy_of(xp: Ops, found: Array, scale: Array) -> Array:
  """float64 scalar: ||z||^2 of levels and their scale."""
  wide = xp.cast(scale, np.float64)
  return xp.cast(xp.total(found * found), np.float64) * (wide * wide)
