"""Error feedback: a client keeps what its codec lost, and adds it to its next update.

The algebra is written over the operation table of `tff_compress.codec.ops`, so that it is the same in NumPy and in a
graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import ClassVar

import numpy as np

from tff_compress.codec import checks
from tff_compress.codec import meaning
from tff_compress.codec import sums
from tff_compress.codec.codec import Codec
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops
from tff_compress.processes.errors import ProcessError
from tff_compress.processes.protocols import ClientMemory
from tff_compress.processes.protocols import ClientRound


@dataclasses.dataclass(frozen=True)
class ErrorFeedback(ClientMemory):
  """What a client remembers between rounds, around any codec C.

  With x the client's update, e its residual and c = decode(C(e)) what the server receives (Seide et al. 2014; Stich et
  al. 2018):

      e += x;  send C(e);  e -= c

  With momentum m (deep gradient compression, Lin et al. 2018), u the client's velocity:

      u = m u + x;  e += u;  send C(e);  where c is not 0: e = 0 and u = 0

  Without residual, velocity alone is kept, u = m u + x, and C(u) is sent: with the codec signsgd that is Signum
  (Bernstein et al. 2018).

  The residual is in units of the update as it is before clients are weighted. It delays what it keeps by as many rounds
  as a value waits for being sent, about 1/p where the share p is sent: use a smaller step than without.

  Attributes:
    decay: e and u are multiplied by this for each round that the client missed, 0 … 1.
    drop_after: e and u start at 0 again when the client missed more rounds than this; None: never.
    momentum: m, 0 … below 1; 0 for none.
    masking: with momentum, whether e and u are zeroed where values were sent. Without, e -= c and u stays.
    residual: whether there is e. Without, momentum must not be 0.
    clip: largest Euclidean norm of x, over all variables; a longer x is shortened to it first. None: no limit. Deep
      gradient compression has thr / sqrt(N), thr being a limit for the sum over N clients.
  """
  run_settings: ClassVar[tuple[str, ...]] = ('decay', 'drop_after', 'momentum')

  decay: float = 1.0
  drop_after: int | None = None
  momentum: float = 0.0
  masking: bool = True
  residual: bool = True
  clip: float | None = None

  def __post_init__(self):
    checks.number('error feedback: decay', self.decay, ProcessError, least=0, most=1)
    checks.number('error feedback: momentum', self.momentum, ProcessError, least=0, below=1)
    checks.whole_number('error feedback: drop_after', self.drop_after, ProcessError, least=0, optional=True)
    checks.number('error feedback: clip', self.clip, ProcessError, above=0, optional=True)
    checks.boolean('error feedback: masking', self.masking, ProcessError)
    checks.boolean('error feedback: residual', self.residual, ProcessError)
    if not (self.residual or self.momentum):
      raise ProcessError('error feedback: without residual and momentum there is nothing to remember.')

  @classmethod
  def of(cls, value: ClientMemory | bool | None, *codecs: Codec | str) -> ClientMemory | None:
    """What clients remember of their updates: a `ClientMemory`, such as an `ErrorFeedback`, or None.

    Args:
      value: a `ClientMemory`, True, False, or None for what the codecs are meant for.
      *codecs: `Codec` or text.

    Raises:
      ProcessError: the value is something else.
    """
    if value is None:
      value = meaning.needing_feedback(*codecs) is not None
    if isinstance(value, bool):
      return cls() if value else None
    if isinstance(value, ClientMemory):
      return value
    raise ProcessError(f'error_feedback must be True, False, None or an ErrorFeedback(…), not {value!r}.')

  @property
  def slots(self) -> tuple[str, ...]:
    """Names of what is remembered, each of the update's shapes."""
    return ('residual',) * self.residual + ('velocity',) * bool(self.momentum)

  def signal(self, xp: Ops, memory: Mapping[str, Sequence[Array]], update: Sequence[Array],
             turn: ClientRound) -> Sequence[Array]:
    del xp, update, turn
    return memory['residual' if self.residual else 'velocity']

  def accumulate(self, xp: Ops, memory: Mapping[str, Sequence[Array]], update: Sequence[Array],
                 turn: ClientRound) -> Mapping[str, Sequence[Array]]:
    factor = xp.constant(self.decay, np.float32) ** xp.cast(turn.missed, np.float32)
    if self.drop_after is not None:
      factor = xp.where(turn.missed > self.drop_after, xp.constant(0, np.float32), factor)
    if self.clip is not None:
      norm = sums.norm(xp, xp.concat([xp.reshape(x, [-1]) for x in update]))
      shorter = xp.constant(self.clip, np.float32) / xp.maximum(norm, xp.constant(self.clip, np.float32))
      update = [x * shorter for x in update]
    filled = {}
    if self.momentum:
      update = [xp.constant(self.momentum, np.float32) * (factor * u) + x for u, x in zip(memory['velocity'], update)]
      filled['velocity'] = update
    if self.residual:
      filled['residual'] = [factor * e + x for e, x in zip(memory['residual'], update)]
    return filled

  def settle(self, xp: Ops, memory: Mapping[str, Sequence[Array]], update: Sequence[Array], decoded: Sequence[Array],
             turn: ClientRound) -> Mapping[str, Sequence[Array]]:
    del update, turn
    if not self.residual:
      return memory
    if not (self.momentum and self.masking):
      return {**memory, 'residual': [e - c for e, c in zip(memory['residual'], decoded)]}
    return {slot: [v * xp.cast(xp.equal(c, 0), np.float32) for v, c in zip(values, decoded)]
            for slot, values in memory.items()}
