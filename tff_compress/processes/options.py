"""What every kind of process is given, checked."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
from typing import Any

import tensorflow_federated as tff

from tff_compress.aggregators.codec_sum import checked_seed
from tff_compress.processes import needs as needs_lib
from tff_compress.processes.errors import ProcessError
from tff_compress.processes.protocols import ClientMemory


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
  """What every kind of process is given; `build_fed_avg` says what the arguments are.

  Attributes:
    seed: session seed, drawn where none was given.
  """
  model_fn: Callable[[], Any]
  client_optimizer_fn: tff.learning.optimizers.Optimizer | None
  server_optimizer_fn: tff.learning.optimizers.Optimizer | None
  client_weighting: tff.learning.ClientWeighting
  metrics_aggregator: Callable[..., Any] | None
  seed: int | None
  spec: Any
  needs: Sequence[needs_lib.Need]

  def __post_init__(self):
    object.__setattr__(self, 'seed', checked_seed(self.seed))
    object.__setattr__(self, 'needs', tuple(self.needs))
    if not callable(self.model_fn) or isinstance(self.model_fn, tff.learning.models.FunctionalModel):
      raise ProcessError('model_fn must be a function that makes a tff.learning.models.VariableModel.')
    if not isinstance(self.client_weighting, tff.learning.ClientWeighting):
      raise ProcessError(f'client_weighting must be a tff.learning.ClientWeighting, not {self.client_weighting!r}.')

  @property
  def feedback(self) -> ClientMemory | None:
    """What clients remember of their updates."""
    raise NotImplementedError

  @property
  def slots(self) -> tuple[str, ...]:
    """Names of what clients remember of their updates."""
    return self.feedback.slots if self.feedback else ()

  def check_needs(self, sends_changes: bool) -> None:
    """Raises ProcessError where something is not met that `needs` asks for."""
    facts = needs_lib.Facts(sends_changes=sends_changes,
                            equal_weights=self.client_weighting is tff.learning.ClientWeighting.UNIFORM)
    needs_lib.check(self.needs, facts, 'this process', ProcessError)
