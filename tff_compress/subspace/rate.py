"""How many coordinates a round keeps: a public rule, of constants and of what messages to all carry anyway.

Server and clients compute the same k from the energies of the changes so far, so nothing is signalled. The arithmetic
is double precision, one operation at a time: the same on every runtime.

A round that sends z with k of P coordinates adds noise of energy ||z||^2 (1 - k / P) to the model. `Rate` spreads a
budget of such noise, in units of the energy ||W_0||^2 of the first weights, over the rounds that are left.
"""

import collections
from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np

from tff_compress.codec import checks
from tff_compress.codec.errors import CodecError
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops
from tff_compress.codec.table import Scalar
from tff_compress.subspace.coordinates import Coordinates

FLOOR = 512
"""Fewer coordinates than this make training diverge, whatever the model's size."""

MOMENTUM = 0.8
"""Of the moving average of the signal's energy."""

ALARM = 10.0
"""Training diverges where ||W||^2 is above this many times ||W_0||^2."""


@dataclasses.dataclass(frozen=True)
class Rate:
  """The rule.

  Attributes:
    noise: budget of noise for all rounds, in units of ||W_0||^2; None: every round keeps `first`.
    rounds: how many rounds the budget is for.
    first: share of the coordinates that is kept while nothing is known of the signal.
    most: largest share.
    floor: least number of coordinates.
  """
  noise: float | None = 1.5
  rounds: int = 300
  first: float = 0.02
  most: float = 0.1
  floor: int = FLOOR

  def __post_init__(self) -> None:
    checks.number('noise', self.noise, CodecError, above=0, most=1e6, optional=True)
    checks.whole_number('rounds', self.rounds, CodecError, least=1, most=2**31 - 1)
    checks.number('first', self.first, CodecError, above=0, most=1)
    checks.number('most', self.most, CodecError, above=0, most=1)
    checks.whole_number('floor', self.floor, CodecError, least=1, most=2**31 - 1)

  def begin(self, xp: Ops, energy: Array) -> collections.OrderedDict[str, Array]:
    """What the rule remembers, before the first round: OrderedDict of float64 scalars.

    Args:
      xp: operation table.
      energy: float64 scalar, ||W_0||^2.
    """
    return collections.OrderedDict(energy=energy, signal=_number(xp, 0), spent=_number(xp, 0))

  def largest(self, space: Coordinates) -> int:
    """No round's k is above this."""
    units = max(self.first, self.most if self.noise is not None else 0) * space.padded // space.unit
    return max(int(units), 1, min(-(-self.floor // space.unit), space.padded // space.unit)) * space.unit

  def kept(self, xp: Ops, space: Coordinates, state: Mapping[str, Any], number: Scalar) -> Scalar:
    """k of round `number`: int32 scalar, a multiple of the coordinates' unit."""
    units = lambda values: max(1, int(values) // space.unit)
    floor = min(-(-self.floor // space.unit), units(space.padded))
    first = max(floor, units(self.first * space.padded))
    if self.noise is None:
      return xp.constant(first * space.unit, np.int32)
    left = xp.cast(xp.maximum(xp.constant(self.rounds, np.int32) - number, xp.constant(1, np.int32)), np.float64)
    budget = state['energy'] * _number(xp, self.noise) - state['spent']
    wanted = state['signal'] * left * _number(xp, space.padded / space.unit)
    most = xp.constant(max(floor, units(self.most * space.padded)), np.float64)
    # Where the budget is used up, as many as are allowed.
    enough = budget * most > wanted
    found = xp.where(enough, wanted / xp.maximum(budget, _number(xp, 1e-300)), most)
    chosen = xp.cast(xp.maximum(xp.minimum(found, most), _number(xp, floor)), np.int32)
    known = state['signal'] > _number(xp, 0)
    return xp.where(known, chosen, xp.constant(first, np.int32)) * xp.constant(space.unit, np.int32)

  def after(self, xp: Ops, space: Coordinates, state: Mapping[str, Any], kept: Scalar,
            sent: Array) -> collections.OrderedDict[str, Array]:
    """What the rule remembers after a round.

    Args:
      xp: operation table.
      space: `Coordinates`.
      state: as `begin` gives it.
      kept: k of the round.
      sent: float64 scalar, ||z||^2 of what was sent.
    """
    share = xp.cast(kept, np.float64) * _number(xp, 1 / space.padded)
    signal = sent * share
    averaged = state['signal'] * _number(xp, MOMENTUM) + signal * _number(xp, 1 - MOMENTUM)
    known = state['signal'] > _number(xp, 0)
    return collections.OrderedDict(state, signal=xp.where(known, averaged, signal),
                                   spent=state['spent'] + sent * (_number(xp, 1) - share))


def _number(xp: Ops, value: float) -> Array:
  """A constant as a float64 scalar that graphs do not combine with others."""
  return xp.opaque(xp.constant(value, np.float64))
