"""What `build_subspace_fed_avg` is given, checked."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import tensorflow_federated as tff

from tff_compress import codec as codec_lib
from tff_compress.codec import checks
from tff_compress.codec import Codec
from tff_compress.codec import meaning
from tff_compress.processes import options
from tff_compress.processes.errors import ProcessError
from tff_compress.processes.subspace import sgd
from tff_compress.subspace import forms
from tff_compress.subspace import levels
from tff_compress.subspace import placement
from tff_compress.subspace import whole_numbers
from tff_compress.subspace.rate import Rate
from tff_compress.subspace.sums import SUMS
from tff_compress.timeline.start import Start

SEED = 'seed'
"""The `start` of first weights that are drawn from the session's seed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(options.Options):
  """Arguments of `build_subspace_fed_avg`, where they go together.

  Raises:
    ProcessError, CodecError: they do not.
  """
  rate: Rate
  uplink_bits: int | None
  downlink_bits: int | None
  form: str
  hold: int | None
  sums: str
  placement_bits: int | None
  start: Any
  key_frames: Any

  def __post_init__(self):
    super().__post_init__()
    if not isinstance(self.rate, Rate):
      raise ProcessError(f'rate must be a Rate, not {checks.shown(self.rate)}.')
    if self.sums not in SUMS:
      raise ProcessError(f"sums must be 'private' or 'integers', not {checks.shown(self.sums)}.")
    sums = SUMS[self.sums]
    checks.whole_number(f'uplink_bits of {self.sums} sums', self.uplink_bits, ProcessError, least=sums.least_bits,
                        most=sums.most_bits, optional=not sums.common_scale)
    checks.whole_number('downlink_bits', self.downlink_bits, ProcessError, least=1, most=levels.MOST_BITS,
                        optional=True)
    if sums.common_scale and self.client_weighting is not tff.learning.ClientWeighting.UNIFORM:
      raise ProcessError("sums='integers' adds whole numbers of clients that all count alike: pass "
                         "client_weighting=tff.learning.ClientWeighting.UNIFORM, or sums='private'.")
    if self.form not in forms.NAMES:
      raise ProcessError(f"form must be 'round', 'block' or 'fixed', not {checks.shown(self.form)}.")
    if self.placement_bits is None:
      object.__setattr__(self, 'placement_bits', placement.BITS if self.form == 'fixed' else placement.LEAST_BITS)
    checks.whole_number('placement_bits', self.placement_bits, ProcessError, least=placement.LEAST_BITS,
                        most=whole_numbers.MOST_BITS)
    if self.form == 'block' and self.momentum:
      # A velocity is not in the coordinates of the next block.
      if self.hold not in (None, 1):
        raise ProcessError('hold is for a server without momentum, whose velocity would have to go from one subspace '
                           "to the next: leave hold out, or use form='fixed'.")
      object.__setattr__(self, 'form', 'round')
    checks.whole_number('hold', self.hold, ProcessError, least=1, most=10**6, optional=True)
    if isinstance(self.start, str) and self.start != SEED:
      object.__setattr__(self, 'start', meaning.of_whole_models(self.start, 'choose another start'))
    if self.start != SEED and not isinstance(self.start, (Codec, Start)):
      raise ProcessError(f"start must be 'seed', a Start or a codec, not {checks.shown(self.start)}.")
    if self.key_frames is not None:
      object.__setattr__(self, 'key_frames', meaning.of_whole_models(self.key_frames, 'choose another codec'))
    self._server  # noqa: B018 - refused here

  @property
  def feedback(self):
    return None

  @property
  def learning_rate(self) -> float:
    return self._server[0]

  @property
  def momentum(self) -> float:
    return self._server[1]

  @functools.cached_property
  def _server(self) -> tuple[float, float]:
    """(learning rate, momentum) of the server's optimizer."""
    optimizer = self.server_optimizer_fn or tff.learning.optimizers.build_sgdm(1.0)
    if not isinstance(optimizer, tff.learning.optimizers.Optimizer):
      raise ProcessError(f'server_optimizer_fn must be a tff.learning.optimizers.Optimizer, not '
                         f'{checks.shown(optimizer)}.')
    constants = sgd.constants(optimizer)
    if constants is None:
      name = type(optimizer).__name__.lstrip('_')
      raise ProcessError(
          f'the server optimizer {name} moves each weight by a rule of its own, which clients that receive a sum in a '
          'few coordinates cannot follow: use tff.learning.optimizers.build_sgdm, with momentum if you like.')
    return constants

  @property
  def first(self) -> Codec:
    """The codec of a first model that is not drawn from a seed."""
    return self.start if isinstance(self.start, Codec) else codec_lib('float32')
