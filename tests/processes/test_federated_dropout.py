"""Federated dropout: a smaller model is trained, exactly; it is what is sent; what comes in is averaged by count."""

import numpy as np
import pytest

from tff_compress import codec as codec_lib
from tff_compress import processes
from tff_compress import wire
from tff_compress.aggregators import communication

pytestmark = [pytest.mark.xdist_group('tff'), pytest.mark.usefixtures('tff_runtime')]

SEED = 21


def network(filters=(4, 8), units=12):
  """A network with all that units pass through on their way, whose hidden layers have these sizes."""
  import tensorflow as tf
  layers = tf.keras.layers
  inputs = layers.Input((8, 8, 2))
  x = layers.Conv2D(filters[0], 3, padding='same', activation='sigmoid')(inputs)  # Does not map 0 to 0.
  x = layers.MaxPooling2D()(x)
  # Before a normalization, a bias would have no gradient but roundings.
  y = layers.Conv2D(filters[1], 3, padding='same', use_bias=False)(x)
  y = layers.BatchNormalization()(y)
  y = layers.ReLU()(y)
  z = layers.DepthwiseConv2D(3, padding='same')(y)
  y = layers.Add()([y, layers.Conv2D(filters[1], 1)(z)])
  x = layers.Concatenate()([x, y])
  x = layers.Flatten()(x)
  x = layers.Dense(units, activation='tanh', kernel_regularizer=tf.keras.regularizers.L2(0.01))(x)
  return tf.keras.Model(inputs, layers.Dense(3, activation='softmax')(x))


def spec_of(model):
  return codec_lib.Spec.of({str(i): np.zeros(w.shape, np.float32)
                            for i, w in enumerate(model.trainable_variables + model.non_trainable_variables)})


def sub_models(model, keep=0.75, uplink='float32', **kwargs):
  from tff_compress.processes.confinement.federated_dropout import SubModels
  from tff_compress.processes.up.steps import schedule
  return SubModels(processes.FederatedDropout(model, keep, **kwargs), spec_of(model), len(model.trainable_variables),
                   schedule(uplink), 'float32', SEED)


def variables(model):
  return model.trainable_variables + model.non_trainable_variables


@pytest.fixture(scope='module')
def networks():
  """(whole model with random weights, functions of its sub-models)."""
  model = network()
  rng = np.random.default_rng(3)
  for variable in variables(model):
    value = rng.normal(0, 0.5, variable.shape)
    variable.assign(abs(value) + 0.1 if 'variance' in variable.name else value)
  return model, sub_models(model)


def test_variables_of_a_sub_model_have_the_shapes_of_a_smaller_network(networks):
  model, sub = networks
  assert sub.sub_shapes == tuple(tuple(w.shape) for w in variables(network((3, 6), 9)))
  assert [shape for w, shape in zip(variables(model), sub.sub_shapes) if tuple(w.shape) == shape] == [(3,)]


@pytest.mark.parametrize('name, keep, values', [
    ('mnist_cnn', 0.75, 675_274), ('mnist_cnn', 0.5, 300_426), ('all_cnn_c', 0.75, 771_562),
    ('all_cnn_c', 0.5, 343_882), ('digits_cnn', 0.75, 21_706), ('digits_cnn', 0.5, 9_802)])
def test_what_a_client_receives_of_known_networks(name, keep, values):
  from tff_compress.simulation import models
  assert sub_models(models.build(name), keep).sub_spec.parameters == values


def test_scattering_what_was_gathered_changes_nothing_that_is_kept(networks):
  model, sub = networks
  weights = [np.asarray(w) for w in variables(model)]
  choice = sub.choice(np.int32(4), np.int32(7))
  assert [int(np.sum(part)) for part in np.split(choice, [4, 12, 24])] == [3, 6, 9, 1]
  places = sub.places(np.int32(4), np.int32(7))
  packed = sub.gather(weights, places)
  whole = sub.scatter(packed, places)
  for a, b in zip(sub.gather(whole, places), packed):
    np.testing.assert_array_equal(a, b)
  masks = sub.masks(np.int32(4), np.int32(7))
  for mask, ours, w, part in zip(masks, whole, weights, packed):
    np.testing.assert_array_equal(ours, w * mask)
    assert np.sum(mask) == np.size(part)


