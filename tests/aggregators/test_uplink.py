"""Uplinks and downlinks in TFF: same bytes as NumPy, unbiased means, linear prefixes, merge, TFF's own algorithms and
wrappers."""

import collections

import numpy as np
import pytest

import tff_compress
from tff_compress import codec as codec_lib

pytestmark = [pytest.mark.xdist_group('tff'), pytest.mark.usefixtures('tff_runtime')]

SEED = 77


@pytest.fixture(scope='module')
def tff():
  import tensorflow_federated
  return tensorflow_federated


def values(clients, seed=0):
  """Client values with a nested structure, a whole number and a scalar; wide differences of scale."""
  rng = np.random.Generator(np.random.Philox(seed))
  return [collections.OrderedDict(
      conv=(rng.standard_normal((40, 50)).astype(np.float32), np.float32(rng.standard_normal())),
      bias=rng.standard_normal(33).astype(np.float32) * np.float32(1e-3),
      steps=rng.integers(0, 9, 3).astype(np.int32)) for _ in range(clients)]


def value_type(tff):
  return tff.to_type(collections.OrderedDict(
      conv=(tff.TensorType(np.float32, [40, 50]), np.float32), bias=tff.TensorType(np.float32, [33]),
      steps=tff.TensorType(np.int32, [3])))


NAMES = ('bias', 'conv/0', 'conv/1', 'steps')


def named(value):
  """The value as the mapping that NumPy's side of the codec takes, in the order of `tf.nest`."""
  return dict(zip(NAMES, (value['bias'], value['conv'][0], value['conv'][1], value['steps'])))


CODECS = ('concat | hadamard:rotations=2 | subsample:1/4 | hadamard:key=client | eden | pack',
          '*/0 => hadamard:rotations=2,key=client | ternary:threshold=1.2 | rice; * => float32')


@pytest.mark.parametrize('text', CODECS)
def test_a_sum_is_of_the_frames_that_numpy_makes(tff, text):
  factory = tff_compress.aggregators.CodecSumFactory(text, seed=SEED)
  process = factory.create(value_type(tff))
  parts = factory.parts
  clients = values(5)
  frames = [np.asarray(parts['encode'](value, np.int32(0))) for value in clients]
  total = None
  for frame, value in zip(frames, clients):
    header = tff_compress.wire.read_header(frame.tobytes())
    assert header.round == 0
    assert frame.tobytes() == tff_compress.wire.pack(text, named(value), seed=SEED, round=0, client=header.client)
    decoded, _ = tff_compress.wire.unpack(text, frame.tobytes(), named(value), seed=SEED)
    total = decoded if total is None else {name: total[name] + decoded[name] for name in NAMES}
  output = process.next(process.initialize(), clients)
  result = named(output.result)
  for name in NAMES:
    np.testing.assert_allclose(result[name], total[name], rtol=1e-4, atol=1e-4)
  assert result['steps'].dtype == np.int32
  measured = tff_compress.aggregators.communication({'a': output.measurements})
  assert measured['uplink_bytes'] == sum(frame.size for frame in frames)
  assert measured['uplink_clients'] == 5
  assert measured['uplink_bytes_per_client'] == pytest.approx(measured['uplink_bytes'] / 5)
  assert measured['uplink_bits_per_parameter'] == pytest.approx(8 * measured['uplink_bytes'] / 5 / 2037)
  assert measured['uplink_ratio'] == pytest.approx(5 * 4 * 2037 / measured['uplink_bytes'])


def test_figures_of_nothing_are_none_and_several_reports_are_one():
  import tensorflow as tf

  from tff_compress.aggregators import accounting
  from tff_compress.aggregators import communication
  spec = codec_lib.Spec.of({'w': np.zeros(100, np.float32)})
  report = lambda total, clients, spec=spec: {
      name: figure.numpy() for name, figure in accounting.measurements(
          'uplink', *map(tf.constant, np.int64([total, clients])), spec).items()}
  nobody = communication({'a': report(0, 0)})
  assert nobody == {'uplink_bytes': 0, 'uplink_clients': 0, 'uplink_bytes_per_client': None,
                    'uplink_bits_per_parameter': None, 'uplink_ratio': None}
  skipped = communication(report(0, 3))
  assert (skipped['uplink_bytes_per_client'], skipped['uplink_bits_per_parameter'], skipped['uplink_ratio']) == (
      0, 0, None)
  assert communication(report(60, 3, codec_lib.Spec.of({})))['uplink_bits_per_parameter'] is None
  both = communication({'first': report(300, 3),
                        'second': {'inside': report(60, 3, codec_lib.Spec.of({'v': np.zeros(10, np.float32)}))}})
  assert both == {'uplink_bytes': 360, 'uplink_clients': 3, 'uplink_bytes_per_client': 120,
                  'uplink_bits_per_parameter': pytest.approx(8 * 120 / 110), 'uplink_ratio': pytest.approx(440 / 120)}


