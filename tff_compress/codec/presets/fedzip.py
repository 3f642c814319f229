"""A codec like FedZip: the largest values, clustered, Huffman-coded."""

import dataclasses
import fractions
from typing import ClassVar

from tff_compress.codec.presets import Preset


@dataclasses.dataclass(frozen=True)
class FedZip(Preset):
  """The largest values of each variable in a few clusters, with Huffman-coded numbers and Rice-coded positions.

  Attributes:
    fraction: share of the values that is kept.
    centroids: number of clusters, 2 … 32.
  """
  name: ClassVar[str] = 'fedzip'
  summary: ClassVar[str] = 'like FedZip: the largest values, k-means, Huffman code and positions'
  source: ClassVar[str] = 'Malekijoo et al. 2021'
  page: ClassVar[str] = 'methods/quantization.md'
  feedback: ClassVar[bool] = True
  changes: ClassVar[str] = 'last'

  fraction: fractions.Fraction = fractions.Fraction(1, 100)
  centroids: int = 3

  @property
  def text(self) -> str:
    return f'topk:{self.fraction} | cluster:centroids={self.centroids} | huffman'
