"""Where the keys of a message come from, and how a stage asks for its random numbers."""

import dataclasses
from typing import Protocol

from tff_compress.codec import checks
from tff_compress.codec import random
from tff_compress.codec.errors import SpecError
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops

# The chunk of a key counts 2^24-word pieces of a stream from 0. A stage class that stands in a pipeline more than once
# starts its later streams this many chunks further on, so that no key serves twice.
CHUNKS_PER_OCCURRENCE = 1 << 16


@dataclasses.dataclass(frozen=True)
class MessageKeys:
  """The keys of one client's message in one round, derived on the host.

  Attributes:
    seed: session seed, 0 … 2^64-1.
    round: 0 … 2^32-1.
    client: 0 … 2^32-2, or `random.SHARED_CLIENT` for a message from the server to all.
  """
  seed: int
  round: int
  client: int

  def __post_init__(self) -> None:
    for name, value, bits in (('seed', self.seed, 64), ('round', self.round, 32), ('client', self.client, 32)):
      checks.whole_number(name, value, SpecError, least=0, most=(1 << bits) - 1)

  def key(self, scope: str, name: str, purpose: int, chunk: int) -> Array:
    """int32[2] for scope 'round' or 'client'."""
    client = self.client if scope == 'client' else random.SHARED_CLIENT
    return random.derive_key(int(self.seed), int(self.round), int(client), name, purpose, chunk)


class Keys(Protocol):
  """Where the keys of a message come from: `MessageKeys`, or `tff_compress.tensorflow.keys.GraphKeys` in a graph."""

  def key(self, scope: str, name: str, purpose: int, chunk: int) -> Array:
    """int32[2] for scope 'round' or 'client'; see `random.derive_key`."""


@dataclasses.dataclass(frozen=True)
class JoinedKeys:
  """Keys of a message whose shared numbers are those of another round.

  Attributes:
    shared: `Keys` of what all clients share.
    own: `Keys` of what is the client's own.
  """
  shared: Keys
  own: Keys

  def key(self, scope: str, name: str, purpose: int, chunk: int) -> Array:
    """int32[2] for scope 'round' or 'client'."""
    return (self.shared if scope == 'round' else self.own).key(scope, name, purpose, chunk)


class Draws:
  """The random streams of one stage of one segment of a message.

  Args:
    xp: operation table.
    keys: `Keys` of the message.
    name: name of the tensor, or of the group of tensors.
    occurrence: how many stages of the same class stand before this one in the pipeline.
  """

  def __init__(self, xp: Ops, keys: Keys, name: str, occurrence: int) -> None:
    self._xp, self._keys, self._name, self._occurrence = xp, keys, name, occurrence

  def of(self, scope: str, purpose: random.Purpose) -> random.Stream:
    """Stream for scope 'round' (shared by all clients) or 'client' (this client's own)."""
    base = self._occurrence * CHUNKS_PER_OCCURRENCE
    return random.Stream(self._xp, lambda chunk: self._keys.key(scope, self._name, int(purpose), base + chunk))

  def client(self, purpose: random.Purpose) -> random.Stream:
    """Stream of this client's own."""
    return self.of('client', purpose)
