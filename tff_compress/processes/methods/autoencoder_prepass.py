"""Autoencoders that clients learn in a pre-pass."""

import dataclasses
import re
from typing import ClassVar

from tff_compress import autoencoders
from tff_compress.codec import checks
from tff_compress.codec import stage as stage_lib
from tff_compress.codec.transforms.autoencoder import COSINE
from tff_compress.processes import needs
from tff_compress.processes import prepass as prepass_lib
from tff_compress.processes.errors import ProcessError
from tff_compress.processes.figures import Figure
from tff_compress.processes.figures import Total
from tff_compress.processes.memories.error_feedback import ErrorFeedback
from tff_compress.processes.methods import Method
from tff_compress.processes.methods import OfCodec

FALLBACKS = Figure(
    'uplink_fallbacks', 'Clients that sent with the fallback, as the autoencoder did not fit.',
    place=('aggregator', 'uplink_fallbacks'), remark='{value} of {clients} clients with the fallback',
    heading='fallbacks', total_name='fallbacks',
    total=Total('fallbacks %', 130, 'The share of messages that the autoencoder did not fit. The page lists them by '
                'round.', '; fallbacks is the share of messages that the autoencoder did not fit', share=True))
DRIFT = Figure(
    'uplink_drift', '1 where so many clients sent with the fallback of late that those of the next round learn again.',
    place=('aggregator', 'uplink_drift'), asks=True)


@dataclasses.dataclass(frozen=True)
class AutoencoderMethod(Method):
  """Clients train alone before the first round, learn an autoencoder from what they saw, and send latent values then.

  Attributes:
    latent: values that a piece becomes.
    length: values of a piece; 0: all values are one piece, as published.
    order: in which values are cut into pieces: 'columns', units or filters together, or 'rows', as they lie in memory.
    least: variables with fewer values are sent as float16; 0: all are encoded.
    architecture: 'linear', principal components; 'dense', one hidden layer, as published; or 'convolutional'.
    bits: of a latent value, before it is coded.
    coder: 'huffman' or 'rans'; or 'pack', which is shorter for fewer than some 2,000 latent values, as it has no table.
    target: what is encoded: 'delta', what training changed; or 'weights', the trained weights, as published.
    snapshots: how often a client trains in the pre-pass; at least 2.
    steps: batches of each of these trainings; 0: all of the client's data.
    decoders: 'client', each client has its own; 'shared', all have one; or a number of groups of clients with one each.
    epochs: of the autoencoder's own training; not used for 'linear'.
    fallback: codec of updates that the autoencoder does not fit: a preset or stage without parameters.
    tolerance: largest ||decoded - x|| / ||x|| that is sent; 'none': whatever is better than sending nothing, and than
      the fallback where that takes no more bytes.
    feedback: 'yes': clients remember what is lost, and add it to their next update.
  """
  name: ClassVar[str] = 'autoencoder-prepass'
  summary: ClassVar[str] = 'autoencoders that clients learn in a pre-pass; a fallback where they do not fit'
  source: ClassVar[str] = 'Chandar et al. 2021'
  page: ClassVar[str] = 'methods/autoencoders.md'
  memory: ClassVar[str] = 'clients, server'
  needs: ClassVar[tuple] = (needs.WHOLE_MODELS,)
  figures: ClassVar[tuple[Figure, ...]] = (FALLBACKS, DRIFT, *prepass_lib.FIGURES)
  examples: ClassVar[tuple] = (
      '', 'latent=8,length=784,decoders=shared', 'latent=8,length=12,least=50,coder=pack,tolerance=0.9,feedback=yes')

  latent: int = 32
  length: int = 1024
  order: str = stage_lib.choice('columns', 'rows')
  least: int = 1000
  architecture: str = stage_lib.choice(*autoencoders.ARCHITECTURES)
  bits: int = 8
  coder: str = stage_lib.choice('huffman', 'rans', 'pack')
  target: str = stage_lib.choice('delta', 'weights')
  snapshots: int = 8
  steps: int = 0
  decoders: str = 'client'
  epochs: int = 30
  fallback: str = 'drive'
  tolerance: str = 'none'
  feedback: str = stage_lib.choice('no', 'yes')

  def check(self):
    for name, least in (('snapshots', 2), ('epochs', 1), ('steps', 0), ('least', 0)):
      checks.whole_number(f'{self.name}: {name}', getattr(self, name), ProcessError, least=least, most=10**6)
    if not re.fullmatch('client|shared|[1-9][0-9]{0,5}', self.decoders):
      raise ProcessError(f'{self.name}: decoders must be client, shared or a number of groups, not '
                         f'{checks.shown(self.decoders)}.')
    if self.tolerance != 'none' and not re.fullmatch(r'[0-9]{1,9}(\.[0-9]{1,9})?', self.tolerance):
      raise ProcessError(f'{self.name}: tolerance must be a number of at least 0 such as 0.3, or none, not '
                         f'{checks.shown(self.tolerance)}.')
    if self.feedback == 'yes' and self.target == 'weights':
      raise ProcessError(f"{self.name}: feedback=yes keeps what is lost of updates: use target=delta.")
    if self.feedback == 'no' and OfCodec(self.fallback).error_feedback is not None:
      raise ProcessError(f'{self.name}: {self.fallback} is meant for error feedback: give feedback=yes, or choose '
                         'another fallback.')
    if self.length:
      autoencoders.ARCHITECTURES[self.architecture](self.length, self.latent)

  @property
  def uplink(self):
    return self._codec('')

  @property
  def error_feedback(self):
    return ErrorFeedback() if self.feedback == 'yes' else None

  @property
  def codec_of_same_length(self):
    return self._codec(f',weights={COSINE}')

  def _codec(self, weights):
    stage = f'autoencoder:{self.latent},length={self.length},order={self.order}{weights}'
    learned = f'concat | {stage} | uniform:bits={self.bits} | {self.coder}'
    return f'size>={self.least} => {learned}; * => float16' if self.least else learned

  @property
  def prepass(self):
    return 'groups' if self.decoders == 'client' else 'together'

  def other_arguments(self, model):
    decoders = int(self.decoders) if self.decoders.isdigit() else self.decoders
    return {
        'architecture': self.architecture, 'target': self.target, 'snapshots': self.snapshots,
        'snapshot_steps': self.steps or None, 'decoders': decoders,
        'learning_epochs': self.epochs, 'fallback': self.fallback,
        'tolerance': None if self.tolerance == 'none' else float(self.tolerance)}

  def build(self, model_fn, **arguments):
    from tff_compress.processes.autoencoder.build import build_autoencoder_fed_avg
    return build_autoencoder_fed_avg(model_fn, **arguments)