def test_merging_accumulators_gives_the_same_sum_as_one_accumulator(tff):
  factory = tff_compress.aggregators.CodecSumFactory(CODECS[0], seed=SEED)
  factory.create(value_type(tff))
  parts = factory.parts
  frames = [parts['encode'](value, np.int32(3)) for value in values(4)]

  def accumulate(some):
    accumulator = parts['zero']()
    for frame in some:
      accumulator = parts['accumulate'](accumulator, frame)
    return accumulator

  whole = parts['finish'](np.int32(3), accumulate(frames))
  halves = parts['finish'](np.int32(3), parts['merge'](accumulate(frames[:1]), accumulate(frames[1:])))
  for name in NAMES:
    np.testing.assert_allclose(named(whole[0])[name], named(halves[0])[name], rtol=1e-5, atol=1e-5)
  assert whole[1] == halves[1]
  assert whole[2]['round'] == 4 and whole[2]['measured'] == whole[1]


def test_rounds_draw_other_masks_and_clients_other_numbers(tff):
  factory = tff_compress.aggregators.CodecSumFactory('subsample:1/4 | uniform:bits=2 | pack')
  process = factory.create(tff.TensorType(np.float32, [512]))
  ones = np.arange(512, dtype=np.float32) / 512
  first = process.next(process.initialize(), [ones])
  second = process.next(first.state, [ones])
  assert np.any((first.result != 0) != (second.result != 0))
  frames = [np.asarray(factory.parts['encode'](ones, np.int32(0))).tobytes() for _ in range(2)]
  assert frames[0][12:16] != frames[1][12:16]
  seeded = tff_compress.aggregators.CodecSumFactory('subsample:1/4 | uniform:bits=2 | pack', seed=1)
  process = seeded.create(tff.TensorType(np.float32, [512]))
  again = [process.next(process.initialize(), [ones, -ones]).result for _ in range(2)]
  np.testing.assert_array_equal(*again)


def test_error_of_the_mean_of_equal_updates_falls_as_one_over_n(tff):
  factory = tff_compress.uplink('uniform:bits=1 | pack', weighted=False)
  process = factory.create(tff.TensorType(np.float32, [2000]))
  update = np.sin(np.arange(2000, dtype=np.float32))
  errors = {}
  for clients in (4, 64):
    result = process.next(process.initialize(), [update] * clients).result
    errors[clients] = np.sum((result - update)**2)
  assert errors[4] / errors[64] == pytest.approx(16, rel=0.2)


def test_empty_clients_count_for_nothing(tff):
  process = tff_compress.uplink('uniform:bits=8 | pack').create(tff.TensorType(np.float32, [100]),
                                                                tff.TensorType(np.float32))
  update = np.linspace(-1, 1, 100, dtype=np.float32)
  output = process.next(process.initialize(), [update, 5 * update], [1.0, 0.0])
  np.testing.assert_allclose(output.result, update, atol=0.01)
  output = process.next(process.initialize(), [update, update], [0.0, 0.0])
  np.testing.assert_array_equal(output.result, np.zeros(100))


def test_inside_tffs_clipping_zeroing_and_robust_wrappers(tff):
  inner = tff_compress.uplink('uniform:bits=8 | pack', seed=3)
  factory = tff.aggregators.zeroing_factory(100.0, tff.aggregators.clipping_factory(2.0, inner))
  process = factory.create(tff.TensorType(np.float32, [50]), tff.TensorType(np.float32))
  update = np.full(50, 1.0, np.float32)
  output = process.next(process.initialize(), [update, 1e6 * update, np.full(50, np.inf, np.float32)], [1.0, 1.0, 1.0])
  np.testing.assert_allclose(np.linalg.norm(output.result), 2.0 / 3, rtol=0.02)
  assert tff_compress.aggregators.communication(output.measurements)['uplink_clients'] == 3


@pytest.mark.parametrize('bad', [np.nan, np.inf])
def test_an_update_that_is_not_finite_is_an_error_that_says_what_to_do(tff, bad):
  process = tff_compress.uplink('float32', weighted=False).create(tff.TensorType(np.float32, [3]))
  with pytest.raises(Exception, match='zeroing or clipping'):
    process.next(process.initialize(), [np.asarray([1, bad, 2], np.float32)])


