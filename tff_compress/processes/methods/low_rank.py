"""Structured updates of low rank."""

import dataclasses
import fractions
from typing import ClassVar

from tff_compress.codec import stage as stage_lib
from tff_compress.processes.methods import Method


@dataclasses.dataclass(frozen=True)
class LowRankMethod(Method):
  """Clients train B in W0 + V B, V random with a few orthonormal columns, new for every client and round, and send B.

  Attributes:
    share: of the values of a matrix that is trained and sent: its rank over its shorter side.
    normalize: none: the server adds what arrives; inverse_p: times one over the share.
  """
  name: ClassVar[str] = 'low-rank'
  summary: ClassVar[str] = 'structured updates: only one factor of low-rank changes is trained and sent'
  source: ClassVar[str] = 'Konecny et al. 2016, sec. 2'
  page: ClassVar[str] = 'methods/low-rank.md'
  examples: ClassVar[tuple] = ('', 'share=1/8,normalize=inverse_p', 'share=1/2')

  share: fractions.Fraction = fractions.Fraction(1, 4)
  normalize: str = stage_lib.choice('none', 'inverse_p')

  @property
  def uplink(self):
    return f'concat | lowrank:{self.share},key=client | float32'

  def other_arguments(self, model):
    from tff_compress.processes.confinement.structured import Structured
    return {'structured': Structured(self.normalize)}
