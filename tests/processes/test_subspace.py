"""The process in the shared subspace, in TFF: each round bit for bit as NumPy says, which knows the messages alone."""

import functools

import numpy as np
import pytest

from tff_compress import codec as codec_lib
from tff_compress import processes
from tff_compress.aggregators import communication
from tff_compress.codec.ops import numpy_ops as xp
from tff_compress.processes import ProcessError
from tff_compress.processes.subspace.build import build_subspace_fed_avg
from tff_compress.subspace.rate import Rate
from tff_compress.subspace.runtime import NumpyRuntime
from tff_compress.subspace.server import Server
from tff_compress.subspace.session import Session
from tff_compress.timeline.copy import Copy
from tff_compress.timeline.start import Start

pytestmark = [pytest.mark.xdist_group('tff'), pytest.mark.usefixtures('tff_runtime')]

SEED, STEP, CLIENTS = 11, np.float32(2.0**-6), 4
SPEC = codec_lib.Spec.of({'kernel': np.zeros((24, 10), np.float32), 'bias': np.zeros(10, np.float32)})
FIRST = np.concatenate([np.linspace(-1, 1, 240, dtype=np.float32), np.zeros(10, np.float32)])
START = Start.like([FIRST[:240], FIRST[240:]], 77)
RATE = Rate(noise=0.05, rounds=20, first=0.3, most=1.0, floor=16)

CASES = {
    'seed': dict(start='seed', key_frames='int8', server=(0.5, 0.9), uplink_bits=2),
    'codec': dict(start='int8', key_frames='float32', server=(1.0, 0.0), downlink_bits=4),
    'start': dict(start=START, key_frames=None, server=(0.25, 0.5), uplink_bits=4),
}
EMPTY, NAN = 'empty', 'nan'
# Who takes part, and who fails: without examples, or with an update that is not a number.
PATTERN = [{0: 0, 1: 0, 2: 0}, {1: 0, 3: EMPTY}, {2: NAN, 0: 0}, {1: EMPTY, 2: NAN},
           *({number % 2: 0} for number in range(6)), {3: 0, 2: 0, 0: 0},
           *({1: 0, number % 2 * 2: 0} for number in range(6)), {0: 0, 1: 0, 2: 0, 3: 0}]


def model_fn():
  """Its gradient is the sum of outer products of inputs and labels: exact, for small whole numbers."""
  import tensorflow as tf
  import tensorflow_federated as tff

  class Sum(tf.keras.losses.Loss):
    def call(self, y_true, y_pred):
      return tf.reduce_sum(y_true * y_pred, -1)

  kernel = tf.keras.initializers.Constant(FIRST[:240].reshape(24, 10))
  model = tf.keras.Sequential([tf.keras.layers.Input((24,)), tf.keras.layers.Dense(10, kernel_initializer=kernel)])
  return tff.learning.models.from_keras_model(
      model, loss=Sum(tf.keras.losses.Reduction.SUM),
      input_spec=(tf.TensorSpec([None, 24]), tf.TensorSpec([None, 10])))


def examples(client, number):
  rng = np.random.default_rng([client, number])
  count = 2 + client
  return (rng.integers(-3, 4, (count, 24)).astype(np.float32), rng.integers(-2, 3, (count, 10)).astype(np.float32))


def dataset(client, number, failure=0):
  import tensorflow as tf
  x, y = examples(client, number)
  x, y = (x[:0], y[:0]) if failure == EMPTY else (x * np.float32('nan'), y) if failure == NAN else (x, y)
  return tf.data.Dataset.from_tensor_slices((x, y)).batch(64)


def update(model, client, number):
  """float32[250]: weights before less after one step of SGD."""
  x, y = examples(client, number)
  return model - (model - STEP * np.concatenate([(x.T @ y).reshape(-1), y.sum(0)]))


@functools.cache
def build(server=(1.0, 0.0), model=model_fn, **options):
  import tensorflow_federated as tff
  options = {'form': 'round', 'uplink_bits': 1, 'downlink_bits': 1, **options}
  return build_subspace_fed_avg(
      model, rate=RATE, seed=SEED, spec=SPEC if model is model_fn else None,
      client_optimizer_fn=tff.learning.optimizers.build_sgdm(float(STEP)),
      server_optimizer_fn=tff.learning.optimizers.build_sgdm(*server), **options)


