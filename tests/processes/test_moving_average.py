"""The moving average of weights is what its formula says, of any structure and any learning process."""

import collections
import pathlib
import re
from typing import NamedTuple

import numpy as np
import pytest

import tff_compress
from tff_compress import processes

GUIDE = pathlib.Path(__file__).resolve().parents[2] / 'docs' / 'stateful-processes.md'


class Weights(NamedTuple):
  trainable: list
  non_trainable: list


class State(NamedTuple):
  global_model_weights: Weights
  other: int = 3


def weights(value, dtype=np.float32):
  return Weights([np.full((2, 3), value, dtype), dtype(value)], [])


def test_it_forgets_by_its_momentum_and_starts_with_the_first_weights():
  """In closed form: m^(n-1) w_1 + the sum over later i of (1 - m) m^(n-i) w_i."""
  momentum, values = 0.75, np.random.default_rng(0).normal(size=20)
  average = processes.MovingAverage(momentum)
  assert average.weights is None
  for value in values:
    average.update(weights(value))
  shares = (1 - momentum) * momentum ** np.arange(19, -1, -1.0)
  shares[0] = momentum**19
  assert shares.sum() == pytest.approx(1)
  for found in average.weights.trainable:
    np.testing.assert_allclose(found, np.full_like(found, shares @ values), rtol=1e-5)


def test_constant_weights_are_their_average():
  average = processes.MovingAverage(0.9)
  for _ in range(100):
    average.update(weights(0.1))
  np.testing.assert_array_equal(average.weights.trainable[0], weights(0.1).trainable[0])


def test_independent_noise_shrinks_by_what_is_kept():
  """The variance of the average of independent values is (1 - m) / (1 + m) of theirs."""
  rng, average, found = np.random.default_rng(1), processes.MovingAverage(0.8), []
  for _ in range(400):
    found.append(average.update([rng.normal(size=500).astype(np.float32)])[0])
  assert np.var(found[50:]) == pytest.approx(0.2 / 1.8, rel=0.05)


def test_without_momentum_it_is_the_latest_bit_for_bit():
  average = processes.MovingAverage(0)
  for value in (0.1, 1e9, 0.3):
    average.update(weights(value))
  np.testing.assert_array_equal(average.weights.trainable[0], weights(0.3).trainable[0])


def test_it_takes_the_state_of_a_process():
  one, other = processes.MovingAverage(0.5), processes.MovingAverage(0.5)
  for value in (1.0, 2.0):
    one.update(weights(value))
    returned = other.update(State(weights(value)))
    assert returned is other.weights
  assert isinstance(one.weights, Weights)
  np.testing.assert_array_equal(one.weights.trainable[0], other.weights.trainable[0])


def test_structures_and_dtypes_stay_as_they_are_and_counters_are_the_latest():
  def tree(value):
    return {'a': (np.float16([value]), [np.float64(value)]), 'b': collections.OrderedDict(count=np.int64(value))}
  average = processes.MovingAverage(0.5)
  average.update(tree(2))
  found = average.update(tree(5))
  assert isinstance(found['a'], tuple) and isinstance(found['b'], collections.OrderedDict)
  assert found['a'][0].dtype == np.float16 and found['a'][1][0].dtype == np.float64
  assert (found['a'][0][0], found['a'][1][0], found['b']['count']) == (3.5, 3.5, 5)
  assert found['b']['count'].dtype == np.int64


def test_what_was_read_and_what_was_given_do_not_change():
  given = weights(1.0)
  average = processes.MovingAverage(0.5)
  first = average.update(given)
  given.trainable[0][:] = 7
  second = average.update(weights(3.0))
  assert first.trainable[0][0, 0] == 1 and second.trainable[0][0, 0] == 2


def test_it_goes_on_from_what_was_saved():
  whole, begun = processes.MovingAverage(0.9), processes.MovingAverage(0.9)
  for value in (1.0, 2.0, 5.0, -3.0):
    whole.update(weights(value))
  for value in (1.0, 2.0):
    begun.update(weights(value))
  again = processes.MovingAverage(0.9, begun.weights)
  for value in (5.0, -3.0):
    again.update(weights(value))
  for found, wanted in zip(again.weights.trainable, whole.weights.trainable):
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize('wrong', [
    Weights([np.zeros((3, 2), np.float32), np.float32(0)], []), weights(1, np.float64),
    Weights([np.zeros((2, 3), np.float32)], []), {'trainable': []}, Weights({'a': 1.0}, []),
], ids=['shape', 'dtype', 'number', 'structure', 'dict for a list'])
def test_weights_of_another_model_are_refused_and_change_nothing(wrong):
  average = processes.MovingAverage(0.5)
  before = average.update(weights(1.0))
  with pytest.raises(processes.ProcessError, match='another model'):
    average.update(wrong)
  assert average.weights is before


