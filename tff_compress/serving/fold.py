"""The aggregate of a round: a pure function of its accepted frames and their weights, in the order of their numbers.

Sums of frames times their weights are float64, of blocks of `BLOCK` frames one after the other, and then of the blocks
in order. So whoever folds the same frames gets the same bits, and several processes may fold blocks that others add up.
A fold that is under way is a cache: it can always be made again.
"""

import numpy as np

from tff_compress.serving.frames import Rules

BLOCK = 64


class Fold:
  """The frames of a round so far, as one sum and that of the last block.

  Args:
    rules: of the task's frames.
    round: its number.
  """

  def __init__(self, rules: Rules, round: int) -> None:
    self._rules, self._round = rules, round
    self._blocks, self._block = self._zeros(), self._zeros()
    self._weight = self.count = 0

  def _zeros(self) -> dict[str, np.ndarray]:
    return {tensor.name: np.zeros(tensor.shape, np.float64) for tensor in self._rules.spec.tensors}

  def add(self, frame: bytes, client: int, weight: int = 1) -> None:
    """Adds the frame with the next number. Raises PayloadError where it is not of this round and client."""
    for name, array in self._rules.decode(frame, self._round, client).items():
      self._block[name] += np.multiply(array, weight, dtype=np.float64)
    self.count += 1
    self._weight += weight
    if self.count % BLOCK == 0:
      for name, array in self._block.items():
        self._blocks[name] += array
      self._block = self._zeros()

  def mean(self) -> dict[str, np.ndarray]:
    """{variable: float32 array}, each frame as its weight says; zeros of no frames."""
    return {name: ((blocks + self._block[name]) / max(1, self._weight)).astype(np.float32)
            for name, blocks in self._blocks.items()}
