"""What a run must fulfil for a method to be what it is.

A method says it (`Method.needs`), and whatever sets up or runs rounds asks here with as much as it knows: a
`RunConfig`, `keras.federate`, `build_fed_avg` and its like, and a `Runner` in every round.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
import dataclasses


@dataclasses.dataclass(frozen=True)
class Facts:
  """What is known of a run; None where it is not.

  Attributes:
    clients: how many there are.
    clients_per_round: how many of them take part in each round.
    sends_changes: whether the downlink sends what changed in the model, and not all of it.
    equal_weights: whether all clients weigh the same.
    rounds: how many there will be.
    server_sgd: whether the server's optimizer is SGD, with momentum or without.
    moving_statistics: whether the model has some, such as those of batch normalization.
  """
  clients: int | None = None
  clients_per_round: int | None = None
  sends_changes: bool | None = None
  equal_weights: bool | None = None
  rounds: int | None = None
  server_sgd: bool | None = None
  moving_statistics: bool | None = None


@dataclasses.dataclass(frozen=True)
class Need:
  """Something that a run must fulfil. Methods may have others than those below.

  Attributes:
    says: what is needed and what to do, to follow "the uplink 'ef21' needs".
    unmet: function of `Facts` that gives True where they say that it is not so.
    options: of `tff-compress run`, what meets it where the usual settings do not; '' where the method sees to it.
  """
  says: str
  unmet: Callable[[Facts], bool]
  options: str = ''


ALL_CLIENTS = Need(
    'all clients to take part in every round: choose as many clients per round as there are clients',
    lambda facts: None not in (facts.clients, facts.clients_per_round) and facts.clients != facts.clients_per_round,
    '--clients-per-round 20')
WHOLE_MODELS = Need('a downlink of the whole model: choose one that does not send changes',
                    lambda facts: facts.sends_changes is True)
EQUAL_WEIGHTS = Need("clients that all weigh the same: choose uniform weighting",
                     lambda facts: facts.equal_weights is False)


def check(needs: Iterable[Need], facts: Facts, who: str, error: type[Exception]) -> None:
  """Raises the error, of one sentence, for the first need that is not met.

  Args:
    needs: of a method or process.
    facts: what is known of the run.
    who: who needs it, to begin the sentence with.
    error: class of what is raised.
  """
  for need in needs:
    if need.unmet(facts):
      raise error(f'{who} needs {need.says}.')
