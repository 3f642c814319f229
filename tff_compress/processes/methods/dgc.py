"""Deep gradient compression."""

import dataclasses
import fractions
from typing import ClassVar

from tff_compress.codec import checks
from tff_compress.processes.errors import ProcessError
from tff_compress.processes.memories.error_feedback import ErrorFeedback
from tff_compress.processes.methods import Method

WARM_UP = tuple(fractions.Fraction(1, 4**i) for i in (1, 2, 3, 4))
"""Shares that are sent at first: 25, 6.25, 1.56 and 0.39 per cent."""


@dataclasses.dataclass(frozen=True)
class Dgc(Method):
  """The largest values with momentum correction, momentum factor masking, local clipping and a share that falls at
  first.

  Attributes:
    p: share of the values that is sent in the end.
    momentum: of the correction, 0 … below 1.
    warmup: rounds for each of the shares 1/4, 1/16, 1/64 and 1/256 that are above p, before p; 0: p from the start.
    clip: largest norm of what all clients send together; each limits its update to clip / sqrt(clients). 0: no limit.
    clients: how many clients there are in a round, for clip.
  """
  name: ClassVar[str] = 'dgc'
  summary: ClassVar[str] = 'deep gradient compression: top-k with momentum correction, masking, warm-up and clipping'
  source: ClassVar[str] = 'Lin et al. 2018'
  page: ClassVar[str] = 'methods/sparse-and-sign.md'
  memory: ClassVar[str] = 'clients'
  examples: ClassVar[tuple] = ('', 'p=1/1000', 'p=1/8,warmup=2,clip=2.0,clients=4')

  p: fractions.Fraction = fractions.Fraction(1, 1000)
  momentum: float = 0.9
  warmup: int = 1
  clip: float = 0.0
  clients: int = 1

  def check(self):
    checks.whole_number('dgc: warmup', self.warmup, ProcessError, least=0, most=10**6)
    checks.whole_number('dgc: clients', self.clients, ProcessError, least=1)
    self._feedback()

  @property
  def uplink(self):
    shares = [*(share for share in WARM_UP if share > self.p and self.warmup), self.p]
    return {i * self.warmup: f'topk:{share} | float32' for i, share in enumerate(shares)}

  @property
  def error_feedback(self):
    return self._feedback()

  def _feedback(self):
    return ErrorFeedback(momentum=self.momentum, clip=self.clip * self.clients**-0.5 if self.clip else None)
