"""Shapes of autoencoders: which layers, before anything is learned."""

from collections.abc import Callable
import dataclasses

from tff_compress.autoencoders.errors import SnapshotError
from tff_compress.codec import network

MAX_PARAMETERS = 1 << 20
"""Largest autoencoder that encodes a model as one piece by default."""
MAX_WHOLE = 1 << 20
"""Most values that a process encodes as one piece: encoder and decoder are `latent` times as large each."""
LENGTH = 1024
"""Length of pieces by default, for larger models."""


@dataclasses.dataclass(frozen=True)
class Shape:
  """One layer: `positions` pieces of `inputs` values become `outputs` values each; `activation` as in
  `codec.network`."""
  inputs: int
  outputs: int
  positions: int = 1
  activation: int = network.NONE

  @property
  def parameters(self) -> int:
    """Weights and biases."""
    return (self.inputs + 1) * self.outputs


@dataclasses.dataclass(frozen=True)
class Architecture:
  """An autoencoder that is to be learned.

  Attributes:
    kind: 'linear', 'dense' or 'convolutional'.
    length: values that are encoded together.
    latent: values that they become.
    encoder, decoder: tuples of `Shape`.
  """
  kind: str
  length: int
  latent: int
  encoder: tuple[Shape, ...]
  decoder: tuple[Shape, ...]

  def __post_init__(self) -> None:
    if not 0 < self.latent < self.length <= network.MAX_LENGTH:
      raise SnapshotError(f'{self.latent} latent values of {self.length} compress nothing: use at least 1 and fewer '
                          'than the length.')

  @property
  def parameters(self) -> int:
    """Weights and biases of encoder and decoder."""
    return sum(shape.parameters for shape in (*self.encoder, *self.decoder))

  @property
  def ratio(self) -> float:
    """Values per latent value."""
    return self.length / self.latent


def linear(length: int, latent: int) -> Architecture:
  """Principal components: the best that linear layers can do, learned without gradients. Linear, so messages can be
  added up."""
  return Architecture('linear', length, latent, (Shape(length, latent),), (Shape(latent, length),))


def dense(length: int, latent: int) -> Architecture:
  """One hidden layer with ReLU, fully connected: 2 d z + z + d parameters for d values and z latent ones.

  With length = d it is the published one (Chandar et al. 2021), but for its activation; with a shorter length one small
  network serves all pieces.
  """
  return Architecture('dense', length, latent, (Shape(length, latent, 1, network.RELU),), (Shape(latent, length),))


def convolutional(length: int, latent: int, stride: int = 4, channels: int = 16, residual: bool = True) -> Architecture:
  """Strided convolutions whose windows do not overlap, halving nothing but dividing the length by `stride` each, and
  their mirror.

  Args:
    length: a multiple of stride^3.
    latent: a multiple of length / stride^3.
    stride: width of a window.
    channels: of the inner layers.
    residual: whether a layer x + W x follows each inner convolution.
  """
  places = length // stride**3
  if length % stride**3 or not places or latent % places or latent < places:
    raise SnapshotError(f'a convolutional autoencoder with strides of {stride} needs a length that is a multiple of '
                        f'{stride**3}, and a '
                        f'latent size that is a multiple of length / {stride**3}; {length} and {latent} are not.')
  inner = lambda positions: (Shape(channels, channels, positions, network.RESIDUAL),) if residual else ()
  first, second = length // stride, length // stride**2
  encoder = (Shape(stride, channels, first, network.RELU), *inner(first),
             Shape(stride * channels, channels, second, network.RELU), *inner(second),
             Shape(stride * channels, latent // places, places))
  decoder = (Shape(latent // places, stride * channels, places, network.RELU), *inner(second),
             Shape(channels, stride * channels, second, network.RELU), *inner(first), Shape(channels, stride, first))
  return Architecture('convolutional', length, latent, encoder, decoder)


ARCHITECTURES: dict[str, Callable[[int, int], Architecture]] = {
    'linear': linear, 'dense': dense, 'convolutional': convolutional}
"""{kind: function that makes an `Architecture` of a length and a number of latent values}"""
