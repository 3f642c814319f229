"""What `build_autoencoder_fed_avg` is given, checked."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from absl import logging

from tff_compress.autoencoders import architectures
from tff_compress.autoencoders import savings
from tff_compress.autoencoders import training
from tff_compress.autoencoders.rule import LearnedRule
from tff_compress.codec import checks
from tff_compress.codec import Codec
from tff_compress.codec import meaning
from tff_compress.codec import Spec
from tff_compress.processes import options
from tff_compress.processes.errors import ProcessError
from tff_compress.processes.memories.error_feedback import ErrorFeedback
from tff_compress.processes.protocols import ClientMemory

LATENT = 32
"""Latent values of a piece by default."""
MAX_GROUPS = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(options.Options):
  """Arguments of `build_autoencoder_fed_avg`, where they go together.

  Raises:
    ProcessError, CodecError: they do not.
  """
  uplink: Any
  architecture: str
  target: str
  snapshots: int
  snapshot_steps: int | None
  decoders: str | int
  learning_epochs: int
  learning_rate: float
  fallback: Any
  tolerance: float | None
  error_feedback: Any
  downlink: Any

  def __post_init__(self):
    super().__post_init__()
    checks.one_of('target', self.target, training.TARGETS, ProcessError)
    checks.one_of('architecture', self.architecture, architectures.ARCHITECTURES, ProcessError)
    checks.whole_number('snapshots', self.snapshots, ProcessError, least=2)
    checks.whole_number('snapshot_steps', self.snapshot_steps, ProcessError, least=1, optional=True)
    checks.whole_number('learning_epochs', self.learning_epochs, ProcessError, least=1)
    if self.decoders not in ('client', 'shared') and not checks.is_whole_number(self.decoders, 1, MAX_GROUPS):
      raise ProcessError(f'decoders must be client, shared or a number of groups from 1 to {MAX_GROUPS}, not '
                         f'{checks.shown(self.decoders)}.')
    checks.number('tolerance', self.tolerance, ProcessError, least=0, optional=True)
    if self.error_feedback is None and self.target != 'delta':
      meaning.without_feedback(self.fallback, "use target='delta'")
    if self.feedback and self.target != 'delta':
      raise ProcessError("error feedback keeps what is lost of updates: use target='delta', or leave it out.")
    self.check_needs(sends_changes=False)

  @functools.cached_property
  def feedback(self) -> ClientMemory | None:
    return ErrorFeedback.of(self.error_feedback, self.fallback)

  @functools.cached_property
  def down(self) -> Codec:
    """The codec of the model as a whole."""
    return meaning.of_whole_models(self.downlink, 'choose another downlink')

  def rule(self, spec: Spec) -> LearnedRule:
    """The rule of the uplink with the autoencoder, for the `Spec` of the update."""
    rule = LearnedRule(default_uplink(spec.parameters) if self.uplink is None else self.uplink, spec)
    if rule.length > architectures.MAX_WHOLE:
      raise ProcessError(f'an autoencoder for pieces of {rule.length} values has about '
                         f'{2 * rule.length * rule.stage.latent:,} parameters: use one for shorter pieces, such as '
                         f'autoencoder:{rule.stage.latent},length={architectures.LENGTH}.')
    return rule


def default_uplink(values):
  """The uplink for a model of so many values, where none is given. Says where the published form would be too large."""
  latent = min(LATENT, max(1, values // 2))
  parameters = savings.dense_parameters(values, latent)
  if parameters <= architectures.MAX_PARAMETERS:
    # So few values are less than the table of an entropy coder.
    return f'concat | autoencoder:{latent} | uniform:bits=8 | pack'
  logging.warning(
      'The published autoencoder for all %s values at once would have %s parameters (%.0f MB), so pieces of %d values '
      'share one of %s parameters (%.1f MB).', f'{values:,}', f'{parameters:,}', parameters * 4e-6,
      architectures.LENGTH, f'{savings.dense_parameters(architectures.LENGTH, latent):,}',
      savings.dense_parameters(architectures.LENGTH, latent) * 4e-6)
  return f'concat | autoencoder:{latent},length={architectures.LENGTH} | uniform:bits=8 | huffman'
