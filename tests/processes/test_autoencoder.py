"""Autoencoders that clients learn in a pre-pass: what is sent, when the fallback is, and that nothing is decoded with
another's decoder."""

import numpy as np
import pytest

import tff_compress
from tff_compress import autoencoders
from tff_compress import codec as codec_lib
from tff_compress import processes
from tff_compress import runtime
from tff_compress import wire
from tff_compress.aggregators import communication

pytestmark = [pytest.mark.xdist_group('tff'), pytest.mark.usefixtures('tff_runtime')]

VALUES = 12 * 5 + 5
UPLINK = 'concat | autoencoder:6 | uniform:bits=8 | pack'


def model_fn():
  import tensorflow as tf
  import tensorflow_federated as tff
  inputs = tf.keras.Input((12,))
  model = tf.keras.Model(inputs, tf.keras.layers.Dense(5, kernel_initializer='zeros')(inputs))
  return tff.learning.models.from_keras_model(
      model, loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
      input_spec=(tf.TensorSpec([None, 12]), tf.TensorSpec([None], tf.int32)))


def dataset(client, bad=False):
  import tensorflow as tf
  rng = np.random.default_rng(client)
  y = rng.integers(0, 5, 40)
  x = (rng.standard_normal((40, 12)) + 2 * np.eye(12)[y]).astype(np.float32)
  return tf.data.Dataset.from_tensor_slices((np.nan * x if bad else x, y.astype(np.int32))).batch(20)


def built(**changes):
  return tff_compress.build_autoencoder_fed_avg(model_fn, **{'uplink': UPLINK, 'tolerance': 0.9, 'seed': 1, **changes})


@pytest.fixture(scope='module')
def process(tff_runtime):
  return built()


def trainable(runner):
  return [np.array(w) for w in runner.state.global_model_weights.trainable]


def test_decoders_are_sent_once_and_latent_values_after(process):
  runner = processes.Runner(process)
  before = trainable(runner)
  metrics = runner.prepass(range(3), [dataset(c) for c in range(3)])
  # int8 weights, a scale and a bias for each value; mean and deviation of two variables.
  assert process.decoder_bytes == wire.FRAME_OVERHEAD + 6 * VALUES + 8 * VALUES + 16
  assert communication(metrics)['uplink_bytes'] == 3 * process.decoder_bytes and runner.round == 0
  for a, b in zip(before, trainable(runner)):
    np.testing.assert_array_equal(a, b)
  losses = []
  for ids in ([0, 1, 2], [2, 0], [1, 7]):
    metrics = runner.next(ids, [dataset(c) for c in ids])
    strangers = sum(c > 2 for c in ids)
    assert metrics['aggregator']['uplink_fallbacks'] == strangers
    latents = 1 + 4 + wire.FRAME_OVERHEAD + 6 + 4  # With a range of two bfloat16.
    fallback = 1 + wire.FRAME_OVERHEAD + len(codec_lib('drive').encode(
        {'a': np.ones((12, 5), np.float32), 'b': np.ones(5, np.float32)}, seed=0, round=0, client=0))
    assert communication(metrics)['uplink_bytes'] == (len(ids) - strangers) * latents + strangers * fallback
    losses.append(metrics['client_work']['train']['loss'])
  assert losses[2] < losses[0]
  # Whoever learns again has a new decoder, in place of the old one.
  assert len(runner.state.aggregator['book']['clients']) == 3
  metrics = runner.prepass([2, 7], [dataset(2), dataset(7)])
  assert communication(metrics)['uplink_bytes'] == 2 * process.decoder_bytes
  assert communication(metrics)['downlink_bytes'] == 2 * (wire.FRAME_OVERHEAD + 4 * VALUES)
  assert sorted(runner.state.aggregator['book']['clients']) == sorted(
      int(runner.client_state(c)['client']) for c in (0, 1, 2, 7)) and runner.round == 3
  assert runner.next([7, 2], [dataset(7), dataset(2)])['aggregator']['uplink_fallbacks'] == 0


@pytest.mark.parametrize('target', ['weights', 'delta'])
def test_the_server_applies_the_mean_of_what_each_decoder_gives(target):
  """With as many latent values as snapshots, the weights of the pre-pass itself come back; the first round repeats its
  first pass."""
  process = built(target=target, snapshots=4, tolerance=0.2, uplink='concat | autoencoder:4 | float32')
  runner, plain = processes.Runner(process), processes.Runner(tff_compress.build_fed_avg(model_fn, seed=1))
  runner.prepass([0, 1], [dataset(0), dataset(1)])
  for one in (runner, plain):
    metrics = one.next([1, 0], [dataset(1), dataset(0)])
    if one is runner:
      assert metrics['aggregator']['uplink_fallbacks'] == 0
  for a, b in zip(trainable(runner), trainable(plain)):
    np.testing.assert_allclose(a, b, atol=0.1 * np.max(np.abs(b)))


