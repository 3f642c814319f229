"""Sparse ternary compression."""

import dataclasses
import fractions
from typing import ClassVar

from tff_compress.codec.presets import Preset


@dataclasses.dataclass(frozen=True)
class Stc(Preset):
  """In each variable, signs of the largest magnitudes times their mean, with Rice-coded positions; meant for error
  feedback.

  Attributes:
    p: share of the values that is kept.
  """
  name: ClassVar[str] = 'stc'
  summary: ClassVar[str] = 'sparse ternary compression: positions and signs of the largest values, and their mean'
  source: ClassVar[str] = 'Sattler et al. 2020'
  page: ClassVar[str] = 'methods/sparse-and-sign.md'
  feedback: ClassVar[bool] = True
  changes: ClassVar[str] = 'last'

  p: fractions.Fraction = fractions.Fraction(1, 400)

  @property
  def text(self) -> str:
    return f'sparse-ternary:{self.p} | rice'
