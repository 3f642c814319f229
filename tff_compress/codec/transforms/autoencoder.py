"""Autoencoders: a few values that a learned encoder makes of many, and a learned decoder makes the many of."""

import dataclasses
import math
from typing import ClassVar

from tff_compress.codec import artefacts
from tff_compress.codec import network
from tff_compress.codec.errors import SpecError
from tff_compress.codec.keys import Draws
from tff_compress.codec.stage import Arrays
from tff_compress.codec.stage import check
from tff_compress.codec.stage import choice
from tff_compress.codec.stage import Real
from tff_compress.codec.stage import Stage
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops

COSINE = 'cosine'

MAX_COSINES = 1 << 26
"""Most weights that are made for `cosine`."""
SMALL_COSINES = 1 << 20
"""So many are made whatever the number of values; more, only for pieces that are no longer than these."""


@dataclasses.dataclass(frozen=True)
class Autoencoder(Stage):
  """Pieces of `length` values become `latent` values each, by a network that was learned from updates before. Biased.

  What the network has not seen it loses, and nothing bounds that loss: look at the error of what is decoded, as the
  client can, and use another codec where it is too large.

  Attributes:
    latent: values that a piece becomes.
    length: values of a piece; 0: all values are one piece, as published, for which encoder and decoder are `latent`
      times as large as the model each.
    order: in which the values of a variable are cut into pieces. 'rows': as they lie in memory. 'columns': all but the
      last dimension together are the rows of a matrix, which is transposed, so that what belongs to one unit or filter
      stays together. The updates of units of one layer resemble each other, which those of rows do not.
    weights: digest of the network, see `tff_compress.codec.artefacts`; 'cosine' for the first cosines of each piece,
      which are not learned; '' where it is to be learned yet.
  """
  name: ClassVar[str] = 'autoencoder'
  summary: ClassVar[str] = 'latent values of a network that was learned from earlier updates'
  source: ClassVar[str] = 'Chandar et al. 2021, sec. 3; one network for all pieces'
  needs_shapes: ClassVar[bool] = True
  examples: ClassVar[tuple[str, ...]] = ('8,length=64,weights=cosine', '4,length=10,order=columns,weights=cosine')

  latent: int
  length: int = 0
  order: str = choice('rows', 'columns')
  weights: str = ''

  def __post_init__(self) -> None:
    check(0 <= self.length <= network.MAX_LENGTH,
          f'autoencoder: length must be from 0 to {network.MAX_LENGTH}, not {self.length}.')
    check(1 <= self.latent <= network.MAX_LENGTH, f'autoencoder: latent must be from 1 to {network.MAX_LENGTH}, not '
                                                  f'{self.latent}.')
    check(not self.length or self.latent < self.length,
          f'autoencoder: {self.latent} latent values of {self.length} compress nothing: use fewer.')
    check(self.weights in ('', COSINE) or artefacts.DIGEST.fullmatch(self.weights),
          f'autoencoder: weights must be {COSINE} or the 32 hexadecimal digits of a digest, not {self.weights[:40]!r}.')

  @property
  def linear(self) -> bool:
    # What is yet to be learned has no sums.
    return self.weights == COSINE or bool(self.weights) and artefacts.find(self.weights).summable

  def output(self, signal: Real) -> Real:
    return Real(-(-signal.size // (self.length or max(signal.size, 1))) * self.latent)

  def nmse_bound(self, signal: Real) -> None:
    return None

  def network(self, signal: Real) -> network.Autoencoder:
    """The `network.Autoencoder` that `weights` names; raises a CompressionError if it is not here or does not fit."""
    length = self.length or signal.size
    check(self.weights, 'autoencoder: its weights are to be learned yet: run the pre-pass, or name them with '
                        'weights=digest.')
    if self.weights == COSINE:
      check(self.latent < length, f'autoencoder: {self.latent} latent values of {length} compress nothing: use fewer.')
      largest = min(MAX_COSINES, max(SMALL_COSINES, self.latent * signal.size))
      check(self.latent * length <= largest,
            f'autoencoder: {self.latent} cosines of {length} values each are too many for a segment of {signal.size} '
            'values: use fewer or shorter ones.')
      return network.cosine(length, self.latent)
    found = artefacts.find(self.weights)
    if (found.length, found.latent) != (length, self.latent):
      raise SpecError(f'the weights {self.weights} make {found.latent} values of {found.length}, not {self.latent} of '
                      f'{length}: use the ones that were learned for this codec and model.')
    sizes = tuple(math.prod(shape) for shape in signal.shapes) or (signal.size,)
    if found.sizes and found.sizes != sizes:
      raise SpecError(f'the weights {self.weights} were learned for variables of other sizes: use the ones of this '
                      'model, and "concat |" in front if they are of the model as a whole.')
    return found

  def encode(self, xp: Ops, x: Array, draws: Draws, signal: Real) -> tuple[Array, Arrays]:
    return (self.network(signal).encode(xp, self.turned(xp, x, signal), signal.size) if signal.size else x), {}

  def decode(self, xp: Ops, values: Array, side: Arrays, draws: Draws, signal: Real) -> Array:
    if not signal.size:
      return values
    return self.turned(xp, self.network(signal).decode(xp, values, signal.size), signal, back=True)

  def turned(self, xp: Ops, x: Array, signal: Real, back: bool = False) -> Array:
    """The values in the order in which they are cut into pieces; with `back`, from that order to the one in memory."""
    if self.order == 'rows':
      return x
    start, pieces = 0, []
    for shape in signal.shapes:
      size = math.prod(shape)
      piece = x[start:start + size]
      if size and len(shape) > 1:
        sides = [size // shape[-1], shape[-1]]
        piece = xp.reshape(xp.transpose(xp.reshape(piece, sides[::-1] if back else sides), [1, 0]), [size])
      pieces.append(piece)
      start += size
    return pieces[0] if len(pieces) == 1 else xp.concat(pieces) if pieces else x
