"""What accuracies of runs are compared by: means of the last rounds, and of seeds."""

from collections.abc import Sequence
import math

import numpy as np

WIDTH = 3
"""Rounds whose mean accuracy is what counts."""

GUESSING = 0.1
"""The accuracy of a run that diverged."""


def trailing_means(curve: Sequence[float]) -> list[float]:
  """Mean of the last `WIDTH` of them, from the `WIDTH`-th on; of all, where there are fewer."""
  width = min(WIDTH, len(curve))
  return [float(np.mean(curve[i - width:i])) for i in range(width, len(curve) + 1)]


def mean_and_error(values: Sequence[float]) -> tuple[float | None, float | None]:
  """(mean, its standard error or None for fewer than two values); (None, None) for no value."""
  if not values:
    return None, None
  error = float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
  return float(np.mean(values)), error
