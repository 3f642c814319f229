"""Coins that all clients of a round and the server toss alike, without a byte between them."""

from tff_compress.codec import keys as keys_lib
from tff_compress.codec import random


def request():
  """(scope, name, purpose, chunk) of the key of a round's coin, as `GraphKeys` takes it."""
  return 'round', '', int(random.Purpose.COIN), 0


def coin(xp, keys, probability):
  """Boolean scalar, True with this probability in steps of 2^-16: never for 0, always for 1.

  Args:
    xp: operation table.
    keys: `MessageKeys`, or `GraphKeys` of `request`: of the session seed and the round.
    probability: number from 0 to 1.
  """
  drawn = keys_lib.Draws(xp, keys, '', 0).of('round', random.Purpose.COIN).dither(1)
  return drawn[0] < xp.constant(probability, drawn.dtype)


def coin_in_graph(seed, round_number, probability):
  """`coin` of a round whose number is an int32 scalar tensor; `seed` is the session seed, an int."""
  import tensorflow as tf

  from tff_compress.tensorflow.keys import GraphKeys
  from tff_compress.tensorflow.ops import TensorFlowOps
  keys = GraphKeys([request()], seed, round_number, tf.constant(random.signed(random.SHARED_CLIENT), tf.int32))
  return coin(TensorFlowOps(), keys, probability)
