"""ATOMO over single entries: unbiased sparsification with the least variance."""

import dataclasses
import fractions
from typing import ClassVar

from tff_compress.codec.presets import Preset


@dataclasses.dataclass(frozen=True)
class Atomo(Preset):
  """Values kept with probabilities in proportion to their magnitudes, with Rice-coded positions.

  Attributes:
    fraction: expected share of the values that is kept, the paper's budget over d.
  """
  name: ClassVar[str] = 'atomo'
  summary: ClassVar[str] = 'ATOMO over entries: random sparsification by magnitude, unbiased'
  source: ClassVar[str] = 'Wang et al. 2018'
  page: ClassVar[str] = 'methods/sparse-and-sign.md'

  fraction: fractions.Fraction = fractions.Fraction(1, 50)

  @property
  def text(self) -> str:
    return f'sparsify:{self.fraction} | rice'
