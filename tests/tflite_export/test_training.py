"""The training file: its signatures do what the guide says, in both interpreters."""

import hashlib

import numpy as np
import pytest
import tensorflow as tf

from tff_compress.codec.spec import Spec
from tflite_export import conversion
from tflite_export import flatbuffer
from tflite_export import interpreters
from tflite_export.errors import ExportError
from tflite_export.errors import FileError
from tflite_export.training import export_training
from tflite_export.training import LowRank
from tflite_export.training import RandomMask

keras = tf.keras
layers = tf.keras.layers
ROWS = 4
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
UNUSED = np.zeros(1, np.int32)

pytestmark = pytest.mark.xdist_group('training_export')


def network(*between, **compiled):
  keras.utils.set_random_seed(1)
  model = keras.Sequential([
      keras.Input((6, 6, 1)), layers.Conv2D(4, 3, activation='relu', name='conv'), layers.Flatten(name='flat'),
      *between,
      layers.Dense(3, name='head')])
  if compiled:
    model.compile(**compiled)
  return model


def export(model, **options):
  return export_training(model, **dict(dict(loss=LOSS, optimizer='sgd', batch_size=ROWS, parity_steps=0), **options))


def start(file, name='tf.lite', **weights):
  with interpreters.quiet():
    run = interpreters.Interpreter(file.data, name)
    if weights:
      run.run('set_weights', **weights)
  return run


def step(run, x, y, weight=1., rate=.1, **more):
  weight = np.broadcast_to(np.float32(weight), ROWS).copy()
  return float(run.run('train', x=x, y=y, sample_weight=weight, learning_rate=np.float32(rate), **more)['loss'])


def weights_of(run):
  return run.run('get_weights', unused=UNUSED)


def flat(values):
  return np.concatenate([np.ravel(values[name]) for name in sorted(values)])


@pytest.fixture(scope='module')
def batch():
  generator = np.random.default_rng(0)
  return generator.standard_normal((ROWS, 6, 6, 1)).astype(np.float32), np.array([0, 1, 2, 1], np.int32)


@pytest.fixture(scope='module')
def initial():
  model = network()
  return {tensor.name: v.numpy() for tensor, v in zip(Spec.of(model).tensors, model.trainable_variables)}


@pytest.fixture(scope='module')
def plain():
  return export(network(), parity_steps=2)


@pytest.fixture(scope='module')
def adam(tmp_path_factory):
  path = tmp_path_factory.mktemp('training') / 'model.tflite'
  model = network(layers.Dropout(.5), optimizer=keras.optimizers.Adam(.003, clipnorm=1.), loss=LOSS)
  return export_training(model, batch_size=ROWS, path=path, proximal_mu=.1)


@pytest.fixture(scope='module')
def masked():
  return export(network(), optimizer=keras.optimizers.SGD(momentum=.9, weight_decay=.1), structure=RandomMask(),
                parity_steps=2)


@pytest.fixture(scope='module')
def low_rank():
  return export(network(), optimizer='adam', structure=LowRank(2), parity_steps=2)


@pytest.mark.parametrize('case', ['plain', 'adam', 'masked', 'low_rank'])
def test_every_signature_has_inputs_and_outputs_and_needs_the_built_in_runtime_alone(case, request):
  file = request.getfixturevalue(case)
  assert not flatbuffer.operators(file.data).foreign
  for name in interpreters.NAMES:
    run = start(file, name)
    assert set(run.signatures) == set(file.signatures)
    for signature, ends in file.signatures.items():
      inputs, outputs = run.details(signature)
      assert inputs and outputs
      assert {n: tuple(d['shape']) for n, d in inputs.items()} == {n: shape for n, (_, shape) in ends['inputs'].items()}
      run.run(signature, **{n: np.zeros(shape, dtype) for n, (dtype, shape) in ends['inputs'].items()})


class Gain(layers.Layer):
  """Multiplies by a variable of shape []."""

  def build(self, _):
    self.gain = self.add_weight('gain', (), initializer='ones')

  def call(self, x):
    return self.gain * x


