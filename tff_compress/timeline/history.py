"""A model's history as a list of messages, and the cheapest way from any version of it to the present.

The model begins as version 0. A round ends with a change, a record that everybody applies to the own copy, bit for
bit: change v leads from version v to v + 1. A base is a record that gives a whole model by itself: the start, or a key
frame, a coded model with which the server goes on as well. Besides, there may be a placement: a record that says how
the present model follows from the newest version, and that replaces the one before it, so that whatever a client missed
is made good by one record.

What records hold is not known here: they are made and applied by `subspace` and by the downlinks of processes. A
message to a client, all integers little endian (counts: `codec.counts`):

    offset  bytes  field
         0      1  what follows, bits: 1 base, 2 placement
         1      4  digest of the present: CRC-32 of all that a copy of it is, the run's fingerprint first
         5      n  base: count of bytes, and the record, if there is one
       5+n      m  placement: the same
     5+n+m      …  changes, oldest first, to the end: for each, a count of bytes and the record

The state is an OrderedDict of arrays, so that a graph can carry it. All functions are written over the table of
operations. Source: Sattler et al. 2019, "Robust and communication-efficient federated learning from non-iid data",
section V, for changes that absent clients make up for.
"""

import collections
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import TypeAlias

import numpy as np

from tff_compress.codec import counts
from tff_compress.codec.errors import CompressionError
from tff_compress.codec.errors import PayloadError
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops
from tff_compress.codec.table import Scalar

UNKNOWN = -1
"""The version of a client that has no model."""

HEADER_BYTES = 5

MOST_CHANGES = 10_000
"""Changes behind a base with which a key frame is due whatever it costs: who has no model applies them one by one."""

MOST_BYTES = 2**28
"""Of the changes behind a base: the same; and an error where there are no key frames, as nothing else ends the growth.
"""

_BASE, _PLACEMENT = 1, 2

State: TypeAlias = Mapping[str, Any]


class VersionError(CompressionError):
  """A client says that it holds a version that this history never had."""


class DigestError(PayloadError):
  """What a message led to is not what the server has."""


def begin(xp: Ops, base: Array, digest: Array) -> collections.OrderedDict[str, Array]:
  """The state of a history of version 0.

  Args:
    xp: operation table.
    base: uint8[n], the record that gives version 0.
    digest: uint8[4], as `digest_of` gives it.

  Returns:
    OrderedDict of
      version: int32 scalar, the newest.
      digest: uint8[4], of the present.
      log: uint8[n], changes with their counts, one behind the other.
      ends: int32[m], where each ends in the log. The last leads to `version`.
      base: uint8[n], the newest base with its count.
      base_version: int32 scalar, the version that it gives.
      placement: uint8[n], with its count; empty where there is none.
  """
  return collections.OrderedDict(
      version=xp.constant(0, np.int32), digest=digest, log=xp.zeros([0], np.uint8), ends=xp.zeros([0], np.int32),
      base=_counted(xp, base), base_version=xp.constant(0, np.int32), placement=xp.zeros([0], np.uint8))


def with_change(xp: Ops, state: State, record: Array, digest: Array) -> collections.OrderedDict[str, Array]:
  """The state after a change (uint8[n]) that leads to a model of this digest; a placement is void then."""
  log = xp.concat([state['log'], _counted(xp, record)])
  ends = xp.concat([state['ends'], xp.vector(xp.size(log))])
  following = collections.OrderedDict(
      state, version=state['version'] + xp.constant(1, np.int32), digest=digest, log=log, ends=ends,
      placement=xp.zeros([0], np.uint8))
  return _without_useless(xp, following)


def with_empty_changes(xp: Ops, state: State, count: Scalar, digest: Array) -> collections.OrderedDict[str, Array]:
  """The state after so many changes of no bytes, 0 or more, the last of which leads to a copy of this digest."""
  log = xp.concat([state['log'], xp.zeros([count], np.uint8)])  # The counts of no bytes.
  ends = xp.concat([state['ends'], xp.iota(count) + xp.integer(xp.size(state['log']) + 1)])
  return collections.OrderedDict(state, version=state['version'] + xp.integer(count), digest=digest, log=log, ends=ends)