@pytest.mark.parametrize('wrong', [None, 'weights', object(), [None]])
def test_what_is_no_weights_is_refused(wrong):
  with pytest.raises(processes.ProcessError, match='an average takes'):
    processes.MovingAverage(0.5).update(wrong)


@pytest.mark.parametrize('momentum', [1, -0.1, float('nan'), '0.9', None])
def test_momentum_is_from_0_to_below_1(momentum):
  with pytest.raises(processes.ProcessError, match='momentum'):
    processes.MovingAverage(momentum)


def model_fn():
  import tensorflow as tf
  import tensorflow_federated as tff
  inputs = tf.keras.Input((4,))
  outputs = tf.keras.layers.Dense(3, kernel_initializer='zeros')(inputs)
  return tff.learning.models.from_keras_model(
      tf.keras.Model(inputs, outputs), loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
      input_spec=(tf.TensorSpec([None, 4]), tf.TensorSpec([None], tf.int32)))


def clients():
  import tensorflow as tf
  rng = np.random.default_rng(3)
  return [tf.data.Dataset.from_tensor_slices((rng.random((12, 4), np.float32), rng.integers(0, 3, 12, np.int32)))
          .batch(4) for _ in range(3)]


def fed_avg(uplink):
  import tensorflow_federated as tff
  return tff.learning.algorithms.build_weighted_fed_avg(
      model_fn, client_optimizer_fn=tff.learning.optimizers.build_sgdm(0.5),
      model_aggregator=tff_compress.uplink(uplink, seed=1))


def example():
  """What the block of the guide defines."""
  blocks = re.findall(r'^```python\n(.*?)^```$', GUIDE.read_text(encoding='utf-8'), re.MULTILINE | re.DOTALL)
  namespace = {}
  exec(next(block for block in blocks if 'MovingAverage' in block), namespace)
  return namespace


@pytest.mark.xdist_group('tff')
@pytest.mark.parametrize('uplink', ['float32', 'hadamard | uniform:bits=1 | pack'])
def test_the_example_of_the_guide_averages_any_process_and_goes_on_where_it_was_stopped(uplink, tff_runtime, tmp_path):
  del tff_runtime
  process, data, latest = fed_avg(uplink), clients(), []
  state = process.initialize()
  for _ in range(4):
    state = process.next(state, data).state
    latest.append(state.global_model_weights.trainable[0])
  train = example()['train']
  rounds = [data] * 4
  for folder, parts in (('whole', (rounds,)), ('parts', (rounds[:2], rounds))):
    for part in parts:
      found = train(process, part, str(tmp_path / folder))
    expected = latest[0]
    for kernel in latest[1:]:
      expected = 0.9 * expected + 0.1 * kernel
    kernel = process.get_model_weights(found).trainable[0]
    np.testing.assert_allclose(kernel, expected, rtol=1e-5, atol=1e-7)
    assert not np.allclose(kernel, latest[-1], rtol=1e-3)


@pytest.mark.xdist_group('tff')
def test_it_averages_processes_whose_clients_remember(tff_runtime):
  del tff_runtime
  import tensorflow_federated as tff
  process = tff_compress.build_fed_avg(model_fn, uplink='topk:1/4 | float32', error_feedback=True,
                                       client_optimizer_fn=tff.learning.optimizers.build_sgdm(0.5))
  runner, average, latest = processes.Runner(process), processes.MovingAverage(0.5), []
  for _ in range(3):
    runner.next(range(3), clients())
    average.update(runner.state)
    latest.append(process.get_model_weights(runner.state).trainable[0])
  np.testing.assert_allclose(average.weights.trainable[0], 0.25 * latest[0] + 0.25 * latest[1] + 0.5 * latest[2],
                             rtol=1e-5, atol=1e-7)
  assert isinstance(average.weights, tff.learning.models.ModelWeights)
