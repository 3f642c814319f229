"""How server and clients exchange updates and models in both directions, with real messages, in NumPy.

A codec makes the exchange of one run: an object with the server's model, that says how many bytes a client downloads,
makes a client's message, and ends a round with all of them. So that nothing is trained twice, clients that take part
train from the server's model. Those that an exchange is told to audit really follow their messages from the model that
they had, and what they get must be the server's, bit for bit.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import json
from typing import Any
from typing import Protocol

import numpy as np

from tff_compress import codec as codec_lib
from tff_compress import wire
from tff_compress.codec.ops import numpy_ops as xp
from tff_compress.codec.spec import Spec
from tff_compress.subspace import session as session_lib
from tff_compress.subspace.rate import Rate
from tff_compress.subspace.runtime import NumpyRuntime
from tff_compress.timeline import history
from tff_compress.timeline.start import Start

Figures = dict[str, float]


class Exchange(Protocol):
  """One run of a codec.

  Attributes:
    model: float32[d], the server's.
  """
  model: np.ndarray

  def download(self, client: int, audited: bool) -> int:
    """Bytes that a client receives to have the model. Raises AssertionError where an audited client gets another."""

  def upload(self, client: int, update: np.ndarray) -> np.ndarray:
    """uint8[n]: a client's message, for an update (float32[d], the weights before training less those after)."""

  def step(self, received: Sequence[tuple[int, float, np.ndarray]]) -> Figures:
    """Ends a round with the messages of its clients: (client, weight, message). Returns what the table may show."""

  def state(self) -> dict[str, np.ndarray]:
    """What has to be kept to go on later."""

  def resume(self, state: Mapping[str, np.ndarray]) -> None:
    """Goes on from what `state` gave."""


class ExchangeCodec(Protocol):
  """Makes exchanges; its repr is its identity.

  Attributes:
    name: in tables.
  """
  name: str

  def begin(self, spec: Spec, start: Start, seed: int) -> Exchange:
    """The exchange of a new run, which begins with the weights of a start."""


@dataclasses.dataclass(frozen=True)
class Float32:
  """Frames of float32 in both directions: the model for each client in each round, and its update."""
  name: str = 'float32'

  def begin(self, spec, start, seed):
    return _Float32(spec, start, seed)


class _Float32:

  def __init__(self, spec, start, seed):
    self._spec, self._seed, self._round = spec, seed, 0
    self._codec = codec_lib('float32')
    self.model = np.concatenate([array.reshape(-1) for array in start.weights(spec)])

  def _frame(self, vector, client):
    pieces = np.split(vector, np.cumsum([tensor.size for tensor in self._spec.tensors])[:-1])
    update = {tensor.name: piece.reshape(tensor.shape) for tensor, piece in zip(self._spec.tensors, pieces)}
    return wire.pack(self._codec, update, seed=self._seed, round=self._round, client=client)

  def _vector(self, frame, client):
    update, _ = wire.unpack(self._codec, frame, self._spec, seed=self._seed, round=self._round, client=client)
    return np.concatenate([update[tensor.name].reshape(-1) for tensor in self._spec.tensors])

  def download(self, client, audited):
    frame = self._frame(self.model, client)
    if audited:
      np.testing.assert_array_equal(self._vector(frame, client), self.model)
    return len(frame)

  def upload(self, client, update):
    return np.frombuffer(self._frame(update, client), np.uint8)

  def step(self, received):
    mean, total = np.zeros_like(self.model), np.float32(0)
    for client, weight, message in received:
      mean += np.float32(weight) * self._vector(message.tobytes(), client)
      total += np.float32(weight)
    self.model = self.model - mean / total
    self._round += 1
    return {}

  def state(self):
    return {'model': self.model, 'round': np.asarray(self._round)}

  def resume(self, state):
    self.model, self._round = state['model'], int(state['round'])


@dataclasses.dataclass(frozen=True)
class Subspace:
  """The shared subspace: `tff_compress.subspace`.

  Attributes:
    name: in tables.
    rate: how many coordinates a round keeps.
    uplink_bits, downlink_bits: of a coordinate.
  """
  name: str
  rate: Rate
  uplink_bits: int = 1
  downlink_bits: int = 1

  def begin(self, spec, start, seed):
    return _Subspace(self, spec, start, seed)