def vector(weights):
  return np.concatenate([np.ravel(w) for w in weights.trainable])


class Simulated:
  """Server and clients in NumPy. Clients know what their messages say, and nothing else."""

  def __init__(self, *, start, key_frames, server, uplink_bits=1, downlink_bits=1):
    (self.learning_rate, momentum), self.bits, self.next_bits = server, downlink_bits, uplink_bits
    frames, first = codec_lib(key_frames or 'float32'), codec_lib('int8' if start == 'int8' else 'float32')
    self.session = Session(SPEC.parameters, SEED, RATE, momentum, NumpyRuntime(SPEC, SEED, frames, first))
    model = FIRST
    if start == 'seed':
      start = Start.like([FIRST[:240], FIRST[240:]], SEED)
    if isinstance(start, Start):
      model = start.vector(SPEC)
    about = None if key_frames is None else frames.plan(SPEC).payload_size * len(self.session.vectors)
    self.server = Server.begin(self.session, model, bits=uplink_bits, key_frame_bytes=about,
                               start=start.to_bytes() if isinstance(start, Start) else None)
    self.copies = {client: Copy(self.session) for client in range(CLIENTS)}
    self.gap = 0.0

  def next(self, present, number, names):
    """(bytes up, bytes down, messages that were not sent) of a round; `names` are the clients' numbers in messages."""
    up = down = weights = 0
    total, arrived = np.zeros(self.server.session.kept(xp, self.server.copy), np.float32), []
    for client, failure in present.items():
      message = self.server.timeline.way(self.copies[client].version)
      down += len(message)
      copy = self.copies[client] = self.copies[client].follow(message)
      assert copy.present['model'].tobytes() == np.asarray(self.server.copy['model']).tobytes()
      if not failure:
        number_of = int(np.int64(names[client]).astype(np.int32))
        own = update(copy.present['model'], client, number)
        message = bytes(self.session.upload(xp, copy.present, own, number_of))
        up += len(message)
        weight = np.float32(len(examples(client, number)[0]))
        found = weight * self.server.read(message, number_of)
        total = total + found if arrived else found
        arrived.append(client)
        weights += weight
    self.server = self.server.after(total / np.float32(weights) if arrived else None, learning_rate=self.learning_rate,
                                    bits=self.bits, next_bits=self.next_bits)
    return up, down, len(present) - len(arrived)


@pytest.mark.parametrize('case', CASES)
def test_rounds_are_those_of_numpy_to_the_bit(case):
  runner, simulated = processes.Runner(build(**CASES[case])), Simulated(**CASES[case])
  kept, key_frames = set(), 0
  for number, present in enumerate(PATTERN):
    before = runner.state
    metrics = runner.next(present, [dataset(client, number, failure) for client, failure in present.items()])
    names = {client: int(runner.client_state(client)['client']) for client in present}
    up, down, skipped = simulated.next(present, number, names)
    measured = communication(metrics)
    assert (measured['uplink_bytes'], measured['downlink_bytes']) == (up, down)
    assert metrics['aggregator']['uplink_skipped'] == skipped
    assert vector(runner.state.global_model_weights).tobytes() == simulated.server.copy['model'].tobytes()
    if skipped == len(present):
      assert up == 0 and vector(before.global_model_weights).tobytes() == simulated.server.copy['model'].tobytes()
    for client, failure in present.items():
      state = runner.client_state(client)
      assert int(state['version']) == simulated.copies[client].version
      if not failure:
        assert int(state['seen']) == number
    kept.add(int(metrics['aggregator']['kept']))
    key_frames += simulated.server.timeline.state['base_version'] == number + 1
  assert len(kept) > 1, 'the rule changed k'
  assert (key_frames > 0) == (CASES[case]['key_frames'] is not None)


