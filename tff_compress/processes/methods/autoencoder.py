"""Autoencoders that clients learn in a pre-pass."""

import dataclasses
from typing import ClassVar

from tff_compress import autoencoders
from tff_compress.codec import stage as stage_lib
from tff_compress.codec.transforms.autoencoder import COSINE
from tff_compress.processes.errors import ProcessError
from tff_compress.processes.methods import Method
from tff_compress.processes.methods import OfCodec


@dataclasses.dataclass(frozen=True)
class AutoencoderMethod(Method):
  """Clients train alone before the first round, learn an autoencoder from what they saw, and send latent values from then on.

  Attributes:
    latent: values that a piece becomes.
    length: values of a piece; 0: all values are one piece, as published.
    architecture: 'linear', principal components; 'dense', one hidden layer, as published; or 'convolutional'.
    bits: of a latent value, before entropy coding.
    target: what is encoded: 'delta', what training changed; or 'weights', the trained weights, as published.
    snapshots: how often a client goes over its data in the pre-pass; at least 2.
    epochs: of the autoencoder's own training; not used for 'linear'.
    fallback: codec of updates that the autoencoder does not fit: a preset or stage without parameters.
    tolerance: largest ||decoded - x|| / ||x|| that is sent.
  """
  name: ClassVar[str] = 'autoencoder-prepass'
  summary: ClassVar[str] = 'autoencoders that clients learn in a pre-pass; a fallback where they do not fit'
  source: ClassVar[str] = 'Chandar et al. 2021'
  page: ClassVar[str] = 'methods/autoencoders.md'
  memory: ClassVar[str] = 'clients, server'
  whole: ClassVar[bool] = True
  examples: ClassVar[tuple] = ('', 'latent=8,length=64,snapshots=4,fallback=int8')

  latent: int = 32
  length: int = 1024
  architecture: str = stage_lib.choice('linear', 'dense', 'convolutional')
  bits: int = 8
  target: str = stage_lib.choice('delta', 'weights')
  snapshots: int = 8
  epochs: int = 30
  fallback: str = 'drive'
  tolerance: float = 0.3

  def check(self):
    for name, least in (('snapshots', 2), ('epochs', 1)):
      if not least <= getattr(self, name) <= 10**6:
        raise ProcessError(f'{self.name}: {name} must be a whole number from {least} to 10^6, not {getattr(self, name)}.')
    if not 0 <= self.tolerance < float('inf'):
      raise ProcessError(f'{self.name}: tolerance must be a finite number of at least 0, not {self.tolerance}.')
    if OfCodec(self.fallback).error_feedback is not None:
      raise ProcessError(f'{self.name}: {self.fallback} needs error feedback, which a fallback has not: choose another codec.')
    if self.length:
      getattr(autoencoders, self.architecture)(self.length, self.latent)

  @property
  def uplink(self):
    return self._codec('')

  @property
  def measured(self):
    return self._codec(f',weights={COSINE}')

  def _codec(self, weights):
    return f'concat | autoencoder:{self.latent},length={self.length}{weights} | uniform:bits={self.bits} | rans'

  @property
  def prepass(self):
    return 'groups'

  def arguments(self, model=None):
    return {'uplink': self.uplink, 'architecture': self.architecture, 'target': self.target, 'snapshots': self.snapshots,
            'learning_epochs': self.epochs, 'fallback': self.fallback, 'tolerance': self.tolerance}

  def build(self, model_fn, *, error_feedback=None, **arguments):
    del error_feedback
    from tff_compress.processes.autoencoder import build_autoencoder_fed_avg  # pylint: disable=g-import-not-at-top
    return build_autoencoder_fed_avg(model_fn, **arguments)
