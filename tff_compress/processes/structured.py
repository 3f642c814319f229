"""Structured updates: training that changes only the coordinates that will be sent.

The coordinates are those that the uplink's random mask keeps, drawn anew for every round and client. Nothing is lost by
sending them: the change elsewhere is exactly 0.

Source: Konecny et al. 2016, "Federated learning: strategies for improving communication efficiency", section 2.
"""

import dataclasses

import tensorflow as tf
import tensorflow_federated as tff

from tff_compress.codec.transforms.subsample import Subsample
from tff_compress.processes.errors import ProcessError

NORMALIZE = ('none', 'inverse_p')


@dataclasses.dataclass(frozen=True)
class Structured:
  """Confines training to the mask of an uplink that begins with `subsample`, such as 'subsample:1/16,key=client | float32'.

  Attributes:
    normalize: 'none': the server adds what clients changed, as in the paper: the mean moves 1/p as slowly where each client has
      a mask of its own with the share p. 'inverse_p': what arrives is multiplied by 1/p, as the codec does.
  """
  normalize: str = 'none'

  def __post_init__(self):
    if self.normalize not in NORMALIZE:
      raise ProcessError(f'structured: normalize must be {" or ".join(NORMALIZE)}, not {self.normalize!r}.')


def check_uplink(plan):
  """Raises ProcessError unless a codec's plan masks at least one variable, and masks before it does anything else."""
  firsts = [segment.pipeline.stages[:1] for segment in plan.segments]
  later = [stage for segment in plan.segments for stage in segment.pipeline.stages[1:]]
  if not any(isinstance(first[0], Subsample) for first in firsts if first) or any(isinstance(s, Subsample) for s in later):
    raise ProcessError("structured updates need an uplink that begins with a mask, such as 'subsample:1/16,key=client | "
                       "float32'.")


def scales(messages, spec, round_number, client):
  """What the codec makes of ones: list of tensors, 0 where a coordinate is not sent and d/k where it is."""
  ones = [tf.ones(tensor.shape) for tensor in spec.tensors]
  return messages.decode(messages.encode(ones, round_number, client))


class Masked(tff.learning.optimizers.Optimizer):
  """An optimizer whose steps leave weights outside a mask as they are, be it for gradient, momentum or decay.

  Args:
    optimizer: `tff.learning.optimizers.Optimizer`.
    masks: list of boolean tensors of the weights' shapes.
  """

  def __init__(self, optimizer, masks):
    self._optimizer, self._masks = optimizer, masks

  def initialize(self, specs):
    return self._optimizer.initialize(specs)

  def next(self, state, weights, gradients):
    state, moved = self._optimizer.next(state, weights, gradients)
    flat = [tf.where(mask, new, old) for mask, new, old in zip(self._masks, tf.nest.flatten(moved), tf.nest.flatten(weights))]
    return state, tf.nest.pack_sequence_as(weights, flat)

  def get_hparams(self, state):
    return self._optimizer.get_hparams(state)

  def set_hparams(self, state, hparams):
    return self._optimizer.set_hparams(state, hparams)
