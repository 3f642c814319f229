"""Sums of frames: weights per coordinate, where frames hold some of them alone."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from tff_compress import codec as codec_lib
from tff_compress.aggregators.frame_sum import FrameSum
from tff_compress.processes.confinement import structured
from tff_compress.tensorflow import MessageFunctions

pytestmark = pytest.mark.xdist_group('tff')

SIZE, CLIENTS, SHARE = 6000, 10, 0.1
SPEC = codec_lib.Spec.of({'w': np.zeros((SIZE // 10, 10), np.float32), 'b': np.zeros(7, np.float32)})


def sums(codec):
  messages = MessageFunctions(codec, SPEC, 5)
  return messages, FrameSum(messages, functools.partial(structured.coordinates_in, messages))


@pytest.fixture(scope='module')
def clients():
  """Updates that have half of their energy in common, which is where the two ways to normalize were compared."""
  rng = np.random.default_rng(0)
  common = rng.standard_normal(SIZE)
  return [[(common + rng.standard_normal(SIZE)).astype(np.float32).reshape(-1, 10), np.full(7, i, np.float32)]
          for i in range(CLIENTS)]


def mean_of(messages, total, updates, weights):
  @tf.function
  def add(accumulator, update, weight, client):
    return total.accumulate(accumulator, messages.encode(list(update), tf.constant(3), client), weight)
  accumulator = total.zero()
  for i, (update, weight) in enumerate(zip(updates, weights)):
    accumulator = add(accumulator, list(map(tf.constant, update)), tf.constant(weight, tf.float32), tf.constant(i))
  return [np.asarray(x) for x in total.mean(accumulator, tf.constant(3))]


def test_a_mean_over_those_who_sent_is_nearer_than_one_scaled_by_the_share(clients):
  """With p = 0.1 of 10 clients: 1 - (1 - p)^n = 0.651 of the mean arrives, NMSE 0.74; 1/p is unbiased, NMSE 1.63."""
  codec = 'b => float32; * => subsample:1/10,key=client | float32'
  messages, counted = sums(codec)
  mean = np.mean([c[0] for c in clients], axis=0)
  scaled, bias = mean_of(messages, FrameSum(messages), clients, np.ones(CLIENTS))
  halves = [[u / structured.scales(messages.plan)[0], b] for u, b in clients]
  averaged, same_bias = mean_of(messages, counted, halves, np.ones(CLIENTS))
  ratio = lambda x: np.sum(x * mean) / np.sum(mean**2)
  nmse = lambda x: np.sum((x - mean)**2) / np.sum(mean**2)
  assert ratio(averaged) == pytest.approx(0.651, abs=0.04) and ratio(scaled) == pytest.approx(1, abs=0.08)
  assert nmse(averaged) == pytest.approx(0.74, rel=0.08) and nmse(scaled) == pytest.approx(1.63, rel=0.08)
  assert np.mean(averaged == 0) == pytest.approx(0.9**10, abs=0.03)
  np.testing.assert_allclose(bias, 4.5)  # Sent by all.
  np.testing.assert_allclose(same_bias, 4.5)


@pytest.mark.parametrize('codec', ['concat | subsample:1/4,key=client | float32', 'subsample:0.3,key=client | float16'])
def test_every_coordinate_has_the_weights_of_those_who_sent_it(codec, clients):
  messages, total = sums(codec)
  weights = [1.0, 4.0, 2.5]
  ones = [np.ones(t.shape, np.float32) for t in SPEC.tensors]
  masks = [[np.asarray(x) != 0 for x in messages.decode(messages.encode(ones, tf.constant(3), tf.constant(i)))]
           for i in range(3)]
  scales = structured.scales(messages.plan)
  updates = [[u / s for u, s in zip(client, scales)] for client in clients[:3]]
  for j, ours in enumerate(mean_of(messages, total, updates, weights)):
    summed = sum(w * m[j] * u[j] for w, m, u in zip(weights, masks, clients))
    count = sum(w * m[j] for w, m in zip(weights, masks))
    np.testing.assert_allclose(ours, summed / np.maximum(count, 1e-9), rtol=2e-3, atol=2e-3)
    assert not np.any(ours[count == 0]) and np.any(count == 0)


def test_a_mask_that_clients_share_is_counted_before_it_is_undone(clients):
  """Everyone sent it: the mean is as without counting."""
  messages, total = sums('concat | subsample:1/4 | float32')
  counted, plain = (mean_of(messages, t, clients[:2], [1, 3]) for t in (total, FrameSum(messages)))
  for a, b in zip(counted, plain):
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_sums_merge_and_empty_frames_add_nothing(clients):
  messages, total = sums('concat | subsample:1/4,key=client | float32')
  frames = [messages.encode(client, tf.constant(0), tf.constant(i)) for i, client in enumerate(clients[:3])]
  one = total.zero()
  for frame in frames:
    one = total.accumulate(one, frame, tf.constant(2.0))
  one = total.accumulate(one, tf.zeros([0], tf.uint8), tf.constant(5.0))
  parts = [total.accumulate(total.zero(), frame, tf.constant(2.0)) for frame in frames]
  empty = total.accumulate(total.zero(), tf.zeros([0], tf.uint8), tf.constant(5.0))
  merged = total.merge(total.merge(empty, parts[2]), total.merge(parts[0], parts[1]))
  for a, b in zip(tf.nest.flatten(one), tf.nest.flatten(merged)):
    np.testing.assert_allclose(a, b, atol=1e-5)
  assert int(one['clients']) == 4 and int(one['sent']) == 3 and float(one['weight']) == 6
