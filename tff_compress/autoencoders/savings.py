"""When an autoencoder pays: its decoder is sent once, and every message after it is smaller.

Source: Chandar et al. 2021, "Communication optimization in large scale federated learning using autoencoder compressed
weight updates", equations 4-6, which count values (of 4 bytes). The functions take any unit, as long as it is the same
for all. `measured` applies them to the bytes that were measured, in both directions, which the paper does not.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any


def dense_parameters(values: int, latent: int) -> int:
  """Parameters of the published autoencoder d - z - d, with biases: 2 d z + z + d."""
  return 2 * values * latent + latent + values


def decoder_parameters(values: int, latent: int) -> int:
  """Parameters of its decoder: d z + d. The paper counts half of the autoencoder's, which is less by (d - z) / 2."""
  return values * latent + values


def savings_ratio(plain: float, sent: float, messages: float, cost: float) -> float:
  """What all messages would take over what they take (equation 4): plain * messages / (sent * messages + cost).

  Args:
    plain: size of a message without the autoencoder.
    sent: size of one with it.
    messages: their number, rounds times clients.
    cost: size of all that was sent for the autoencoder itself, once: decoders times the size of one (equations 5 and
      6).
  """
  return plain * messages / (sent * messages + cost)


def break_even(plain: float, sent: float, cost: float) -> float:
  """Messages until the autoencoder has saved what it cost: cost / (plain - sent); infinite if never."""
  return cost / (plain - sent) if plain > sent else float('inf')


@dataclasses.dataclass(frozen=True)
class Savings:
  """What rounds and pre-passes took, in bytes.

  Attributes:
    plain: what all rounds would take as float32, without any framing.
    sent: what they took.
    cost: what all pre-passes took.
    rounds: number of rounds.
  """
  plain: int
  sent: int
  cost: int
  rounds: int

  @property
  def ratio(self) -> float:
    """plain / (sent + cost); infinite where nothing was sent."""
    return savings_ratio(self.plain, self.sent, 1, self.cost) if self.sent + self.cost else float('inf')

  @property
  def break_even(self) -> float:
    """Rounds like these until the pre-passes have paid, infinite if they never do."""
    return break_even(self.plain / self.rounds, self.sent / self.rounds, self.cost) if self.rounds else float('inf')


def measured(prepasses: Sequence[Mapping[str, Any]], rounds: Sequence[Mapping[str, Any]], update_bytes: int,
             model_bytes: int) -> dict[str, Savings]:
  """`Savings` of a run, from its measurements.

  Args:
    prepasses: what `tff_compress.aggregators.communication` finds in the metrics of each pre-pass: the first, and those
      in which clients learned again.
    rounds: the same of each round.
    update_bytes, model_bytes: what an update and a model take as float32.

  Returns:
    {'uplink': `Savings`, 'downlink': `Savings`, 'both': `Savings`}
  """
  found = {}
  for direction, size in (('uplink', update_bytes), ('downlink', model_bytes)):
    total = lambda all_of, field, direction=direction: sum(one[f'{direction}_{field}'] for one in all_of)
    found[direction] = Savings(size * total(rounds, 'clients'), total(rounds, 'bytes'), total(prepasses, 'bytes'),
                               len(rounds))
  up, down = found['uplink'], found['downlink']
  found['both'] = Savings(up.plain + down.plain, up.sent + down.sent, up.cost + down.cost, len(rounds))
  return found
