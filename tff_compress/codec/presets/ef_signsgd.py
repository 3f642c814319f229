"""EF-signSGD's compressor: signs and the mean magnitude."""

import dataclasses
from typing import ClassVar

from tff_compress.codec.presets import Preset


@dataclasses.dataclass(frozen=True)
class EfSignSgd(Preset):
  """Signs times the mean magnitude of each variable; meant for error feedback."""
  name: ClassVar[str] = 'ef-signsgd'
  summary: ClassVar[str] = 'signs times the mean magnitude, for error feedback: 1 bit per parameter'
  source: ClassVar[str] = 'Karimireddy et al. 2019'
  page: ClassVar[str] = 'methods/sparse-and-sign.md'
  feedback: ClassVar[bool] = True
  changes: ClassVar[str] = 'last'

  @property
  def text(self) -> str:
    return 'sign | pack'
