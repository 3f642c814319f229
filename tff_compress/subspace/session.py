"""What server and clients of one run do with updates, changes and key frames in the shared subspace.

A message from a client, all integers little endian:

    offset  bytes  field
         0      1  bits per coordinate
         1      n  coordinates, in as many bits each: see `private_sums` and `integer_sums`
       1+n      4  CRC-32 of 12 bytes that are not sent, fingerprint, round and client, and of all before

A change, for everybody:

    offset  bytes  field
         0      1  bits per coordinate (bits 0-2), bits that clients send per coordinate in the next round (3-6), and
                   whether the model is coded as a key frame afterwards (bit 7)
         1      2  scale, a bfloat16
         3      s  with integer sums, 2 bytes: the scale of the clients' next messages, a bfloat16
       3+s      n  levels: ceil(k bits / 8) bytes

A record of no bytes is a round in which the model stayed as it was. k is nowhere sent: see `rate`. A base, for who has
no model:

    offset  bytes  field
         0      1  what follows: 0 a start (`timeline.start`), 1 a key frame, 2 the first model
         1   45+s  facts of the copy that it gives
      46+s      n  the start; or a frame of the model's variables, and in a key frame with momentum one of the
                   velocity, each behind a count of its bytes

Facts of a copy:

    offset  bytes  field
         0      4  round
         4      1  bits
         5     40  rule: energy, signal, spent, last, since, each a float64
        45      s  with integer sums, 2 bytes: scale, a bfloat16

Server and clients each have a copy, an OrderedDict:

    model: float32[d], the variables one behind the other.
    round: int32 scalar, the number of the coming round, which is the model's version.
    bits: int32 scalar, bits per coordinate of the clients' next messages.
    rule: what `Rate` remembers.
    scale: float32 scalar, of the clients' next messages; with integer sums alone.
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
from typing import ClassVar
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
from tff_compress.subspace.integer_sums import IntegerSums
from tff_compress.subspace.private_sums import PrivateSums
from tff_compress.subspace.rate import Rate
from tff_compress.subspace.rate import STATE as RULE_STATE
from tff_compress.timeline import history

Copy: TypeAlias = Mapping[str, Any]

UPLOAD_OVERHEAD = 7
"""Bytes of a client's message beside its coordinates, 2 of them its scale or its energy."""

CHANGE_OVERHEAD = 3
"""Bytes of a change beside its levels, with private sums."""

START, KEY_FRAME, FIRST = 0, 1, 2
"""Kinds of bases."""

_CODED = 128  # The flag of a change after which the model is coded.
_FACTS = 5 + 8 * len(RULE_STATE)  # Bytes.
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


class Sums(Protocol):
  """How clients send their coordinates, and how the server adds them.

  Attributes:
    least_bits, most_bits: per coordinate.
    common_scale: whether all clients of a round use the scale in the copy, and count alike.
    dtype: of what is added.
  """
  least_bits: ClassVar[int]
  most_bits: ClassVar[int]
  common_scale: ClassVar[bool]
  dtype: ClassVar[Any]

  def encode(self, xp: Ops, space: Coordinates, keys: Keys, copy: Copy, values: Array, most: int) -> Array:
    """float32[k], k at most `most` -> uint8[n]."""

  def decode(self, xp: Ops, space: Coordinates, keys: Keys, kept: Scalar, bits: Scalar, body: Array) -> Array:
    """uint8[n] -> what is to be weighted and added. Raises PayloadError for what is no message of k coordinates."""

  def weighted(self, xp: Ops, found: Array, weight: Array) -> Array:
    """What `decode` gave, times a weight, a float32 scalar."""

  def mean(self, xp: Ops, copy: Copy, total: Array, weight: Array) -> Array:
    """float32[k]: the mean of the clients' coordinates, from the sum of what was weighted and that of the weights."""