def with_base(xp: Ops, state: State, record: Array, digest: Array) -> collections.OrderedDict[str, Array]:
  """The state where a key frame (uint8[n]) gives the newest version, whose digest is `digest`.

  A key frame that is not exact gives another model than the server had. So the change before it says that everybody
  takes the coded model in place of the own: whoever has the model can code it alone. A key frame that is no shorter
  than the base before it with the changes behind that is of no use to anybody, and not kept, unless these are at a
  limit.
  """
  base, coded = _counted(xp, record), collections.OrderedDict(state, digest=digest)

  def taken() -> collections.OrderedDict[str, Array]:
    return _without_useless(xp, collections.OrderedDict(coded, base=base, base_version=state['version']))

  shorter = xp.size(base) < xp.size(state['base']) + behind_base(xp, state)
  return xp.cond(shorter | _at_limit(xp, state), taken, lambda: coded)


def renewed(xp: Ops, state: State, record: Array, digest: Array) -> collections.OrderedDict[str, Array]:
  """The state after a base (uint8[n]) gave the next version: no change leads to it from those before, whatever a client
  holds of them is of no use any more."""
  nothing = begin(xp, record, digest)
  version = state['version'] + xp.constant(1, np.int32)
  return collections.OrderedDict(nothing, version=version, base_version=version)


def with_placement(xp: Ops, state: State, record: Array, digest: Array) -> collections.OrderedDict[str, Array]:
  """The state where a placement (uint8[n]) on top of the newest version gives the present model."""
  return collections.OrderedDict(state, placement=_counted(xp, record), digest=digest)


def way(xp: Ops, state: State, version: Scalar) -> Array:
  """uint8[n]: the shortest message that leads a client to the present model.

  Args:
    xp: operation table.
    state: as `begin` describes it.
    version: int32 scalar, what the client holds (without placement); any that the history does not have, such as
      `UNKNOWN`, counts as nothing. `check_version` refuses such.
  """
  start = _starts(xp, state)

  def without_base() -> Array:
    return _message(xp, state, 0, start[_clipped(xp, version - _first(xp, state), xp.size(state['ends']))])

  def with_base() -> Array:
    return _message(xp, state, _BASE, start[state['base_version'] - _first(xp, state)])

  return xp.cond(_at_hand(xp, state, version), without_base, with_base)


def cost(xp: Ops, state: State, version: Scalar) -> Scalar:
  """Bytes of `way`, without making it."""
  start = _starts(xp, state)[_clipped(xp, version - _first(xp, state), xp.size(state['ends']))]
  chain, whole = xp.size(state['log']) - start, behind_base(xp, state) + xp.size(state['base'])
  return HEADER_BYTES + xp.size(state['placement']) + xp.where(_at_hand(xp, state, version), chain, whole)


def behind_base(xp: Ops, state: State) -> Scalar:
  """Bytes of the changes since the newest base: what a client without a model receives beside the base."""
  return xp.size(state['log']) - _starts(xp, state)[state['base_version'] - _first(xp, state)]


def key_frame_due(xp: Ops, state: State, size: int) -> Scalar:
  """Whether the changes since the newest base are longer than a key frame of this many bytes, or at a limit.

  With key frames that come when they are due, no way is longer than two, and no more is kept than three.
  """
  return (behind_base(xp, state) > xp.constant(size, np.int32)) | _at_limit(xp, state)


def within_limit(xp: Ops, most: int, log: Array) -> Array:
  """The log (uint8[n]) of a history that has no key frames.

  Raises:
    PayloadError: it has more than `most` bytes.
  """
  xp.require(xp.size(log) <= most,
             f'the changes of a run without key frames have grown to more than {most} bytes, which every client '
             'without a model receives: allow key frames, or begin another run with this model.')
  return log


def check_version(state: State, version: int) -> None:
  """Raises VersionError unless a client may hold this version: `UNKNOWN`, or 0 … the newest."""
  newest = int(state['version'])
  if not UNKNOWN <= version <= newest:
    raise VersionError(f'a client says that it holds version {version} of the model, which never was: the newest is '
                       f'{newest}. It is of another run, or kept a model of one that was reset; let it start anew.')


