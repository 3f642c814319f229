"""Messages of updates whose autoencoder is learned in a pre-pass."""

import tensorflow as tf

from tff_compress.autoencoders import training
from tff_compress.codec.codec import LARGEST
from tff_compress.processes.process import number_of
from tff_compress.tensorflow import MessageFunctions
from tff_compress.tensorflow.ops import TensorFlowOps

FALLBACK, LEARNED = 0, 1
"""First byte of a client's message."""


class LearnedMessages:
  """What clients send of their updates: latent values of an autoencoder, or all of it with the fallback.

  A message is a byte 1, the CRC-32 of the frame with which the server got or gave the decoder (4 bytes), and the frame
  of latent values and other variables; or a byte 0 and the fallback's frame.

  Args:
    rule: `LearnedRule` of the uplink.
    target: 'delta' or 'weights'; other variables are always sent as what training changed.
    fallback: codec of whole updates.
    tolerance: as for `build_autoencoder_fed_avg`.
    seed: session seed.
  """

  def __init__(self, rule, target, fallback, tolerance, seed):
    self._rule, self._target, self._tolerance = rule, target, tolerance
    codec, spec = rule.behind
    self._latents = MessageFunctions(codec, spec, seed)
    self._fallback = MessageFunctions(fallback, rule.spec, seed)

  def snapshot(self, before, after):
    """What the autoencoder would encode of a training, float32[d]."""
    return self._rule.take(TensorFlowOps(), training.of_target(self._target, before, after))

  def encode(self, update, received, net, usable, memory, round_number):
    """A client's message.

    Args:
      update: list of tensors, weights before training less those after, or what error feedback makes of that.
      received: trainable weights before training.
      net: the client's `network.Autoencoder`.
      usable: boolean scalar, whether it has one that the server knows.
      memory: the small fields of its state.
      round_number: int32 scalar.

    Returns:
      uint8[n].
    """
    xp, number = TensorFlowOps(), number_of(memory)
    part = self._rule.take(xp, update)
    x = self._rule.take(xp, received) - part if self._target == 'weights' else part
    fallback = lambda: tf.concat([_flag(FALLBACK), self._fallback.encode(update, round_number, number)], 0)
    if self._tolerance is None:
      other = fallback()
      fallback = lambda: other

    def with_autoencoder():
      values = net.encode(xp, x, self._rule.size)
      sendable = tf.reduce_all(is_sendable(values))
      values = tf.where(sendable, values, 0.0)
      frame = self._latents.encode([values] + [update[i] for i in self._rule.others], round_number, number)
      message = tf.concat([_flag(LEARNED), tf.bitcast(memory['decoder'], tf.uint8), frame], 0)
      if self._tolerance is None:
        good = self._is_better(message, other, update,
                               self._of_learned(message, lambda: net, received, round_number, number),
                               self._of_fallback(other, round_number, number))
      else:
        decoded = net.decode(xp, self._latents.decode(frame)[0], self._rule.size)
        good = tf.norm(decoded - x) <= self._tolerance * tf.norm(x)
      return message, sendable & good

    message, good = tf.cond(usable, with_autoencoder, lambda: (tf.zeros([0], tf.uint8), False))
    return tf.cond(good, lambda: message, fallback)

  def _is_better(self, learned, other, update, decoded, decoded_other):
    """Whether the learned message is worth more than nothing, and the other not better with as many bytes or fewer."""
    error = lambda found: tf.add_n([tf.reduce_sum((a - b)**2) for a, b in zip(found, update)])
    of_learned, of_other, of_nothing = error(decoded), error(decoded_other), error([0.0] * len(update))
    dominated = (tf.size(other) <= tf.size(learned)) & (of_other < of_learned)
    return (of_learned < of_nothing) & tf.logical_not(dominated)

  def checksum(self, message):
    """The CRC-32 in a message with latent values, int32 scalar."""
    return tf.bitcast(message[1:5], tf.int32)

  def fell_back(self, message):
    """Boolean scalar."""
    return tf.equal(message[0], FALLBACK)

  def decode(self, message, net, weights, round_number, client):
    """The update in a message, list of tensors.

    Args:
      message: uint8[n], n > 0.
      net: function without arguments that gives the `network.Autoencoder` of the client that sent it.
      weights: trainable weights that clients received.
      round_number, client: int32 scalars, of which round and client it has to be.
    """
    return tf.cond(self.fell_back(message), lambda: self._of_fallback(message, round_number, client),
                   lambda: self._of_learned(message, net, weights, round_number, client))

  def _of_fallback(self, message, round_number, client):
    return self._fallback.decode(message[1:], round_number, client)

  def _of_learned(self, message, net, weights, round_number, client):
    xp = TensorFlowOps()
    values, *others = self._latents.decode(message[5:], round_number, client)
    part = net().decode(xp, values, self._rule.size)
    part = self._rule.take(xp, weights) - part if self._target == 'weights' else part
    return self._rule.put(xp, part, others)


def is_sendable(x):
  """Which values may be encoded: neither NaN nor infinite, and not too large."""
  return tf.abs(x) <= LARGEST


def _flag(value):
  return tf.constant([value], tf.uint8)