@dataclasses.dataclass(frozen=True)
class Session:
  """A run's agreement.

  Attributes:
    size: d, number of values of the model.
    seed: session seed, 0 … 2^64-1.
    rate: the rule for k.
    momentum: of the server, 0 … 1 without 1: everybody keeps the velocity v = momentum v + change, and moves by it.
    runtime: of the table of operations that is used.
    sums: `PrivateSums` or `IntegerSums`.
  """
  size: int
  seed: int
  rate: Rate
  momentum: float
  runtime: Runtime = dataclasses.field(compare=False, repr=False)
  sums: PrivateSums | IntegerSums = dataclasses.field(default=PrivateSums(), repr=False)

  @functools.cached_property
  def space(self) -> Coordinates:
    return Coordinates(self.size)

  @functools.cached_property
  def fingerprint(self) -> bytes:
    """4 bytes that differ, nearly surely, for another run."""
    said = f'{self!r} {self.sums!r}' if self.sums.common_scale else repr(self)
    return hashlib.sha256(said.encode()).digest()[:4]

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
    if isinstance(self.sums, IntegerSums):
      copy['scale'] = self.sums.first_scale(xp, self.space, energy, copy['bits'])
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
    found, scale, following = xp.apart(read_change, (self.sums,), record, kept)
    keys = self.runtime.keys(copy['round'], xp.constant(-1, np.int32))
    # First the rotation of whole numbers, which is exact, then one operation at a time.
    change = self.space.lift(xp, keys, xp.cast(found, np.float32)) * scale
    moved = collections.OrderedDict(copy, round=copy['round'] + xp.constant(1, np.int32), **following)
    if self.momentum:
      change = copy['velocity'] * np.float32(self.momentum) + change
      moved['velocity'] = change
    moved['model'] = copy['model'] - change
    # A change goes on moving the model: all in all 1 / (1 - momentum) times as far.
    gain = xp.opaque(xp.constant((1 - self.momentum)**-2, np.float64))
    moved['rule'] = self.rate.after(xp, self.space, copy['rule'], kept, energy_of(xp, found, scale) * gain,
                                    copy['round'])
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
    size = _FACTS + scale_bytes(self.sums)
    xp.require(xp.size(record) > size, 'a base is cut short.')
    kind = xp.cast(record[0], np.int32)
    xp.require(kind <= FIRST, 'a base is of a kind that this release does not know.')
    facts, body = record[1:size + 1], record[size + 1:]
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
    size = _FACTS + scale_bytes(self.sums)
    content = xp.static_bytes(content, size + 4 * self.size * len(self.vectors))
    vectors = xp.raw_values(content[size:], 'float32')
    return self._copy_of(xp, content[:size], [vectors[:self.size], vectors[self.size:]])

  def digest(self, xp: Ops, copy: Copy) -> Array:
    """uint8[4], of a copy: two that differ in one bit have different ones."""
    return history.digest_of(xp, self._fingerprint(xp), self.content(xp, copy))

  def _facts(self, xp: Ops, copy: Copy) -> list[Array]:
    rule = [xp.raw_bytes(xp.reshape(copy['rule'][name], [1])) for name in RULE_STATE]
    return [xp.integers_to_bytes(xp.vector(copy['round']), 4), xp.integers_to_bytes(xp.vector(copy['bits']), 1), *rule,
            *self._scale(xp, copy)]

  def _scale(self, xp: Ops, copy: Copy, scale: Array | None = None) -> list[Array]:
    """The bytes of the common scale, if there is one; None: as it was."""
    if not self.sums.common_scale:
      return []
    scale = copy['scale'] if scale is None else scale
    return [xp.integers_to_bytes(floats.nearest_bfloat16(xp, xp.reshape(scale, [1])), 2)]

  def _copy_of(self, xp: Ops, facts: Array, vectors: Sequence[Array]) -> collections.OrderedDict[str, Any]:
    number, rule, following = xp.apart(read_facts, (self.sums,), facts)
    copy = collections.OrderedDict(
        model=vectors[0], round=number, bits=following.pop('bits'),
        rule=collections.OrderedDict((name, rule[i]) for i, name in enumerate(RULE_STATE)), **following)
    if self.momentum:
      copy['velocity'] = vectors[1]
    return copy

  def _fingerprint(self, xp: Ops) -> Array:
    return xp.constant(np.frombuffer(self.fingerprint, np.uint8), np.uint8)

  def placement(self, xp: Ops, held: Copy, number: Scalar, target: Array, *, bits: Scalar, next_bits: Scalar,
                next_scale: Array | None = None) -> Array:
    """uint8[n]: the record that leads from the anchor to the model of round `number`.

    Args:
      xp: operation table.
      held: the copy of the anchor.
      number: int32 scalar, after that of the anchor.
      target: float32[k], what the anchor less the model is in the anchor's coordinates.
      bits: of each of these, 1 … 8.
      next_bits, next_scale: as for `change`.
    """
    scale = self._scale(xp, held, next_scale)
    rotated = self.space.rotated(xp, self._own_keys(number), target)
    return placement.encode(xp, target, rotated, number - held['round'], bits, next_bits, scale)

  def _own_keys(self, number: Scalar) -> Keys:
    """Of the server's own rotation in a round, a new one in each."""
    return self.runtime.keys(number, np.int32(-1))

  def place(self, xp: Ops, held: Copy, record: Array) -> collections.OrderedDict[str, Any]:
    """The present copy, by a placement on top of the copy that is held; what is held itself by a record of no bytes.

    Raises:
      PayloadError: the record is no placement on this copy.
    """
    here = collections.OrderedDict(held, anchor=held['round'])

    def placed() -> collections.OrderedDict[str, Any]:
      numbers, scale, rotated, rounds, following = xp.apart(placement_of, (self.sums,), record, self.kept(xp, here))
      keys, found = self.runtime.keys(held['round'], xp.constant(-1, np.int32)), xp.cast(numbers, np.float32)
      found = xp.cond(rotated, lambda: self.space.rotated_back(xp, self._own_keys(held['round'] + rounds), found),
                      lambda: found)
      away = self.space.lift(xp, keys, found) * scale
      return collections.OrderedDict(here, model=held['model'] - away, round=held['round'] + rounds,
                                     **following)

    return xp.cond(xp.size(record) > 0, placed, lambda: here)

  # -- a client

  def _keys(self, copy: Copy, client: Scalar, own: Keys | None = None) -> Keys:
    """Of the client's message: rotation and places are the anchor's."""
    own = self.runtime.keys(copy['round'], client) if own is None else own
    return JoinedKeys(self.runtime.keys(copy['anchor'], client), own) if 'anchor' in copy else own

  def shared(self, xp: Ops, copy: Copy) -> collections.OrderedDict[str, Array]:
    """What all clients of the coming round draw alike, as `Coordinates.shared` describes it."""
    return self.space.shared(xp, self._keys(copy, xp.constant(-1, np.int32)), self.kept(xp, copy))

  def upload(self, xp: Ops, copy: Copy, update: Array, client: Scalar, own: Keys | None = None) -> Array:
    """uint8[n]: a client's message.

    Args:
      xp: operation table.
      copy: the client's; where several are simulated, with what `shared` gives as `shared`.
      update: float32[d], the weights before training less those after, or as `Coordinates.filled` gives it.
      client: int32 scalar with the 32 bits of the client's number.
      own: the runtime's keys of this round and client; None: they are derived.
    """
    keys, bits = self._keys(copy, client, own), copy['bits']
    values = self.space.project(xp, keys, update, self.kept(xp, copy), copy.get('shared'))
    sent = self.sums.encode(xp, self.space, keys, copy, values, self.rate.largest(self.space))
    body = xp.concat([xp.integers_to_bytes(xp.vector(bits), 1), sent])
    return xp.concat([body, self._check(xp, copy['round'], client, body)])

  # -- the server

  def read(self, xp: Ops, number: Scalar, client: Scalar, kept: Scalar, message: Array,
           own: Keys | None = None) -> Array:
    """A client's coordinates, to be added: float32[k], or with integer sums int32[k + 1].

    Args:
      xp: operation table.
      number, client: int32 scalars, of the round and the client that the message must be of.
      kept: k of the round.
      message: uint8[n].
      own: as for `upload`.

    Raises:
      PayloadError: the message is none of this round and client.
    """
    xp.require(xp.size(message) >= UPLOAD_OVERHEAD, 'a message is cut short.')
    body = message[:-4]
    xp.require(xp.equal(message[-4:], self._check(xp, number, client, body)),
               'a message was damaged on the way, or is of another run, round or client: its checksum does not match.')
    bits = xp.cast(body[0], np.int32)
    own = self.runtime.keys(number, client) if own is None else own
    return self.sums.decode(xp, self.space, own, kept, bits, body[1:])

  def next_scale(self, xp: Ops, copy: Copy, total: Array, weight: Array, next_bits: Scalar) -> Array | None:
    """The scale of the clients' next messages: float32 scalar; None with private sums.

    Args:
      xp: operation table.
      copy: the server's.
      total: sum of what `read` gave; anything where no message came.
      weight: float32 scalar, how many messages came.
      next_bits: int32 scalar, their bits.
    """
    sums = self.sums
    if not isinstance(sums, IntegerSums):
      return None
    return xp.cond(weight > 0, lambda: sums.following_scale(xp, copy, total, weight, next_bits),
                   lambda: copy['scale'])

  def change(self, xp: Ops, copy: Copy, mean: Array, *, learning_rate: Array, bits: Scalar, next_bits: Scalar,
             key_frame: Scalar, next_scale: Array | None = None) -> Array:
    """uint8[n]: the record that moves everybody's model.

    Args:
      xp: operation table.
      copy: the server's.
      mean: float32[k], of the clients' coordinates.
      learning_rate: float32 scalar, the server's learning rate.
      bits: bits per coordinate, 1 … 4.
      next_bits: those of the clients in the next round.
      key_frame: boolean scalar, whether the model is coded afterwards.
      next_scale: float32 scalar, with integer sums, that of the clients in the next round; None for this round's.
    """
    values = self.gained(xp, mean, learning_rate)
    return self.change_of(xp, copy, values, bits=bits, next_bits=next_bits, key_frame=key_frame, next_scale=next_scale)

  def gained(self, xp: Ops, mean: Array, learning_rate: Array) -> Array:
    """float32[k]: the coordinates of what clients' mean, float32[k], takes off the model: P / k times as much, for the
    places that are not kept, and with the server's learning rate, a float32 scalar."""
    kept = xp.cast(xp.size(mean), np.float32)
    return mean * (xp.constant(self.space.padded, np.float32) / kept * learning_rate)

  def change_of(self, xp: Ops, copy: Copy, values: Array, *, bits: Scalar, next_bits: Scalar, key_frame: Scalar,
                next_scale: Array | None = None) -> Array:
    """uint8[n]: the record that takes off everybody's model what these coordinates (float32[k]) stand for; other
    arguments as for `change`."""
    packed, scale = levels.encode(xp, values, bits)
    flags = xp.integer(bits) + 8 * xp.integer(next_bits) + _CODED * xp.cast(key_frame, np.int32)
    return xp.concat([xp.integers_to_bytes(xp.vector(flags), 1), xp.integers_to_bytes(scale, 2),
                      *self._scale(xp, copy, next_scale), packed])

  def _check(self, xp: Ops, number: Scalar, client: Scalar, body: Array) -> Array:
    numbers = xp.integers_to_bytes(xp.concat([xp.vector(number), xp.vector(client)]), 4)
    return history.digest_of(xp, self._fingerprint(xp), xp.concat([numbers, body]))


