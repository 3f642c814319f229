"""Signum: signs of momentum, with majority votes."""

import dataclasses
from typing import ClassVar

from tff_compress.codec import checks
from tff_compress.processes.down import votes
from tff_compress.processes.errors import ProcessError
from tff_compress.processes.memories.error_feedback import ErrorFeedback
from tff_compress.processes.methods import Method


@dataclasses.dataclass(frozen=True)
class Signum(Method):
  """Majority vote on the signs of each client's momentum of its updates.

  Attributes:
    step: by how much every weight moves in a round.
    momentum: above 0, below 1.
  """
  name: ClassVar[str] = 'signum'
  summary: ClassVar[str] = "majority vote on the signs of each client's momentum"
  source: ClassVar[str] = 'Bernstein et al. 2018'
  page: ClassVar[str] = 'methods/sparse-and-sign.md'
  memory: ClassVar[str] = 'clients'
  downlink: ClassVar[str] = votes.CODEC
  weighting: ClassVar[str] = 'uniform'
  examples: ClassVar[tuple] = ('', 'step=0.01,momentum=0.5')

  step: float = 0.001
  momentum: float = 0.9

  def check(self):
    votes.check_step(self.name, self.step)
    checks.number('signum: momentum', self.momentum, ProcessError, above=0, below=1)

  @property
  def uplink(self):
    return votes.CODEC

  @property
  def error_feedback(self):
    return ErrorFeedback(momentum=self.momentum, residual=False)

  def other_arguments(self, model):
    return {'downlink': votes.downlink(self.step)}
