"""How updates and models travel: the uplink and downlink that `federate` is given, and the process they make."""

import dataclasses
from typing import Any

import tensorflow as tf
import tensorflow_federated as tff

from tff_compress import codec as codec_lib
from tff_compress import processes
from tff_compress.aggregators import uplink as uplink_lib
from tff_compress.codec import defaults
from tff_compress.keras import learning
from tff_compress.keras.blueprint import Blueprint
from tff_compress.keras.errors import FederateError
from tff_compress.processes import needs
from tff_compress.processes.up import steps


class Links:
  """Uplink and downlink as `federate` is given them.

  Args:
    uplink: codec, published method or None, or a weighted aggregation factory of TFF.
    downlink: codec or `Changes`; None for what the uplink's method brings, otherwise float32.

  Attributes:
    method: the uplink's `tff_compress.processes.methods.Method`; None for an aggregation factory of TFF.
    downlink: `Codec` or `Changes`; None where the method settles both ways.

  Raises:
    FederateError: they do not go together.
    CodecError, ProcessError: one is not valid.
  """

  def __init__(self, uplink: Any, downlink: Any):
    self._factory = uplink if isinstance(uplink, tff.aggregators.WeightedAggregationFactory) else None
    self.method = None
    if self._factory is None:
      if uplink is None or uplink == defaults.UNNAMED:
        uplink = 'float32' if uplink is None or downlink is not None else defaults.BOTH_WAYS
      self.method = processes.method(str(uplink) if isinstance(uplink, codec_lib.Codec) else uplink)
    self._downlink = downlink
    self._set()

  def _set(self):
    """Sets what follows from the method."""
    downlink, own = self._downlink, self.method is not None and self.method.downlink
    if own and downlink is not None:
      raise FederateError(f'the uplink {str(self.method)!r} has a downlink of its own: leave downlink out, or choose '
                          'another uplink.')
    self.downlink: Any = None
    if self.method is None or not self.method.both_ways:
      self.downlink = processes.Changes.of(own or ('float32' if downlink is None else downlink))
    self._sends_changes = isinstance(self.downlink, processes.Changes)
    if self._sends_changes and self._factory is not None:
      raise FederateError('a downlink of changes needs an uplink of this package, not an aggregation factory.')
    self._remembers = self._sends_changes or self.method is not None and (
        not self.method.codec_suffices or self.method.error_feedback is not None)

  def settle(self, facts: needs.Facts, uniform: bool) -> None:
    """Settles the method for what is known of the run; may be called again with more.

    Raises:
      FederateError, ProcessError: the method needs something else.
    """
    if self.method is not None:
      self.method = self.method.settled(facts)
      self._set()
      facts = dataclasses.replace(facts, sends_changes=self._sends_changes,
                                  equal_weights=uniform or self.method.weighting == 'uniform')
      needs.check(self.method.needs, facts, f'the uplink {str(self.method)!r}', FederateError)

  def check_rules(self, blueprint: Blueprint) -> None:
    """Raises CodecError if the uplink has no rule for one of the model's variables, before a worker is started."""
    if self.method is not None:
      for _, codec in steps.schedule(self.method.uplink):
        codec.plan(blueprint.trainable_spec)

  def process(self, blueprint: Blueprint, model: tf.keras.Model, uniform: bool, seed: int | None,
              **others: Any) -> tff.learning.templates.LearningProcess | processes.Runner:
    """What `training.Trainer` runs; `others` are arguments of `learning.build`."""
    if self.method is None or not self._remembers:
      aggregator = self._factory if self.method is None else uplink_lib(self.method.uplink, seed=seed,
                                                                        spec=blueprint.trainable_spec)
      return learning.build(blueprint, aggregator=aggregator, downlink=self.downlink, uniform=uniform, seed=seed,
                            **others)
    arguments = learning.method_arguments(self.method, model, self.downlink, uniform)
    return processes.Runner(learning.build_with_memory(blueprint, self.method, arguments, seed=seed, **others))