def test_the_fallback_is_the_codec(process):
  """A tolerance of 0 sends every update with the fallback: the rounds are those of that codec, and after five it is
  time to learn again."""
  runner = processes.Runner(built(tolerance=0, fallback='int8'))
  plain = processes.Runner(tff_compress.build_fed_avg(model_fn, uplink='int8', seed=1))
  runner.prepass([0, 1], [dataset(0), dataset(1)])
  for one in (runner, plain):
    metrics = [one.next([0, 1], [dataset(0), dataset(1)]) for _ in range(2)]
    if one is runner:
      assert [m['aggregator']['uplink_fallbacks'] for m in metrics] == [2, 2]
  for a, b in zip(trainable(runner), trainable(plain)):
    np.testing.assert_allclose(a, b, atol=1e-6)
  drift = lambda rounds: [bool(runner.next([0], [dataset(0)])['aggregator']['uplink_drift']) for _ in range(rounds)]
  assert drift(4) == [False, False, True, True]
  assert not runner.prepass([0], [dataset(0)])['aggregator']['uplink_drift']
  runner.prepass([1], [dataset(1)])  # Another group of the same pre-pass.
  assert drift(10) == [False] * 9 + [True]  # It did not help, so it is not asked for as soon as the first time.


def test_what_cannot_be_learned_or_decoded_is_not(process, tmp_path, monkeypatch):
  runner = processes.Runner(process, folder=str(tmp_path))
  metrics = runner.prepass([0, 1], [dataset(0), dataset(1, bad=True)])
  assert communication(metrics)['uplink_bytes'] == process.decoder_bytes  # NaN teaches nothing.
  assert runner.next([0, 1], [dataset(0), dataset(1)])['aggregator']['uplink_fallbacks'] == 1
  # A server that lost its decoders does not decode with another's.
  runner.store.rewind(10)
  book = runner.state.aggregator['book']
  book['frames'] = np.array(book['frames'])
  book['frames'][0, -1] ^= 1
  weights = trainable(runner)
  with pytest.raises(processes.StateError, match="the decoder of client '0': run the pre-pass"):
    runner.next([0], [dataset(0)])
  for a, b in zip(weights, trainable(runner)):
    np.testing.assert_array_equal(a, b)
  # Asked all the same, it fails the round.
  monkeypatch.setattr(processes.AutoencoderProcess, 'knows', lambda *_: True)
  with pytest.raises(Exception, match='no decoder'):
    runner.next([0], [dataset(0)])
  for a, b in zip(weights, trainable(runner)):
    np.testing.assert_array_equal(a, b)
  monkeypatch.undo()
  runner.prepass([0], [dataset(0)])
  assert runner.next([0], [dataset(0)])['aggregator']['uplink_fallbacks'] == 0
  # Nor with that of another client.
  runner.prepass([1], [dataset(1)])
  book = runner.state.aggregator['book']
  book['rows'] = np.array(book['rows'])[::-1]
  with pytest.raises(processes.StateError, match='run the pre-pass'):
    runner.next([0, 1], [dataset(0), dataset(1)])
  with pytest.raises(processes.ProcessError, match='no pre-pass'):
    processes.Runner(tff_compress.build_fed_avg(model_fn, seed=1)).prepass([0], [dataset(0)])


def test_the_default_is_the_published_form_until_it_would_be_too_large(monkeypatch):
  from tff_compress.processes.autoencoder import options as autoencoder
  said = []
  monkeypatch.setattr(autoencoder.logging, 'warning', lambda text, *values: said.append(text % values))
  assert autoencoder.default_uplink(15_910).startswith('concat | autoencoder:32 |') and not said  # 1,034,182 parameters
  assert autoencoder.default_uplink(550_570).startswith('concat | autoencoder:32,length=1024 |')
  assert len(said) == 1 and '35,787,082 parameters (143 MB)' in said[0] and '66,592 parameters (0.3 MB)' in said[0]
  assert autoencoder.default_uplink(10).startswith('concat | autoencoder:5 |')


def test_shared_decoders_are_learned_by_the_server_and_sent_to_clients():
  """Bytes of both directions, with two workers; a client that comes later costs a download."""
  uplink = 'size>=10 => concat | autoencoder:3,length=12,order=columns | uniform:bits=8 | pack; * => float32'
  process = built(decoders='shared', uplink=uplink, snapshot_steps=1)
  whole = wire.FRAME_OVERHEAD + 2 * 3 * 12 + 8 * (3 + 12) + 8
  latents, model = wire.FRAME_OVERHEAD + 1 + 2 * 8 * 5 * 3, wire.FRAME_OVERHEAD + 4 * VALUES
  with runtime.local_context(workers=2):
    runner = processes.Runner(process)
    metrics = communication(runner.prepass(range(3), [dataset(c) for c in range(3)]))
    assert metrics['uplink_bytes'] == 3 * (process.decoder_bytes + latents)
    assert metrics['downlink_bytes'] == 3 * (model + whole)
    metrics = communication(runner.prepass([3], [dataset(3)]))
    assert (metrics['uplink_bytes'], metrics['downlink_bytes']) == (4, model + whole)
    book = runner.state.aggregator['book']
    assert len(book['frames']) == 1 and len(book['clients']) == 4 and len(book['frames'][0]) == whole
    for ids in ([0, 3, 1], [2, 3]):
      metrics = runner.next(ids, [dataset(c) for c in ids])
      assert metrics['aggregator']['uplink_fallbacks'] == 0
      # Latent values in 8 bits with a range, and the bias as it is.
      assert communication(metrics)['uplink_bytes'] == len(ids) * (1 + 4 + wire.FRAME_OVERHEAD + 15 + 4 + 20)


