"""Stages that give the coordinates of an update in a random subspace, such as a mask's or a low-rank one."""

from typing import ClassVar

from tff_compress.codec.stage import Stage


class Subspace(Stage):
  """With V the orthonormal basis of a random subspace, `encode` gives V^T x, and `decode` s V b, where E[s V V^T] = I.

  So what lies in the subspace already comes back s times as large, and is sent without loss when it is divided by s.
  Training that is confined to the subspace makes such updates.

  Subclasses have a field `key`: 'round' for a subspace that the clients of a round share, 'client' for one of its own.
  """
  unbiased: ClassVar[bool] = True

  @property
  def linear(self):
    return self.key == 'round'

  def maps(self, xp, draws, signal):
    """Draws the subspace.

    Returns:
      (project, lift): functions float32[d] -> float32[k], V^T x, and float32[k] -> float32[d], V b. Both are linear,
      and project(lift(b)) is b.
    """
    raise NotImplementedError

  def scales(self, signal):
    """Tuple of float: s of each variable of `signal.shapes`; of one where there are no shapes."""
    raise NotImplementedError

  def encode(self, xp, x, draws, signal):
    project, _ = self.maps(xp, draws, signal)
    return project(x), {}
