"""CMFL: clients whose update runs against the others' keep it to themselves."""

import dataclasses
from typing import ClassVar

from tff_compress.processes.figures import Figure
from tff_compress.processes.methods import Method
from tff_compress.processes.methods import OfCodec
from tff_compress.processes.up.relevance import Relevance


@dataclasses.dataclass(frozen=True)
class Cmfl(Method):
  """A client uploads only if enough of its update's signs are those of the last global update.

  Attributes:
    threshold: share of signs that must agree, 0 … 1.
    decay: the threshold of round t, from 0, is threshold * decay^t.
    codec: of the updates that are sent: a preset or stage without parameters.
  """
  name: ClassVar[str] = 'cmfl'
  summary: ClassVar[str] = "CMFL: uploads whose signs run against the last global update's are skipped"
  source: ClassVar[str] = 'Wang et al. 2019'
  page: ClassVar[str] = 'methods/less-often.md'
  memory: ClassVar[str] = 'clients'
  figures: ClassVar[tuple[Figure, ...]] = (
      Figure('uplink_skipped', 'Clients that sent nothing.', place=('aggregator', 'uplink_skipped')),)
  examples: ClassVar[tuple] = ('', 'threshold=0.6,decay=0.9,codec=int8')

  threshold: float = 0.8
  decay: float = 0.99
  codec: str = 'float32'

  def check(self):
    self.relevance()

  @property
  def uplink(self):
    return self.codec

  @property
  def error_feedback(self):
    return OfCodec(self.codec).error_feedback

  def relevance(self):
    """`Relevance`."""
    return Relevance(self.threshold, self.decay)

  def other_arguments(self, model):
    return {'relevance': self.relevance()}
