"""The largest values, and error feedback for the others."""

import dataclasses
import fractions
from typing import ClassVar

from tff_compress.processes.feedback import ErrorFeedback
from tff_compress.processes.methods import Method


@dataclasses.dataclass(frozen=True)
class TopK(Method):
  """Each client sends the largest magnitudes of each variable as they are, and adds the others to its next update.

  Attributes:
    p: share of the values that is sent.
  """
  name: ClassVar[str] = 'topk'
  summary: ClassVar[str] = 'gradient dropping: the largest values, the others wait for the next message'
  source: ClassVar[str] = 'Aji and Heafield 2017'
  page: ClassVar[str] = 'methods/sparse-and-sign.md'
  memory: ClassVar[str] = 'clients'

  p: fractions.Fraction = fractions.Fraction(1, 100)

  @property
  def uplink(self):
    return f'topk:{self.p} | float32'

  @property
  def error_feedback(self):
    return ErrorFeedback()
