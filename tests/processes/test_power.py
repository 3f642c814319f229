"""PowerSGD's server and clients in plain TensorFlow: power iteration, sums, feedback, and the published counts."""

import numpy as np
import pytest
import tensorflow as tf

from tests.processes import test_fed_avg as small
from tff_compress import codec as codec_lib
from tff_compress import processes
from tff_compress import wire
from tff_compress.aggregators import communication
from tff_compress.processes import PowerSgd
from tff_compress.processes import ProcessError
from tff_compress.processes.up import steps as steps_lib

pytestmark = pytest.mark.xdist_group('tff')


def built(shapes, rank, codec='float32'):
  spec = codec_lib.Spec.of({str(i): np.zeros(shape, np.float32) for i, shape in enumerate(shapes)})
  return PowerSgd(rank).build(steps_lib.schedule(codec), spec, 5)


def simulate(server, rounds):
  """Yields (mean that is applied, what each client's frame decodes to, frames, published frame, state) of each round.

  Args:
    rounds: iterable, for each round one update (list of arrays) per client.
  """
  frame, number = tf.TensorSpec([None], tf.uint8), tf.TensorSpec([], tf.int32)
  publish, step = tf.function(server.publish), tf.function(server.step)
  arrays = [tf.TensorSpec(tensor.shape, tf.float32) for tensor in server.spec.tensors]
  send = tf.function(server.encode, input_signature=[arrays, frame, number, number])
  read = tf.function(server.decode, input_signature=[frame, frame])
  add = tf.function(server.decode_to_prefixes, input_signature=[frame])
  state = server.initial()
  for number, updates in enumerate(rounds):
    r = tf.constant(number)
    message = publish(state, r)
    frames = [send([tf.constant(a) for a in x], message, r, tf.constant(c)) for c, x in enumerate(updates)]
    decoded = [[a.numpy() for a in read(frame, message)] for frame in frames]
    sums = [add(frame)[0] for frame in frames] or [tf.zeros(server.prefix_types[0][0])]
    state, applied = step(state, [tf.add_n(sums) / len(sums)], r)
    yield [a.numpy() for a in applied], decoded, frames, message, state


def test_two_rounds_are_one_power_iteration():
  """Against the definition in NumPy; and on a fixed matrix the error tends to that of the best matrix of the rank."""
  rng = np.random.default_rng(0)
  matrix = rng.standard_normal((100, 4)) @ rng.standard_normal((4, 60)) + 0.5 * rng.standard_normal((100, 60))
  matrix = matrix.astype(np.float32)
  best = np.sqrt(np.sum(np.linalg.svd(matrix, compute_uv=False)[4:]**2))
  server = built([matrix.shape], 4)
  left, right, ratios = None, server.initial()['right'][0].numpy(), []
  for number, ((applied,), _, _, _, state) in enumerate(simulate(server, [[[matrix]]] * 12)):
    if number % 2:
      expected = left @ (left.T @ matrix)
      right = np.linalg.qr(matrix.T @ left)[0]
    else:
      expected = (matrix @ right) @ right.T
      left = np.linalg.qr(matrix @ right)[0]
    np.testing.assert_allclose(applied, expected, atol=2e-3)
    for side in state.values():
      np.testing.assert_allclose(side[0].numpy().T @ side[0].numpy(), np.eye(4), atol=1e-5)
    ratios.append(np.linalg.norm(matrix - applied) / best)
  assert all(b <= a + 1e-4 for a, b in zip(ratios, ratios[1:])), ratios
  # Rounds 1, 3 and 5 are iterations 1, 2 and 3 of the form with two trips.
  assert 1.3 < ratios[1] < 3.5 and ratios[3] < 1.05 and ratios[5] < 1.004, ratios


def test_the_mean_of_the_messages_decodes_to_the_mean_of_what_they_decode_to():
  rng = np.random.default_rng(1)
  shapes = [(3, 3, 4, 30), (7,), (40, 50), (5, 3), ()]
  rounds = [[[rng.standard_normal(s).astype(np.float32) for s in shapes] for _ in range(3)] for _ in range(4)]
  for updates, (applied, decoded, _, _, _) in zip(rounds, simulate(built(shapes, 2), rounds)):
    for i, shape in enumerate(shapes):
      np.testing.assert_allclose(applied[i], np.mean([x[i] for x in decoded], axis=0), atol=1e-5)
      if shape in ((7,), (5, 3), ()):
        np.testing.assert_allclose(applied[i], np.mean([x[i] for x in updates], axis=0), atol=1e-6)
      else:
        assert np.linalg.matrix_rank(applied[i].reshape(-1, shape[-1]), 1e-3) == 2


