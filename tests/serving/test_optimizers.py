"""The server's step: TFF's optimizers, with their state as bytes between rounds."""

import collections

import numpy as np
import pytest

from tests.serving import tasks
from tff_compress.serving.optimizers import OptimizerError
from tff_compress.serving.optimizers import ServerOptimizer

pytestmark = [pytest.mark.tff, pytest.mark.xdist_group('tff')]


@pytest.mark.parametrize('name, rate, momentum', [('sgd', 1.0, 0.0), ('sgd', 0.5, 0.9), ('adam', 0.1, 0.0),
                                                  ('yogi', 0.1, 0.0), ('adagrad', 0.1, 0.0)])
def test_steps_from_kept_states_are_those_of_an_optimizer_that_goes_on(name, rate, momentum):
  import tensorflow as tf

  from tff_compress.keras import optimizers
  ours, theirs = ServerOptimizer(tasks.SPEC, name, rate, momentum), optimizers.of_server(name, rate, momentum)
  weights = tasks.update(0)
  tensors = collections.OrderedDict((key, tf.constant(value)) for key, value in weights.items())
  kept = ours.initialize()
  state = theirs.initialize(collections.OrderedDict((t.name, tf.TensorSpec(t.shape)) for t in tasks.SPEC.tensors))
  for round in range(1, 4):
    update = tasks.update(round)
    again = ServerOptimizer(tasks.SPEC, name, rate, momentum)  # Another process.
    assert again.step(kept, weights, update)[0] == ours.step(kept, weights, update)[0]
    kept, weights = again.step(kept, weights, update)
    state, tensors = theirs.next(state, tensors, collections.OrderedDict(
        (key, tf.constant(-value)) for key, value in update.items()))
    assert all(np.array_equal(weights[key], tensors[key]) for key in weights)
  if (name, momentum) == ('sgd', 0.0):
    total = sum(tasks.update(round)['w'].astype(np.float64) for round in range(4))
    np.testing.assert_allclose(weights['w'], total, rtol=1e-5, atol=1e-5)


def test_a_state_of_another_optimizer_is_refused():
  sgd, adam = (ServerOptimizer(tasks.SPEC, name, 0.1) for name in ('sgd', 'adam'))
  for state in (sgd.initialize(), b'', b'PK nonsense'):
    with pytest.raises(OptimizerError):
      adam.step(state, tasks.update(0), tasks.update(1))
