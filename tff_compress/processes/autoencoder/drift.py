"""When clients should learn again: too many of the last messages were sent with the fallback."""

import collections

import tensorflow as tf

DRIFT_ROUNDS, DRIFT_PERCENT = 5, 30
"""After so many rounds with more than this share of fallbacks, clients should learn again."""


def initial():
  """What is remembered before the first round: OrderedDict of

    recent: int64[DRIFT_ROUNDS, 2], fallbacks and messages of the last rounds since a pre-pass.
    since: int32, the number of rounds since then.
    patience: int32, after how many of them clients may be asked to learn again.
  """
  return _no_rounds(tf.constant(DRIFT_ROUNDS))


def after_round(state, fallbacks, messages):
  """The same after a round with so many fallbacks among so many messages."""
  recent = tf.concat([state['recent'][1:], [[fallbacks, messages]]], 0)
  return collections.OrderedDict(recent=recent, since=state['since'] + 1, patience=state['patience'])


def after_prepass(state):
  """The same after clients learned. Where learning again did not help, it is asked for half as often each time. Groups
  of one pre-pass follow each other."""
  return _no_rounds(tf.where(drifts(state), tf.minimum(2 * state['patience'], 1 << 20),
                             tf.where(state['since'] > 0, DRIFT_ROUNDS, state['patience'])))


def drifts(state):
  """Whether too many of the last messages were fallbacks."""
  fallbacks, messages = tf.unstack(tf.reduce_sum(state['recent'], 0))
  return (state['since'] >= state['patience']) & (100 * fallbacks > DRIFT_PERCENT * messages)


def _no_rounds(patience):
  return collections.OrderedDict(recent=tf.zeros([DRIFT_ROUNDS, 2], tf.int64), since=tf.zeros([], tf.int32),
                                 patience=patience)