def test_two_workers_give_the_same_as_one():
  """Sums of clients come together in another order; a client's message depends on its number, not on its place."""
  from tff_compress import runtime
  process, results = build(**CASES['codec']), []
  for workers in (1, 2):
    with runtime.local_context(workers=workers):
      runner = processes.Runner(process)
      for number, present in enumerate(([2, 0, 1], [3, 1], [1, 3, 0, 2])):
        metrics = runner.next(present, [dataset(client, number) for client in present])
    results.append((runner, communication(metrics)))
  (one, ours), (two, theirs) = results
  assert ours == theirs
  # Levels are the same but where a sum lies on the border between two.
  a, b = (vector(runner.state.global_model_weights) for runner in (one, two))
  assert np.linalg.norm(a - b) < 0.1 * np.linalg.norm(a - FIRST)
  assert all(one.client_state(c)['version'] == two.client_state(c)['version'] for c in range(CLIENTS))


def test_sums_merge_as_they_add():
  """TFF calls `merge` with several workers alone; either side may have had no client that sends."""
  import tensorflow as tf

  from tff_compress.processes.subspace.functions import SubspaceFunctions
  functions, whole = SubspaceFunctions.__new__(SubspaceFunctions), lambda value: tf.constant(value, tf.int64)
  nothing = {'sum': tf.zeros([0]), 'weight': tf.constant(0.0), 'bytes': whole(0), 'clients': whole(0),
             'sent': whole(0), 'missed': tf.constant(0.0)}
  some = {'sum': tf.constant([1.0, 2.0]), 'weight': tf.constant(3.0), 'bytes': whole(9), 'clients': whole(2),
          'sent': whole(1), 'missed': tf.constant(4.0)}
  types = {name: tf.TensorSpec([None] if name == 'sum' else [], value.dtype) for name, value in some.items()}
  merge = tf.function(functions.merge, [types, types], autograph=False)
  for a, b, times in ((nothing, nothing, 0), (some, nothing, 1), (nothing, some, 1), (some, some, 2)):
    merged = merge(a, b)
    assert {name: np.asarray(value).tolist() for name, value in merged.items() if name != 'sum'} == {
        'weight': 3.0 * times, 'bytes': 9 * times, 'clients': 2 * times, 'sent': times, 'missed': 4.0 * times}
    assert merged['sum'].numpy().tolist() == [1.0 * times, 2.0 * times] * bool(times)


def test_weights_that_are_set_reach_everyone_and_a_run_goes_on_after_a_stop(tmp_path):
  process = build(**CASES['seed'])
  alone, runner = (processes.Runner(process, folder=str(tmp_path / name)) for name in ('alone', 'stopped'))
  copies = [Copy(Simulated(**CASES['seed']).session)]
  for number in range(4):
    if number == 2:
      state, runner = runner.state, processes.Runner(process, folder=str(tmp_path / 'stopped'))
      runner.state = state
      for one in (alone, runner):
        weights = process.get_model_weights(one.state)
        one.state = process.set_model_weights(one.state, type(weights)([w + 1 for w in weights.trainable], []))
      before = vector(weights)
      assert vector(alone.state.global_model_weights).tobytes() == (before + 1).tobytes()
    for one in (alone, runner):
      measured = communication(one.next([0, 1], [dataset(client, number) for client in (0, 1)]))
    if number == 2:
      assert measured['downlink_bytes'] > 2 * 4 * SPEC.parameters, 'the weights that were set are sent to everyone'
    assert measured['uplink_bytes'] > 0
  assert vector(alone.state.global_model_weights).tobytes() == vector(runner.state.global_model_weights).tobytes()
  from tff_compress.timeline import history
  copy = copies[0].follow(bytes(history.way(xp, runner.state.distributor['history'], history.UNKNOWN)))
  assert copy.present['model'].tobytes() == vector(runner.state.global_model_weights).tobytes()
  with pytest.raises(processes.StateError, match='another model, codec'):
    processes.Runner(build(**CASES['codec']), folder=str(tmp_path / 'stopped')).next([0], [dataset(0, 0)])