def test_a_number_is_an_array_of_one_and_what_comes_out_of_a_file_goes_into_it():
  """LiteRT for Python ends the process on arm64 when an input has no axes: learning rates, counters, variables."""
  model = keras.Sequential([keras.Input((5,)), layers.Dropout(.5), Gain(), layers.Dense(3)])
  file = export(model, optimizer='adam', parity_steps=2)
  for name in interpreters.NAMES:
    run = start(file, name)
    inputs = {signature: {n: d['shape'].tolist() for n, d in run.details(signature)[0].items()}
              for signature in file.signatures}
    assert [] not in [shape for shapes in inputs.values() for shape in shapes.values()]
    assert inputs['train']['learning_rate'] == inputs['train']['noise'] == inputs['set_state']['iterations'] == [1]
    for get, put in (('get_weights', 'set_weights'), ('get_state', 'set_state')):
      assert {n: list(value.shape) for n, value in run.run(get, unused=UNUSED).items()} == inputs[put]


def test_a_file_with_an_input_without_axes_cannot_be_made():
  doubled = tf.function(lambda x: {'y': 2 * x}, input_signature=[tf.TensorSpec([], name='x')])
  with pytest.raises(ExportError, match=r'double/x has no axes.*shape \[1\]'):
    conversion.convert(tf.Module(), {'double': doubled})


def test_variables_have_the_names_of_the_spec(plain):
  names = [tensor.name for tensor in Spec.of(network()).tensors]
  assert list(plain.weights) == names == ['conv/kernel', 'conv/bias', 'head/kernel', 'head/bias']
  assert set(plain.signatures['set_weights']['inputs']) == set(plain.signatures['get_weights']['outputs']) == set(names)


def test_the_loss_and_the_optimizer_are_those_the_model_was_compiled_with(adam):
  assert adam.learning_rate == pytest.approx(.003)
  assert adam.path.read_bytes() == adam.data
  assert 'head/kernel/m' in adam.state and 'iterations' in adam.state


@pytest.mark.parametrize('name', interpreters.NAMES)
def test_training_lowers_the_loss(plain, batch, initial, name):
  run = start(plain, name, **initial)
  losses = [step(run, *batch, rate=.2) for _ in range(30)]
  assert losses[-1] < .2 * losses[0]
  output = run.run('infer', x=batch[0])['output']
  assert np.argmax(output, 1).tolist() == batch[1].tolist()


def test_rows_of_weight_zero_do_not_count(plain, batch, initial):
  x, y = batch
  garbage = x.copy()
  garbage[2:] = 1e3
  results = []
  for rows in (x, garbage):
    run = start(plain, **initial)
    loss = step(run, rows, y, weight=[1, 1, 0, 0])
    results.append((loss, flat(weights_of(run))))
  assert results[0][0] == results[1][0]
  np.testing.assert_array_equal(results[0][1], results[1][1])


def test_weights_multiply_the_losses_that_the_mean_is_of(plain, batch, initial):
  x, y = batch
  each = [step(start(plain, **initial), x, y, weight=np.eye(ROWS)[n]) for n in range(ROWS)]
  weight = np.array([1, 2, .5, 3])
  assert step(start(plain, **initial), x, y, weight=weight) == pytest.approx(np.dot(weight, each) / ROWS, rel=1e-5)


def test_an_empty_batch_changes_nothing(plain, batch, initial):
  run = start(plain, **initial)
  assert step(run, *batch, weight=0) == 0
  np.testing.assert_array_equal(flat(weights_of(run)), flat(initial))


def test_the_proximal_term_pulls_towards_what_was_received(batch, initial):
  """On an empty batch the gradient is the term alone: w - rate mu (w - received)."""
  run = start(export(network(), proximal_mu=.5), **initial)
  step(run, *batch)
  before = flat(weights_of(run))
  step(run, *batch, weight=0, rate=.2)
  np.testing.assert_allclose(flat(weights_of(run)), before - .2 * .5 * (before - flat(initial)), rtol=1e-5, atol=1e-7)


def test_noise_zero_turns_dropout_off(adam, batch, initial):
  def train(noise):
    run = start(adam, **initial)
    step(run, *batch, noise=np.float32(noise))
    return flat(weights_of(run))
  np.testing.assert_array_equal(train(0), train(0))
  assert np.any(train(1) != train(1))


