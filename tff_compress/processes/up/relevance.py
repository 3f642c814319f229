"""Clients that keep their update to themselves when it runs against the others' (CMFL)."""

from collections.abc import Sequence
import dataclasses

import numpy as np

from tff_compress.codec import checks
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops
from tff_compress.processes.errors import ProcessError
from tff_compress.processes.protocols import UploadRule


@dataclasses.dataclass(frozen=True)
class Relevance(UploadRule):
  """A client uploads only if enough of its update's signs are those of the last global update.

  The global update is what the client's model changed by since it last took part, so it costs no bytes. Values that it
  did not change are left out, and 0 in the client's update counts as positive. A client that never took part uploads.

  Source: Wang, Wang, Li 2019, "CMFL: mitigating communication overhead for federated learning".

  Attributes:
    threshold: share of signs that must agree, 0 … 1.
    decay: the threshold of round t, from 0, is threshold * decay^t.
  """
  threshold: float = 0.8
  decay: float = 1.0

  def __post_init__(self):
    for name in ('threshold', 'decay'):
      checks.number(f'relevance: {name}', getattr(self, name), ProcessError, least=0, most=1)

  def holds(self, xp: Ops, update: Sequence[Array], before: Sequence[Array], now: Sequence[Array],
            round_number: Array) -> Array:
    agreeing, moved = xp.long(0), xp.long(0)
    for x, old, new in zip(update, before, now):
      change = xp.reshape(new - old, [-1])
      counts = xp.cast(change > 0, np.int32) + xp.cast(change < 0, np.int32)
      same = xp.cast(xp.equal(xp.cast(change > 0, np.int32), xp.cast(xp.reshape(x, [-1]) >= 0, np.int32)), np.int32)
      agreeing, moved = agreeing + xp.total(counts * same), moved + xp.total(counts)
    threshold = xp.constant(self.threshold, np.float32) * (
        xp.constant(self.decay, np.float32) ** xp.cast(round_number, np.float32))
    return xp.cast(agreeing, np.float32) >= threshold * xp.cast(moved, np.float32)
