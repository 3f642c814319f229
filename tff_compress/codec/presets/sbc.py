"""Sparse binary compression."""

import dataclasses
import fractions
from typing import ClassVar

from tff_compress.codec.presets import Preset


@dataclasses.dataclass(frozen=True)
class Sbc(Preset):
  """In each variable, the largest values of one sign as their mean, with Rice-coded positions; meant for error
  feedback.

  Attributes:
    p: share of the values that is kept.
  """
  name: ClassVar[str] = 'sbc'
  summary: ClassVar[str] = 'sparse binary compression: positions of the largest values of one sign, and their mean'
  source: ClassVar[str] = 'Sattler et al. 2019'
  page: ClassVar[str] = 'methods/sparse-and-sign.md'
  feedback: ClassVar[bool] = True
  changes: ClassVar[str] = 'last'

  p: fractions.Fraction = fractions.Fraction(1, 100)

  @property
  def text(self) -> str:
    return f'sparse-binary:{self.p} | rice'
