"""How server and clients exchange updates and models in both directions, with real messages, in NumPy.

A codec makes the exchange of one run: an object with the server's model, that says how many bytes a client downloads,
makes a client's message, and ends a round with all of them. Clients train from the model of one client that follows all
messages, and those that an exchange is told to audit follow theirs from the version that they held: what they get must
be the same, bit for bit, and what the server has.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import json
from typing import Protocol

import numpy as np

from tff_compress import codec as codec_lib
from tff_compress import wire
from tff_compress.codec.ops import numpy_ops
from tff_compress.codec.spec import Spec
from tff_compress.subspace import absence
from tff_compress.subspace.forms import form_of
from tff_compress.subspace.rate import Rate
from tff_compress.subspace.runtime import NumpyRuntime
from tff_compress.subspace.server import Server
from tff_compress.subspace.session import Session
from tff_compress.subspace.sums import SUMS
from tff_compress.timeline import history
from tff_compress.timeline.copy import Copy
from tff_compress.timeline.start import Start

Figures = dict[str, float]

_COPY = 'copy-'


class Exchange(Protocol):
  """One run of a codec.

  Attributes:
    model: float32[d], what clients train from.
  """
  model: np.ndarray

  def download(self, client: int, audited: bool) -> int:
    """Bytes that a client receives to have the model. Raises AssertionError where an audited client gets another."""

  def upload(self, client: int, update: np.ndarray) -> np.ndarray:
    """uint8[n]: a client's message, for an update (float32[d], the weights before training less those after)."""

  def step(self, received: Sequence[tuple[int, float, np.ndarray]]) -> Figures:
    """Ends a round with the messages of its clients: (client, weight, message). Returns what the table may show."""

  def checkpoint(self) -> dict[str, np.ndarray]:
    """What `restore` needs, between two rounds."""

  def restore(self, kept: Mapping[str, np.ndarray]) -> None:
    """Goes on, as an exchange of the same run, from a checkpoint."""


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
    self.model = start.vector(spec)

  def _frame(self, vector, client):
    arrays = self._spec.split(numpy_ops, vector)
    update = {tensor.name: array for tensor, array in zip(self._spec.tensors, arrays)}
    return wire.pack(self._codec, update, seed=self._seed, round=self._round, client=client)

  def _vector(self, frame, client):
    update, _ = wire.unpack(self._codec, frame, self._spec, seed=self._seed, round=self._round, client=client)
    return self._spec.join(numpy_ops, (update[tensor.name] for tensor in self._spec.tensors))

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

  def checkpoint(self):
    return {'model': self.model, 'round': np.asarray(self._round)}

  def restore(self, kept):
    self.model, self._round = kept['model'], int(kept['round'])


@dataclasses.dataclass(frozen=True)
class Subspace:
  """The shared subspace: `tff_compress.subspace`.

  Attributes:
    name: in tables.
    rate: how many coordinates a round keeps.
    uplink_bits, downlink_bits: of a coordinate; 0: by the rounds that clients miss.
    key_frames: whether the model is coded as int8 where the changes are longer than that.
  """
  form = 'round'
  placement_bits = 8
  sums = 'private'
  hold = 0

  name: str
  rate: Rate
  uplink_bits: int = 1
  downlink_bits: int = 1
  key_frames: bool = False

  def begin(self, spec, start, seed):
    return _Subspace(self, spec, start, seed)


@dataclasses.dataclass(frozen=True)
class SubspaceForm(Subspace):
  """A shared subspace in another form, or with other sums.

  Attributes:
    form: a name of `tff_compress.subspace.forms`.
    placement_bits: of a coordinate of the model, in the fixed form and within blocks.
    hold: rounds of a block; 0: about as many as clients miss.
    sums: a name of `tff_compress.subspace.sums`. With 'integers' all clients count alike.
  """
  form: str = 'round'
  placement_bits: int = 8
  sums: str = 'private'
  hold: int = 0


