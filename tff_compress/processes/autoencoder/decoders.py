"""How clients come by an autoencoder in a pre-pass: each learns its own, or the server learns one for each group."""

import tensorflow as tf

from tff_compress import codec as codec_lib
from tff_compress.autoencoders import clusters
from tff_compress.codec import random
from tff_compress.processes.autoencoder.messages import is_sendable
from tff_compress.processes.process import number_of
from tff_compress.tensorflow import MessageFunctions
from tff_compress.tensorflow.ops import TensorFlowOps
from tff_compress.wire import FRAME_OVERHEAD

ROW_BYTES = 4
"""Size of the answer of a client that takes one of the autoencoders that it is offered."""


class OwnDecoders:
  """Each client learns an autoencoder of its own, and sends the decoder.

  Args:
    learner: `learning.Learner` of a client.
    networks: `Networks`.
    epochs: of learning.

  Attributes:
    shared: whether clients receive their autoencoders from the server.
    frame_bytes: size of what the server keeps.
    message_bytes: size of what a client sends that learned.
  """
  shared = False

  def __init__(self, learner, networks, epochs):
    self._learner, self.networks, self._epochs = learner, networks, epochs
    self.decoder_bytes = FRAME_OVERHEAD + networks.decoders.plan.payload_size
    self.frame_bytes = self.message_bytes = self.decoder_bytes

  def network(self, frame):
    """The `network.Autoencoder` of a frame that the server keeps."""
    return self.networks.of_decoder(frame)

  # -- at a client

  def learn(self, snapshots, offered, memory, round_number):
    """(message, vector of the client's own autoencoder) of a client that trained alone. The message is empty where what
    was learned is not finite."""
    del offered
    vector = self.networks.vector(self._learner.learn(snapshots, self._epochs))
    send = lambda: self._message(vector, snapshots, memory, round_number)
    message = tf.cond(tf.reduce_all(is_sendable(vector)), send, lambda: tf.zeros([0], tf.uint8))
    return message, vector

  def _message(self, vector, snapshots, memory, round_number):
    del snapshots
    return self.networks.decoder_frame(vector, round_number, number_of(memory))

  # -- at the server

  def grouped(self, messages, round_number):
    """(frames to keep, the row in them of each client) of messages of clients that learned, uint8[m, message_bytes]."""
    del round_number
    return messages, tf.range(tf.shape(messages)[0])


class SharedDecoders(OwnDecoders):
  """Groups of clients share an autoencoder that the server learns from their snapshots, and gives them.

  A client learns one of its own, and sends its decoder and the latent values of its snapshots. The server decodes the
  snapshots, groups the clients, learns one autoencoder for each group, and sends it to the clients in it. A client that
  has none when others have receives them all, keeps the one that encodes its own snapshots best, and answers with its
  row.

  Args:
    learner, networks, epochs: as for `OwnDecoders`.
    rule: `LearnedRule` of the uplink.
    count: number of snapshots of a client.
    groups: largest number of groups.
    seed: session seed of the frames.
  """
  shared = True

  def __init__(self, learner, networks, epochs, rule, count, groups, seed):
    super().__init__(learner, networks, epochs)
    self._size, self._sizes, self._count, self._groups = rule.size, rule.sizes, count, groups
    latents = codec_lib.TensorSpec('latents', (count, -(-rule.size // rule.length) * rule.stage.latent))
    self._latents = MessageFunctions('float16', codec_lib.Spec((latents,)), seed)
    self.frame_bytes = FRAME_OVERHEAD + networks.whole.plan.payload_size
    self.message_bytes = self.decoder_bytes + FRAME_OVERHEAD + self._latents.plan.payload_size

  def network(self, frame):
    return self.networks.of_whole(frame)

  def learn(self, snapshots, offered, memory, round_number):

    def join():
      error = lambda frame: self._error(self.network(frame), snapshots)
      errors = tf.map_fn(error, offered, fn_output_signature=tf.float32)
      return tf.bitcast(tf.argmin(errors, output_type=tf.int32), tf.uint8), tf.zeros([self.networks.size])

    is_new = tf.equal(memory['learned'], 0) & (tf.shape(offered)[0] > 0)
    return tf.cond(is_new, join, lambda: super(SharedDecoders, self).learn(snapshots, offered, memory, round_number))

  def _error(self, net, snapshots):
    xp = TensorFlowOps()
    decoded = tf.map_fn(lambda x: net.decode(xp, net.encode(xp, x, self._size), self._size), snapshots)
    return tf.reduce_sum((decoded - snapshots)**2)

  def _message(self, vector, snapshots, memory, round_number):
    net, xp, number = self.networks.of_vector(vector), TensorFlowOps(), number_of(memory)
    latents = tf.map_fn(lambda x: net.encode(xp, x, self._size), snapshots)
    latents = tf.where(is_sendable(latents), latents, 0.0)
    return tf.concat([self.networks.decoder_frame(vector, round_number, number),
                      self._latents.encode([latents], round_number, number)], 0)

  def grouped(self, messages, round_number):
    size, xp = self._size, TensorFlowOps()

    def decoded(message):
      net = self.networks.of_decoder(message[:self.decoder_bytes])
      latents, = self._latents.decode(message[self.decoder_bytes:])
      return tf.map_fn(lambda values: net.decode(xp, values, size), latents)

    snapshots = tf.map_fn(decoded, messages, fn_output_signature=tf.TensorSpec([self._count, size], tf.float32))
    groups = clusters.of_snapshots(snapshots, self._sizes, self._groups)

    def learned(group):
      members = tf.reshape(tf.boolean_mask(snapshots, tf.equal(groups, group)), [-1, size])
      vector = tf.cond(tf.shape(members)[0] > 0,
                       lambda: self.networks.vector(self._learner.learn(members, self._epochs)),
                       lambda: tf.zeros([self.networks.size]))
      return self.networks.whole_frame(vector, round_number, tf.constant(random.signed(random.SHARED_CLIENT), tf.int32))

    frames = tf.map_fn(learned, tf.range(self._groups), fn_output_signature=tf.TensorSpec([self.frame_bytes], tf.uint8))
    return frames, groups
