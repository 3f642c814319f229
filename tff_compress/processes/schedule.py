"""Codecs that change with the round, such as a sparsity that rises while training warms up."""

import collections

import tensorflow as tf

from tff_compress import codec as codec_lib
from tff_compress.processes.errors import ProcessError
from tff_compress.tensorflow import MessageFunctions


def schedule(codec):
  """((first round, `Codec`), …) in ascending order, the first from round 0.

  Args:
    codec: `Codec` or its text, or a mapping of round to such: each is used from that round on.

  Raises:
    ProcessError: the rounds are not whole numbers from 0 on.
    CodecError: a codec is not valid.
  """
  if not isinstance(codec, collections.abc.Mapping):
    return ((0, codec_lib(codec)),)
  if 0 not in codec or any(isinstance(r, bool) or not isinstance(r, int) or not 0 <= r < 1 << 31 for r in codec):
    raise ProcessError('a schedule is a mapping of round to codec that begins with round 0, such as '
                       "{0: 'topk:1/4 | float32', 5: 'topk:1/100 | float32'}.")
  return tuple((start, codec_lib(codec[start])) for start in sorted(codec))


def messages(steps, spec, seed):
  """`MessageFunctions` of the one codec of a schedule, or their like for several."""
  if len(steps) == 1:
    return MessageFunctions(steps[0][1], spec, seed)
  return _ScheduledMessages(steps, spec, seed)


class _ScheduledMessages:
  """Has the methods of `MessageFunctions`. As codecs have different linear prefixes, sums are of whole decoded arrays."""

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
