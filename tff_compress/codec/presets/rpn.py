"""RPN: residual pooling of convolution kernels."""

import dataclasses
from typing import ClassVar

from tff_compress.codec.presets import Preset


@dataclasses.dataclass(frozen=True)
class Rpn(Preset):
  """The spatial means of convolution kernels, and all other variables as they are, as float32; for both directions."""
  name: ClassVar[str] = 'rpn'
  summary: ClassVar[str] = 'residual pooling: the spatial mean of each convolution filter, as float32'
  source: ClassVar[str] = 'Huang et al. 2020'
  page: ClassVar[str] = 'methods/pooling.md'
  changes: ClassVar[bool] = True

  @property
  def text(self):
    return 'pool | float32'