def _coordinates(copy: Copy) -> Scalar:
  """The round whose coordinates are used."""
  return copy['anchor'] if 'anchor' in copy else copy['round']


def scale_bytes(sums: Sums) -> int:
  """Bytes of a common scale in a record."""
  return 2 if sums.common_scale else 0


def following_of(xp: Ops, sums: Sums, bits: Scalar, scale: Array) -> collections.OrderedDict[str, Any]:
  """What a record says of the clients' next messages.

  Args:
    xp: operation table.
    sums: `Sums` of the run.
    bits: int32 scalar.
    scale: uint8[2], or of no bytes.

  Raises:
    PayloadError: no client can send such.
  """
  xp.require((bits >= sums.least_bits) & (bits <= sums.most_bits),
             f'a record has another number of bits for the next messages than {sums.least_bits} … {sums.most_bits}.')
  found = collections.OrderedDict(bits=bits)
  if isinstance(sums, IntegerSums):
    found['scale'] = floats.from_bfloat16(xp, xp.integers_from_bytes(scale, 2))[0]
    xp.require(sums.is_scale(xp, found['scale']),
               'a scale for the next messages is not a number from 2^-40 to 2^60.')
  return found


def placement_of(xp: Ops, sums: Sums, record: Array,
                 kept: Scalar) -> tuple[Array, Array, Scalar, Scalar, collections.OrderedDict[str, Any]]:
  """(int32[k] numbers, float32 scalar scale, whether they are rotated by the server's own rotation, rounds since the
  anchor, what it says of the next messages).

  Raises:
    PayloadError: the record is no placement of k coordinates.
  """
  extra = scale_bytes(sums)
  xp.require(xp.size(record) > placement.HEAD + extra, 'a placement is cut short.')
  numbers, scale, rotated, rounds, bits = placement.decode(xp, record, kept, extra)
  return numbers, scale, rotated, rounds, following_of(xp, sums, bits, record[placement.HEAD:placement.HEAD + extra])


