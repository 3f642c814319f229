"""Changes since the start in TFF: residual pooling in both directions, with clients that miss rounds."""

import numpy as np
import pytest

from tff_compress import processes
from tff_compress import wire
from tff_compress.aggregators import communication
from tff_compress.timeline.history import HEADER_BYTES

pytestmark = [pytest.mark.xdist_group('tff'), pytest.mark.usefixtures('tff_runtime')]

MODEL_VALUES, POOLED_VALUES = 9 * 2 + 2 + 32 * 3 + 3, 2 + 2 + 32 * 3 + 3


def model_fn():
  import tensorflow as tf
  import tensorflow_federated as tff
  layers = tf.keras.layers
  kernel = lambda seed: tf.keras.initializers.GlorotUniform(seed)
  model = tf.keras.Sequential([
      layers.Input((6, 6, 1)), layers.Conv2D(2, 3, activation='relu', kernel_initializer=kernel(1)), layers.Flatten(),
      layers.Dense(3, kernel_initializer=kernel(2))])
  return tff.learning.models.from_keras_model(
      model, loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
      input_spec=(tf.TensorSpec([None, 6, 6, 1]), tf.TensorSpec([None], tf.int32)))


def dataset(client):
  import tensorflow as tf
  rng = np.random.default_rng(client)
  y = rng.integers(0, 3, 12).astype(np.int32)
  x = (rng.standard_normal((12, 6, 6, 1)) + y[:, None, None, None]).astype(np.float32)
  return tf.data.Dataset.from_tensor_slices((x, y)).batch(4)


def test_residual_pooling_in_both_directions_catches_up_for_the_same_bytes():
  """The model moves in the pooled subspace alone, so that nothing is lost on the way down either."""
  down = wire.FRAME_OVERHEAD + 4 * POOLED_VALUES
  runner, whole = (processes.Runner(processes.build_fed_avg(model_fn, uplink='rpn', downlink=downlink, seed=3))
                   for downlink in (processes.Changes('rpn', since='start'), 'float32'))
  start = runner.process.get_model_weights(runner.state)
  first = HEADER_BYTES + 2 + wire.FRAME_OVERHEAD + 4 * MODEL_VALUES
  placement = 2 + down
  usual = HEADER_BYTES + placement
  for ids, sent in (([0, 1], 2 * first), ([1], usual), ([1], usual), ([1, 2], usual + first + placement),
                    ([1], usual), ([0, 2], 2 * usual)):  # Client 0 missed four rounds, and client 2 one.
    data = [dataset(client) for client in ids]
    measured = communication(runner.next(ids, data))
    whole.next(ids, data)
    assert (measured['uplink_bytes'], measured['downlink_bytes']) == (len(ids) * down, sent)
    for ours, theirs in zip(runner.state.global_model_weights.trainable, whole.state.global_model_weights.trainable):
      np.testing.assert_allclose(ours, theirs, atol=1e-5)
  moved = runner.state.global_model_weights.trainable[0] - start.trainable[0]
  assert np.abs(moved).max() > 0.01
  np.testing.assert_allclose(moved, np.broadcast_to(moved[:1, :1], moved.shape), atol=1e-6)
  state = runner.client_state(0)
  assert set(state) == {'client', 'seen', 'version', 'start'}
  np.testing.assert_array_equal(state['start'][0], np.concatenate([np.ravel(w) for w in start.trainable]))

  doubled = type(start)([2 * w for w in start.trainable], [])
  runner.state = runner.process.set_model_weights(runner.state, doubled)
  assert communication(runner.next([0, 1], [dataset(0), dataset(1)]))['downlink_bytes'] == 2 * first
  np.testing.assert_array_equal(runner.client_state(1)['start'][0], 2 * state['start'][0])
