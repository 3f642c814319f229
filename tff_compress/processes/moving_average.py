"""A moving average of the server's weights, for evaluation and export. NumPy only; for any learning process."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import numpy as np

from tff_compress.codec import checks
from tff_compress.processes.errors import ProcessError


class MovingAverage:
  """Exponential moving average of a model's weights: average := momentum * average + (1 - momentum) * weights.

  It costs no communication and removes most of the noise that compression leaves in the weights. Training does not see
  it: clients start from the server's weights. It starts with the first weights that it is given.

      average = MovingAverage(0.9)
      for data in …:
        state, metrics = process.next(state, data)
        average.update(state)
      average.weights.assign_weights_to(keras_model)

  Args:
    momentum: from 0 to below 1; with 0, `weights` are the latest.
    weights: an average that was saved, to go on from; None to begin anew.

  Attributes:
    weights: the average, in the structure of the weights that were given, with arrays of NumPy of their dtypes; None
      before the first ones. Numbers without fractions, such as counters, are the latest. What was read stays as it is:
      an update makes new arrays.

  Raises:
    ProcessError: it is no such momentum, or these are no weights.
  """

  def __init__(self, momentum: float, weights: Any = None) -> None:
    self._momentum = checks.number('momentum', momentum, ProcessError, least=0, below=1)
    self.weights = None if weights is None else _mapped(np.array, weights)

  def update(self, state_or_weights: Any) -> Any:
    """Takes in the weights of another round.

    Args:
      state_or_weights: state of a learning process with `global_model_weights`, as those of `tff.learning.algorithms`
        and of `tff_compress.build_fed_avg`; or weights, such as `tff.learning.models.ModelWeights`: arrays in tuples,
        lists and dicts.

    Returns:
      `weights`.

    Raises:
      ProcessError: they are no weights, or of another model than those before. The average is as it was.
    """
    weights = getattr(state_or_weights, 'global_model_weights', state_or_weights)
    if self.weights is None or not self._momentum:
      self.weights = _mapped(np.array, weights)
    else:
      self.weights = _mapped(self._averaged, weights, self.weights)
    return self.weights

  def _averaged(self, new, old):
    if new.shape != old.shape or new.dtype != old.dtype:
      raise ProcessError(f'an average of {old.dtype}{list(old.shape)} cannot take in {new.dtype}{list(new.shape)}: '
                         'make a new MovingAverage for another model.')
    if not np.issubdtype(new.dtype, np.inexact):
      return np.array(new)
    return np.asarray(old + new.dtype.type(1 - self._momentum) * (new - old))


def _mapped(function: Callable[..., np.ndarray], weights: Any, *others: Any) -> Any:
  """The function's results for the arrays of `weights` and those of `others` that stand at the same places, in the
  structure of `weights`."""
  kind: Any = type(weights)
  if isinstance(weights, Mapping):
    keys = list(weights)
    _check(all(isinstance(other, Mapping) and list(other) == keys for other in others))
    return kind((key, _mapped(function, weights[key], *(other[key] for other in others))) for key in keys)
  if isinstance(weights, (tuple, list)):
    _check(all(isinstance(other, (tuple, list)) and len(other) == len(weights) for other in others))
    members = [_mapped(function, *members) for members in zip(weights, *others)]
    return kind(*members) if hasattr(weights, '_fields') else kind(members)
  array = np.asarray(weights)
  if array.dtype.hasobject or array.dtype.kind in 'US':
    raise ProcessError('an average takes the state of a learning process, or weights as arrays in tuples, lists and '
                       f'dicts, not {kind.__name__}.')
  return function(array, *others)


def _check(alike):
  if not alike:
    raise ProcessError('these weights have another structure than the average: make a new MovingAverage for another '
                       'model.')
