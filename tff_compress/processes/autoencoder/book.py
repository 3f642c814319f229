"""Whose decoders the server keeps, each client's or one for each group of clients.

The server's book has, as tensors in its state:

    clients   int64[c], the clients that have a decoder
    rows      int32[c], which row of `frames` each of them has
    frames    uint8[r, n]; rows that no client has any more are dropped
    newest    int32, how many of the last rows clients that come later are offered
"""

import collections

import tensorflow as tf

from tff_compress.processes.autoencoder.decoders import ROW_BYTES


class Book:
  """What the server keeps of decoders, and how a pre-pass changes it.

  Args:
    decoders: `OwnDecoders` or `SharedDecoders`.
  """

  def __init__(self, decoders):
    self._decoders = decoders

  def initial(self):
    """OrderedDict of tensors: that of a server that has no decoder."""
    return collections.OrderedDict(
        clients=growing(tf.int64, [None]), rows=growing(tf.int32, [None]),
        frames=growing(tf.uint8, [None, self._decoders.frame_bytes]), newest=tf.zeros([], tf.int32))

  def offered(self, book):
    """Frames that clients without an autoencoder may choose from, uint8[k, n]."""
    newest = book['newest'] if self._decoders.shared else tf.zeros([], tf.int32)
    return book['frames'][tf.shape(book['frames'])[0] - newest:]

  def frame_of(self, book, client):
    """uint8[n], the frame that a client's messages are decoded with; zeros where there is none."""
    known = tf.equal(book['clients'], client)
    return tf.cond(tf.reduce_any(known), lambda: book['frames'][book['rows'][tf.argmax(tf.cast(known, tf.int32))]],
                   lambda: tf.zeros([self._decoders.frame_bytes], tf.uint8))

  def after(self, book, sent, round_number):
    """(book, bytes that clients receive of it) after the clients of a pre-pass sent their messages.

    Args:
      book: as `initial` gives it.
      sent: OrderedDict of messages (uint8[n], one behind the other), lengths and clients.
      round_number: int32 scalar.
    """
    decoders = self._decoders
    clients, messages = _of_length(sent, decoders.message_bytes)
    # In the order of their numbers, so that it does not matter in which order they came.
    order = tf.argsort(clients)
    clients, messages = tf.gather(clients, order), tf.gather(messages, order)
    nothing = lambda: (tf.zeros([0, decoders.frame_bytes], tf.uint8), tf.zeros([0], tf.int32))
    frames, rows = tf.cond(tf.size(clients) > 0, lambda: decoders.grouped(messages, round_number), nothing)
    joined, choices = _of_length(sent, ROW_BYTES)
    old, came = tf.shape(book['frames'])[0], tf.shape(frames)[0]

    known = tf.concat([joined, clients], 0)
    stay = tf.logical_not(tf.reduce_any(tf.equal(book['clients'][:, None], known), 1))
    all_clients = tf.concat([tf.boolean_mask(book['clients'], stay), known], 0)
    all_rows = tf.concat([tf.boolean_mask(book['rows'], stay), old - book['newest'] + tf.bitcast(choices, tf.int32),
                          old + rows], 0)
    used = tf.math.bincount(all_rows, minlength=old + came, maxlength=old + came) > 0
    newest = used[old + came - tf.where(came > 0, came, book['newest']):]
    following = collections.OrderedDict(
        clients=all_clients, rows=tf.gather(tf.cumsum(tf.cast(used, tf.int32)) - 1, all_rows),
        frames=tf.boolean_mask(tf.concat([book['frames'], frames], 0), used),
        newest=tf.reduce_sum(tf.cast(newest, tf.int32)))
    received = (tf.size(clients) + tf.size(joined) * book['newest']) * decoders.frame_bytes
    return following, tf.cast(received, tf.int64) if decoders.shared else tf.zeros([], tf.int64)


def growing(dtype, shape):
  """An empty tensor whose first dimension is not part of its type."""
  return tf.raw_ops.PlaceholderWithDefault(input=tf.zeros([0, *shape[1:]], dtype), shape=shape)


def _of_length(sent, length):
  """(clients, uint8[m, length]) of the messages of this length."""
  fitting = tf.equal(sent['lengths'], length)
  of_each = tf.boolean_mask(sent['messages'], tf.repeat(fitting, sent['lengths']))
  return tf.boolean_mask(sent['clients'], fitting), tf.reshape(of_each, [-1, length])
