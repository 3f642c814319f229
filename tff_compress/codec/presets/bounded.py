"""A bound on the error of every value, entropy-coded."""

import dataclasses
import math
from typing import ClassVar

from tff_compress.codec.presets import Preset


@dataclasses.dataclass(frozen=True)
class Bounded(Preset):
  """Even steps of twice the error, Huffman-coded where there are few enough, otherwise in an Elias code.

  Attributes:
    error: largest error of any value, as a share of its variable's range.
  """
  name: ClassVar[str] = 'bounded'
  summary: ClassVar[str] = 'no value is off by more than a share of its variable\'s range (like SZ)'
  source: ClassVar[str] = 'Di and Cappello 2016 (SZ), without its predictor'
  page: ClassVar[str] = 'methods/quantization.md'

  error: float = 0.01

  @property
  def text(self) -> str:
    # Enough steps for a range around zero; what a range far from zero needs beyond is sent as it is.
    limit = min(32767, math.ceil(0.5 / self.error) + 1) if self.error > 0 else 1
    return f'bound:{self.error},mode=relative,limit={limit} | {"huffman" if limit <= 127 else "elias"}'
