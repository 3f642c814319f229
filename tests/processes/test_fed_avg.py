"""Processes whose clients remember, in TFF: as a few lines of NumPy say, with drop-outs, restarts, and two workers."""

import os

import numpy as np
import pytest

import tff_compress
from tff_compress import codec as codec_lib
from tff_compress import processes
from tff_compress import wire
from tff_compress.aggregators import communication
from tff_compress.codec.ops import numpy_ops as xp
from tff_compress.processes.protocols import ClientRound
from tff_compress.timeline.history import HEADER_BYTES

pytestmark = [pytest.mark.xdist_group('tff'), pytest.mark.usefixtures('tff_runtime')]

SEED, RATE, CLIENTS = 11, np.float32(0.1), 4
NAMES = ('kernel', 'bias')
SPEC = codec_lib.Spec.of({'kernel': np.zeros((12, 5), np.float32), 'bias': np.zeros(5, np.float32)})
START = [np.zeros((12, 5), np.float32), np.zeros(5, np.float32)]
SPARSE = 'concat | topk:1/10 | float32'

CASES = {
    'both-directions': dict(uplink={0: 'concat | topk:1/4 | float32', 2: SPARSE}, downlink=processes.Changes(SPARSE),
                            error_feedback=processes.ErrorFeedback(decay=0.9)),
    'momentum': dict(uplink=SPARSE, error_feedback=processes.ErrorFeedback(momentum=0.5),
                     relevance=processes.Relevance(0.6)),
    # Signum with majority vote: one bit up, one bit down.
    'vote': dict(uplink='signsgd', downlink=processes.Changes('signsgd', residual=False, step=0.01), uniform=True,
                 error_feedback=processes.ErrorFeedback(momentum=0.9, residual=False)),
}


def model_fn():
  import tensorflow as tf
  import tensorflow_federated as tff
  inputs = tf.keras.Input((12,))
  model = tf.keras.Model(inputs, tf.keras.layers.Dense(5, kernel_initializer='zeros')(inputs))
  return tff.learning.models.from_keras_model(
      model, loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
      input_spec=(tf.TensorSpec([None, 12]), tf.TensorSpec([None], tf.int32)))


def examples(client):
  """Clients have more of some classes than of others, and unequal numbers of examples."""
  rng = np.random.default_rng(client)
  y = rng.choice([*range(5), client, client], 20 + 4 * client)
  return (rng.standard_normal((len(y), 12)) + y[:, None]).astype(np.float32), y.astype(np.int32)


def dataset(client, x=None):
  import tensorflow as tf
  arrays = examples(client)
  arrays = arrays if x is None else (x, arrays[1][:len(x)])
  return tf.data.Dataset.from_tensor_slices(arrays).batch(64)


def update(weights, client):
  """What one step of SGD takes from the weights: RATE times the gradient."""
  x, y = examples(client)
  scores = np.exp(x @ weights[0] + weights[1])
  error = (scores / scores.sum(1, keepdims=True) - np.eye(5)[y]) / len(y)
  return [RATE * (x.T @ error).astype(np.float32), RATE * error.sum(0).astype(np.float32)]


@pytest.fixture(scope='module')
def built():
  """The process of each case, built once."""
  import tensorflow_federated as tff
  made = {}

  def build(case):
    if case not in made:
      arguments = dict(CASES[case])
      if arguments.pop('uniform', False):
        arguments['client_weighting'] = tff.learning.ClientWeighting.UNIFORM
      made[case] = processes.build_fed_avg(
          model_fn, client_optimizer_fn=tff.learning.optimizers.build_sgdm(float(RATE)), seed=SEED, spec=SPEC,
          **arguments)
    return made[case]
  return build


def vector(arrays):
  return np.concatenate([np.ravel(array) for array in arrays])


