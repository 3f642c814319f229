"""Federated dropout: smaller models down and up."""

import dataclasses
from typing import ClassVar

from tff_compress.codec import checks
from tff_compress.processes.errors import ProcessError
from tff_compress.processes.methods import Method
from tff_compress.processes.methods import OfCodec


@dataclasses.dataclass(frozen=True)
class FederatedDropoutMethod(Method):
  """Each client receives, trains and sends a model with fewer units in its hidden layers, others in every round.

  Attributes:
    keep: share of the units of a hidden layer that is kept, above 0, at most 1.
    codec: of the updates: a preset or stage without parameters that needs no error feedback.
  """
  name: ClassVar[str] = 'federated-dropout'
  summary: ClassVar[str] = 'federated dropout: clients receive, train and send models with fewer units'
  source: ClassVar[str] = 'Caldas et al. 2018'
  page: ClassVar[str] = 'methods/federated-dropout.md'
  examples: ClassVar[tuple] = ('', 'keep=0.5,codec=float16')

  keep: float = 0.75
  codec: str = 'float32'

  def check(self):
    checks.number('federated-dropout: keep', self.keep, ProcessError, above=0, most=1)
    if OfCodec(self.codec).error_feedback is not None:
      raise ProcessError(f'federated-dropout: {self.codec} needs error feedback, which does not go with other units in '
                         'every round: choose another codec.')

  @property
  def uplink(self):
    return self.codec

  def other_arguments(self, model):
    from tff_compress.processes.confinement.federated_dropout import FederatedDropout
    if model is None:
      raise ProcessError('federated-dropout has to know the Keras model that clients train: give arguments(model).')
    return {'structured': FederatedDropout(model, self.keep)}