def test_with_feedback_nothing_is_lost_and_a_client_may_miss_any_rounds():
  """Client 1 takes part in some rounds only, even ones twice in a row: sent plus residual is always what went in."""
  rng = np.random.default_rng(2)
  given, received = np.zeros((2, 20, 30)), np.zeros((2, 20, 30))
  residual = [np.zeros((20, 30), np.float32) for _ in range(2)]
  fixed = rng.standard_normal((20, 2)) @ rng.standard_normal((2, 30))

  present = [(0,) if number % 3 else (0, 1) for number in range(30)]

  def rounds():
    for clients in present:
      sent = []
      for c in clients:
        x = (fixed + 0.1 * rng.standard_normal((20, 30))).astype(np.float32)
        given[c] += x
        residual[c] += x
        sent.append([residual[c].copy()])
      yield sent

  for clients, (_, decoded, _, _, _) in zip(present, simulate(built([(20, 30)], 2), rounds())):
    for c, (x,) in zip(clients, decoded):
      residual[c] -= x
      received[c] += x
      np.testing.assert_allclose(received[c] + residual[c], given[c], atol=1e-3)
  for c in range(2):
    assert np.linalg.norm(residual[c]) < 0.2 * np.linalg.norm(given[c])


@pytest.mark.parametrize('matrix', [np.zeros((20, 30), np.float32), np.ones((20, 30), np.float32),
                                    np.eye(20, 30, dtype=np.float32) * np.float32(1e-30),
                                    np.full((20, 30), 1e15, np.float32)], ids=['zeros', 'rank one', 'tiny', 'huge'])
def test_bases_stay_orthonormal_and_find_the_next_matrix(matrix):
  """Rounds in which nobody sends, or all send zeros, or less than the rank, leave a basis that works."""
  rng = np.random.default_rng(3)
  after = (rng.standard_normal((20, 3)) @ rng.standard_normal((3, 30))).astype(np.float32)
  after[:4], after[:, :4] = 0, 0  # As inputs that never change; unit vectors would not find anything.
  rounds = [[[matrix]]] * 3 + [[]] + [[[after]]] * 8
  for (applied,), _, _, _, state in simulate(built([(20, 30)], 3), rounds):
    assert np.all(np.isfinite(applied))
    for side in state.values():
      np.testing.assert_allclose(side[0].numpy().T @ side[0].numpy(), np.eye(3), atol=1e-5)
  np.testing.assert_allclose(applied, after, atol=1e-3)


def resnet18():
  """Shapes of ResNet-18 for CIFAR-10: 11,173,962 parameters."""
  def convolution(size, inputs, outputs):
    return [(size, size, inputs, outputs), (outputs,), (outputs,)]  # With batch normalization.
  shapes, inputs = convolution(3, 3, 64), 64
  for outputs in (64, 128, 256, 512):
    shapes += convolution(3, inputs, outputs) + convolution(3, outputs, outputs)
    shapes += convolution(1, inputs, outputs) if inputs != outputs else []
    shapes += 2 * convolution(3, outputs, outputs)
    inputs = outputs
  return shapes + [(512, 10), (10,)]


@pytest.mark.parametrize('rank, ratio', [(1, 243), (2, 135.8), (4, 72)])
def test_resnet18_shrinks_as_published(rank, ratio):
  """32 r (n + m) bits for each matrix and 32 for each other value, for one iteration: both halves, and vectors once."""
  shapes = resnet18()
  size = sum(int(np.prod(s)) for s in shapes)
  assert size == 11_173_962
  server = built(shapes, rank)
  halves = [messages.plan.payload_size for messages in server._coordinates]
  vectors = 4 * sum(s[0] for s in shapes if len(s) == 1)
  assert 4 * size / (sum(halves) - vectors) == pytest.approx(ratio, rel=0.003)
  # Each round has one half, and the vectors.
  factors = [4 * rank * sum(sides[half] for sides in server._sides if sides) for half in (0, 1)]
  assert halves == [f + vectors for f in factors]
  # What comes with the model is the other half's matrices.
  assert [messages.plan.payload_size for messages in server._bases] == factors[::-1]


