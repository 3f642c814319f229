"""How many coordinates a round keeps: a public rule, of constants and of what messages to all carry anyway.

Server and clients compute the same k from the energies of the changes so far, so nothing is signalled. The arithmetic
is double precision, one operation at a time: the same on every runtime.

A change that sends z with k of P coordinates adds noise of energy ||z||^2 (1 - k / P) to the model, of which the signal
has ||z||^2 k / P. There are three rules:

    share    k is a share of P
    signal   k = signal P sqrt((t + 10) q / ||W_0||^2) in round t, q the signal's energy per round since the change
             before the last: large updates make large noise, which later ones have less time to make good. It needs not
             know how many rounds there will be
    noise    a budget of noise, in units of ||W_0||^2, is spread evenly over the rounds that are left
"""

import collections
from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np

from tff_compress.codec import checks
from tff_compress.codec import floats
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

LARGEST_ROUNDS = {0: 2.5, 5: 0.75}
"""{first round that it is for: how many times ||W_0||^2 a round may move the model by, as ||z||^2}. Runs that came near
float32 moved it by at most 1.9, and 0.6 from round 5 on; where they diverged it grew."""

SIGNAL = 0.3
"""Factor of the rule for the signal that came within about 0.3 points of float32 on the tasks of
docs/methods/subspace.md."""

MOST = 0.3
"""Largest share of the coordinates under the rule for the signal. At a tenth, a small CNN at its best learning rate
wanted more."""

STATE = ('energy', 'signal', 'spent', 'last', 'since')
"""What a rule remembers: ||W_0||^2; the signal's energy, a moving average over changes; that of all noise; the signal's
energy of the last change; and the first round that it is for."""


@dataclasses.dataclass(frozen=True)
class Rate:
  """The rule.

  Attributes:
    noise: budget of noise for all rounds, in units of ||W_0||^2; None: another rule.
    rounds: how many rounds the budget is for.
    signal: factor of the rule for the signal, in place of a budget; None for both: every round keeps `first`.
    first: share of the coordinates that is kept while nothing is known of the signal.
    most: largest share.
    floor: least number of coordinates.
  """
  noise: float | None = 1.5
  rounds: int = 300
  first: float = 0.02
  most: float = 0.1
  floor: int = FLOOR
  signal: float | None = None

  def __post_init__(self) -> None:
    checks.number('noise', self.noise, CodecError, above=0, most=1e6, optional=True)
    checks.whole_number('rounds', self.rounds, CodecError, least=1, most=2**31 - 1)
    checks.number('first', self.first, CodecError, above=0, most=1)
    checks.number('most', self.most, CodecError, above=0, most=1)
    checks.number('signal', self.signal, CodecError, above=0, most=1e6, optional=True)
    if self.signal is not None and self.noise is not None:
      raise CodecError('noise and signal are two rules: give one, and None for the other.')
    checks.whole_number('floor', self.floor, CodecError, least=1, most=2**31 - 1)

  def begin(self, xp: Ops, energy: Array) -> collections.OrderedDict[str, Array]:
    """What the rule remembers, before the first round: OrderedDict of float64 scalars.

    Args:
      xp: operation table.
      energy: float64 scalar, ||W_0||^2.
    """
    names = STATE[1:]
    return collections.OrderedDict(energy=energy, **{name: _number(xp, 0) for name in names})

  @property
  def _is_constant(self) -> bool:
    return self.noise is None and self.signal is None

  def largest(self, space: Coordinates) -> int:
    """No round's k is above this."""
    units = max(self.first, 0 if self._is_constant else self.most) * space.padded // space.unit
    return max(int(units), 1, min(-(-self.floor // space.unit), space.padded // space.unit)) * space.unit

  def kept(self, xp: Ops, space: Coordinates, state: Mapping[str, Any], number: Scalar) -> Scalar:
    """k of round `number`: int32 scalar, a multiple of the coordinates' unit."""
    units = lambda values: max(1, int(values) // space.unit)
    floor = min(-(-self.floor // space.unit), units(space.padded))
    first = max(floor, units(self.first * space.padded))
    if self._is_constant:
      return xp.constant(first * space.unit, np.int32)
    most = xp.constant(max(floor, units(self.most * space.padded)), np.float64)
    known = state['signal'] > _number(xp, 0)
    wanted = self._for_signal(xp, space, state, number) if self.noise is None else (
        self._for_budget(xp, space, state, number, most))
    chosen = xp.cast(xp.maximum(xp.minimum(wanted, most), _number(xp, floor)), np.int32)
    return xp.where(known, chosen, xp.constant(first, np.int32)) * xp.constant(space.unit, np.int32)

  def _for_signal(self, xp: Ops, space: Coordinates, state: Mapping[str, Any], number: Scalar) -> Array:
    """float64 scalar: k in units, by the rule for the signal."""
    assert self.signal is not None
    rounds = xp.maximum(xp.cast(number, np.float64) - state['since'], _number(xp, 1))
    each = state['last'] / rounds
    ratio = (xp.cast(number, np.float64) + _number(xp, 10)) * each / xp.maximum(state['energy'], _number(xp, 1e-300))
    # A square root of single precision is defined to the last bit, and precise enough.
    single = xp.cast(xp.minimum(ratio, _number(xp, 2.0**50)), np.float32)
    root = floats.square_root(xp, xp.reshape(single, [1]))[0]
    return xp.cast(root, np.float64) * _number(xp, self.signal * space.padded / space.unit)

  def _for_budget(self, xp: Ops, space: Coordinates, state: Mapping[str, Any], number: Scalar, most: Array) -> Array:
    """float64 scalar: k in units, by the rule for a budget."""
    assert self.noise is not None
    left = xp.cast(xp.maximum(xp.constant(self.rounds, np.int32) - number, xp.constant(1, np.int32)), np.float64)
    budget = state['energy'] * _number(xp, self.noise) - state['spent']
    wanted = state['signal'] * left * _number(xp, space.padded / space.unit)
    # Where the budget is used up, as many as are allowed.
    enough = budget * most > wanted
    return xp.where(enough, wanted / xp.maximum(budget, _number(xp, 1e-300)), most)

  def after(self, xp: Ops, space: Coordinates, state: Mapping[str, Any], kept: Scalar, sent: Array,
            number: Scalar) -> collections.OrderedDict[str, Array]:
    """What the rule remembers after a change.

    Args:
      xp: operation table.
      space: `Coordinates`.
      state: as `begin` gives it.
      kept: k of the round.
      sent: float64 scalar, ||z||^2 of what was sent.
      number: int32 scalar, the first round that the change is for.
    """
    share = xp.cast(kept, np.float64) * _number(xp, 1 / space.padded)
    signal = sent * share
    averaged = state['signal'] * _number(xp, MOMENTUM) + signal * _number(xp, 1 - MOMENTUM)
    known = state['signal'] > _number(xp, 0)
    spent = state['spent'] + sent * (_number(xp, 1) - share)
    return collections.OrderedDict(state, signal=xp.where(known, averaged, signal), spent=spent, last=signal,
                                   since=xp.cast(number, np.float64))


def _number(xp: Ops, value: float) -> Array:
  """A constant as a float64 scalar that graphs do not combine with others."""
  return xp.opaque(xp.constant(value, np.float64))
