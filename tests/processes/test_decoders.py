"""The server's book of decoders: who has which, who is offered what, and what a pre-pass sends and drops."""

import collections

import numpy as np
import pytest

from tff_compress import autoencoders
from tff_compress.autoencoders import learning

SIZES, LENGTH = (20, 4), 8


def parts(shared, groups=2, rate=1e-3, architecture=None):
  from tff_compress.processes.autoencoder import decoders
  from tff_compress.processes.autoencoder.networks import Networks
  architecture = architecture or autoencoders.linear(LENGTH, 2)
  rule = autoencoders.LearnedRule('concat | autoencoder:2,length=8 | float32',
                                  {'a': np.zeros(20, np.float32), 'b': np.zeros(4, np.float32)})
  networks, learner = Networks(architecture, SIZES, 1), learning.Learner(architecture, 24, SIZES, rate)
  if shared:
    return decoders.SharedDecoders(learner, networks, 2, rule, 3, groups, 1)
  return decoders.OwnDecoders(learner, networks, 2)


def snapshots(client):
  """float32[3, 24]: even clients and odd ones move in different directions."""
  rng = np.random.default_rng(client)
  base = np.random.default_rng(100 + client % 2).standard_normal(24)
  return (base * (1 + 0.1 * rng.standard_normal((3, 24)))).astype(np.float32)


def memory(client, learned=False):
  import tensorflow as tf
  return {'client': tf.constant(client, tf.int64), 'learned': tf.constant(client + 1 if learned else 0, tf.int64)}


def sent(decoders, book, state, clients, learned=()):
  """What the clients of a pre-pass send."""
  import tensorflow as tf
  messages = [decoders.learn(tf.constant(snapshots(c)), book.offered(state), memory(c, c in learned),
                             tf.constant(0))[0] for c in clients]
  return collections.OrderedDict(messages=tf.concat(messages, 0), lengths=tf.stack([tf.size(m) for m in messages]),
                                 clients=tf.constant(clients, tf.int64))


def after(decoders, book, state, clients, learned=()):
  import tensorflow as tf
  state, received = book.after(state, sent(decoders, book, state, clients, learned), tf.constant(0))
  rows = dict(zip(state['clients'].numpy().tolist(), state['rows'].numpy().tolist()))
  return state, rows, int(received)


def test_own_decoders_replace_each_other():
  from tff_compress.processes.autoencoder import book as lib
  decoders = parts(False)
  book = lib.Book(decoders)
  state, rows, received = after(decoders, book, book.initial(), [7, 3, 5])
  assert len(state['frames']) == 3 and sorted(rows.values()) == [0, 1,
                                                                 2] and received == 0 and len(book.offered(state)) == 0
  state, rows, _ = after(decoders, book, state, [3, 9], learned=[3])
  assert len(state['frames']) == 4 and set(rows) == {3, 5, 7, 9}
  vector = decoders.learn(snapshots(5), None, memory(5), np.int32(0))[1]
  np.testing.assert_array_equal(decoders.networks.of_vector(vector).decoder[0].weights,
                                decoders.network(book.frame_of(state, np.int64(5))).decoder[0].weights)
  assert not np.any(book.frame_of(state, np.int64(4)))


def test_groups_share_decoders_that_later_clients_take():
  from tff_compress.processes.autoencoder import book as lib
  decoders = parts(True)
  book = lib.Book(decoders)
  state, rows, received = after(decoders, book, book.initial(), [4, 1, 2, 3])
  assert len(state['frames']) == 2 and rows[2] == rows[4] != rows[1] == rows[3] and received == 4 * decoders.frame_bytes
  # Who comes later receives both, answers with 4 bytes, and has the one of those like it.
  message = sent(decoders, book, state, [6])
  assert int(message['lengths'][0]) == 4
  state, rows, received = after(decoders, book, state, [6, 5])
  assert rows[6] == rows[2] and rows[5] == rows[1]
  assert received == 4 * decoders.frame_bytes and len(state['frames']) == 2
  # Those who learn again share a new one; the others keep theirs until nobody has it.
  state, rows, _ = after(decoders, book, state, [1, 5], learned=[1, 5])
  assert len(state['frames']) >= 3 and rows[3] not in (rows[1], rows[5]) and rows[2] == rows[4] == rows[6]
  state, rows, _ = after(decoders, book, state, [2, 3, 4, 6], learned=[2, 3, 4, 6])
  assert set(rows.values()) == set(range(len(state['frames']))) and len(book.offered(state)) == 2


def test_the_order_in_which_messages_come_does_not_matter():
  from tff_compress.processes.autoencoder import book as lib
  decoders = parts(True)
  book = lib.Book(decoders)
  one, other = (after(decoders, book, book.initial(), clients)[0] for clients in ([1, 2, 3], [3, 1, 2]))
  for name in one:
    np.testing.assert_array_equal(one[name], other[name])


def test_fewer_clients_than_groups():
  from tff_compress.processes.autoencoder import book as lib
  decoders = parts(True, groups=5)
  book = lib.Book(decoders)
  state, rows, _ = after(decoders, book, book.initial(), [1, 2])
  assert len(state['frames']) == 2 and rows[1] != rows[2] and len(book.offered(state)) == 2


@pytest.mark.parametrize('shared', [False, True])
def test_what_is_not_finite_is_not_sent(shared):
  """A learning rate at which the networks of clients diverge."""
  from tff_compress.processes.autoencoder import book as lib
  decoders = parts(shared, rate=1e38, architecture=autoencoders.dense(LENGTH, 2))
  book = lib.Book(decoders)
  state, rows, received = after(decoders, book, book.initial(), [1, 2])
  assert not rows and len(state['frames']) == 0 and received == 0


def test_a_shared_decoder_is_near_the_snapshots_of_its_group():
  from tff_compress.codec.ops import numpy_ops as xp
  from tff_compress.processes.autoencoder import book as lib
  decoders = parts(True)
  book = lib.Book(decoders)
  state, _, _ = after(decoders, book, book.initial(), [1, 2, 3, 4])
  for client in (1, 2):
    net = learning.numbers_of(decoders.network(book.frame_of(state, np.int64(client))))
    x = snapshots(client)[0]
    assert np.linalg.norm(net.decode(xp, net.encode(xp, x, 24), 24) - x) < 0.2 * np.linalg.norm(x)