def test_state_moves_to_another_interpreter(adam, batch, initial):
  quiet = dict(noise=np.float32(0))
  first = start(adam, **initial)
  step(first, *batch, **quiet)
  second = start(adam, 'tf.lite', **initial)
  step(second, *batch, **quiet)
  third = start(adam, 'tf.lite', **initial)
  third.run('set_state', **second.run('get_state', unused=UNUSED))
  fourth = start(adam, 'tf.lite', **initial)
  losses = [[step(run, *batch, **quiet) for _ in range(2)] for run in (third, fourth)]
  assert losses[0][0] == losses[1][0]
  assert losses[0][1] != losses[1][1]
  assert third.run('get_state', unused=UNUSED)['iterations'].item() == 3


def test_nothing_changes_outside_the_mask(masked, batch, initial):
  generator = np.random.default_rng(1)
  masks = {name: generator.integers(0, 2, value.shape).astype(np.float32) for name, value in initial.items()}
  for name in interpreters.NAMES:
    run = start(masked, name, **initial)
    run.run('set_masks', **masks)
    for _ in range(3):
      step(run, *batch)
    change = flat(weights_of(run)) - flat(initial)
    assert not np.any(change[flat(masks) == 0])
    assert np.mean(change[flat(masks) == 1] != 0) > .9


def test_kernels_change_by_a_product_of_low_rank(low_rank, batch, initial):
  shapes = {name: shape for name, (_, shape) in low_rank.signatures['set_bases']['inputs'].items()}
  # conv/kernel is 9 x 4 and head/kernel 64 x 3: A stands on the sides of 4 and 3.
  assert shapes == {'conv/kernel': (4, 2), 'head/kernel': (3, 2)}
  generator = np.random.default_rng(1)
  bases = {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
  run = start(low_rank, **initial)
  run.run('set_bases', **bases)
  for _ in range(3):
    step(run, *batch)
  after, factors = weights_of(run), run.run('get_factors', unused=UNUSED)
  for name, basis in bases.items():
    change = (after[name] - initial[name]).reshape(-1, basis.shape[0])
    np.testing.assert_allclose(change, (basis @ factors[name]).T, atol=1e-6)
    assert np.any(factors[name])
  run.run('set_weights', **initial)
  assert not any(np.any(value) for value in run.run('get_factors', unused=UNUSED).values())


def test_a_frozen_backbone_is_a_constant_of_the_file(plain, batch, initial):
  model = network()
  model.get_layer('conv').trainable = False
  head = export(model, parity_steps=1)
  assert head.weights == ('head/kernel', 'head/bias') == tuple(t.name for t in Spec.of(model).tensors)
  assert head.size < plain.size
  run = start(head, **{name: initial[name] for name in head.weights})
  before = run.run('infer', x=batch[0])['output']
  np.testing.assert_allclose(before, start(plain, **initial).run('infer', x=batch[0])['output'], rtol=1e-5)
  assert step(run, *batch) > step(run, *batch)


@pytest.mark.parametrize('loss', [
    'mse', 'mean_absolute_error', keras.losses.CategoricalCrossentropy(from_logits=True),
    keras.losses.BinaryCrossentropy(from_logits=True),
    'binary_crossentropy', 'categorical_crossentropy', 'sparse_categorical_crossentropy'],
    ids=lambda loss: loss if isinstance(loss, str) else f'{loss.name}_of_logits')
def test_losses_regularizers_constraints_and_decay(loss):
  """The gate compares with Keras: its loss with its regularizers, its optimizer with decay and constraints."""
  keras.utils.set_random_seed(1)
  last = {'binary_crossentropy': 'sigmoid'}.get(loss, 'softmax' if isinstance(loss, str) and loss.endswith('entropy')
                                                else None)
  model = keras.Sequential([keras.Input((5,)), layers.Dense(4, 'tanh', kernel_regularizer='l2',
                                                            kernel_constraint='non_neg'),
                            layers.Dense(3, last, bias_regularizer='l1')])
  file = export(model, loss=loss, optimizer=keras.optimizers.SGD(.1, weight_decay=.05, clipvalue=.3), parity_steps=2)
  assert file.parity.steps == 2


@pytest.mark.parametrize('optimizer', [
    keras.optimizers.SGD(.1, momentum=.9, nesterov=True, global_clipnorm=.1), keras.optimizers.AdamW(weight_decay=.1),
    keras.optimizers.legacy.Adam(beta_1=.8)], ids=['nesterov', 'adamw', 'legacy'])
def test_optimizers_step_as_keras_does(optimizer):
  keras.utils.set_random_seed(1)
  model = keras.Sequential([keras.Input((5,)), layers.Dense(4, 'tanh'), layers.Dense(3)])
  errors = export(model, loss='mse', optimizer=optimizer, parity_steps=3).parity.errors
  assert all(e['update'] < 1e-3 and e['gradient'] < 1e-3 for e in errors.values())


def test_zeros_of_slots_are_not_stored(plain):
  """Adam keeps two values for each weight, which all start as 0."""
  keras.utils.set_random_seed(1)
  model = keras.Sequential([keras.Input((100,)), layers.Dense(200)])
  sizes = [export(model, loss='mse', optimizer=optimizer).size for optimizer in ('sgd', 'adam')]
  assert sizes[1] < sizes[0] + 20_000
  assert plain.size < 40_000


def test_the_same_model_gives_the_same_bytes(adam):
  model = network(layers.Dropout(.5), optimizer=keras.optimizers.Adam(.003, clipnorm=1.), loss=LOSS)
  again = export_training(model, batch_size=ROWS, proximal_mu=.1, parity_steps=0)
  assert hashlib.sha256(again.data).hexdigest() == hashlib.sha256(adam.data).hexdigest()


def test_the_model_stays_as_it_was():
  model = network(layers.BatchNormalization(), layers.Dropout(.5), optimizer='adam', loss=LOSS)
  before = model.get_weights()
  export_training(model, batch_size=ROWS)
  assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights()))
  assert int(model.optimizer.iterations) == 0
  assert model.layers[-2].rate == .5


