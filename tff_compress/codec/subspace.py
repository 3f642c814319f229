"""Stages that give the coordinates of an update in a random subspace, such as a mask's or a low-rank one."""

from collections.abc import Callable
from typing import ClassVar
from typing import TypeAlias

from tff_compress.codec.keys import Draws
from tff_compress.codec.stage import Arrays
from tff_compress.codec.stage import Real
from tff_compress.codec.stage import Stage
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops

Maps: TypeAlias = tuple[Callable[[Array], Array], Callable[[Array], Array]]
"""(project, lift) of a random subspace."""


class Subspace(Stage):
  """With V the orthonormal basis of a random subspace, `encode` gives V^T x, and `decode` s V b, where E[s V V^T] = I.

  So what lies in the subspace already comes back s times as large, and is sent without loss when it is divided by s.
  Training that is confined to the subspace makes such updates.

  Subclasses have a field `key`: 'round' for a subspace that the clients of a round share, 'client' for one of its own.
  """
  unbiased: ClassVar[bool] = True

  key: str

  @property
  def linear(self) -> bool:
    return self.key == 'round'

  def maps(self, xp: Ops, draws: Draws, signal: Real) -> Maps:
    """Draws the subspace.

    Returns:
      (project, lift): functions float32[d] -> float32[k], V^T x, and float32[k] -> float32[d], V b. Both are linear,
      and project(lift(b)) is b.
    """
    raise NotImplementedError

  def scales(self, signal: Real) -> tuple[float, ...]:
    """Tuple of float: s of each variable of `signal.shapes`; of one where there are no shapes."""
    raise NotImplementedError

  def encode(self, xp: Ops, x: Array, draws: Draws, signal: Real) -> tuple[Array, Arrays]:
    project, _ = self.maps(xp, draws, signal)
    return project(x), {}
