"""How a task goes."""

import dataclasses
import math

from tff_compress.codec import checks
from tff_compress.codec.errors import CompressionError
from tff_compress.serving import protocol


class SettingsError(CompressionError):
  """Settings that a task cannot have."""


@dataclasses.dataclass(frozen=True)
class Settings:
  """How a task goes.

  Attributes:
    rounds: how many.
    goal: accepted updates with which a round closes.
    minimum: with which it closes at its deadline; with fewer it is given the same time again.
    deadline: seconds of a round.
    lease: seconds that a device has for an assignment.
    spare: live leases and accepted updates together are at most this times the goal.
    epochs: passes over a device's examples.
    learning_rate: of devices; None: the plan's.
    weighting: how much an update counts, as a text of `protocol.Weighting`.
    most_examples: that an update counts for.
    norm: the largest L2 norm of an update; None: any.
    server_optimizer, server_learning_rate, server_momentum: of the server's step, as for runs.
    keep_frames: whether accepted frames are kept when their round is committed.
  """
  rounds: int = 10
  goal: int = 10
  minimum: int = 1
  deadline: float = 600.0
  lease: float = 600.0
  spare: float = 1.3
  epochs: int = 1
  learning_rate: float | None = None
  weighting: str = 'examples'
  most_examples: int = 10_000
  norm: float | None = None
  server_optimizer: str = 'sgd'
  server_learning_rate: float = 1.0
  server_momentum: float = 0.0
  keep_frames: bool = False

  def __post_init__(self) -> None:
    checks.whole_number('rounds', self.rounds, SettingsError, least=1, most=protocol.MOST_ROUNDS)
    checks.whole_number('goal', self.goal, SettingsError, least=1, most=10**7)
    checks.whole_number('minimum', self.minimum, SettingsError, least=1)
    if self.minimum > self.goal:
      raise SettingsError(f'minimum must be at most the goal, which is {self.goal}.')
    checks.number('deadline', self.deadline, SettingsError, above=0, most=protocol.MOST_SECONDS)
    checks.number('lease', self.lease, SettingsError, above=0, most=protocol.MOST_SECONDS)
    checks.number('spare', self.spare, SettingsError, least=1, most=100)
    checks.whole_number('epochs', self.epochs, SettingsError, least=1, most=10**4)
    checks.number('learning_rate', self.learning_rate, SettingsError, above=0, most=1e6, optional=True)
    checks.one_of('weighting', self.weighting, map(str, protocol.Weighting), SettingsError)
    checks.whole_number('most_examples', self.most_examples, SettingsError, least=1, most=protocol.MOST_EXAMPLES)
    checks.number('norm', self.norm, SettingsError, above=0, optional=True)

  def weight(self, examples: int) -> int:
    """How much an update of so many examples counts."""
    return min(examples, self.most_examples) if self.weighting == protocol.Weighting.EXAMPLES else 1

  @property
  def places(self) -> int:
    """How many devices may be at work in a round."""
    return math.ceil(self.goal * self.spare)