def test_a_file_in_the_way_is_kept(tmp_path):
  path = tmp_path / 'model.tflite'
  path.write_bytes(b'mine')
  with pytest.raises(FileError, match='exists already'):
    export(network(), path=path)
  assert path.read_bytes() == b'mine'
  assert export(network(), path=path, overwrite=True).path.stat().st_size > 1000


class Subclassed(keras.Model):

  def __init__(self):
    super().__init__()
    self.dense = layers.Dense(3)

  def call(self, x):
    return self.dense(x)


def built():
  model = Subclassed()
  model.build((None, 5))
  return model


def frozen():
  model = network()
  model.trainable = False
  return model


def dense(**options):
  return keras.Sequential([keras.Input((4,)), layers.Dense(2, **options)])


@pytest.mark.parametrize('model, options, expected', [
    (network, dict(loss=None), 'no loss: compile the model'),
    (network, dict(optimizer=None), 'no optimizer: compile the model'),
    (network, dict(loss='poisson'), "'poisson' cannot be exported: use one of"),
    (network, dict(loss=lambda y, p: p), "cannot be exported: use one of"),
    (network, dict(optimizer='rmsprop'), 'RMSprop cannot be exported: use SGD'),
    (network, dict(optimizer='nothing'), "no optimizer 'nothing'"),
    (network, dict(optimizer=keras.optimizers.Adam(amsgrad=True)), 'option amsgrad'),
    (network, dict(batch_size=0), 'batch_size must be'),
    (network, dict(proximal_mu=float('nan')), 'proximal_mu must be'),
    (network, dict(structure='mask'), 'structure must be'),
    (network, dict(structure=LowRank(50)), 'choose a smaller one'),
    (network, dict(parity_steps=1, parity_data=(np.zeros((2, 6, 6, 1)), np.zeros(2))), 'parity_data must be'),
    (lambda: 'model.keras', {}, 'a Keras model of TensorFlow'),
    (lambda: keras.Sequential([keras.Input((None, 4)), layers.Dense(2)]), {},
     'all sizes but that of the batch must be fixed'),
    (lambda: dense(dtype='float16'), {}, 'only float32 models'),
    (lambda: dense(dtype='mixed_float16'), {}, 'only float32 models'),
    (frozen, {}, 'no trainable variables'),
    (Subclassed, {}, 'has no weights yet'),
    (built, {}, 'call it once on data'),
], ids=lambda value: value if isinstance(value, str) else '')
def test_what_cannot_be_exported_is_said_in_one_sentence(model, options, expected):
  with pytest.raises(ExportError, match=expected) as caught:
    export(model(), **options)
  assert '\n' not in str(caught.value) and str(caught.value).endswith('.')


def test_a_subclassed_model_works_once_it_was_called():
  model = Subclassed()
  model(np.zeros((2, 5), np.float32))
  assert export(model, parity_steps=1).weights[0].endswith('kernel')