def test_error_feedback_keeps_what_is_lost_until_the_fallback_sends_it():
  """The residual is x less what was decoded; it grows where the autoencoder is blind, until the fallback, exact here,
  sends all."""
  process = built(uplink='concat | autoencoder:2,length=13 | float32', error_feedback=True, tolerance=0.7,
                  fallback='float32')
  runner, plain = processes.Runner(process), processes.Runner(tff_compress.build_fed_avg(model_fn, seed=1))
  runner.prepass([0], [dataset(0)])
  fallbacks = []
  for i in range(8):
    fallbacks.append(int(runner.next([0], [dataset(0)])['aggregator']['uplink_fallbacks']))
    residual = runner.client_state(0)['residual'][0]
    if i == 0:
      plain.next([0], [dataset(0)])
      lost = np.concatenate([(a - b).ravel() for a, b in zip(trainable(runner), trainable(plain))])
      np.testing.assert_allclose(residual, lost, atol=1e-5)
    assert bool(np.any(residual)) != bool(fallbacks[-1])
  assert fallbacks[0] == 0 and 0 < sum(fallbacks) < 8


def test_a_server_with_data_of_its_own_learns_beforehand():
  """No pre-pass: the codec names what the server has learned, and keeps its sums and error feedback."""
  spec = codec_lib.Spec.of({'kernel': np.zeros((12, 5), np.float32), 'bias': np.zeros(5, np.float32)})
  rule = autoencoders.LearnedRule('kernel => concat | autoencoder:3,length=12,order=columns | float32; * => float32',
                                  spec)
  snapshots = autoencoders.snapshots(model_fn, dataset(9), rule, count=6, steps=1)
  assert snapshots.shape == (6, 60)
  net = autoencoders.fit(autoencoders.linear(12, 3), snapshots, rule.sizes, center=False)
  process = tff_compress.build_fed_avg(model_fn, uplink=rule.learned(net), error_feedback=True, seed=1, spec={
      t.name: np.zeros(t.shape, np.float32) for t in spec.tensors})
  runner = processes.Runner(process)
  losses = [runner.next([0, 1], [dataset(0), dataset(1)])['client_work']['train']['loss'] for _ in range(4)]
  assert losses[-1] < 0.9 * losses[0]
  assert codec_lib(str(rule.learned(net))).rules[0].pipeline.prefix == 1


def test_snapshots_are_what_uplinks_encode():
  """The first is the update of a round, before less after; without steps each is a pass over all data; NaN is
  refused."""
  first, second = autoencoders.snapshots(model_fn, dataset(0), count=2)
  runner = processes.Runner(tff_compress.build_fed_avg(model_fn, seed=1))
  before = trainable(runner)
  runner.next([0], [dataset(0)])
  np.testing.assert_allclose(first, np.concatenate([(a - b).ravel() for a, b in zip(before, trainable(runner))]),
                             atol=1e-6)
  halves = autoencoders.snapshots(model_fn, dataset(0), count=4, steps=1)
  np.testing.assert_allclose(halves[0] + halves[1], first, atol=1e-6)
  np.testing.assert_allclose(halves[2] + halves[3], second, atol=1e-6)
  weights = autoencoders.snapshots(model_fn, dataset(0), count=2, target='weights')
  np.testing.assert_allclose(weights[0] - weights[1], second, atol=1e-6)
  for wrong in (dict(count=1), dict(target='both'), dict(steps=0), dict(dataset=dataset(0, bad=True)),
                dict(dataset=dataset(0).take(0))):
    with pytest.raises(autoencoders.SnapshotError):
      autoencoders.snapshots(model_fn, **{'dataset': dataset(0), **wrong})


@pytest.mark.parametrize('wrong', [dict(uplink='int8'), dict(uplink='autoencoder:4 | float32'), dict(target='both'),
                                   dict(snapshots=1),
                                   dict(uplink='concat | autoencoder:4,weights=cosine | float32'), dict(tolerance=-1),
                                   dict(uplink='concat | autoencoder:65 | float32'), dict(architecture='deep'),
                                   dict(learning_epochs=0),
                                   dict(fallback='nonsense'), dict(seed=-1),
                                   dict(decoders='both'), dict(decoders=0), dict(decoders=True), dict(decoders=101),
                                   dict(snapshot_steps=0),
                                   dict(target='weights', error_feedback=True), dict(error_feedback=1),
                                   dict(uplink='concat | autoencoder:9,length=8 | float32'),
                                   dict(uplink='size<9 => concat | autoencoder:2 | pack; '
                                               '* => concat | autoencoder:2 | float32')], ids=str)
def test_bad_arguments_are_typed_errors(wrong):
  with pytest.raises(codec_lib.CompressionError):
    built(**wrong)
