"""The largest values, for senders that keep the others."""

import dataclasses
import fractions
from typing import ClassVar

from tff_compress.codec.presets import Preset


@dataclasses.dataclass(frozen=True)
class EfTopK(Preset):
  """The largest magnitudes of each variable as they are (gradient dropping); meant for error feedback.

  Attributes:
    p: share of the values that is kept.
  """
  name: ClassVar[str] = 'ef-topk'
  summary: ClassVar[str] = 'the largest values, for error feedback (gradient dropping)'
  source: ClassVar[str] = 'Aji and Heafield 2017'
  page: ClassVar[str] = 'methods/sparse-and-sign.md'
  feedback: ClassVar[bool] = True
  changes: ClassVar[str] = 'last'

  p: fractions.Fraction = fractions.Fraction(1, 100)

  @property
  def text(self) -> str:
    return f'topk:{self.p} | float32'