def test_units_are_drawn_uniformly_for_every_round_and_client(networks):
  import tensorflow as tf
  _, sub = networks
  draw = tf.function(sub.choice)
  choices = np.asarray([draw(tf.constant(r), tf.constant(c)) for r in range(20) for c in range(20)])
  assert len(np.unique(choices, axis=0)) > 300
  share = choices[:, :-1].mean(axis=0)
  np.testing.assert_allclose(share, 0.75, atol=4.5 * np.sqrt(0.75 * 0.25 / 400))
  together = np.cov(choices[:, 4:12].T)  # Exactly k of n: covariances are -p (1 - p) / (n - 1).
  np.testing.assert_allclose(together[np.triu_indices(8, 1)], -0.75 * 0.25 / 7, atol=4.5 * 0.19 / 20)


@pytest.mark.parametrize('optimizer', ['sgdm', 'adam'])
def test_training_a_sub_model_is_training_the_smaller_network(networks, optimizer):
  """The whole network with zeros for what is left out against a network that never had it, weight by weight."""
  import tensorflow as tf
  import tensorflow_federated as tff
  whole, sub = networks
  small = network((3, 6), 9)
  # Without a large epsilon, Adam makes steps of gradients that are roundings.
  makers = {'sgdm': lambda: tff.learning.optimizers.build_sgdm(0.1, 0.9),
            'adam': lambda: tff.learning.optimizers.build_adam(0.05, epsilon=0.01)}
  places = sub.places(np.int32(1), np.int32(2))
  start = [np.asarray(w) for w in variables(whole)]
  for variable, value in zip(variables(small), sub.gather(start, places)):
    variable.assign(value)
  for variable, value in zip(variables(whole), sub.scatter(sub.gather(start, places), places)):
    variable.assign(value)
  rng = np.random.default_rng(0)
  x, y = rng.standard_normal((4, 10, 8, 8, 2)).astype(np.float32), rng.integers(0, 3, (4, 10))

  def train(model, optimizer):
    weights = tuple(model.trainable_variables)
    state = optimizer.initialize(tf.nest.map_structure(lambda w: tf.TensorSpec(w.shape, w.dtype), weights))
    for images, labels in zip(x, y):
      with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.keras.losses.sparse_categorical_crossentropy(labels, model(images, training=True)))
        loss += tf.add_n(model.losses)
      values = tuple(tf.identity(w) for w in weights)
      state, moved = optimizer.next(state, values, tuple(tape.gradient(loss, weights)))
      for variable, value in zip(weights, moved):
        variable.assign(value)
    return float(loss)

  losses = train(small, makers[optimizer]()), train(whole, sub.optimizer(makers[optimizer](), np.int32(1), np.int32(2)))
  assert losses[0] == pytest.approx(losses[1], rel=1e-4)
  masks = sub.masks(np.int32(1), np.int32(2))
  for w, mask in zip(whole.trainable_variables, masks):
    assert not np.any(np.asarray(w)[np.asarray(mask) == 0])
  moved = 0
  packed = sub.gather([np.asarray(w) for w in variables(whole)], places)
  for expected, ours, before in zip(small.trainable_variables, packed, sub.gather(start, places)):
    np.testing.assert_allclose(ours, expected, atol=2e-5)
    moved += np.sum(np.abs(ours - before))
  assert moved > 1
  for variable, value in zip(variables(whole), start):
    variable.assign(value)


# -- in TFF

INPUTS, HIDDEN, CLASSES, RATE = 6, 8, 3, 0.5


def dense():
  import tensorflow as tf
  layers = tf.keras.layers
  start = lambda seed: tf.keras.initializers.RandomNormal(0, 0.5, seed)
  return tf.keras.Sequential([
      layers.Input((INPUTS,)), layers.Dense(HIDDEN, 'relu', kernel_initializer=start(1), bias_initializer=start(2)),
      layers.Dense(CLASSES, kernel_initializer=start(3))])


def model_fn():
  import tensorflow as tf
  import tensorflow_federated as tff
  return tff.learning.models.from_keras_model(
      dense(), loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
      input_spec=(tf.TensorSpec([None, INPUTS]), tf.TensorSpec([None], tf.int32)))


def examples(client):
  rng = np.random.default_rng(client)
  y = rng.integers(0, CLASSES, 10 + 5 * client).astype(np.int32)
  return (rng.standard_normal((len(y), INPUTS)) + 2 * np.eye(INPUTS)[y]).astype(np.float32), y


