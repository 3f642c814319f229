"""How many coordinates a run can keep in all its rounds for a number of bytes, both ways: `coordinates`.

Where n of N clients are drawn for each round, what a client has yet to receive when a round begins has an expectation
D that follows from that of the round before: of all clients a part n / N received it, and everybody's grows by what the
round ended with. The same holds for the number of rounds that clients missed, which decides how long blocks are and
how many bits a coordinate has. So the expected bytes of a run are played through, round by round, without one.
"""

import dataclasses

import numpy as np

from tff_compress.codec.ops import numpy_ops
from tff_compress.subspace import absence
from tff_compress.subspace import placement
from tff_compress.subspace.block_form import BlockForm
from tff_compress.subspace.session import CHANGE_OVERHEAD
from tff_compress.subspace.session import UPLOAD_OVERHEAD
from tff_compress.timeline import history

SPARED = 0.02
"""Of a budget, what is left for chance: how often each client is drawn."""

_COUNT = 2  # Bytes of a record's count, for records of 128 … 16,383 bytes.


@dataclasses.dataclass(frozen=True)
class Participation:
  """Who takes part in a run.

  Attributes:
    rounds: how many there are.
    clients: how many there are.
    per_round: how many of them are drawn for each round.
  """
  rounds: int
  clients: int
  per_round: int


def expected_bytes(who: Participation, first: int, bits: int = 0) -> tuple[float, float]:
  """The bytes that all clients send and receive in a run with blocks, to be expected.

  Args:
    who: `Participation`.
    first: bytes of the record that gives the first model.
    bits: per coordinate of messages and changes; 0: by the rounds that clients miss.

  Returns:
    (bytes that do not depend on the number of coordinates, bytes per coordinate).
  """
  form, drawn = BlockForm(), who.per_round / who.clients
  # Of one client: what it has yet to receive, as (bytes, bytes per coordinate), and the rounds that it missed.
  waiting, missed = np.array([first + _COUNT, 0.0]), 0.0
  total, placed = np.zeros(2), np.zeros(2)
  gap, now, begun, length = np.float32(0), bits or absence.FEW_BITS, 0, 1
  for number in range(who.rounds):
    message = np.array([UPLOAD_OVERHEAD, now / 8])
    total += who.per_round * (waiting + placed + [history.HEADER_BYTES, 0] + message)
    gap = absence.after(numpy_ops, gap, np.float32(missed), np.int32(number))
    now = bits or int(absence.bits(numpy_ops, gap))
    waiting, missed = (1 - drawn) * waiting, (1 - drawn) * missed + 1
    held = number + 1 - begun
    if held < length:
      placed = np.array([placement.HEAD + 1 + _COUNT, placement.LEAST_BITS / 8])
    else:
      waiting = waiting + [CHANGE_OVERHEAD + _COUNT + held - 1, now / 8]
      placed, begun = np.zeros(2), number + 1
      length = int(form.length(numpy_ops, gap, np.int32(begun))[0])
  return float(total[0]), float(total[1])


def coordinates(total: int, who: Participation, first: int, bits: int = 0) -> int:
  """The number of coordinates whose expected bytes are a budget of `total` less `SPARED` of it; 0 or less where there
  is none. Other arguments as for `expected_bytes`."""
  fixed, each = expected_bytes(who, first, bits)
  return int(((1 - SPARED) * total - fixed) // each)
