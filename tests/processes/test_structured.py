"""Structured updates: training stays in the subspace that is sent, a mask or of low rank, and sending loses nothing."""

import numpy as np
import pytest

from tests.processes import test_fed_avg as small
from tff_compress import codec as codec_lib
from tff_compress import processes
from tff_compress import wire
from tff_compress.aggregators import communication
from tff_compress.codec import keys as keys_lib
from tff_compress.codec.ops import numpy_ops
from tff_compress.processes.confinement import structured

pytestmark = [pytest.mark.xdist_group('tff'), pytest.mark.usefixtures('tff_runtime')]

SEED, RATE = small.SEED, float(small.RATE)
LOW_RANK = 'size<20 => float32; * => lowrank:2/5,key=client | float32'
MASK = 'concat | subsample:1/4,key=client | float32'


def basis(text, spec, round_number, client):
  """[(positions of its variables, V: [size, coordinates], or None where there is no subspace)] of each segment."""
  found = []
  for segment in codec_lib(text).plan(spec).segments:
    stage, signal = segment.pipeline.stages[0], segment.pipeline.signals(segment.size)[0]
    if not hasattr(stage, 'maps'):
      found.append((segment.tensors, None))
      continue
    draws = keys_lib.Draws(numpy_ops, keys_lib.MessageKeys(SEED, round_number, client), segment.name, 0)
    _, lift = stage.maps(numpy_ops, draws, signal)
    eye = np.eye(stage.output(signal).size, dtype=np.float32)
    found.append((segment.tensors, np.stack([lift(e) for e in eye], axis=1)))
  return found


def projected(text, spec, tensors, round_number, client):
  """V V^T of tensors in the order of the spec."""
  result = list(tensors)
  for positions, v in basis(text, spec, round_number, client):
    if v is None:
      continue
    flat = np.concatenate([tensors[i].reshape(-1) for i in positions])
    flat = v @ (v.T @ flat)
    for i in positions:
      size = spec.tensors[i].size
      result[i], flat = flat[:size].reshape(spec.tensors[i].shape), flat[size:]
  return result


@pytest.mark.parametrize('name', ['sgd', 'momentum', 'adam', 'rmsprop'])
@pytest.mark.parametrize('text', [LOW_RANK, MASK, 'concat | lowrank:1/3 | float32'])
def test_the_optimizer_is_that_of_the_coordinates(text, name):
  """W moves as W0 + V B with B trained from 0 by the gradient V^T dL/dW."""
  import tensorflow as tf
  import tensorflow_federated as tff

  from tff_compress.tensorflow import MessageFunctions
  optimizers = tff.learning.optimizers
  make = {'sgd': lambda: optimizers.build_sgdm(0.1), 'momentum': lambda: optimizers.build_sgdm(0.1, 0.9),
          'adam': lambda: optimizers.build_adam(0.05), 'rmsprop': lambda: optimizers.build_rmsprop(0.05)}[name]
  rng = np.random.default_rng(0)
  shapes = {'a': (6, 9), 'b': (4,), 'c': (2, 3, 5)}
  spec = codec_lib.Spec.of({name: np.zeros(shape, np.float32) for name, shape in shapes.items()})
  start = [rng.standard_normal(t.shape).astype(np.float32) for t in spec.tensors]
  target = [rng.standard_normal(t.shape).astype(np.float32) for t in spec.tensors]
  gradient = lambda weights: [w - t for w, t in zip(weights, target)]

  messages = MessageFunctions(text, spec, SEED)

  @tf.function
  def run():
    optimizer = structured.Confined(make(), messages.plan, messages.subspaces(tf.constant(4), tf.constant(7)))
    weights = tuple(map(tf.constant, start))
    state = optimizer.initialize(tf.nest.map_structure(lambda w: tf.TensorSpec(w.shape, w.dtype), weights))
    for _ in range(5):
      state, weights = optimizer.next(state, weights, tuple(gradient(weights)))
    return weights

  trained = [w.numpy() for w in run()]

  inner, bases = make(), basis(text, spec, 4, 7)
  bases = [(p, np.eye(sum(spec.tensors[i].size for i in p), dtype=np.float32) if v is None else v) for p, v in bases]
  join = lambda tensors, p: np.concatenate([np.reshape(tensors[i], -1) for i in p])
  b = tuple(tf.zeros(v.shape[1]) for _, v in bases)
  state = inner.initialize(tuple(tf.TensorSpec(x.shape, x.dtype) for x in b))
  for _ in range(5):
    weights = list(start)
    for (p, v), coordinates in zip(bases, b):
      moved = join(start, p) + v @ coordinates.numpy()
      for i in p:
        weights[i], moved = moved[:spec.tensors[i].size].reshape(spec.tensors[i].shape), moved[spec.tensors[i].size:]
    g = gradient(weights)
    state, b = inner.next(state, b, tuple(tf.constant(v.T @ join(g, p)) for p, v in bases))
  for (p, v), coordinates in zip(bases, b):
    np.testing.assert_allclose(join(trained, p) - join(start, p), v @ coordinates.numpy(), atol=1e-5)


@pytest.fixture(scope='module', params=['none', 'inverse_p'])
def low_rank(request, tff_runtime):
  import tensorflow_federated as tff
  return request.param, processes.build_fed_avg(
      small.model_fn, uplink=LOW_RANK, structured=processes.Structured(request.param), seed=SEED, spec=small.SPEC,
      client_weighting=tff.learning.ClientWeighting.UNIFORM,
      client_optimizer_fn=tff.learning.optimizers.build_sgdm(RATE, 0.9))