def test_names_for_rules_come_from_a_spec(tff):
  kinds = tff.to_type([tff.TensorType(np.float32, [64]), tff.TensorType(np.float32, [8])])
  spec = codec_lib.Spec.of({'dense/kernel': np.zeros(64), 'dense/bias': np.zeros(8)})
  text = '*/bias => float32; */kernel => uniform:bits=1 | pack'
  with pytest.raises(codec_lib.CodecError, match='no rule'):
    tff_compress.uplink(text, weighted=False).create(kinds)
  process = tff_compress.uplink(text, weighted=False, spec=spec).create(kinds)
  output = process.next(process.initialize(), [[np.ones(64, np.float32), np.ones(8, np.float32)]])
  assert output.measurements['mean_value']['uplink_bytes'] == tff_compress.wire.FRAME_OVERHEAD + 4 + 8 + 32
  with pytest.raises(codec_lib.SpecError, match='shapes'):
    tff_compress.uplink(text, weighted=False, spec={'a': np.zeros(3)}).create(kinds)


def test_a_rule_that_names_variables_is_told_where_there_are_no_names(tff):
  kinds = tff.to_type([tff.TensorType(np.float32, [64])])
  with pytest.warns(codec_lib.UnmatchedRuleWarning, match="'\\*/bias' fits no variable, as there are only '0'"):
    tff_compress.uplink('*/bias => float32; * => uniform:bits=2 | pack', weighted=False).create(kinds)


@pytest.mark.parametrize('make',
                         [lambda: tff_compress.uplink('nonsense'), lambda: tff_compress.uplink('float32', seed=-1),
                          lambda: tff_compress.uplink('float32', seed=2**64),
                          lambda: tff_compress.uplink('float32', spec=3)])
def test_bad_arguments_are_typed_errors(make):
  with pytest.raises(codec_lib.CompressionError):
    make()


# -- TFF's learning algorithms
# -------------------------------------------------------------------------------------------


def model_fn():
  import tensorflow as tf
  import tensorflow_federated as tff
  inputs = tf.keras.Input((6,))
  hidden = tf.keras.layers.Dense(16, activation='tanh',
                                 kernel_initializer=tf.keras.initializers.GlorotUniform(1))(inputs)
  hidden = tf.keras.layers.BatchNormalization()(hidden)
  outputs = tf.keras.layers.Dense(2, kernel_initializer=tf.keras.initializers.GlorotUniform(2))(hidden)
  return tff.learning.models.from_keras_model(
      tf.keras.Model(inputs, outputs), loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
      input_spec=(tf.TensorSpec([None, 6]), tf.TensorSpec([None], tf.int32)))


def client_data(clients):
  import tensorflow as tf
  rng = np.random.Generator(np.random.Philox(9))
  data = []
  for _ in range(clients):
    x = rng.standard_normal((40, 6)).astype(np.float32)
    y = (x[:, 0] > x[:, 1]).astype(np.int32)
    data.append(tf.data.Dataset.from_tensor_slices((x, y)).batch(10))
  return data


def algorithms(tff, downlink):
  sgd = tff.learning.optimizers.build_sgdm
  learning = tff.learning.algorithms
  up, plain = tff_compress.uplink('hadamard | uniform:bits=4 | pack', seed=1), tff_compress.uplink(
      'hadamard | uniform:bits=4 | pack', weighted=False, seed=1)
  yield lambda: learning.build_weighted_fed_avg(
      model_fn, client_optimizer_fn=sgd(0.3), model_aggregator=up, model_distributor=downlink())
  yield lambda: learning.build_unweighted_fed_avg(
      model_fn, client_optimizer_fn=sgd(0.3), model_aggregator=plain, model_distributor=downlink())
  yield lambda: learning.build_weighted_fed_prox(
      model_fn, 0.1, client_optimizer_fn=sgd(0.3), model_aggregator=up, model_distributor=downlink())
  yield lambda: learning.build_unweighted_fed_prox(
      model_fn, 0.1, client_optimizer_fn=sgd(0.3), model_aggregator=plain, model_distributor=downlink())
  yield lambda: learning.build_weighted_mime_lite(
      model_fn, base_optimizer=sgd(0.3, 0.5), model_aggregator=up, full_gradient_aggregator=up,
      model_distributor=downlink())
  yield lambda: learning.build_unweighted_mime_lite(
      model_fn, base_optimizer=sgd(0.3, 0.5), model_aggregator=plain, full_gradient_aggregator=plain,
      model_distributor=downlink())


NAMES_OF_ALGORITHMS = ['weighted_fed_avg', 'unweighted_fed_avg', 'weighted_fed_prox', 'unweighted_fed_prox',
                       'weighted_mime_lite', 'unweighted_mime_lite']