def dataset(client):
  import tensorflow as tf
  return tf.data.Dataset.from_tensor_slices(examples(client)).batch(64)


@pytest.fixture(scope='module')
def process():
  import tensorflow_federated as tff
  return processes.build_fed_avg(model_fn, structured=processes.FederatedDropout(dense(), 0.25), seed=SEED,
                                 client_optimizer_fn=tff.learning.optimizers.build_sgdm(RATE))


def run(process, rounds):
  runner, metrics = processes.Runner(process), []
  for ids in rounds:
    metrics.append(runner.next(ids, [dataset(client) for client in ids]))
  return runner, metrics


def test_a_round_averages_every_weight_over_the_clients_that_had_it(process):
  """One step of each client's small network in NumPy; what nobody had stays, bit for bit."""
  sub = sub_models(dense(), 0.25)
  server, ids = process.initialize(), range(3)
  start = [np.asarray(w) for w in server.global_model_weights.trainable]
  total, weight = [np.zeros_like(w) for w in start], [np.zeros_like(w) for w in start]
  for client in ids:
    hidden = np.flatnonzero(np.asarray(sub.choice(np.int32(0), np.int32(client)))[:-1])
    assert len(hidden) == 2
    kernel, bias, out, offset = start[0][:, hidden], start[1][hidden], start[2][hidden], start[3]
    x, y = examples(client)
    active = np.maximum(x @ kernel + bias, 0)
    scores = np.exp(active @ out + offset)
    error = (scores / scores.sum(1, keepdims=True) - np.eye(CLASSES)[y]) / len(y)
    back = (error @ out.T) * (active > 0)
    steps = [x.T @ back, back.sum(0), active.T @ error, error.sum(0)]
    places = [np.ix_(range(INPUTS), hidden), hidden, np.ix_(hidden, range(CLASSES)), slice(None)]
    for t, w, place, step in zip(total, weight, places, steps):
      t[place] += len(y) * RATE * step
      w[place] += len(y)
  server, metrics, _ = process.next(server, [dataset(c) for c in ids], [process.initialize_client(c) for c in ids])
  untouched = 0
  for ours, before, t, w in zip(server.global_model_weights.trainable, start, total, weight):
    np.testing.assert_allclose(ours, before - t / np.maximum(w, 1), atol=1e-5)
    np.testing.assert_array_equal(ours[w == 0], before[w == 0])
    untouched += np.sum(w == 0)
  assert untouched > 0
  values = INPUTS * 2 + 2 + 2 * CLASSES + CLASSES
  measured = communication(metrics)
  assert measured['downlink_bytes'] == measured['uplink_bytes'] == 3 * (wire.FRAME_OVERHEAD + 4 * values)


def test_workers_and_the_order_of_clients_do_not_matter(process):
  from tff_compress import runtime
  results = []
  for workers, flip in ((1, False), (2, True)):
    with runtime.local_context(workers=workers):
      rounds = [[0, 1, 2], [3, 1], [0, 2, 3]]
      results.append(run(process, [ids[::-1] if flip else ids for ids in rounds]))
  (one, ours), (two, theirs) = results
  for a, b in zip(one.state.global_model_weights.trainable, two.state.global_model_weights.trainable):
    np.testing.assert_allclose(a, b, atol=1e-6)
  assert [communication(m) for m in ours] == [communication(m) for m in theirs]


def test_codecs_shrink_both_directions_and_training_works():
  """The sub-model goes down in 8 bits a value and comes up sparse; the loss falls."""
  import tensorflow_federated as tff
  process = processes.build_fed_avg(
      model_fn, structured=processes.FederatedDropout(dense(), 0.5), seed=SEED, uplink='topk:1/2 | float16',
      downlink='size<20 => float32; * => uniform:bits=8 | pack',
      client_optimizer_fn=tff.learning.optimizers.build_sgdm(RATE))
  _, metrics = run(process, [[0, 1, 2, 3]] * 12)
  losses = [m['client_work']['train']['loss'] for m in metrics]
  assert losses[-1] < 0.6 * losses[0]
  measured = communication(metrics[0])
  whole = 4 * (wire.FRAME_OVERHEAD + 4 * (INPUTS * HIDDEN + HIDDEN + HIDDEN * CLASSES + CLASSES))
  assert measured['downlink_bytes'] < 0.45 * whole and measured['uplink_bytes'] < 0.45 * whole


