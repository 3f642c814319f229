"""The shared subspace, with all that it needs chosen by public rules."""

import dataclasses
import fractions
from typing import Any
from typing import ClassVar

from tff_compress.codec import checks
from tff_compress.processes.errors import ProcessError
from tff_compress.processes.figures import Figure
from tff_compress.processes.methods import Method
from tff_compress.processes.methods import subspace
from tff_compress.subspace.coordinates import UNIT
from tff_compress.subspace.rate import FLOOR
from tff_compress.subspace.rate import Rate
from tff_compress.subspace.rate import SIGNAL
from tff_compress.subspace.session import UPLOAD_OVERHEAD
from tff_compress.timeline.start import Start

LEAST_BYTES = UPLOAD_OVERHEAD + FLOOR // 8


@dataclasses.dataclass(frozen=True)
class Auto(Method):
  """The shared subspace, where the number of coordinates follows from what the messages carry anyway: the larger the
  updates are beside the first weights, the more. Bits per coordinate, and how long the coordinates are held, follow
  from the rounds that clients miss.

  Attributes:
    bytes: of a client's message, for a number of coordinates that stays the same; 0: by the rule.
    rate: share of the coordinates, in place of the rule; 0: by the rule.
    noise: budget of noise in all rounds, in units of the first weights' energy, in place of the rule; 0: by the rule.
    rounds: how many rounds the budget of noise is for.
  """
  name: ClassVar[str] = 'auto'
  summary: ClassVar[str] = 'the shared subspace, both ways, with coordinates and bits chosen by public rules'
  source: ClassVar[str] = subspace.Subspace.source
  page: ClassVar[str] = subspace.Subspace.page
  memory: ClassVar[str] = subspace.Subspace.memory
  downlink: ClassVar[str] = 'auto'
  both_ways: ClassVar[bool] = True
  figures: ClassVar[tuple[Figure, ...]] = subspace.Subspace.figures
  examples: ClassVar[tuple] = ('', 'bytes=20000', 'noise=1.5,rounds=20', 'rate=0.3')

  bytes: int = 0
  rate: fractions.Fraction = fractions.Fraction(0)
  noise: float = 0.0
  rounds: int = 300

  def check(self):
    checks.whole_number('auto: bytes', self.bytes, ProcessError, least=0, most=10**9)
    if 0 < self.bytes < LEAST_BYTES:
      raise ProcessError(f'auto: bytes must be at least {LEAST_BYTES}, for {FLOOR} coordinates; with fewer, training '
                         'diverges.')
    if not 0 <= self.rate <= 1:
      raise ProcessError(f'auto: rate must be from 0 to 1, not {self.rate}.')
    checks.number('auto: noise', self.noise, ProcessError, least=0, most=1e6)
    checks.whole_number('auto: rounds', self.rounds, ProcessError, least=1, most=10**9)
    if sum(map(bool, (self.bytes, self.rate, self.noise))) > 1:
      raise ProcessError('auto: bytes, rate and noise each say how many coordinates there are: give one of them.')

  @property
  def rule(self) -> Rate:
    """The rule for k."""
    if self.bytes:
      # One bit a coordinate, and whole blocks of them.
      return Rate(noise=None, first=1e-9, floor=(self.bytes - UPLOAD_OVERHEAD) * 8 // UNIT * UNIT)
    if self.rate:
      return Rate(noise=None, first=float(self.rate))
    if self.noise:
      return Rate(noise=self.noise, rounds=self.rounds)
    return Rate(noise=None, signal=SIGNAL)

  @property
  def _as_subspace(self):
    return subspace.Subspace(up=1 if self.bytes else 0)

  @property
  def uplink(self):
    return self._as_subspace.uplink

  def other_arguments(self, model):
    return {**self._as_subspace.other_arguments(model), 'rate': self.rule}

  def arguments_of_start(self, start: Start) -> dict[str, Any]:
    return self._as_subspace.arguments_of_start(start)

  def build(self, model_fn, **arguments):
    """As `Subspace.build`."""
    return self._as_subspace.build(model_fn, **arguments)