class Simulated:
  """The same process in NumPy."""

  def __init__(self, *, uplink, error_feedback, downlink=None, relevance=None, uniform=False):
    self.uplink = dict(uplink) if isinstance(uplink, dict) else {0: uplink}
    self.feedback, self.downlink, self.relevance, self.uniform = error_feedback, downlink, relevance, uniform
    self.round, self.weights, self.target, self.log = 0, START, START, []
    self.memories = [{slot: START for slot in self.feedback.slots} for _ in range(CLIENTS)]
    self.seen, self.version, self.had = [-1] * CLIENTS, [None] * CLIENTS, [None] * CLIENTS

  def pack(self, codec, arrays, client):
    frame = wire.pack(codec, dict(zip(NAMES, arrays)), seed=SEED, round=self.round, client=client)
    decoded, _ = wire.unpack(codec, frame, SPEC, seed=SEED)
    return len(frame), [decoded[name] for name in NAMES]

  def next(self, present):
    codec = self.uplink[max(start for start in self.uplink if start <= self.round)]
    up = down = skipped = weight = 0
    total = [np.zeros_like(w) for w in START]
    whole = 20 + 4 * SPEC.parameters
    for client in present:
      if self.downlink is None:
        down += whole
      else:
        missed = None if self.version[client] is None else self.log[self.version[client]:]
        counted = lambda n: n + (1 if n < 128 else 2)
        listed = counted(whole) if missed is None else sum(map(counted, missed))
        down += HEADER_BYTES + min(listed, counted(whole))
        self.version[client] = self.round
      x, new = update(self.weights, client), self.seen[client] < 0
      turn = ClientRound(np.int32(0 if new else self.round - self.seen[client] - 1))
      memory = self.feedback.accumulate(xp, self.memories[client], x, turn)
      relevant = self.relevance is None or new or self.relevance.holds(
          xp, [-v for v in x], self.had[client], self.weights, np.int32(self.round))
      self.seen[client], self.had[client] = self.round, self.weights
      if relevant:
        size, sent = self.pack(codec, self.feedback.signal(xp, memory, x, turn), client)
        memory = self.feedback.settle(xp, memory, x, sent, turn)
        count = 1 if self.uniform else len(examples(client)[1])
        up, weight, total = up + size, weight + count, [t + count * c for t, c in zip(total, sent)]
      else:
        skipped += 1
      self.memories[client] = memory
    self.target = [t - s / max(weight, 1) for t, s in zip(self.target, total)]
    if self.downlink is None:
      self.weights = self.target
    else:
      step = np.float32(self.downlink.step)
      size, change = self.pack(self.downlink.codec, [(t - w) / step for t, w in zip(self.target, self.weights)],
                               codec_lib.SHARED_CLIENT)
      self.weights = [w + c * step for w, c in zip(self.weights, change)]
      self.target = self.target if self.downlink.residual else self.weights
      self.log.append(size)
    self.round += 1
    return up, down, skipped


PATTERN = ([0, 1, 2], [0, 3], [1, 3], [0, 1, 2, 3], [2], [1, 2, 3], [0], [0, 1, 2, 3])


@pytest.mark.parametrize('case', CASES)
def test_rounds_are_those_of_numpy(built, case):
  process, simulated = built(case), Simulated(**CASES[case])
  server = process.initialize()
  memories = {client: process.initialize_client(client) for client in range(CLIENTS)}
  skips = 0
  for present in PATTERN:
    server, metrics, states = process.next(server, [dataset(c) for c in present], [memories[c] for c in present])
    memories.update({int(state['client']): state for state in states})
    up, down, skipped = simulated.next(present)
    measured = communication(metrics)
    assert (measured['uplink_bytes'], measured['downlink_bytes']) == (up, down)
    assert measured['uplink_clients'] == measured['downlink_clients'] == len(present)
    assert metrics['aggregator']['uplink_skipped'] == skipped
    skips += skipped
    for ours, expected in zip(server.global_model_weights.trainable, simulated.weights):
      np.testing.assert_allclose(ours, expected, atol=1e-5)
    for client in range(CLIENTS):
      for slot, arrays in simulated.memories[client].items():
        np.testing.assert_allclose(memories[client][slot][0], vector(arrays), atol=1e-5)
  assert (skips > 0) == ('relevance' in CASES[case])
  assert measured['uplink_bytes'] < 0.5 * 4 * SPEC.parameters * len(PATTERN[-1])


def test_two_workers_give_the_same_as_one(built):
  """Also in which client has which state: they are asked for in an order that is not that of the numbers."""
  from tff_compress import runtime
  process = built('both-directions')
  results = []
  for workers in (1, 2):
    with runtime.local_context(workers=workers):
      runner = processes.Runner(process)
      for present in ([2, 0, 1], [3, 1], [1, 3, 0, 2]):
        metrics = runner.next(present, [dataset(c) for c in present])
      results.append((runner, communication(metrics)))
  (one, ours), (two, theirs) = results
  assert ours == theirs
  for a, b in zip(one.state.global_model_weights.trainable, two.state.global_model_weights.trainable):
    np.testing.assert_allclose(a, b, atol=1e-6)
  for client in range(CLIENTS):
    a, b = one.client_state(client), two.client_state(client)
    for slot in ('residual', 'model'):
      for x, y in zip(a[slot], b[slot]):
        np.testing.assert_allclose(x, y, atol=1e-6)
    # Everyone took part in the last round: all have the same model, bit for bit.
    assert all(np.array_equal(x, y) for x, y in zip(b['model'], two.client_state(0)['model']))


