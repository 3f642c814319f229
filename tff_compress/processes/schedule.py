"""Messages of codecs that change with the round, such as a sparsity that rises while training warms up."""

import tensorflow as tf

from tff_compress.tensorflow import MessageFunctions


def messages(steps, spec, seed):
  """`MessageFunctions` of the one codec of a schedule, or their like for several."""
  if len(steps) == 1:
    return MessageFunctions(steps[0][1], spec, seed)
  return _ScheduledMessages(steps, spec, seed)


class _ScheduledMessages:
  """Has the methods of `MessageFunctions`. As codecs have different linear prefixes, sums are of whole decoded
  arrays."""

  def __init__(self, steps, spec, seed):
    self._starts = [start for start, _ in steps]
    self._messages = [MessageFunctions(codec, spec, seed) for _, codec in steps]
    self.spec, self.seed = spec, seed

  def _switch(self, round_number, method):
    """Calls the method, a function of one `MessageFunctions`, with that of the round."""
    branch = tf.reduce_sum(tf.cast(round_number >= tf.constant(self._starts), tf.int32)) - 1
    return tf.switch_case(branch, [lambda m=m: method(m) for m in self._messages])

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