@pytest.mark.parametrize('client, steps', [(0, 1), (1, 7)])
def test_what_arrives_is_what_was_trained_in_the_subspace(low_rank, client, steps):
  """One step is V V^T of the gradient's, as it is or times d1 / r; many steps leave the rest at 0 but for rounding."""
  normalize, process = low_rank
  data = small.dataset(client) if steps == 1 else small.dataset(client).unbatch().batch(4)
  server, metrics, _ = process.next(process.initialize(), [data], [process.initialize_client(client)])
  moved = [np.asarray(w) for w in server.global_model_weights.trainable]
  step = [-x for x in small.update(small.START, client)]
  inside = projected(LOW_RANK, small.SPEC, moved, 0, client)
  np.testing.assert_allclose(moved[0], inside[0], atol=1e-5 * np.abs(moved[0]).max())
  values = np.linalg.svd(moved[0], compute_uv=False)
  assert values[1] > 1e-3 and np.all(values[2:] < 1e-5 * values[0])
  # 2 of 5 columns of the kernel and the bias.
  assert communication(metrics)['uplink_bytes'] == wire.FRAME_OVERHEAD + 4 * (2 * 12 + 5)
  if steps == 1:
    expected = projected(LOW_RANK, small.SPEC, step, 0, client)
    np.testing.assert_allclose(moved[0], expected[0] * (2.5 if normalize == 'inverse_p' else 1), atol=1e-5)
    np.testing.assert_allclose(moved[1], step[1], atol=1e-5)


def test_one_step_is_the_gradients_in_the_mean_over_clients(low_rank):
  """E[V V^T] = (r / d1) I: 60 clients with the same data and bases of their own, within 2.5 standard errors."""
  normalize, process = low_rank
  ids, data = range(60), small.dataset(2)
  server, _, _ = process.next(process.initialize(), [data] * 60, [process.initialize_client(i) for i in ids])
  step = -small.update(small.START, 2)[0]
  share = 1 if normalize == 'inverse_p' else 2 / 5
  singles = [projected(LOW_RANK, small.SPEC, [step, step[0]], 0, i)[0] * share / (2 / 5) for i in ids]
  error = np.asarray(server.global_model_weights.trainable[0]) - share * step
  np.testing.assert_allclose(error, np.mean(singles, axis=0) - share * step, atol=1e-5)
  assert np.sum(error**2) < 2.5**2 * np.mean([np.sum((s - share * step)**2) for s in singles]) / 60


def test_a_quantizer_behind_it_keeps_updates_in_the_subspace():
  import tensorflow_federated as tff
  text = 'size<20 => float32; * => lowrank:2/5,key=client | hadamard:key=client | uniform:bits=4 | pack'
  process = processes.build_fed_avg(
      small.model_fn, uplink=text, structured=processes.Structured(), seed=SEED, spec=small.SPEC,
      client_optimizer_fn=tff.learning.optimizers.build_sgdm(RATE))
  server, metrics, _ = process.next(process.initialize(), [small.dataset(0)], [process.initialize_client(0)])
  moved = [np.asarray(w) for w in server.global_model_weights.trainable]
  np.testing.assert_allclose(moved[0], projected(text, small.SPEC, moved, 0, 0)[0], atol=1e-5)
  exact = projected(text, small.SPEC, [-x for x in small.update(small.START, 0)], 0, 0)[0]
  assert 0 < np.abs(moved[0] - exact).max() < 0.2 * np.abs(exact).max()
  assert communication(metrics)['uplink_bytes'] == wire.FRAME_OVERHEAD + 4 * 5 + 12 + 4


@pytest.mark.parametrize('uplink', [
    'float32', 'topk:1/4 | float32', 'hadamard | subsample:1/4 | float32', 'subsample:1/2 | subsample:1/2 | float32',
    {0: MASK, 3: LOW_RANK}], ids=str)
def test_uplinks_that_training_cannot_be_confined_to_are_refused(uplink):
  with pytest.raises(processes.ProcessError, match='structured'):
    processes.build_fed_avg(small.model_fn, uplink=uplink, structured=processes.Structured(), seed=SEED,
    spec=small.SPEC)


def test_counting_averages_every_coordinate_over_the_clients_that_sent_it():
  import tensorflow_federated as tff
  process = processes.build_fed_avg(
      small.model_fn, uplink=MASK, structured=processes.Structured('count'), seed=SEED, spec=small.SPEC,
      client_optimizer_fn=tff.learning.optimizers.build_sgdm(RATE))
  ids = range(3)
  server, _, _ = process.next(process.initialize(), list(map(small.dataset, ids)),
                              list(map(process.initialize_client, ids)))
  ones = [np.ones(t.shape, np.float32) for t in small.SPEC.tensors]
  total = weight = 0
  for client in ids:
    mask = small.vector(projected(MASK, small.SPEC, ones, 0, client))
    count = len(small.examples(client)[1])
    total, weight = total - count * mask * small.vector(small.update(small.START, client)), weight + count * mask
  moved = small.vector(server.global_model_weights.trainable)
  np.testing.assert_allclose(moved, total / np.maximum(weight, 1), atol=1e-6)
  assert not np.any(moved[weight == 0]) and np.any(weight == 0)


def test_what_is_not_a_mask_cannot_be_counted():
  with pytest.raises(processes.ProcessError, match='count'):
    processes.build_fed_avg(small.model_fn, uplink=LOW_RANK, structured=processes.Structured('count'), spec=small.SPEC)