def test_clients_that_drop_out_change_nothing(built):
  """No examples, and an update that is not finite: the mean and their memories are as if they had not been there."""
  process = built('both-directions')
  runners = [processes.Runner(process) for _ in range(2)]
  for runner in runners:
    runner.next([0, 1, 2], [dataset(c) for c in (0, 1, 2)])
  before = [runners[1].client_state(client)['residual'] for client in (1, 2)]
  runners[0].next([0], [dataset(0)])
  failing = [dataset(0), dataset(1, np.zeros((0, 12), np.float32)), dataset(2, np.full((3, 12), np.nan, np.float32))]
  metrics = runners[1].next([0, 1, 2], failing)
  assert metrics['aggregator']['uplink_skipped'] == 2
  for a, b in zip(*(runner.state.global_model_weights.trainable for runner in runners)):
    np.testing.assert_array_equal(a, b)
  for client, residual in zip((1, 2), before):
    after = runners[1].client_state(client)
    assert all(np.array_equal(x, y) for x, y in zip(after['residual'], residual))
    assert after['seen'] == 0  # Two rounds later it has missed one, and its residual decays for it.


def test_a_runner_goes_on_after_a_restart_and_after_errors(built, tmp_path):
  process = built('both-directions')
  folder = str(tmp_path)
  runner = processes.Runner(process, folder=folder)
  alone = processes.Runner(process)
  for number, present in enumerate(PATTERN[:5]):
    if number == 3:
      state = runner.state
      runner = processes.Runner(process, folder=folder)
      runner.state = state
    for one in (runner, alone):
      metrics = one.next([f'client {c}' for c in present], [dataset(c) for c in present])
  for a, b in zip(runner.state.global_model_weights.trainable, alone.state.global_model_weights.trainable):
    np.testing.assert_array_equal(a, b)
  stored = metrics['client_states']
  assert (stored['clients'], stored['dropped'], stored['bytes_per_client']) == (4, 0, process.client_state_bytes)
  assert 0 < stored['bytes'] - 4 * process.client_state_bytes < 4 * 100

  data = [dataset(0), dataset(1)]
  before = runner.state
  for wrong, error in ((['client 0'] * 2, 'times in one round'), (['a'], 'one for each'),
                       ([True, 'b'], 'text or a whole'),
                       ([], 'at least one')):
    with pytest.raises(processes.ClientError, match=error):
      runner.next(wrong, data if wrong else [])
  with pytest.raises(processes.ClientError, match='nothing is stored'):
    runner.forget('stranger')

  def refuse(state, metrics):
    raise ArithmeticError
  with pytest.raises(ArithmeticError):
    runner.next(['client 0', 'client 1'], data, check=refuse)
  assert runner.state is before and not [path for path in tmp_path.iterdir() if path.suffix != '.state']

  # A client that knows a later model than the server, as after a restart from an old checkpoint.
  early = processes.Runner(process, folder=folder)
  with pytest.raises(processes.StateError, match='is of round'):
    early.next(['client 0'], data[:1])
  path = max(tmp_path.iterdir(), key=os.path.getmtime)  # That of client 2, who was alone in the last round.
  path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(processes.StateError, match="'client 2'.*damaged"):
    runner.next(['client 2'], data[:1])
  runner.forget('client 2')
  metrics = runner.next(['client 2', 'client 0'], [dataset(2), dataset(0)])
  assert metrics['client_states']['clients'] == 4 and runner.round == 6
  with pytest.raises(processes.StateError, match='another model, codec'):
    processes.Runner(built('momentum'), folder=folder).next(['client 0'], data[:1])


def test_states_in_files_are_those_that_travel(built):
  """A process that is given the states of its clients, and a runner whose workers keep them in files, do the same."""
  import tensorflow as tf
  process = built('both-directions')
  runner = processes.Runner(process)
  server, states = process.initialize(), {}
  for present in PATTERN[:4]:
    metrics = runner.next(present, [dataset(c) for c in present])
    numbers = [int(runner.client_state(c)['client']) for c in present]
    given = [states.get(n, process.initialize_client(n)) for n in numbers]
    server, by_value, following = process.next(server, [dataset(c) for c in present], given)
    states.update((int(state['client']), state) for state in following)
    assert communication(metrics) == communication(by_value)
  for a, b in zip(*(tf.nest.flatten(state.global_model_weights) for state in (server, runner.state))):
    np.testing.assert_array_equal(a, b)
  for client in range(CLIENTS):
    kept = runner.client_state(client)
    for a, b in zip(*(tf.nest.flatten(dict(state)) for state in (kept, states[int(kept['client'])]))):
      np.testing.assert_array_equal(a, b)


def test_weights_that_are_set_reach_everyone(built):
  process = built('both-directions')
  runner = processes.Runner(process)
  runner.next([0, 1], [dataset(0), dataset(1)])
  weights = process.get_model_weights(runner.state)
  runner.state = process.set_model_weights(runner.state, type(weights)([w + 1 for w in weights.trainable], []))
  runner.next([0], [dataset(0)])
  np.testing.assert_array_equal(runner.client_state(0)['model'][0], vector(weights.trainable) + 1)


