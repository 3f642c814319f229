"""A history of a model is the same in a graph as in NumPy: what is kept, every way, and what a client makes of it."""

import collections

import numpy as np
import pytest

from tests.timeline import toy
from tff_compress.codec.ops import numpy_ops
from tff_compress.timeline import history

pytestmark = pytest.mark.tf


class Graphs:
  """The functions of `history`, as graphs of states of any size."""

  def __init__(self, state):
    import tensorflow as tf

    from tff_compress.tensorflow.ops import TensorFlowOps
    one = tf.TensorSpec([None], tf.uint8)
    types = collections.OrderedDict(
        (name, tf.TensorSpec([None] if np.ndim(value) and name != 'digest' else np.shape(value),
                             np.asarray(value).dtype)) for name, value in state.items())

    def graph(function, *signature):
      def checked(*arguments):
        xp = TensorFlowOps()
        return xp.checked(function(xp, *arguments))
      return tf.function(checked, autograph=False, input_signature=signature)

    digest, number = tf.TensorSpec([4], tf.uint8), tf.TensorSpec([], tf.int32)
    self.steps = {function: graph(function, types, one, digest) for function in
                  (history.with_change, history.with_base, history.with_placement, history.renewed)}
    self.way, self.cost = graph(history.way, types, number), graph(history.cost, types, number)
    self.follow = graph(_followed, one, tf.TensorSpec([None], tf.uint8))


def _followed(xp, message, held):
  """Everything that a message says, in the order in which it is to be applied."""
  return xp.concat(history.follow(
      xp, message, held, on_base=lambda record: xp.concat([xp.constant([1], np.uint8), record]),
      on_change=lambda held, record: xp.concat([held, xp.constant([2], np.uint8), record]),
      on_placement=lambda held, record: xp.concat([held, xp.constant([3], np.uint8), record])))


def _array(state):
  return collections.OrderedDict((name, np.asarray(value)) for name, value in state.items())


@pytest.mark.parametrize('seed', [0, 1])
def test_states_and_ways_are_the_same(seed):
  rng = np.random.default_rng(seed)
  record = lambda most: np.frombuffer(rng.bytes(int(rng.integers(most))), np.uint8)
  state = _array(history.begin(numpy_ops, record(60), np.frombuffer(rng.bytes(4), np.uint8)))
  graphs = Graphs(state)
  names = [history.with_change] * 6 + [history.with_base, history.with_placement]
  for number in range(60):
    step = history.renewed if number == 40 else names[rng.integers(len(names))]
    given = record(200), np.frombuffer(rng.bytes(4), np.uint8)
    expected = _array(step(numpy_ops, state, *given))
    found = graphs.steps[step](state, *given)
    assert list(found) == list(expected)
    for name, value in expected.items():
      assert value.tobytes() == found[name].numpy().tobytes(), name
    state = expected
    for version in (history.UNKNOWN, 0, int(state['version']) + 1, *range(int(state['version']) - 6,
                                                                          int(state['version']) + 1)):
      way = graphs.way(state, np.int32(version)).numpy()
      assert way.tobytes() == history.way(numpy_ops, state, version).tobytes()
      assert graphs.cost(state, np.int32(version)) == len(way) == history.cost(numpy_ops, state, version)
      held = np.frombuffer(b'held', np.uint8)
      assert graphs.follow(way, held).numpy().tobytes() == _followed(numpy_ops, way, held).tobytes()


def test_messages_that_are_none_are_refused_in_graphs():
  import tensorflow as tf
  state = _array(history.begin(numpy_ops, np.arange(9, dtype=np.uint8), np.frombuffer(b'abcd', np.uint8)))
  state = _array(history.with_change(numpy_ops, state, np.frombuffer(toy.change(9, 0), np.uint8), state['digest']))
  graphs, way = Graphs(state), history.way(numpy_ops, state, history.UNKNOWN)
  held = np.zeros(0, np.uint8)
  graphs.follow(way, held)
  for bad in (way[:4], way[:-1], np.append(way, np.uint8(1)), np.append(np.uint8(4), way[1:]), way[:6]):
    with pytest.raises(tf.errors.InvalidArgumentError):
      graphs.follow(bad, held)
