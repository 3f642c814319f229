"""Messages of codecs that change with the round, such as a sparsity that rises while training warms up."""

import tensorflow as tf

from tff_compress.tensorflow import MessageFunctions


def messages(steps, spec, seed):
  """`MessageFunctions` of the one codec of a schedule, or their like for several."""
  if len(steps) == 1:
    return MessageFunctions(steps[0][1], spec, seed)
  starts = [start for start, _ in steps]
  return ChosenMessages([codec for _, codec in steps], spec, seed,
                        lambda number: tf.reduce_sum(tf.cast(number >= tf.constant(starts), tf.int32)) - 1)


class ChosenMessages:
  """Messages of several codecs, of which a round has one. Has the methods of `MessageFunctions`; as codecs have
  different linear prefixes, sums are of whole decoded arrays.

  Args:
    codecs: list of `Codec` or text.
    spec, seed: as for `MessageFunctions`.
    choose: function of the round's number, an int32 scalar, that gives the position of its codec, an int32 scalar.
      Client and server compute it alike, and the server from the number in a frame: of nothing but that and constants.
  """

  def __init__(self, codecs, spec, seed, choose):
    self._messages = [MessageFunctions(codec, spec, seed) for codec in codecs]
    self._choose, self.spec, self.seed = choose, spec, seed

  def _switch(self, round_number, method):
    """Calls the method, a function of one `MessageFunctions`, with that of the round."""
    return tf.switch_case(self._choose(round_number), [lambda m=m: method(m) for m in self._messages])

  @property
  def prefix_types(self):
    return [(tensor.size, tensor.dtype) for tensor in self.spec.tensors]

  def encode(self, arrays, round_number, client):
    return self._switch(round_number, lambda m: m.encode(arrays, round_number, client))

  def decode(self, frame):
    return self._switch(tf.bitcast(frame[8:12], tf.int32), lambda m: m.decode(frame))

  def decode_to_prefixes(self, frame):
    return [tf.reshape(array, [-1]) for array in self.decode(frame)]

  def decode_prefixes(self, values, round_number):
    del round_number
    return [tf.reshape(value, tensor.shape) for value, tensor in zip(values, self.spec.tensors)]
