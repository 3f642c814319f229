"""The server's side of every uplink: frames added up in one accumulator, inside graphs."""

import collections
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Protocol
from typing import TypeAlias

import tensorflow as tf

from tff_compress.tensorflow.messages import numbers_of

Accumulator: TypeAlias = Mapping[str, Any]
"""What `FrameSum.zero` gives."""


class Messages(Protocol):
  """What a sum needs of `MessageFunctions`."""

  @property
  def prefix_types(self) -> list[tuple[int, str]]:
    """[(size, dtype name)] of what `decode_to_prefixes` gives."""

  def decode_to_prefixes(self, frame: tf.Tensor) -> list[tf.Tensor]:
    """uint8[n] -> vectors that may be summed."""

  def decode_prefixes(self, values: Sequence[tf.Tensor], round: tf.Tensor) -> list[tf.Tensor]:
    """Sums of such vectors, of one round -> tensors in the order, shapes and dtypes of the spec."""


class FrameSum:
  """Functions for `tff.federated_aggregate` over frames, to be called while a graph is built.

  Frames are decoded up to their codec's linear prefix and added; the prefix (a rotation or a mask that the clients
  share) is undone once, on the sum.

  Args:
    messages: `MessageFunctions`, or other `Messages`.
    coverage: where frames hold some of the coordinates, a function of a frame that gives vectors such as
      `messages.decode_to_prefixes` gives, 1 for each coordinate that the frame holds and 0 for the others: the mean of
      a coordinate is then one over the frames that hold it. None: over all frames.
  """

  def __init__(self, messages: Messages, coverage: Callable[[tf.Tensor], list[tf.Tensor]] | None = None) -> None:
    self._messages, self._coverage = messages, coverage

  def zero(self) -> Accumulator:
    """An accumulator of nothing: OrderedDict of

      sums: list of vectors, the weighted sums of what the frames decode to.
      weight: float32, sum of the weights of frames that are not empty.
      weights: with `coverage`, list of float32 vectors, for each coordinate the sum of the weights of frames that hold
        it.
      bytes: int64, sum of the lengths of the frames.
      clients, sent: int64, number of frames, and of those that are not empty.
      lowest, highest: int32, the smallest and largest round number of those.
    """
    nothing = lambda: tf.zeros([], tf.int64)
    types = self._messages.prefix_types
    return collections.OrderedDict(
        sums=[tf.zeros([size], tf.as_dtype(dtype)) for size, dtype in types], weight=tf.zeros([]),
        weights=[tf.zeros([size]) for size, _ in types] if self._coverage else [], bytes=nothing(), clients=nothing(),
        sent=nothing(), lowest=tf.constant(tf.int32.max), highest=tf.constant(tf.int32.min))

  def accumulate(self, accumulator: Accumulator, frame: tf.Tensor, weight: tf.Tensor | None = None,
                 client: tf.Tensor | None = None) -> Accumulator:
    """Adds a frame.

    Args:
      accumulator: as `zero` gives it.
      frame: uint8[n]. With a weight it may be empty: its client sends nothing.
      weight: float32 scalar that its values are multiplied by; None for 1.
      client: int32 scalar, the 32 bits of the number of the client that sent it, where the server knows it.

    Evaluating the result fails (InvalidArgumentError) where the frame is not a whole and unchanged one of this codec
    and spec, or of another client.
    """
    before, one = (list(accumulator['sums']), list(accumulator['weights'])), tf.constant(1, tf.int64)

    def added(parts: Iterable[tuple[tf.Tensor, tf.Tensor]]) -> list[tf.Tensor]:
      return [a + (b if weight is None else tf.cast(weight, b.dtype) * b) for a, b in parts]

    round_number, number = numbers_of(frame)

    def add() -> tuple[list[tf.Tensor], list[tf.Tensor]]:
      if client is not None:
        same = tf.debugging.Assert(tf.equal(number, client),
                                   ['a frame is of another client than the one that sent it.'])
        with tf.control_dependencies([same]):
          return summed(tf.identity(frame))
      return summed(frame)

    def summed(frame: tf.Tensor) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
      return (added(zip(before[0], self._messages.decode_to_prefixes(frame))),
              added(zip(before[1], self._coverage(frame))) if self._coverage else [])

    if weight is None:
      (sums, weights), arrived, total = add(), tf.constant(True), tf.ones([])
    else:
      arrived = tf.size(frame) > 0
      sums, weights = tf.cond(arrived, add, lambda: tf.nest.map_structure(tf.identity, before))
      total = tf.where(arrived, weight, 0.0)
    return collections.OrderedDict(
        sums=list(sums), weight=accumulator['weight'] + total, weights=list(weights),
        bytes=accumulator['bytes'] + tf.size(frame, out_type=tf.int64), clients=accumulator['clients'] + one,
        sent=accumulator['sent'] + tf.cast(arrived, tf.int64),
        lowest=tf.where(arrived, tf.minimum(accumulator['lowest'], round_number), accumulator['lowest']),
        highest=tf.where(arrived, tf.maximum(accumulator['highest'], round_number), accumulator['highest']))

  def merge(self, a: Accumulator, b: Accumulator) -> Accumulator:
    """The accumulator of both."""
    others = {'lowest': tf.minimum, 'highest': tf.maximum}
    return collections.OrderedDict(
        (name, tf.nest.map_structure(others.get(name, tf.add), a[name], b[name])) for name in a)

  def prefixes_mean(self, accumulator: Accumulator, round_number: tf.Tensor) -> list[tf.Tensor]:
    """The weighted mean of what the frames decode to, vectors as in `sums`; 0 where no frame holds a coordinate.

    Evaluating it, or what follows, fails (InvalidArgumentError) where a frame is of another round.
    """
    accumulator = self._of_round(accumulator, round_number)
    weights = accumulator['weights'] if self._coverage else [accumulator['weight']] * len(accumulator['sums'])
    return [tf.math.divide_no_nan(a, tf.cast(w, a.dtype)) for a, w in zip(accumulator['sums'], weights)]

  def mean(self, accumulator: Accumulator, round_number: tf.Tensor) -> list[tf.Tensor]:
    """The weighted mean as tensors in the order, shapes and dtypes of the spec."""
    return self._messages.decode_prefixes(self.prefixes_mean(accumulator, round_number), round_number)

  def arrays(self, accumulator: Accumulator, round_number: tf.Tensor) -> list[tf.Tensor]:
    """The sum as tensors in the order, shapes and dtypes of the spec."""
    return self._messages.decode_prefixes(list(self._of_round(accumulator, round_number)['sums']), round_number)

  def _of_round(self, accumulator: Accumulator, round_number: tf.Tensor) -> Accumulator:
    right = tf.equal(accumulator['lowest'], round_number) & tf.equal(accumulator['highest'], round_number)
    right |= tf.equal(accumulator['sent'], 0)
    with tf.control_dependencies([tf.debugging.Assert(right, ['a frame is of another round than the one that ends.'])]):
      return tf.nest.map_structure(tf.identity, accumulator)