def test_frames_are_as_long_as_their_coordinates():
  x = [np.zeros((20, 30), np.float32), np.zeros(9, np.float32)]
  rounds = simulate(built([(20, 30), (9,)], 3), [[x]] * 2)
  lengths = [(len(frames[0]), len(message)) for _, _, frames, message, _ in rounds]
  extra = wire.FRAME_OVERHEAD
  assert lengths == [(extra + 4 * (60 + 9), extra + 4 * 90), (extra + 4 * (90 + 9), extra + 4 * 60)]


def test_coordinates_may_be_quantized():
  rng = np.random.default_rng(4)
  matrix = (rng.standard_normal((40, 2)) @ rng.standard_normal((2, 50))).astype(np.float32)
  server = built([matrix.shape], 2, 'hadamard | uniform:bits=8 | pack')
  applied = list(simulate(server, [[[matrix]]] * 6))[-1][0][0]
  assert 1e-6 < np.linalg.norm(applied - matrix) / np.linalg.norm(matrix) < 0.02


@pytest.mark.parametrize('make', [
    lambda: PowerSgd(0), lambda: PowerSgd(1025), lambda: PowerSgd(True), lambda: PowerSgd(2.0),
    lambda: built([(4, 3), (100,)], 1), lambda: built([(100, 100)], 26),
    lambda: built([(40, 40)], 2, {0: 'float32', 1: 'int8'})],
                         ids=['zero', 'large', 'bool', 'float', 'small', 'no saving', 'schedule'])
def test_bad_arguments_are_typed_errors(make):
  with pytest.raises(ProcessError):
    make()


def test_rounds_in_tff_are_those_of_the_server_with_feedback(tff_runtime):
  """Bytes of both directions too; client 1 misses rounds, and one of its absences has an odd length."""
  import tensorflow_federated as tff
  del tff_runtime
  process = processes.build_fed_avg(
      small.model_fn, server=PowerSgd(1), error_feedback=True, seed=5, spec=small.SPEC,
      client_weighting=tff.learning.ClientWeighting.UNIFORM,
      client_optimizer_fn=tff.learning.optimizers.build_sgdm(float(small.RATE)))
  runner = processes.Runner(process)
  weights, residual = small.START, {c: [np.zeros_like(w) for w in small.START] for c in (0, 1)}
  present = [(0, 1), (0,), (0, 1), (0,), (0,), (0, 1)]

  def rounds():
    for clients in present:
      for c in clients:
        residual[c] = [e + x for e, x in zip(residual[c], small.update(weights, c))]
      yield [residual[c] for c in clients]

  server = PowerSgd(1).build(steps_lib.schedule('float32'), small.SPEC, 5)
  for clients, (applied, decoded, frames, message, _) in zip(present, simulate(server, rounds())):
    for c, sent in zip(clients, decoded):
      residual[c] = [e - x for e, x in zip(residual[c], sent)]
    weights = [w - x for w, x in zip(weights, applied)]
    measured = communication(runner.next(clients, [small.dataset(c) for c in clients]))
    for ours, expected in zip(runner.state.global_model_weights.trainable, weights):
      np.testing.assert_allclose(ours, expected, atol=1e-5)
    assert measured['uplink_bytes'] == sum(map(len, frames))
    assert measured['downlink_bytes'] == len(clients) * (wire.FRAME_OVERHEAD + 4 * 65 + len(message))
  for c in (0, 1):
    kept = runner.client_state(c)['residual'][0]
    np.testing.assert_allclose(kept, np.concatenate([e.reshape(-1) for e in residual[c]]), atol=1e-5)


@pytest.mark.parametrize('arguments', [
    dict(server='powersgd'), dict(server=PowerSgd(2)), dict(server=PowerSgd(1), uplink={0: 'float32', 1: 'float32'}),
    dict(server=PowerSgd(1), uplink='subsample:1/2 | float32', structured=processes.Structured())],
                         ids=['text', 'no saving', 'schedule', 'structured'])
def test_processes_refuse_what_does_not_fit(arguments, tff_runtime):
  del tff_runtime
  with pytest.raises(ProcessError):
    processes.build_fed_avg(small.model_fn, spec=small.SPEC, **arguments)