class _Subspace:

  def __init__(self, codec, spec, start, seed):
    self._codec = codec
    runtime = NumpyRuntime(spec, seed, codec_lib('int8'), codec_lib('float32'))
    self._session = session_lib.Session(spec.parameters, seed, codec.rate, 0.0, runtime)
    begins = np.frombuffer(start.to_bytes(), np.uint8)
    self._copy = self._session.begin(xp, runtime.draw(begins), codec.uplink_bits)
    base = self._session.base(xp, self._copy, session_lib.START, begins)
    self._past = history.begin(xp, base, history.digest_of(xp, self.model))
    self._held: dict[int, int] = {}
    """{client: the version that it holds}."""
    self._copies: dict[int, Any] = {}
    """{version: the copy of everybody who holds it}."""

  @property
  def model(self):
    return self._copy['model']

  def download(self, client, audited):
    version = self._held.get(client, history.UNKNOWN)
    history.check_version(self._past, version)
    message = history.way(xp, self._past, np.int32(version))
    if audited:
      self._audit(message, self._copies.get(version))
    newest = int(self._past['version'])
    self._held[client] = newest
    self._copies[newest] = self._copy
    return len(message)

  def _audit(self, message, held):
    _, present = history.follow(xp, message, held, on_base=lambda record: self._session.from_base(xp, record),
                                on_change=lambda copy, record: self._session.move(xp, copy, record))
    np.testing.assert_array_equal(history.digest_of(xp, present['model']), history.digest_in(message))
    for name, value in _flat(self._copy).items():
      np.testing.assert_array_equal(_flat(present)[name], value)

  def upload(self, client, update):
    return self._session.upload(xp, self._copy, update, np.int32(client))

  def step(self, received):
    session, copy = self._session, self._copy
    kept = session.kept(xp, copy)
    mean, total = np.zeros(int(kept), np.float32), np.float32(0)
    for client, weight, message in received:
      mean += np.float32(weight) * session.read(xp, copy['round'], np.int32(client), kept, message)
      total += np.float32(weight)
    record = session.change(xp, copy, mean / total, learning_rate=np.float32(1), bits=self._codec.downlink_bits,
                            next_bits=self._codec.uplink_bits, key_frame=np.bool_(False))
    self._copy = session.move(xp, copy, record)
    self._past = history.with_change(xp, self._past, record, history.digest_of(xp, self.model))
    in_use = set(self._held.values())
    self._copies = {version: copy for version, copy in self._copies.items() if version in in_use}
    return {'kept': int(kept), 'noise': float(self._copy['rule']['spent'] / self._copy['rule']['energy'])}

  def state(self):
    arrays = {f'past/{name}': np.asarray(value) for name, value in self._past.items()}
    arrays.update((f'copy/{name}', value) for name, value in _flat(self._copy).items())
    for version, copy in self._copies.items():
      arrays.update((f'copies/{version}/{name}', value) for name, value in _flat(copy).items())
    return {**arrays, 'held': np.asarray(json.dumps(list(self._held.items())))}

  def resume(self, state):
    part = lambda prefix: {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    self._past = type(self._past)((name, part('past/')[name][()]) for name in self._past)
    self._copy = self._deep(part('copy/'))
    self._held = dict(map(tuple, json.loads(str(state['held']))))
    self._copies = {version: self._deep(part(f'copies/{version}/')) for version in set(self._held.values())}

  def _deep(self, arrays):
    copy = type(self._copy)((name, arrays[name][()]) for name in self._copy if name != 'rule')
    return type(self._copy)({**copy, 'rule': type(self._copy)(
        (name, arrays[f'rule/{name}'][()]) for name in self._copy['rule'])})


def _flat(copy):
  """{name: array} of a copy; what the rule remembers as rule/name."""
  rule = {f'rule/{name}': np.asarray(value) for name, value in copy['rule'].items()}
  return {**{name: np.asarray(value) for name, value in copy.items() if name != 'rule'}, **rule}
