"""EF21: the largest values of what an estimate is off by, which clients and server keep of each update."""

import dataclasses
import fractions
from typing import ClassVar

from tff_compress.processes.memories.ef21 import Ef21
from tff_compress.processes.methods import Method
from tff_compress.processes.needs import Need


@dataclasses.dataclass(frozen=True)
class Ef21Method(Method):
  """Clients send the largest values of the difference between their update and what the server has of it; the server
  adds them up, and the model moves by the mean of all estimates in every round.

  Attributes:
    p: share of the values of each variable that is sent; 1 is federated averaging.
  """
  name: ClassVar[str] = 'ef21'
  summary: ClassVar[str] = "EF21: the largest values of how each client's update differs from the server's estimate"
  source: ClassVar[str] = 'Richtárik et al. 2021'
  page: ClassVar[str] = 'methods/differences.md'
  memory: ClassVar[str] = 'clients, server'
  weighting: ClassVar[str] = 'uniform'
  needs: ClassVar[tuple[Need, ...]] = Ef21.needs
  examples: ClassVar[tuple] = ('', 'p=1/4')

  p: fractions.Fraction = fractions.Fraction(1, 100)

  @property
  def uplink(self):
    return f'topk:{self.p} | float32'

  @property
  def error_feedback(self):
    return Ef21()
