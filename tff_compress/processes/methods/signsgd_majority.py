"""signSGD with majority votes."""

import dataclasses
from typing import ClassVar

from tff_compress.processes.down import votes
from tff_compress.processes.methods import Method


@dataclasses.dataclass(frozen=True)
class SignSgdMajority(Method):
  """One bit per parameter in both directions: clients send signs, and the model moves by the signs of their majority.

  All clients weigh the same. A tie counts as positive. The learning rates of clients and server have no influence.

  Attributes:
    step: by how much every weight moves in a round.
  """
  name: ClassVar[str] = 'signsgd-majority'
  summary: ClassVar[str] = 'signSGD with majority vote: one bit per parameter up and down'
  source: ClassVar[str] = 'Bernstein et al. 2018'
  page: ClassVar[str] = 'methods/sparse-and-sign.md'
  memory: ClassVar[str] = 'clients'
  downlink: ClassVar[str] = votes.CODEC
  weighting: ClassVar[str] = 'uniform'
  examples: ClassVar[tuple] = ('', 'step=0.01')

  step: float = 0.001

  def check(self):
    votes.check_step(self.name, self.step)

  @property
  def uplink(self):
    return votes.CODEC

  def other_arguments(self, model):
    return {'downlink': votes.downlink(self.step)}