def read_change(xp: Ops, sums: Sums, record: Array,
                kept: Scalar) -> tuple[Array, Array, collections.OrderedDict[str, Any]]:
  """(int32[k] levels, float32 scalar scale, what it says of the clients' next messages) of a change, uint8[n].

  Raises:
    PayloadError: it is none of k coordinates.
  """
  extra = scale_bytes(sums)
  xp.require(xp.size(record) >= CHANGE_OVERHEAD + extra, 'a change is cut short.')
  flags = xp.cast(record[0], np.int32)
  following = following_of(xp, sums, xp.shift_right(flags, 3) % 16, record[3:3 + extra])
  found, scale = levels.read(xp, xp.concat([record[1:3], record[3 + extra:]]), kept, flags % 8)
  return found, scale, following


def read_facts(xp: Ops, sums: Sums, facts: Array) -> tuple[Scalar, Array, collections.OrderedDict[str, Any]]:
  """(round, float64[3] what the rule remembers, what clients need for the next messages) of a copy's facts, uint8[n].

  Raises:
    PayloadError: no copy has them.
  """
  number, bits = xp.integers_from_bytes(facts[:4], 4)[0], xp.integers_from_bytes(facts[4:5], 1)[0]
  rule = xp.raw_values(facts[5:_FACTS], 'float64')
  xp.require(number >= 0, 'a copy of the model has a round above 2^31 - 1.')
  xp.require((rule >= 0) & (rule <= _MOST), 'a copy of the model has an energy that is not a number from 0 to 2^256.')
  return number, rule, following_of(xp, sums, bits, facts[_FACTS:])


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
