"""RPN: residual pooling of convolution kernels."""

import dataclasses
from typing import ClassVar

from tff_compress.codec.presets import Preset


@dataclasses.dataclass(frozen=True)
class Rpn(Preset):
  """The spatial means of convolution kernels, and all other variables as they are, as float32; for both directions.

  Attributes:
    threshold: the mean of a kernel is sent only if |sum of the kernel's elements| is above this; 0 sends all.
  """
  name: ClassVar[str] = 'rpn'
  summary: ClassVar[str] = 'residual pooling: the spatial mean of each convolution filter, as float32'
  source: ClassVar[str] = 'Huang et al. 2020'
  page: ClassVar[str] = 'methods/pooling.md'
  examples: ClassVar[tuple[str, ...]] = ('', 'threshold=0.25')
  changes: ClassVar[str] = 'start'

  threshold: float = 0.0

  @property
  def text(self) -> str:
    return f'pool:threshold={self.threshold} | nonzero' if self.threshold else 'pool | float32'