def test_a_share_of_all_units_is_plain_federated_averaging():
  results = [run(processes.build_fed_avg(model_fn, structured=structured, seed=SEED), [[0, 1], [1, 2]])[0].state
             for structured in (processes.FederatedDropout(dense(), 1), None)]
  for a, b in zip(*(state.global_model_weights.trainable for state in results)):
    np.testing.assert_allclose(a, b, atol=1e-6)


# -- what is refused


@pytest.mark.parametrize('other', [
    dict(error_feedback=True), dict(relevance=processes.Relevance()), dict(downlink=processes.Changes('float32')),
    dict(uplink='countsketch:1/2 | float32', server=processes.FetchSgd('topk:1/10 | float32'))],
    ids=lambda other: next(reversed(other)))
def test_what_needs_one_model_for_all_is_refused(other):
  with pytest.raises(processes.ProcessError, match='another sub-model'):
    processes.build_fed_avg(model_fn, structured=processes.FederatedDropout(dense()), **other)


@pytest.mark.parametrize('wrong', [dict(keep=0), dict(keep=1.5), dict(keep=float('nan')), dict(keep=True),
                                   dict(whole='dense'), dict(whole=('nobody',)), dict(whole=(1,)), dict(whole=3)])
def test_bad_arguments_are_typed_errors(wrong):
  with pytest.raises(processes.ProcessError):
    processes.FederatedDropout(dense(), **wrong)


def test_units_of_another_model_are_refused():
  with pytest.raises(processes.ProcessError, match='other variables'):
    processes.build_fed_avg(model_fn, structured=processes.FederatedDropout(network()))
  with pytest.raises(processes.ProcessError, match='Keras model'):
    processes.FederatedDropout('a model')


@pytest.mark.parametrize('kind', ['LayerNormalization', 'Softmax', 'attention', 'lambda', 'softmax activation', 'twice',
                                  'shortcut'])
def test_layers_that_mix_units_are_refused_by_name(kind):
  import tensorflow as tf
  layers = tf.keras.layers
  inputs = layers.Input((5, 4))
  x = layers.Dense(4, name='first')(inputs)
  mixing = {'LayerNormalization': lambda: layers.LayerNormalization(name='mixing')(x),
            'Softmax': lambda: layers.Softmax(name='mixing')(x),
            'attention': lambda: layers.MultiHeadAttention(2, 3, name='mixing')(x, x),
            'lambda': lambda: layers.Lambda(tf.sort, name='mixing')(x),
            'softmax activation': lambda: layers.Activation('softmax', name='mixing')(x),
            'twice': lambda: (lambda layer: layer(layer(x)))(layers.Dense(4, name='mixing')),
            'shortcut': lambda: layers.Add(name='mixing')([inputs, x])}[kind]()
  model = tf.keras.Model(inputs, layers.Dense(2)(layers.Dense(6, name='last')(mixing)))
  with pytest.raises(processes.ProcessError, match="layer 'mixing'.*whole="):
    processes.FederatedDropout(model)
  kept_whole = ('first', 'mixing') if kind == 'twice' else ('first',)
  assert processes.FederatedDropout(model, whole=kept_whole).units.sizes == (6,)


def test_layers_before_and_behind_recurrent_ones_lose_units():
  """The cell's own units all stay, and so does the dictionary."""
  import tensorflow as tf
  layers = tf.keras.layers
  inputs = layers.Input((5,))
  x = layers.Dense(6)(layers.Embedding(10, 4)(inputs))
  x = layers.Dense(7)(layers.LSTM(3)(x))
  units = processes.FederatedDropout(tf.keras.Model(inputs, layers.Dense(2)(x))).units
  assert units.sizes == (6, 7) and units.shapes[3:6] == ((6, 12), (3, 12), (12,))
  assert [[int(np.sum(axis >= 0)) for axis in axes] for axes in units.axes[3:6]] == [[6, 0], [0, 0], [0]]


def test_a_model_without_hidden_layers_is_refused():
  import tensorflow as tf
  with pytest.raises(processes.ProcessError, match='no hidden layer'):
    processes.FederatedDropout(tf.keras.Sequential([tf.keras.layers.Dense(3, input_shape=(4,))]))
  with pytest.raises(processes.ProcessError, match='cannot be followed'):
    processes.FederatedDropout(tf.keras.Sequential([tf.keras.layers.Dense(3)]))
