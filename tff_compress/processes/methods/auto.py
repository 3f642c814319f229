"""The shared subspace, with all that it needs chosen by public rules."""

import dataclasses
import fractions
from typing import Any
from typing import ClassVar

from tff_compress import wire
from tff_compress.codec import checks
from tff_compress.codec import stage
from tff_compress.codec.spec import Spec
from tff_compress.processes.errors import ProcessError
from tff_compress.processes.figures import Figure
from tff_compress.processes.methods import DefaultCodecs
from tff_compress.processes.methods import Method
from tff_compress.processes.methods import subspace
from tff_compress.subspace import budget
from tff_compress.subspace import levels
from tff_compress.subspace.coordinates import Coordinates
from tff_compress.subspace.coordinates import UNIT
from tff_compress.subspace.rate import FLOOR
from tff_compress.subspace.rate import MOST
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
    total: bytes of all messages in all rounds, both ways, for a number of coordinates that stays the same; 0: by the
      rule.
    rounds: how many rounds a budget is for; 0: as many as the run has.
    clients, per_round: for `total`, how many clients there are, and how many are drawn for each round; 0: those of the
      run.
  """
  name: ClassVar[str] = 'auto'
  summary: ClassVar[str] = 'the shared subspace, both ways, with coordinates and bits chosen by public rules'
  source: ClassVar[str] = subspace.Subspace.source
  page: ClassVar[str] = subspace.Subspace.page
  memory: ClassVar[str] = subspace.Subspace.memory
  downlink: ClassVar[str] = 'auto'
  both_ways: ClassVar[bool] = True
  figures: ClassVar[tuple[Figure, ...]] = subspace.Subspace.figures
  _PLAN: ClassVar[tuple[str, ...]] = ('rounds', 'clients', 'per_round')
  examples: ClassVar[tuple] = ('', 'bytes=20000', 'noise=1.5,rounds=20', 'rate=0.3',
                               'total=2MB,rounds=20,clients=20,per_round=10')

  bytes: stage.Size = stage.Size(0)
  rate: fractions.Fraction = fractions.Fraction(0)
  noise: float = 0.0
  total: stage.Size = stage.Size(0)
  rounds: int = 0
  clients: int = 0
  per_round: int = 0

  def check(self):
    checks.whole_number('auto: bytes', self.bytes, ProcessError, least=0, most=10**9)
    if 0 < self.bytes < LEAST_BYTES:
      raise ProcessError(f'auto: bytes must be at least {LEAST_BYTES}, for {FLOOR} coordinates; with fewer, training '
                         'diverges.')
    if not 0 <= self.rate <= 1:
      raise ProcessError(f'auto: rate must be from 0 to 1, not {self.rate}.')
    checks.number('auto: noise', self.noise, ProcessError, least=0, most=1e6)
    checks.whole_number('auto: total', self.total, ProcessError, least=0, most=10**18)
    for name in self._PLAN:
      checks.whole_number(f'auto: {name}', getattr(self, name), ProcessError, least=0, most=10**9)
    if sum(map(bool, (self.bytes, self.rate, self.noise, self.total))) > 1:
      raise ProcessError('auto: bytes, rate, noise and total each say how many coordinates there are: give one of '
                         'them.')
    if any(getattr(self, name) for name in self._PLAN if name not in self._planned):
      raise ProcessError('auto: rounds is for a budget, noise or total, and clients and per_round are for total.')
    if self.per_round > self.clients > 0:
      raise ProcessError(f'auto: per_round is {self.per_round}, more than the {self.clients} clients.')

  @property
  def _planned(self) -> tuple[str, ...]:
    """Which parameters say for what a budget is."""
    return self._PLAN if self.total else ('rounds',) if self.noise else ()

  def settled(self, facts):
    if facts.moving_statistics:
      return DefaultCodecs(reason='clients of the shared subspace do not send moving statistics, which the model has')
    if facts.server_sgd is False:
      return DefaultCodecs(reason='the shared subspace moves the model by SGD, and the server has another optimizer')
    known = {'rounds': facts.rounds, 'clients': facts.clients, 'per_round': facts.clients_per_round}
    missing = {name: known[name] for name in self._planned if not getattr(self, name) and known[name] is not None}
    return dataclasses.replace(self, **missing) if missing else self

  @property
  def rule(self) -> Rate:
    """The rule for k."""
    if self.bytes:
      # One bit a coordinate, and whole blocks of them.
      return Rate(noise=None, first=1e-9, floor=(self.bytes - UPLOAD_OVERHEAD) * 8 // UNIT * UNIT)
    if self.rate:
      return Rate(noise=None, first=float(self.rate))
    if self.noise:
      self._check_planned()
      return Rate(noise=self.noise, rounds=self.rounds)
    return Rate(noise=None, signal=SIGNAL, most=MOST)

  def _rule_for_total(self, model: Any, first: int) -> Rate:
    """The rule for a total of bytes, of a Keras model whose first weights take `first` bytes."""
    self._check_planned()
    who = budget.Participation(self.rounds, self.clients, self.per_round)
    space = Coordinates(Spec.of(model).parameters)
    if budget.coordinates(self.total, who, first, levels.MOST_BITS) >= space.padded:
      return Rate(noise=None, first=1)
    kept = min(budget.coordinates(self.total, who, first), space.padded - 1)
    if kept < min(FLOOR, space.padded - 1):
      least = sum(a * b for a, b in zip(budget.expected_bytes(who, first), (1, FLOOR))) / (1 - budget.SPARED)
      raise ProcessError(f'auto: {self.total} are too few for {self.rounds} rounds with {self.per_round} of '
                         f'{self.clients} clients: {FLOOR} coordinates, the fewest that train, take '
                         f'{stage.Size(-(-int(least) // 1000) * 1000 + 1000)}.')
    return Rate(noise=None, first=1e-9, floor=kept // space.unit * space.unit or kept)

  def _check_planned(self) -> None:
    missing = [name for name in self._planned if not getattr(self, name)]
    if missing:
      raise ProcessError(f'auto: a budget is for a number of {" and ".join(missing)}, which is not known here: add '
                         f'{",".join(f"{name}=…" for name in missing)}.')

  @property
  def _as_subspace(self):
    return subspace.Subspace(up=1 if self.bytes else 0)

  @property
  def uplink(self):
    return self._as_subspace.uplink

  def other_arguments(self, model):
    arguments = self._as_subspace.other_arguments(model)
    if self.total and model is None:
      raise ProcessError('auto: total has to know the Keras model that clients train: give arguments(model).')
    frame = arguments['start'].plan(Spec.of(model)).payload_size + wire.FRAME_OVERHEAD if self.total else 0
    return {**arguments, 'rate': self._rule_for_total(model, frame) if self.total else self.rule}

  def arguments_of_start(self, start: Start, model: Any) -> dict[str, Any]:
    rates = {'rate': self._rule_for_total(model, len(start.to_bytes()))} if self.total else {}
    return {**self._as_subspace.arguments_of_start(start, model), **rates}

  def build(self, model_fn, **arguments):
    """As `Subspace.build`."""
    return self._as_subspace.build(model_fn, **arguments)
