"""EDEN on all variables as one vector."""

import dataclasses
from typing import ClassVar

from tff_compress.codec.presets import Preset


@dataclasses.dataclass(frozen=True)
class Drive(Preset):
  """One bit per value behind two private rotations, unbiased.

  Attributes:
    bits: 1 … 4.
  """
  name: ClassVar[str] = 'drive'
  summary: ClassVar[str] = 'EDEN behind two rotations of the client\'s own: 1 to 4 bits per parameter, unbiased'
  source: ClassVar[str] = 'Vargaftik et al. 2021 (DRIVE), 2022 (EDEN)'
  examples: ClassVar[tuple[str, ...]] = ('', 'bits=2')

  bits: int = 1

  @property
  def text(self) -> str:
    return f'concat | hadamard:rotations=2,key=client | eden:bits={self.bits} | pack'