def follow(xp: Ops, message: Array, held: Any, *, on_base: Callable[[Array], Any],
           on_change: Callable[[Any, Array], Any] | None = None,
           on_placement: Callable[[Any, Array], Any] | None = None) -> tuple[Any, Any]:
  """What a client has after a message of `way`.

  Args:
    xp: operation table.
    message: uint8[n].
    held: what the client holds, a structure of arrays; anything of the same types where it holds nothing.
    on_base: function of a base record that gives what to hold.
    on_change: function of what is held and a change's record that gives what to hold; None where no message has one.
    on_placement: function of what is held and a placement's record, uint8[0] where there is none, that gives the
      present; None where no message has one: what is held is the present.

  Returns:
    (what to hold from now on, the present).

  Raises:
    PayloadError: the message is not one, or a record cannot be read.
  """
  xp.require(xp.size(message) >= HEADER_BYTES, 'a message of changes is cut short.')
  flags = xp.cast(message[0], np.int32)
  xp.require(flags < 4, 'a message of changes has flags that this release does not know.')
  based, has_placement = has_base(message), xp.cast(flags >= _PLACEMENT, np.bool_)
  if on_placement is None:
    xp.require(flags < _PLACEMENT, 'a message of changes has a placement, which this client has no use for.')
  rest, nothing, taken = message[HEADER_BYTES:], lambda: (rest[:0], rest), lambda: xp.apart(counts.take, (), rest)
  base, rest = xp.cond(based, taken, nothing)
  held = xp.cond(based, lambda: on_base(base), lambda: held)
  placement, rest = xp.cond(has_placement, taken, nothing)

  if on_change is None:
    xp.require(xp.equal(xp.size(rest), 0), 'a message of changes has changes, which this client has no use for.')
  else:
    held = _changed(xp, rest, held, on_change)
  return held, held if on_placement is None else on_placement(held, placement)


def _changed(xp: Ops, rest: Array, held: Any, on_change: Callable[[Any, Array], Any]) -> Any:
  """What to hold after the changes at the end of a message, uint8[n]."""

  def step(rest: Array, held: Any) -> tuple[Array, Any]:
    record, rest = xp.apart(counts.take, (), rest)
    return rest, on_change(held, record)

  return xp.loop(lambda rest, _: xp.size(rest) > 0, step, (rest, held))[1]


def digest_of(xp: Ops, fingerprint: Array, content: Array) -> Array:
  """uint8[4]: CRC-32 of a run's fingerprint (uint8[4]) and of all that a copy is (uint8[n])."""
  return xp.integers_to_bytes(xp.reshape(xp.crc32(xp.concat([fingerprint, content])), [1]), 4)


def has_base(message: Array) -> Scalar:
  """Whether a message gives a whole model, to who holds none; it has a byte at least."""
  return message[0] % 2 > 0


def digest_in(message: Array) -> Array:
  """uint8[4]: the digest of what a message leads to."""
  return message[1:HEADER_BYTES]


def _message(xp: Ops, state: State, base: int, start: Scalar) -> Array:
  placed = xp.cast(xp.size(state['placement']) > 0, np.int32)
  flags = xp.integers_to_bytes(xp.reshape(placed * _PLACEMENT + base, [1]), 1)
  return xp.concat([flags, state['digest'], *([state['base']] if base else []), state['placement'],
                    state['log'][start:]])


def _at_limit(xp: Ops, state: State) -> Scalar:
  """Whether so much is behind the newest base that there has to be another one."""
  rounds = state['version'] - state['base_version']
  return (rounds >= MOST_CHANGES) | (behind_base(xp, state) >= MOST_BYTES)


def _at_hand(xp: Ops, state: State, version: Scalar) -> Scalar:
  """Whether the changes since a version are at hand: then they are no longer than the way by the base, or they would
  have been dropped."""
  return (version >= _first(xp, state)) & (version <= state['version'])


def _without_useless(xp: Ops, state: State) -> collections.OrderedDict[str, Array]:
  """The state without the changes that no shortest way uses."""
  total, starts = xp.size(state['log']), _starts(xp, state)
  most = behind_base(xp, state) + xp.size(state['base'])
  useless = xp.cast(total - starts > most, np.int32)
  dropped = xp.integer(xp.total(useless))
  behind = starts[dropped]
  return collections.OrderedDict(state, log=state['log'][behind:], ends=state['ends'][dropped:] - behind)


def _starts(xp: Ops, state: State) -> Array:
  """int32[m + 1]: where the changes begin in the log, and its end."""
  return xp.concat([xp.zeros([1], np.int32), state['ends']])


def _first(xp: Ops, state: State) -> Scalar:
  """The version that the first change in the log is for."""
  return state['version'] - xp.size(state['ends'])


def _clipped(xp: Ops, place: Scalar, most: Scalar) -> Scalar:
  return xp.integer(xp.minimum(xp.maximum(place, 0), most))


def _counted(xp: Ops, record: Array) -> Array:
  return xp.concat([counts.encode(xp, xp.vector(xp.size(record))), record])

