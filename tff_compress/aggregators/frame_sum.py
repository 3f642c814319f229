"""The server's side of every uplink: frames added up in one accumulator, inside graphs."""

import collections

import tensorflow as tf


class FrameSum:
  """Functions for `tff.federated_aggregate` over frames, to be called while a graph is built.

  Frames are decoded up to their codec's linear prefix and added; the prefix (a rotation or a mask that the clients
  share) is undone once, on the sum.

  Args:
    messages: `MessageFunctions`, or another object with its `prefix_types`, `decode_to_prefixes` and `decode_prefixes`.
    sent: where frames hold some of the coordinates, a function of a frame that gives vectors such as
      `messages.decode_to_prefixes` gives, 1 for each coordinate that the frame holds and 0 for the others: the mean of
      a coordinate is then one over the frames that hold it. None: over all frames.
  """

  def __init__(self, messages, sent=None):
    self._messages, self._sent = messages, sent

  def zero(self):
    """An accumulator of nothing: OrderedDict of

      sums: list of vectors, the weighted sums of what the frames decode to.
      weight: float32, sum of the weights of frames that are not empty.
      weights: with `sent`, list of float32 vectors, for each coordinate the sum of the weights of frames that hold it.
      bytes: int64, sum of the lengths of the frames.
      clients, sent: int64, number of frames, and of those that are not empty.
    """
    nothing = lambda: tf.zeros([], tf.int64)
    types = self._messages.prefix_types
    return collections.OrderedDict(
        sums=[tf.zeros([size], tf.as_dtype(dtype)) for size, dtype in types], weight=tf.zeros([]),
        weights=[tf.zeros([size]) for size, _ in types] if self._sent else [], bytes=nothing(), clients=nothing(),
        sent=nothing())

  def accumulate(self, accumulator, frame, weight=None):
    """Adds a frame.

    Args:
      accumulator: as `zero` gives it.
      frame: uint8[n]. With a weight it may be empty: its client sends nothing.
      weight: float32 scalar that its values are multiplied by; None for 1.
    """
    before, one = (list(accumulator['sums']), list(accumulator['weights'])), tf.constant(1, tf.int64)

    def added(parts):
      return [a + (b if weight is None else tf.cast(weight, b.dtype) * b) for a, b in parts]

    def add():
      return (added(zip(before[0], self._messages.decode_to_prefixes(frame))),
              added(zip(before[1], self._sent(frame))) if self._sent else [])

    if weight is None:
      (sums, weights), sent, total = add(), one, tf.ones([])
    else:
      arrived = tf.size(frame) > 0
      sums, weights = tf.cond(arrived, add, lambda: tf.nest.map_structure(tf.identity, before))
      sent, total = tf.cast(arrived, tf.int64), tf.where(arrived, weight, 0.0)
    return collections.OrderedDict(
        sums=list(sums), weight=accumulator['weight'] + total, weights=list(weights),
        bytes=accumulator['bytes'] + tf.size(frame, out_type=tf.int64), clients=accumulator['clients'] + one,
        sent=accumulator['sent'] + sent)

  def merge(self, a, b):
    """The accumulator of both."""
    return tf.nest.map_structure(tf.add, a, b)

  def prefixes_mean(self, accumulator):
    """The weighted mean of what the frames decode to, vectors as in `sums`; 0 where no frame holds a coordinate."""
    weights = accumulator['weights'] if self._sent else [accumulator['weight']] * len(accumulator['sums'])
    return [tf.math.divide_no_nan(a, tf.cast(w, a.dtype)) for a, w in zip(accumulator['sums'], weights)]

  def mean(self, accumulator, round_number):
    """The weighted mean as tensors in the order, shapes and dtypes of the spec."""
    return self._messages.decode_prefixes(self.prefixes_mean(accumulator), round_number)

  def arrays(self, accumulator, round_number):
    """The sum as tensors in the order, shapes and dtypes of the spec."""
    return self._messages.decode_prefixes(list(accumulator['sums']), round_number)
