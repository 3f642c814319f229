"""Structured updates on a random mask."""

import dataclasses
import fractions
from typing import ClassVar

from tff_compress.codec import stage as stage_lib
from tff_compress.processes.methods import Method


@dataclasses.dataclass(frozen=True)
class RandomMask(Method):
  """Clients train the coordinates of a random mask alone, a new one for every client and round, and send those.

  Attributes:
    fraction: share of the values that is trained and sent.
    normalize: none: the server adds what arrives, as in the paper; inverse_p: times one over the fraction; count: each
      value is averaged over the clients that sent it.
  """
  name: ClassVar[str] = 'random-mask'
  summary: ClassVar[str] = 'structured updates: only the values of a random mask are trained and sent'
  source: ClassVar[str] = 'Konecny et al. 2016, sec. 2'
  page: ClassVar[str] = 'methods/structured.md'
  examples: ClassVar[tuple] = ('', 'fraction=1/4,normalize=inverse_p', 'normalize=count')

  fraction: fractions.Fraction = fractions.Fraction(1, 16)
  normalize: str = stage_lib.choice('none', 'inverse_p', 'count')

  @property
  def uplink(self):
    return f'concat | subsample:{self.fraction},key=client | float32'

  def other_arguments(self, model):
    from tff_compress.processes.confinement.structured import Structured
    return {'structured': Structured(self.normalize)}