class _Subspace:

  def __init__(self, codec, spec, start, seed):
    self._codec = codec
    runtime = NumpyRuntime(spec, seed, codec_lib('int8'), codec_lib('float32'))
    session = Session(spec.parameters, seed, codec.rate, 0.0, runtime, SUMS[codec.sums])
    begins = start.to_bytes()
    model = runtime.draw(np.frombuffer(begins, np.uint8))
    form = form_of(codec.form, hold=codec.hold or None, placement_bits=codec.placement_bits,
                   key_frame_bytes=spec.parameters if codec.key_frames else None)
    self._server = Server.begin(session, model, bits=codec.uplink_bits or absence.FEW_BITS, start=begins, form=form)
    self._versions: dict[int, int] = {}
    """{client: the version that it holds}."""
    self._copies: dict[int, Copy] = {}
    """{version: the copy of everybody who holds it}."""
    self._newest = self._followed(Copy(session))
    """Of a client that follows every message."""
    self._seen: dict[int, int] = {}
    """{client: the round in which it came last}."""
    self._gap = 0.0
    """Moving average of the rounds that clients missed; who comes first has missed all."""

  @property
  def model(self):
    return self._newest.present['model']

  def download(self, client, audited):
    version = self._versions.get(client, history.UNKNOWN)
    message = self._server.timeline.way(version)
    if audited:
      copy = self._copies.get(version, Copy(self._server.session)).follow(message)
      content = lambda copy: copy.rules.content(numpy_ops, copy.present)
      np.testing.assert_array_equal(content(copy), content(self._newest))
    self._versions[client] = self._newest.version
    self._copies[self._newest.version] = self._newest
    return len(message)

  def upload(self, client, update):
    return self._server.session.upload(numpy_ops, self._newest.present, update, np.int32(client))

  def step(self, received):
    session, copy = self._server.session, self._server.copy
    sums, number = session.sums, self._server.round
    total, weights, missed = 0, np.float32(0), []
    for client, weight, message in received:
      weight = np.float32(1 if sums.common_scale else weight)
      total = total + sums.weighted(numpy_ops, self._server.read(message.tobytes(), client), weight)
      weights += weight
      missed.append(number - self._seen.get(client, 0))
      self._seen[client] = number
    self._gap = absence.after(numpy_ops, np.float32(self._gap), np.float32(np.mean(missed)), number)
    by_gap = int(absence.bits(numpy_ops, self._gap))
    bits = self._codec.uplink_bits or by_gap
    mean = sums.mean(numpy_ops, copy, total, weights)
    self._server = self._server.after(mean, bits=self._codec.downlink_bits or by_gap, next_bits=bits, gap=self._gap,
                                      next_scale=session.next_scale(numpy_ops, copy, total, weights, bits))
    self._newest = self._followed(self._newest)
    in_use = set(self._versions.values())
    self._copies = {version: copy for version, copy in self._copies.items() if version in in_use}
    server = self._server
    noise = server.form.noise(numpy_ops, session, server.copy, server.memory)
    return {'kept': mean.size, 'noise': float(noise / server.copy['rule']['energy']), 'gap': float(self._gap)}

  def checkpoint(self):
    clients = json.dumps({'versions': list(self._versions.items()), 'seen': list(self._seen.items()),
                          'gap': float(self._gap)})
    copies = {**self._copies, self._newest.version: self._newest}
    return {'server': _array(self._server.to_bytes()), 'clients': np.asarray(clients),
            **{f'{_COPY}{version}': _array(copy.to_bytes()) for version, copy in copies.items()}}

  def restore(self, kept):
    session = self._server.session
    self._server = Server.from_bytes(session, kept['server'].tobytes(), form=self._server.form)
    clients = json.loads(str(kept['clients']))
    self._versions, self._seen, self._gap = dict(clients['versions']), dict(clients['seen']), clients['gap']
    copies = [Copy.from_bytes(session, kept[name].tobytes()) for name in kept if name.startswith(_COPY)]
    self._copies = {copy.version: copy for copy in copies}
    self._newest = self._followed(self._copies[self._server.timeline.version])

  def _followed(self, copy):
    return copy.follow(self._server.timeline.way(copy.version))


def _array(data):
  return np.frombuffer(data, np.uint8)
