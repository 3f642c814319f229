"""The server's side of every uplink: frames added up in one accumulator, inside graphs."""

import collections

import tensorflow as tf


class FrameSum:
  """Functions for `tff.federated_aggregate` over frames, to be called while a graph is built.

  Frames are decoded up to their codec's linear prefix and added; the prefix (a rotation or a mask that the clients share)
  is undone once, on the sum.

  Args:
    messages: `MessageFunctions`, or another object with its `prefix_types`, `decode_to_prefixes` and `decode_prefixes`.
  """

  def __init__(self, messages):
    self._messages = messages

  def zero(self):
    """An accumulator of nothing: OrderedDict of

      sums: list of vectors, the weighted sums of what the frames decode to.
      weight: float32, sum of the weights of frames that are not empty.
      bytes: int64, sum of the lengths of the frames.
      clients, sent: int64, number of frames, and of those that are not empty.
    """
    nothing = lambda: tf.zeros([], tf.int64)
    return collections.OrderedDict(
        sums=[tf.zeros([size], tf.as_dtype(dtype)) for size, dtype in self._messages.prefix_types],
        weight=tf.zeros([]), bytes=nothing(), clients=nothing(), sent=nothing())

  def accumulate(self, accumulator, frame, weight=None):
    """Adds a frame.

    Args:
      accumulator: as `zero` gives it.
      frame: uint8[n]. With a weight it may be empty: its client sends nothing.
      weight: float32 scalar that its values are multiplied by; None for 1.
    """
    sums, one = list(accumulator['sums']), tf.constant(1, tf.int64)
    if weight is None:
      weight, sent = tf.ones([]), one
      sums = [a + b for a, b in zip(sums, self._messages.decode_to_prefixes(frame))]
    else:
      arrived = tf.size(frame) > 0
      sent = tf.cast(arrived, tf.int64)

      def add():
        return [a + tf.cast(weight, b.dtype) * b for a, b in zip(sums, self._messages.decode_to_prefixes(frame))]

      sums = tf.cond(arrived, add, lambda: [tf.identity(a) for a in sums])
      weight = tf.where(arrived, weight, 0.0)
    return collections.OrderedDict(
        sums=list(sums), weight=accumulator['weight'] + weight, bytes=accumulator['bytes'] + tf.size(frame, out_type=tf.int64),
        clients=accumulator['clients'] + one, sent=accumulator['sent'] + sent)

  def merge(self, a, b):
    """The accumulator of both."""
    return tf.nest.map_structure(tf.add, a, b)

  def arrays(self, accumulator, round_number):
    """The sum as tensors in the order, shapes and dtypes of the spec."""
    return self._messages.decode_prefixes(list(accumulator['sums']), round_number)
