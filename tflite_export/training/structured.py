"""Training confined to a subspace, so that a client sends only what it trained (structured updates, McMahan et al.
2016).

Nothing here draws random numbers: masks and bases are set from outside, from whatever seed the server and the client
share.
"""

from collections.abc import Sequence
import dataclasses
import math
from typing import Any

import tensorflow as tf

from tff_compress.codec import checks
from tflite_export.errors import ExportError


@dataclasses.dataclass(frozen=True)
class RandomMask:
  """Every variable changes only where its mask, set by the signature set_masks, is 1.

  The optimizer's step is masked and not the gradient: momentum, Adam and weight decay would otherwise move the rest
  too.
  """


@dataclasses.dataclass(frozen=True)
class LowRank:
  """Kernels change by a product A B of rank `rank`: A is set by the signature set_bases, B is trained, from 0.

  A kernel is a matrix of its last axis and all others. A stands on its shorter side, so that B has the share
  `rank / shorter side` of the kernel's values. Variables with one axis, and kernels whose shorter side is at most
  `rank`, are trained whole.

  Attributes:
    rank: a whole number, at least 1.
  """
  rank: int

  def __post_init__(self):
    checks.whole_number('rank', self.rank, ExportError, least=1)

  def applies(self, shape: Sequence[int]) -> bool:
    """Whether a variable of this shape is trained as a product."""
    return len(shape) > 1 and min(math.prod(shape[:-1]), shape[-1]) > self.rank


@dataclasses.dataclass(frozen=True)
class Factors:
  """The product of one kernel.

  Attributes:
    shape: of the kernel.
    basis, factor: variables A [shorter side, rank] and B [rank, longer side].
  """
  shape: tuple
  basis: tf.Variable
  factor: tf.Variable

  @classmethod
  def of(cls, shape: Sequence[int], rank: int, name: str) -> 'Factors':
    sides = sorted((math.prod(shape[:-1]), shape[-1]))
    return cls(tuple(shape), tf.Variable(tf.zeros([sides[0], rank]), name=f'{name}a'),
               tf.Variable(tf.zeros([rank, sides[1]]), name=f'{name}b'))

  def kernel(self, basis: Any, factor: Any) -> Any:
    """A B as the kernel has its axes, from tensors."""
    product = tf.matmul(basis, factor)
    return tf.reshape(product if self._upright else tf.transpose(product), self.shape)

  def gradient(self, basis: Any, gradient: Any) -> Any:
    """dL/dB from dL/dW."""
    matrix = tf.reshape(gradient, [math.prod(self.shape[:-1]), self.shape[-1]])
    return tf.matmul(basis, matrix if self._upright else tf.transpose(matrix), transpose_a=True)

  @property
  def _upright(self):
    return math.prod(self.shape[:-1]) <= self.shape[-1]
