"""MARINA: unbiased messages of how updates change from round to round, and now and then all of them."""

import dataclasses
import fractions
from typing import ClassVar

from tff_compress.processes.memories.marina import Marina
from tff_compress.processes.methods import Method
from tff_compress.processes.needs import Need
from tff_compress.processes.up import steps


@dataclasses.dataclass(frozen=True)
class MarinaMethod(Method):
  """Clients send how their update differs from the last one, through an unbiased codec. In the first round, and by a
  coin that all toss alike, they send it as float32 instead.

  Attributes:
    codec: of the differences: an unbiased preset or stage without parameters.
    p: probability of a round of float32, above 0 and at most 1.
  """
  name: ClassVar[str] = 'marina'
  summary: ClassVar[str] = 'MARINA: unbiased differences to the last update; float32 in a share p of the rounds'
  source: ClassVar[str] = 'Gorbunov et al. 2021'
  page: ClassVar[str] = 'methods/differences.md'
  memory: ClassVar[str] = 'clients, server'
  weighting: ClassVar[str] = 'uniform'
  needs: ClassVar[tuple[Need, ...]] = Marina.needs
  examples: ClassVar[tuple] = ('', 'codec=int8,p=1/2')

  codec: str = 'qsgd'
  p: fractions.Fraction = fractions.Fraction(1, 16)

  def check(self):
    self.error_feedback.codec_of(steps.schedule(self.codec))

  @property
  def uplink(self):
    return self.codec

  @property
  def error_feedback(self):
    return Marina(float(self.p))