@pytest.mark.parametrize('number', range(6), ids=NAMES_OF_ALGORITHMS)
def test_learning_algorithms_run_as_they_are(tff, number):
  downlink = lambda: tff_compress.downlink('uniform:bits=8 | pack', model_fn, seed=2, residual=number % 2 == 0)
  process = list(algorithms(tff, downlink))[number]()
  state = process.initialize()
  losses = []
  for _ in range(4):
    output = process.next(state, client_data(3))
    state = output.state
    losses.append(float(output.metrics['client_work']['train']['loss']))
    measured = tff_compress.aggregators.communication(output.metrics)
    if 'mime' in NAMES_OF_ALGORITHMS[number]:
      # Updates and full gradients, of which TFF's metrics have the first alone.
      both = tff_compress.aggregators.communication(output.metrics, output.state)
      assert both['uplink_bytes'] == 2 * measured['uplink_bytes'] and both['uplink_clients'] == 3
      for name in ('uplink_ratio', 'uplink_bits_per_parameter'):
        assert both[name] == pytest.approx(measured[name])
    # 6 x 16 + 16 + 2 x 16 + 16 x 2 + 2 trainable values at 4 bits, as six messages' worth of ranges; 32 more down.
    assert measured['uplink_clients'] == measured['downlink_clients'] == 3
    assert 3 * 80 < measured['uplink_bytes'] < 3 * 160
    assert 3 * (178 + 32) < measured['downlink_bytes'] < 3 * 300
  assert losses[-1] < 0.9 * losses[0]


def test_a_downlink_delivers_what_numpy_decodes_and_its_residual_adds_up(tff):
  kind = tff.to_type([tff.TensorType(np.float32, [30, 40]), tff.TensorType(np.int64)])
  text = 'hadamard | uniform:bits=2 | pack'
  distributor = tff_compress.downlink(text, kind, residual=True, seed=5)

  @tff.federated_computation(distributor.initialize.type_signature.result, tff.FederatedType(kind, tff.SERVER))
  def one_round(state, weights):
    output = distributor.next(state, weights)
    first = tff.tensorflow.computation(lambda value: value[0], kind)
    return output.state, tff.federated_mean(tff.federated_map(first, output.result)), output.measurements

  weights = [np.sin(np.arange(1200, dtype=np.float32)).reshape(30, 40), np.int64(7)]
  # The number of clients comes from an argument placed at them; the computation above has none, so one is added.
  data_type = tff.FederatedType(np.int32, tff.CLIENTS)

  @tff.federated_computation(one_round.type_signature.parameter[0], one_round.type_signature.parameter[1], data_type)
  def with_clients(state, weights, data):
    return one_round(state, weights), tff.federated_sum(data)

  state = distributor.initialize()
  received = []
  for number in range(6):
    (state, mean, measured), _ = with_clients(state, weights, [1, 1])
    received.append(mean)
    assert measured['downlink_clients'] == 2
    if number == 0:
      frame = tff_compress.wire.pack(text, {'0': weights[0], '1': weights[1]}, seed=5, round=0,
                                     client=codec_lib.SHARED_CLIENT)
      expected, _ = tff_compress.wire.unpack(text, frame, {'0': weights[0], '1': weights[1]}, seed=5)
      np.testing.assert_allclose(mean, expected['0'], atol=1e-5)
      assert measured['downlink_bytes'] == 2 * len(frame)
  # What was lost is sent later: the sum of six messages is six times the weights, up to the last residual.
  np.testing.assert_allclose(sum(received) + state['residual'][0], 6 * weights[0], atol=1e-3)


def test_two_workers_give_the_sum_of_one(tff):
  from tff_compress import runtime
  process = tff_compress.aggregators.CodecSumFactory(CODECS[0], seed=SEED).create(value_type(tff))
  clients = values(5)
  one = process.next(process.initialize(), clients)
  with runtime.local_context(workers=2):
    two = process.next(process.initialize(), clients)
  for name in NAMES:
    np.testing.assert_allclose(named(one.result)[name], named(two.result)[name], rtol=1e-4, atol=1e-4)
  assert one.measurements == two.measurements


def test_uplink_and_downlink_have_codecs_where_none_is_named(tff):
  update = tff.to_type([tff.TensorType(np.float32, [200, 100])])
  process = tff_compress.uplink(weighted=False, seed=SEED).create(update)
  output = process.next(process.initialize(), [[np.ones([200, 100], np.float32)]] * 3)
  # 512 of 20,000 values at a bit each, their scale, and the frame around them.
  assert tff_compress.aggregators.communication(output.measurements)['uplink_bytes'] == 3 * (512 // 8 + 2 + 20)
  np.testing.assert_allclose(np.mean(output.result[0]), 1, atol=0.2)
  weights = tff.to_type(tff.learning.models.ModelWeights(
      trainable=[tff.TensorType(np.float32, [200, 100])], non_trainable=()))
  assert tff_compress.downlink(model=weights, seed=SEED).next.type_signature == tff_compress.downlink(
      'int8', weights, seed=SEED).next.type_signature
  with pytest.raises(codec_lib.CodecError, match='for a model'):
    tff_compress.downlink()