@pytest.mark.parametrize('normalize', ['none', 'inverse_p'])
def test_structured_updates_change_nothing_outside_the_mask(normalize):
  """One step is the masked gradient, as it is or times 1/p; many steps with momentum leave the rest at exactly 0."""
  import tensorflow_federated as tff
  uplink = 'concat | subsample:1/4,key=client | float32'
  process = processes.build_fed_avg(model_fn, uplink=uplink, structured=processes.Structured(normalize), seed=SEED,
                                    spec=SPEC,
                                    client_optimizer_fn=tff.learning.optimizers.build_sgdm(float(RATE), 0.9))
  ones = {name: np.ones(w.shape, np.float32) for name, w in zip(NAMES, START)}
  masks = []
  for client, data, steps in ((0, dataset(0), 1), (1, dataset(1).unbatch().batch(4), 7)):
    server, metrics, _ = process.next(process.initialize(), [data], [process.initialize_client(client)])
    frame = wire.pack(uplink, ones, seed=SEED, round=0, client=client)
    mask, _ = wire.unpack(uplink, frame, SPEC, seed=SEED)
    assert communication(metrics)['uplink_bytes'] == len(frame)
    for name, moved, x in zip(NAMES, server.global_model_weights.trainable, update(START, client)):
      assert np.all(moved[mask[name] == 0] == 0)
      if steps == 1:
        np.testing.assert_allclose(moved, -x * (mask[name] if normalize == 'inverse_p' else mask[name] != 0), atol=1e-6)
    masks.append(mask['kernel'])
  assert np.any(masks[0] != masks[1])


def test_fetch_sgd_keeps_all_memory_on_the_server():
  """Clients are never the same. The server's steps are those of `FetchServer` on the mean of the sketches."""
  import tensorflow as tf
  import tensorflow_federated as tff

  from tff_compress.processes.memories.fetchsgd import FetchServer
  from tff_compress.tensorflow import MessageFunctions
  uplink, fetch = 'concat | countsketch:3/5,rows=3 | float32', processes.FetchSgd('concat | topk:1/10 | float32', 0.5)
  process = processes.build_fed_avg(model_fn, uplink=uplink, server=fetch, seed=SEED, spec=SPEC,
                                    client_optimizer_fn=tff.learning.optimizers.build_sgdm(float(RATE)))
  messages = MessageFunctions(uplink, SPEC, SEED)
  simulated = FetchServer(fetch, messages)
  state, weights, server = simulated.initial(), START, process.initialize()
  for number in range(3):
    ids = [100 * number + c for c in range(2)]
    server, metrics, states = process.next(server, [dataset(c) for c in range(2)],
                                           [process.initialize_client(i) for i in ids])
    assert communication(metrics)['uplink_bytes'] == 2 * (wire.FRAME_OVERHEAD + 4 * 39)
    counts = [len(examples(c)[1]) for c in range(2)]
    sketches = [messages.decode_to_prefixes(messages.encode(update(weights, c), tf.constant(0), tf.constant(i)))[0]
                for c, i in enumerate(ids)]
    mean = sum(n * s for n, s in zip(counts, sketches)) / sum(counts)
    state, applied = simulated.step(state, [mean], tf.constant(number))
    weights = [w - d.numpy() for w, d in zip(weights, applied)]
    assert sum(np.count_nonzero(d) for d in applied) == 6
    for ours, expected in zip(server.global_model_weights.trainable, weights):
      np.testing.assert_allclose(ours, expected, atol=1e-5)
  assert set(states[0]) == {'client', 'seen', 'version'}


def test_aggregation_factories_refuse_what_clients_would_have_to_remember():
  with pytest.raises(codec_lib.CompressionError, match='build_fed_avg'):
    tff_compress.uplink(SPARSE, error_feedback=True)
  with pytest.raises(codec_lib.CompressionError, match='build_fed_avg'):
    tff_compress.uplink({0: SPARSE})
  with pytest.raises(codec_lib.CompressionError, match='build_fed_avg'):
    tff_compress.downlink(processes.Changes(SPARSE), model_fn)


@pytest.mark.parametrize('wrong', [dict(uplink={1: 'float32'}), dict(uplink='nonsense'), dict(uplink='dgc:p=1/10'),
                                   dict(error_feedback='yes'),
                                   dict(relevance=0.8), dict(structured=True), dict(server=True),
                                   dict(server='powersgd'),
                                   dict(structured=processes.Structured()),
                                   dict(seed=-1), dict(client_weighting='uniform'),
                                   dict(downlink='nonsense'), dict(spec={'a': np.zeros(3)})])
def test_bad_arguments_are_typed_errors(wrong):
  with pytest.raises(codec_lib.CompressionError):
    processes.build_fed_avg(model_fn, **wrong)
