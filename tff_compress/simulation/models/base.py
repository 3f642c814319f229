"""What a model by name is: its base class, and the layers that models are made of."""

from __future__ import annotations

import hashlib
from typing import Any
from typing import ClassVar

from tff_compress.codec import checks
from tff_compress.codec.errors import CompressionError
from tff_compress.simulation import kinds as kinds_lib


class ModelError(CompressionError):
  """A model that cannot be built; the message is one sentence that says what to change."""


class Architecture:
  """What is known of a model without building it, and how it is built.

  Class attributes:
    name: the word that names it.
    layers: what it is made of, for tables in documents.
    source: where it comes from.
    kinds: the kinds of data that it is for; all of them have examples of one shape.
    input_shape: the shape of one example it was published with, (h, w, c), or (None,) for any number of tokens.
    num_classes: the number of outputs it was published with (the vocabulary, for a language model).
    parameters: how many parameters it has with this shape and these classes, all of them trainable.
    smallest: the least height and width that its convolutions and poolings leave something of.
    dropout: whether it has dropout layers that `build(dropout=True)` puts in.
  """

  name: ClassVar[str] = ''
  layers: ClassVar[str] = ''
  source: ClassVar[str] = ''
  kinds: ClassVar[tuple[kinds_lib.Kind, ...]] = (kinds_lib.IMAGE,)
  input_shape: ClassVar[tuple[int | None, ...]] = ()
  num_classes: ClassVar[int] = 10
  parameters: ClassVar[int] = 0
  smallest: ClassVar[int] = 1
  dropout: ClassVar[bool] = False

  @classmethod
  def build(cls, make: Layers, shape: tuple[int | None, ...], classes: int) -> Any:
    """Builds a `tf.keras.Model` that returns logits.

    Args:
      make: makes the layers.
      shape: of one example; checked.
      classes: how many outputs.
    """
    raise NotImplementedError

  @classmethod
  def checked_shape(cls, input_shape: Any) -> tuple[int | None, ...]:
    """`input_shape` as a tuple of whole numbers; the published one for None.

    Raises:
      ModelError: the model cannot have it.
    """
    if input_shape is None:
      return cls.input_shape
    try:
      shape = tuple(input_shape)
    except TypeError:
      raise ModelError(f'input_shape must be a tuple, not {input_shape!r}.') from None
    kind = cls.kinds[0]
    if len(shape) != kind.example_rank:
      raise ModelError(f'{cls.name} takes the shape {kind.example_shape}, not {shape}.')
    first = shape[:1] if kind.flexible and shape[0] is None else ()
    shape = first + tuple(checks.whole_number(kind.example_size, n, ModelError, least=1) for n in shape[len(first):])
    least = cls.smallest
    if least > 1 and min(shape[:2]) < least:
      raise ModelError(f'{cls.name} needs images of at least {least}x{least}, not {shape[0]}x{shape[1]}: use another '
                       'model.')
    return shape


class Layers:
  """Makes the layers of one model: each with a fixed name and with seeds of its own."""

  def __init__(self, model: str, seed: int, dropout: bool, kind: kinds_lib.Kind):
    from tensorflow import keras

    self.keras = keras
    self._model = model
    self._seed = seed
    self._dropout = dropout
    self._kind = kind

  def seed(self, tensor: str) -> int:
    """31 bits for one tensor: layers of the same shape must not start out equal."""
    digest = hashlib.sha256(f'models/{self._model}/{self._seed}/{tensor}'.encode()).digest()
    return int.from_bytes(digest[:4], 'little') >> 1

  def glorot(self, tensor: str) -> Any:
    return self.keras.initializers.GlorotUniform(seed=self.seed(tensor))

  def conv(self, name: str, filters: int, size: int = 3, *, strides: int = 1, padding: str = 'valid',
           activation: str | None = 'relu', initializer: str = 'GlorotUniform') -> Any:
    return self.keras.layers.Conv2D(
        filters, size, strides, padding, activation=activation, name=name,
        kernel_initializer=getattr(self.keras.initializers, initializer)(seed=self.seed(f'{name}/kernel')),
    )

  def dense(self, name: str, units: int, activation: str | None = None) -> Any:
    return self.keras.layers.Dense(
        units, activation=activation, name=name, kernel_initializer=self.glorot(f'{name}/kernel')
    )

  def lstm(self, name: str, units: int) -> Any:
    """An LSTM that returns its state after every token."""
    return self.keras.layers.LSTM(
        units, return_sequences=True, name=name, kernel_initializer=self.glorot(f'{name}/kernel'),
        recurrent_initializer=self.keras.initializers.Orthogonal(seed=self.seed(f'{name}/recurrent_kernel')),
    )

  def dropout(self, name: str, rate: float) -> list:
    return [self.keras.layers.Dropout(rate, seed=self.seed(name), name=name)] if self._dropout else []

  def sequential(self, shape: tuple[int | None, ...], *layers: Any) -> Any:
    return self.keras.Sequential([self.keras.Input(shape, name=self._kind.name), *layers], name=self._model)
