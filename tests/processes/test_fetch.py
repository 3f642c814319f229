"""FetchSGD's server in plain TensorFlow: with no sketch it is top-k with feedback; with one, it finds what is large."""

import numpy as np
import pytest
import tensorflow as tf

from tff_compress import codec as codec_lib
from tff_compress.processes import FetchSgd
from tff_compress.processes import ProcessError
from tff_compress.processes.memories.fetchsgd import FetchServer
from tff_compress.tensorflow import MessageFunctions

pytestmark = pytest.mark.xdist_group('tff')

SIZE = 400
SPEC = codec_lib.Spec.of({'w': np.zeros((20, 20), np.float32)})


def run(uplink, fetch, updates):
  """Yields (what is applied, state) of each round in which one client sends the update."""
  messages = MessageFunctions(uplink, SPEC, seed=3)
  server = FetchServer(fetch, messages)
  step = tf.function(server.step)
  send = tf.function(lambda x: messages.decode_to_prefixes(messages.encode([x], tf.constant(0), tf.constant(7))))
  state = server.initial()
  for number, update in enumerate(updates):
    state, applied = step(state, send(tf.constant(update.reshape(20, 20))), tf.constant(number))
    yield np.asarray(applied[0]).reshape(-1), state


@pytest.mark.parametrize('masking', [True, False])
def test_without_a_sketch_it_is_momentum_with_feedback(masking):
  updates = [np.random.default_rng(i).standard_normal(SIZE).astype(np.float32) for i in range(5)]
  velocity, error = np.zeros(SIZE), np.zeros(SIZE)
  for (applied, state), update in zip(run('float32', FetchSgd('topk:1/20 | float32', 0.5, masking), updates), updates):
    velocity = 0.5 * velocity + update
    error += velocity
    top = np.argsort(-np.abs(error))[:20]
    expected = np.zeros(SIZE)
    expected[top] = error[top]
    np.testing.assert_allclose(applied, expected, atol=1e-5)
    error[top] = 0
    velocity[top] *= not masking
    np.testing.assert_allclose(state['error'][0], error, atol=1e-5)
    np.testing.assert_allclose(state['momentum'][0], velocity, atol=1e-5)


def test_large_values_are_found_through_a_sketch_and_nothing_is_applied_twice():
  heavy = np.zeros(SIZE, np.float32)
  heavy[[3, 50, 399]] = [10, -8, 6]
  noise = [0.02 * np.random.default_rng(i).standard_normal(SIZE).astype(np.float32) for i in range(12)]
  total = sum(applied for applied, _ in run('countsketch:1 | float32', FetchSgd('topk:1/100 | float32', momentum=0.0),
                                            [heavy + n for n in noise]))
  np.testing.assert_allclose(total[[3, 50, 399]], 12 * heavy[[3, 50, 399]], rtol=0.03)
  assert np.abs(np.delete(total, [3, 50, 399])).max() < 2


def test_bad_arguments_are_typed_errors():
  for make in (lambda: FetchSgd('nonsense'), lambda: FetchSgd('float32', 1.0), lambda: FetchSgd('float32', masking=0)):
    with pytest.raises(codec_lib.CompressionError):
      make()
  assert issubclass(ProcessError, codec_lib.CompressionError)