def test_the_alarm_is_raised_where_the_weights_have_ten_times_the_first_energy_or_a_round_moves_much():
  runner, calm = processes.Runner(build(server=(8.0, 0.0))), processes.Runner(build(server=(0.01, 0.0)))
  alarms, growth = [], []
  for _ in range(12):
    metrics = runner.next([0, 1], [dataset(client, 0) for client in (0, 1)])['aggregator']
    alarms.append(int(metrics['alarm']))
    model = vector(runner.state.global_model_weights).astype(np.float64)
    growth.append(float(model @ model) / float(FIRST.astype(np.float64) @ FIRST))
    np.testing.assert_allclose(metrics['growth'], growth[-1], rtol=1e-5)
  assert growth[0] < 10 < growth[-1]
  # Eight times the usual step is too much from the first round on.
  assert alarms[0] and all(alarm for alarm, value in zip(alarms, growth) if value > 10)
  for _ in range(6):
    assert not calm.next([0, 1], [dataset(client, 0) for client in (0, 1)])['aggregator']['alarm']


def normalized_model_fn():
  import tensorflow as tf
  import tensorflow_federated as tff
  layers = tf.keras.layers
  model = tf.keras.Sequential([layers.Input((24,)), layers.Dense(4), layers.BatchNormalization(), layers.Dense(10)])
  return tff.learning.models.from_keras_model(
      model, loss=tf.keras.losses.MeanSquaredError(),
      input_spec=(tf.TensorSpec([None, 24]), tf.TensorSpec([None, 10])))


def test_moving_statistics_are_neither_moved_nor_counted():
  runner = processes.Runner(build(model=normalized_model_fn))
  before = runner.process.get_model_weights(runner.state)
  trainable = sum(w.size for w in before.trainable)
  metrics = runner.next([0, 1], [dataset(client, 0) for client in (0, 1)])
  after = runner.process.get_model_weights(runner.state)
  for a, b in zip(before.non_trainable, after.non_trainable, strict=True):
    np.testing.assert_array_equal(a, b)
  assert all(np.any(a != b) for a, b in zip(before.trainable[:1], after.trainable[:1]))
  assert communication(metrics)['downlink_bytes'] < 2 * (4 * trainable + 120)


@pytest.mark.parametrize('name', ['adagrad', 'adam', 'rmsprop', 'yogi'])
def test_server_optimizers_that_move_each_weight_by_a_rule_of_its_own_are_refused_by_name(name):
  import tensorflow_federated as tff
  optimizer = getattr(tff.learning.optimizers, f'build_{name}')(0.1)
  with pytest.raises(ProcessError, match=f'(?i)the server optimizer {name} moves each weight .*build_sgdm'):
    build_subspace_fed_avg(model_fn, server_optimizer_fn=optimizer)


@pytest.mark.parametrize('wrong, says', [
    (dict(uplink_bits=0), 'uplink_bits'), (dict(downlink_bits=5), 'downlink_bits'), (dict(rate=0.02), 'a Rate'),
    (dict(start=3), "'seed', a Start or a codec"), (dict(start='stc'), 'another start'),
    (dict(key_frames='stc'), 'another codec'),
    (dict(server_optimizer_fn='sgd'), 'server_optimizer_fn')])
def test_bad_arguments_are_typed_errors(wrong, says):
  with pytest.raises((ProcessError, codec_lib.CodecError), match=says):
    build_subspace_fed_avg(model_fn, **wrong)


def test_the_servers_momentum_is_that_of_tff():
  """On the changes as they were decoded, momentum and learning rate do what `build_sgdm` does with them."""
  import tensorflow as tf
  import tensorflow_federated as tff
  rng, space = np.random.default_rng(0), Simulated(start='float32', key_frames=None, server=(0.5, 0.9))
  plain = Simulated(start='float32', key_frames=None, server=(1.0, 0.0))
  optimizer = tff.learning.optimizers.build_sgdm(1.0, 0.9)
  weights = tf.constant(FIRST)
  state = optimizer.initialize(tf.TensorSpec([SPEC.parameters], tf.float32))
  copy = space.server.copy
  for _ in range(5):
    kept = space.session.kept(xp, copy)
    mean = rng.standard_normal(kept).astype(np.float32)
    record = space.session.change(xp, copy, mean, learning_rate=np.float32(0.5), bits=2, next_bits=1, key_frame=False)
    alone = {name: value for name, value in copy.items() if name != 'velocity'}
    decoded = copy['model'] - plain.session.move(xp, alone, record)['model']
    state, weights = optimizer.next(state, weights, tf.constant(decoded))
    copy = space.session.move(xp, copy, record)
    np.testing.assert_allclose(copy['model'], weights, atol=1e-5)
