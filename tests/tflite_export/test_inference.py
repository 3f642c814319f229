"""Inference export: what each recipe promises of the file it makes, and one sentence for what cannot be made."""

import dataclasses
import importlib
import io
import json
import pathlib
import re
import subprocess
import sys
import types
import zipfile

import numpy as np
import pytest
import tensorflow as tf

from tflite_export import cli
from tflite_export import conversion
from tflite_export import files
from tflite_export import flatbuffer
from tflite_export import inference
from tflite_export import interpreters
from tflite_export import models
from tflite_export.errors import ExportError
from tflite_export.errors import FileError
from tflite_export.inference import comparison
from tflite_export.inference import distillation
from tflite_export.inference import examples
from tflite_export.inference import finetuning
from tflite_export.inference import gate
from tflite_export.inference import part as part_lib
from tflite_export.inference import parts
from tflite_export.inference import recipes

pytestmark = pytest.mark.xdist_group('tflite_inference')

layers = tf.keras.layers
BRIEF = inference.Training(epochs=4, later_epochs=2, batch_size=16, learning_rate=5e-3)


def blobs(count, seed):
  """Images of 8x8 that are bright in one of four quarters, and which."""
  generator = np.random.default_rng(seed)
  y = generator.integers(0, 4, count)
  x = generator.uniform(0, 0.5, (count, 8, 8, 1)).astype(np.float32)
  for row, quarter in enumerate(y):
    x[row, 4 * (quarter // 2):4 * (quarter // 2) + 4, 4 * (quarter % 2):4 * (quarter % 2) + 4] += 0.5
  return x, y


TRAIN, VALID = blobs(160, 0), blobs(60, 1)


def network(width=16):
  return tf.keras.Sequential([layers.Input((8, 8, 1)), layers.Conv2D(4, 3, activation='relu'), layers.MaxPool2D(),
                              layers.Flatten(), layers.Dense(width, activation='relu'),
                              layers.Dense(4, activation='softmax')])


@pytest.fixture(scope='module', name='model')
def _model():
  tf.keras.utils.set_random_seed(0)
  made = network()
  made.compile(tf.keras.optimizers.Adam(1e-2), 'sparse_categorical_crossentropy')
  made.fit(*TRAIN, batch_size=16, epochs=6, verbose=0)
  return made


@pytest.fixture(scope='module', name='make')
def _make(model):
  """Function of a recipe to its file, made once."""
  made = {}

  def make(recipe):
    if recipe not in made:
      tf.keras.utils.set_random_seed(1)
      made[recipe] = inference.export_inference(model, recipe=recipe, representative_data=TRAIN[0], train_data=TRAIN,
                                                training=BRIEF, student=network(6))
    return made[recipe]
  return make


def constants(made, least=64):
  """The weights of a file that have at least so many values."""
  model = flatbuffer.load(made.data)
  found = []
  for tensor in model.subgraphs[0].tensors:
    data = model.buffers[tensor.buffer].data
    if data is not None and tensor.quantization is not None and len(data) >= least and tensor.type == 9:
      found.append(np.frombuffer(bytes(data), np.int8))
  return found


def predictions(made, name, x):
  return comparison.Predictor(made, name).predict({'x': x})


@pytest.mark.parametrize('name', interpreters.NAMES)
@pytest.mark.parametrize('recipe, tolerance', [('float32', 1e-5), ('float16', 5e-3), ('dynamic', 0.05), ('int8', 0.1)])
def test_a_file_predicts_what_the_model_does(model, make, recipe, tolerance, name):
  found = predictions(make(recipe), name, VALID[0])
  assert np.abs(found - model.predict(VALID[0], verbose=0)).max() < tolerance


def test_int8_is_integers_in_and_out_and_on_the_edge_tpus_list(make):
  made = make('int8')
  assert made.inputs['x']['dtype'] == made.outputs['output']['dtype'] == 'int8'
  assert made.inputs['x']['shape'] == (1, 8, 8, 1) and made.inputs['x']['scale'] == pytest.approx(1 / 255, rel=0.05)
  assert made.check_edgetpu().compatible and not make('float32').check_edgetpu().compatible


def test_the_same_input_gives_the_same_bytes(model, make):
  again = inference.export_inference(model, recipe='int8', representative_data=TRAIN[0])
  assert again.data == make('int8').data


SEQUENCES = np.random.default_rng(2).standard_normal((12, 6, 4)).astype(np.float32)


@pytest.fixture(scope='module', name='recurrent')
def _recurrent():
  tf.keras.utils.set_random_seed(0)
  return tf.keras.Sequential([layers.Input((6, 4)), layers.Bidirectional(layers.LSTM(5, return_sequences=True)),
                              layers.LSTM(4), layers.Dense(3)])


@pytest.mark.parametrize('recipe, tolerance', [('float32', 1e-6), ('float16', 1e-3), ('dynamic', 1e-6), ('int8', 0.03)])
def test_recurrent_files_answer_each_call_as_if_it_were_the_first(recurrent, recipe, tolerance):
  """The runtime's own LSTM operator goes on from the state that the last call ended with, so files do without."""
  made = inference.export_inference(recurrent, recipe=recipe, representative_data=SEQUENCES)
  assert not [tensor for graph in flatbuffer.load(made.data).subgraphs for tensor in graph.tensors if tensor.isVariable]
  for name in interpreters.NAMES:
    predictor = comparison.Predictor(made, name)
    first = predictor.predict({'x': SEQUENCES})
    np.testing.assert_array_equal(predictor.predict({'x': SEQUENCES}), first)
    np.testing.assert_allclose(first, recurrent.predict_on_batch(SEQUENCES), rtol=0, atol=tolerance)


def test_a_saved_model_with_the_operators_of_an_lstm_does_not_remember_either(recurrent, tmp_path):
  module = tf.Module()
  module.model = recurrent.variables
  infer = tf.function(lambda x: {'y': recurrent(x)}, [tf.TensorSpec([1, 6, 4], name='x')])
  tf.saved_model.save(module, str(tmp_path), signatures=infer)
  made = inference.export_inference(models.load(tmp_path, layers=False), recipe='float32')
  np.testing.assert_allclose(predictions(made, 'litert', SEQUENCES), recurrent.predict_on_batch(SEQUENCES), atol=1e-6)


def test_an_operator_that_remembers_does_not_get_into_a_file(recurrent, monkeypatch):
  monkeypatch.setattr(conversion, '_take_apart', lambda path: None)
  with pytest.raises(ExportError, match='UNIDIRECTIONAL_SEQUENCE_LSTM would go on from what the last call left'):
    inference.export_inference(recurrent, recipe='float32')


def test_smaller_storage_gives_smaller_files(make):
  sizes = [make(recipe).size for recipe in ('float32', 'float16', 'int8')]
  assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 3


def test_pruning_leaves_the_share_of_zeros_that_was_asked_for(make):
  weights = constants(make('prune:0.7+int8'))
  assert len(weights) >= 1
  for values in weights:
    # Rounding to int8 may give further zeros.
    assert 0.69 <= np.mean(values == 0) < 0.85


def changed(model, text, keep=(), training=BRIEF):
  """A model after a part that changes it."""
  trainer = finetuning.Trainer({'x': TRAIN[0]}, TRAIN[1], 'sparse_categorical_crossentropy', training,
                               finetuning.Progress())
  part, = recipes.parse(text).parts
  return part.change(model, trainer, None, frozenset(keep))


def test_two_of_four_weights_are_zero(model):
  pruned = changed(model, 'prune-2:4')
  kernel = pruned.layers[-2].kernel.numpy()  # [inputs, outputs]; groups of four run along the inputs.
  groups = np.count_nonzero(kernel.T.reshape(-1, 4), 1)
  assert groups.max() == 2 and kernel.size == 36 * 16


def test_clustering_leaves_few_values_and_keeps_zeros(model):
  sparse = changed(model, 'prune:0.7')
  clustered = changed(sparse, 'cluster:6', keep=[part_lib.ZEROS])
  for before, after in zip(sparse.get_weights(), clustered.get_weights()):
    if before.ndim > 1 and np.count_nonzero(before) > 6:
      assert len(np.unique(after)) <= 7
      assert np.all(after[before == 0] == 0) and np.any(after != before)


@pytest.mark.parametrize('recipe', ['qat', 'prune:0.7+qat', 'prune:0.7+cluster:8+qat'])
def test_quantization_aware_files_are_int8_and_keep_what_came_before(make, recipe):
  made = make(recipe)
  assert made.check_edgetpu().compatible and made.inputs['x']['dtype'] == 'int8'
  weights = np.concatenate(constants(made))
  if 'prune' in recipe:
    assert np.mean(weights == 0) >= 0.65
  if 'cluster' in recipe:
    assert all(len(np.unique(values)) <= 12 for values in constants(made, 256))
  accuracy = comparison.measure(predictions(made, 'litert', VALID[0]), VALID[1])[1]
  assert accuracy > 0.9


def test_sparse_storage_takes_less_and_runs(make):
  assert make('prune:0.9+sparse').size < make('float32').size
  assert 'DENSIFY' in make('prune:0.9+sparse').operators


def test_the_model_is_not_changed(model):
  before = model.get_weights()
  kinds, loss = [type(layer) for layer in model.layers], model.loss
  student = network(6)
  untaught = student.get_weights()
  for recipe in ('distill+prune+cluster+qat', 'cluster'):
    inference.export_inference(model, recipe=recipe, train_data=TRAIN, student=student,
                               training=inference.Training(epochs=1, later_epochs=1))
  for old, new in zip([*before, *untaught], [*model.get_weights(), *student.get_weights()]):
    np.testing.assert_array_equal(old, new)
  assert [type(layer) for layer in model.layers] == kinds and model.loss == loss
  model.predict(VALID[0][:1], verbose=0)


def test_a_student_learns_what_the_teacher_says(model):
  tf.keras.utils.set_random_seed(2)
  student, said = network(6), model.predict(VALID[0], verbose=0)

  def distance(answers):
    return float(np.mean(np.sum(said * (np.log(said + 1e-7) - np.log(answers + 1e-7)), 1)))
  for data in (TRAIN, TRAIN[0]):
    taught = inference.distill(model, student, data, training=inference.Training(epochs=25, learning_rate=1e-2))
    assert distance(taught.predict(VALID[0], verbose=0)) < 0.3 * distance(student.predict(VALID[0], verbose=0))


def test_distillation_is_the_same_for_logits_and_probabilities(model):
  """softmax((logits + c) / T) does not depend on c, and log softmax(z) = z - c."""
  logits = tf.keras.Model(model.input, model.layers[-1](model.layers[-2].output))
  logits.layers[-1].activation = tf.keras.activations.linear
  try:
    z = logits.predict(VALID[0], verbose=0) / 3  # Far from where probabilities are too small to have a logarithm.
  finally:
    logits.layers[-1].activation = tf.keras.activations.softmax
  p = tf.nn.softmax(z)
  np.testing.assert_allclose(tf.nn.softmax(distillation.logits_of(p, True) / 4.), tf.nn.softmax(z / 4.), atol=1e-3)


def test_a_regression_is_distilled_by_squared_errors():
  generator = np.random.default_rng(0)
  x = generator.standard_normal((200, 3)).astype(np.float32)
  teacher = tf.keras.Sequential([layers.Input((3,)), layers.Dense(1)])
  student = tf.keras.Sequential([layers.Input((3,)), layers.Dense(1, kernel_initializer='zeros')])
  taught = inference.distill(teacher, student, x, training=inference.Training(epochs=60, learning_rate=3e-2))
  np.testing.assert_allclose(taught.get_weights()[0], teacher.get_weights()[0], atol=0.05)


def test_several_and_integer_inputs():
  words, numbers = tf.keras.Input((5,), dtype='int32'), tf.keras.Input((3,))
  embedded = layers.Flatten()(layers.Embedding(9, 2)(words))
  model = tf.keras.Model([words, numbers], layers.Dense(2)(layers.Concatenate()([embedded, numbers])))
  data = [np.arange(50).reshape(10, 5) % 9, np.random.default_rng(0).standard_normal((10, 3))]
  made = inference.export_inference(model, recipe='int8', representative_data=data, batch_size=2)
  assert made.inputs['x_0']['dtype'] == 'int32' and made.inputs['x_0']['shape'] == (2, 5)
  assert made.outputs['output']['shape'] == (2, 2)


@pytest.mark.parametrize('text', ['int8', 'prune', 'prune:0.9+cluster:8+int8', 'distill+prune-2:4+qat',
                                  'prune+float16+sparse'])
def test_a_recipe_is_what_it_prints(text):
  assert str(recipes.parse(text)) == text
  assert recipes.parse(str(recipes.parse(text))) == recipes.parse(text)


@pytest.mark.parametrize('text, word', [
    ('int9', 'did you mean int8'), ('', 'a recipe is a text'), (3, 'a recipe is a text'),
    ('prune:1.5+int8', 'from 0.1 to 0.99'), ('prune:nan', 'from 0.1'),
    ('cluster:2.5', 'whole number'), ('int8:3', 'takes no number'), ('prune:+int8', 'takes a number'),
    ('int8+prune', "write 'prune.int8'"), ('int8+int8', 'twice'), ('float16+int8', 'choose'),
    ('prune+prune-2:4', 'choose one'), ('qat+float16', 'leave one'),
    ('prune+int8+sparse', 'XNNPACK'), ('prune+dynamic+sparse', 'XNNPACK'), ('qat+sparse', 'XNNPACK'),
    ('float32+sparse', 'pruned model'),
])
def test_a_wrong_recipe_is_named(text, word):
  with pytest.raises(ExportError, match=word) as caught:
    recipes.parse(text)
  one_sentence(caught)


def one_sentence(caught):
  assert str(caught.value).endswith('.') and '\n' not in str(caught.value) and len(str(caught.value)) < 400


def _half():
  return tf.keras.Sequential([layers.Input((8, 8, 1)), layers.Flatten(), layers.Dense(2, dtype='float16')])


def _halved(x):
  return tf.while_loop(lambda y: tf.reduce_max(y) > 1, lambda y: (y / 2,), (x,))[0]


def _above_half(x):
  tf.debugging.assert_greater(x, 0.5)
  return x


class Counting(layers.Layer):
  """Adds how often it was called."""

  def build(self, _):
    self.calls = self.add_weight('calls', (), initializer='zeros', trainable=False)

  def call(self, x):
    return x + self.calls.assign_add(1.)


class Doubting(tf.keras.Sequential):
  """Predicts otherwise than it computes."""

  def predict_step(self, data):
    return -super().predict_step(data)


@pytest.mark.parametrize('options, word', [
    (dict(recipe='int8'), 'representative_data='),
    (dict(recipe='prune'), 'give training data .train_data='),
    (dict(recipe='prune', train_data=TRAIN[0]), 'pair'),
    (dict(recipe='distill', train_data=TRAIN), 'give a student'),
    (dict(recipe='prune', train_data=(TRAIN[0], TRAIN[1][:5])), '5 labels'),
    (dict(recipe='prune', train_data=(TRAIN[0], np.full(160, 9))), 'fails|diverged'),
    (dict(representative_data=TRAIN[0][:, :4]), 'the model takes .n, 8, 8, 1.'),
    (dict(representative_data=np.full((3, 8, 8, 1), np.nan)), 'NaN'),
    (dict(representative_data=TRAIN[0][:0]), 'no examples'),
    (dict(representative_data='data'), 'array of numbers'),
    (dict(representative_data=[TRAIN[0], TRAIN[0]]), 'has the shape'),
    (dict(representative_data=TRAIN[0], batch_size=0), 'batch_size'),
    (dict(representative_data=TRAIN[0][:3], batch_size=4), 'fewer examples than a batch'),
    (dict(recipe='prune', train_data=TRAIN, training=inference.Training(epochs=0)), 'epochs'),
    (dict(recipe='prune', train_data=TRAIN, training=inference.Training(learning_rate=float('nan'))), 'learning_rate'),
    (dict(model=_half, recipe='float32'), 'only float32'),
    (dict(model=lambda: tf.keras.Sequential([layers.Dense(2)]), recipe='float32'), 'no weights yet'),
    (dict(model=lambda: tf.keras.Sequential([layers.Input((None, 2)), layers.Dense(2)]), recipe='float32'),
     'must be fixed'),
    (dict(model=lambda: 'model.keras', recipe='float32'), 'a Keras model'),
    (dict(model=lambda: network(5), recipe='prune', train_data=TRAIN), 'there is no loss'),
    (dict(model=lambda: tf.keras.Sequential([layers.Input((8, 4)), layers.Lambda(_halved)]), recipe='int8',
          representative_data=np.zeros((4, 8, 4))), 'unroll=True'),
    (dict(model=lambda: tf.keras.Sequential([layers.Input((8, 4), 1), layers.GRU(2, stateful=True, name='memory')]),
          recipe='float32'), "'memory' changes a variable.*stateful=False"),
    (dict(model=lambda: tf.keras.Sequential([layers.Input((8,)), Counting(name='counting')]), recipe='int8',
          representative_data=np.zeros((4, 8))), "'counting' changes a variable"),
    (dict(model=lambda: tf.keras.Sequential([layers.Input((8,)), layers.Lambda(lambda x: x + tf.random.normal([8]))]),
          recipe='float32'), 'differently the second time.*random numbers'),
    (dict(model=lambda: Doubting([layers.Input((8,)), layers.Dense(2)]), recipe='float32'),
     'off by .* relative to Keras'),
    (dict(model=lambda: tf.keras.Sequential([layers.Input((3,), dtype='int32'),
                                             layers.Lambda(lambda x: tf.one_hot(x, 4)),
                                             layers.Lambda(_above_half)]), recipe='float32'),
     'give representative_data'),
    (dict(model=lambda: Doubting([layers.Input((8,)), layers.Dense(2)]), recipe='int8',
          representative_data=np.ones((9, 8))), 'off by .* give examples as the model will see them'),
])
def test_bad_input_is_one_sentence_and_leaves_no_file(model, options, word, tmp_path):
  options = dict(options)
  given = options.pop('model', lambda: model)()
  with pytest.raises(ExportError, match=word) as caught:
    inference.export_inference(given, path=tmp_path / 'out.tflite', **options)
  one_sentence(caught)
  assert not list(tmp_path.iterdir())


def test_a_path_that_exists_is_refused_before_any_work(model, tmp_path):
  path = tmp_path / 'out.tflite'
  path.write_bytes(b'mine')
  with pytest.raises(FileError, match='exists'):
    inference.export_inference(model, recipe='prune', path=path)
  assert path.read_bytes() == b'mine'


def test_a_file_that_an_interpreter_refuses_is_not_returned(model, monkeypatch, tmp_path):
  class Refusing(interpreters.Interpreter):
    def __init__(self, data, name='tf.lite', threads=1):
      if name == 'litert':
        raise FileError('litert refuses this file: no.')
      super().__init__(data, name, threads)
  monkeypatch.setattr(interpreters, 'Interpreter', Refusing)
  with pytest.raises(ExportError, match='does not run: litert refuses'):
    inference.export_inference(model, recipe='float32', path=tmp_path / 'out.tflite')
  assert not list(tmp_path.iterdir())


def test_the_table_measures_what_the_files_do(model, capsys):
  rows = inference.compare(model, VALID, recipes=['float32', 'int8', 'prune'], timing_rounds=1)
  assert [row.recipe for row in rows] == ['float32', 'int8', 'prune']
  assert 'train_data' in rows[2].refused and rows[2].bytes is None
  expected = np.mean(model.predict(VALID[0], verbose=0).argmax(1) == VALID[1])
  for name in interpreters.NAMES:
    assert rows[0].metric == 'accuracy' and rows[0].quality[name] == pytest.approx(expected)
    assert 0 < rows[0].milliseconds[name] < 1e4
  assert rows[0].bytes > rows[1].bytes > rows[1].gzip_bytes and (rows[0].edgetpu, rows[1].edgetpu) == (False, True)
  assert 'int8 (2 of 3)' in capsys.readouterr().err


@pytest.mark.parametrize('answers, y, metric, value', [
    ([[.1, .9], [.8, .2], [.3, .7]], [1, 1, 1], 'accuracy', 2 / 3),
    ([[.1, .9], [.8, .2]], [[0, 1], [0, 1]], 'accuracy', 1 / 2),
    ([[.6], [.1], [.7]], [1, 0, 0], 'accuracy', 2 / 3),
    ([[.6], [-.1], [3.]], [1, 0, 0], 'accuracy', 2 / 3),
    ([[1., 2.], [3., 4.]], [[1., 1.], [1., 1.]], 'mean absolute error', 1.5),
    ([[1.], [3.]], [0., 5.], 'mean absolute error', 1.5),
])
def test_quality_by_hand(answers, y, metric, value):
  assert comparison.measure(np.array(answers, np.float32), np.array(y)) == (metric, pytest.approx(value))


@pytest.mark.parametrize('y', [np.array([4, 0]), np.zeros((2, 3))])
def test_labels_that_do_not_fit_are_refused(y):
  with pytest.raises(ExportError) as caught:
    comparison.measure(np.zeros((2, 4), np.float32), y)
  one_sentence(caught)


def npz(**arrays):
  stream = io.BytesIO()
  np.savez_compressed(stream, **arrays)
  return stream.getvalue()


def test_arrays_are_read(tmp_path):
  path = tmp_path / 'data.npz'
  path.write_bytes(npz(x=TRAIN[0], y=TRAIN[1], other=np.array([None])))
  found = examples.read(path, ('x', 'y', 'x_train'))
  assert list(found) == ['x', 'y']
  np.testing.assert_array_equal(found['x'], TRAIN[0])


def _lying_header():
  """An array of 2^40 values that has 8 bytes."""
  stream = io.BytesIO()
  with zipfile.ZipFile(stream, 'w') as archive:
    member = io.BytesIO()
    np.lib.format.write_array_header_1_0(member, {'descr': '<f4', 'fortran_order': False, 'shape': (1 << 40,)})
    archive.writestr('x.npy', member.getvalue() + bytes(8))
  return stream.getvalue()


@pytest.mark.parametrize('data', [
    b'', b'text', npz(x=TRAIN[0])[:200], npz(x=np.array([{}], object)), npz(x=np.array(['a'])), _lying_header(),
], ids=['empty', 'text', 'cut', 'objects', 'texts', 'lying header'])
def test_hostile_data_is_one_sentence(data, tmp_path):
  path = tmp_path / 'data.npz'
  path.write_bytes(data)
  with pytest.raises(FileError) as caught:
    examples.read(path, ('x',))
  one_sentence(caught)


def test_flipped_bits_in_data_are_a_sentence_or_an_array(tmp_path):
  data = bytearray(npz(x=np.arange(6.)))
  for position in range(len(data)):
    data[position] ^= 0x55
    (tmp_path / 'data.npz').write_bytes(data)
    try:
      examples.read(tmp_path / 'data.npz', ('x',))
    except FileError as error:
      one_sentence(types.SimpleNamespace(value=error))
    data[position] ^= 0x55


def run(capsys, command, *arguments):
  options = cli.PROGRAM.parse([command, *map(str, arguments)])
  code = options.function(options)
  return code or 0, capsys.readouterr().out


def test_the_commands(model, make, capsys, tmp_path):
  model.save(tmp_path / 'model.keras')
  np.savez(tmp_path / 'data.npz', x=VALID[0], y=VALID[1], x_train=TRAIN[0], y_train=TRAIN[1])
  output = tmp_path / 'out.tflite'
  arguments = [tmp_path / 'model.keras', '--data', tmp_path / 'data.npz']
  code, text = run(capsys, 'inference', *arguments, '-o', output, '--json')
  result = json.loads(text)
  assert code == 0 and output.read_bytes() == make('int8').data
  assert result['bytes'] == output.stat().st_size and result['edgetpu'] is True and result['recipe'] == 'int8'
  code, text = run(capsys, 'compare', *arguments, '--recipe', 'int8', '--recipe', 'distill+int8',
                   '--examples', '20')
  assert code == 0 and f'{result["bytes"]:,}' in text and 'distill+int8: distill needs' in text
  with pytest.raises(FileError, match='exists'):
    run(capsys, 'inference', *arguments, '-o', output)
  with pytest.raises(ExportError, match='--data FILE.npz'):
    run(capsys, 'inference', arguments[0], '-o', tmp_path / 'other.tflite')
  assert files.check_free(tmp_path / 'other.tflite')


def test_random_examples_of_the_gate_are_words_that_the_model_has():
  """Also where the words of an input come as floats, and those of another are more."""
  inputs = tf.keras.Input((5,)), tf.keras.Input((4,), dtype='int32')
  embedded = [layers.Flatten()(layers.Embedding(size, 2)(x)) for size, x in zip((3, 500), inputs)]
  model = tf.keras.Model(inputs, layers.Dense(2)(layers.Concatenate()(embedded)))
  few, many = gate.random_examples(model, 4).values()
  assert few.shape == (32, 5) and set(few.ravel()) == {0., 1., 2.} and 256 < many.max() < 500 and many.min() == 0
  assert inference.export_inference(model, recipe='float32').size > 0


PARTS = list(parts.registry())


@pytest.mark.parametrize('name', PARTS)
def test_a_part_is_described_and_its_limits_hold(name):
  part = parts.registry()[name]
  assert part.name == name and part.summary and not part.summary.endswith('.') and part.summary[0].islower()
  assert part.examples and all(name in recipes.parse(text) for text in part.examples)
  for text in part.examples:
    assert str(recipes.parse(text)) == text
  fields = dataclasses.fields(part)
  assert len(fields) <= 1 and str(part()) == name and part.of(None) == part()
  for field in fields:
    low, high = field.metadata['low'], field.metadata['high']
    assert low <= field.default <= high and part.of(str(field.default)) == part()
    for limit in (low, high):
      assert part.of(str(limit)) == part.of(str(part.of(str(limit))).partition(':')[2] or None)
    for text in (str(low - 1), str(high + 1), 'nan', 'many', ''):
      with pytest.raises(ExportError, match=f'^{name}:{text} is not possible: it takes a (whole )?number from'):
        part.of(text)


@pytest.mark.parametrize('recipe', dict.fromkeys(text for part in parts.registry().values() for text in part.examples))
def test_every_part_makes_files_that_pass_the_gate(model, make, recipe):
  before = model.get_weights()
  made = make(recipe)
  assert made.recipe == recipe and np.isfinite(predictions(made, 'litert', VALID[0][:8])).all()
  for old, new in zip(before, model.get_weights()):
    np.testing.assert_array_equal(old, new)


MISSING = {part_lib.TRAINING_DATA: ('train_data', 'training data'), part_lib.STUDENT: ('student', 'student'),
           part_lib.EXAMPLES: ('representative_data', 'representative_data='), part_lib.LOSS: ('loss', 'no loss')}


@pytest.mark.parametrize('name, need', [(name, need) for name, part in parts.registry().items() for need in part.needs])
def test_what_a_part_needs_is_asked_for_before_any_work(model, monkeypatch, name, need):
  given = {'train_data': TRAIN, 'student': network(6), 'representative_data': TRAIN[0], 'loss': model.loss}
  missing, word = MISSING[need]
  given[missing] = None
  monkeypatch.setattr(model, 'loss', None)
  monkeypatch.setattr(finetuning.Trainer, 'fit', None)
  with pytest.raises(ExportError, match=word) as caught:
    inference.export_inference(model, recipe=name, training=inference.Training(loss=given.pop('loss')), **given)
  one_sentence(caught)


CHANGES = [name for name, part in parts.registry().items() if issubclass(part, part_lib.Change)]


@pytest.fixture(scope='module', name='pruned')
def _pruned(model):
  return changed(model, 'prune:0.7')


@pytest.mark.parametrize('name', [name for name in CHANGES if part_lib.STUDENT not in parts.registry()[name].needs])
def test_a_part_keeps_what_it_has_to_and_leaves_what_it_says(model, pruned, name):
  check_kernels(model, pruned, name)


def check_kernels(model, pruned, name):
  """Zeros of earlier parts stay zeros, and there are those and shared values where the part says so."""
  part, before = parts.registry()[name], list(parts.registry().values())[:list(parts.registry()).index(name)]
  keeps = part_lib.ZEROS not in part.leaves and any(part_lib.ZEROS in other.leaves for other in before)
  start = pruned if keeps else model
  after = changed(start, name, [part_lib.ZEROS] if keeps else [], inference.Training(epochs=1, later_epochs=1))
  for kernel in (weights for weights in start.get_weights() if weights.ndim > 1 and weights.size > 64):
    found = next(weights for weights in after.get_weights() if weights.shape == kernel.shape)
    if keeps:
      assert np.all(found[kernel == 0] == 0), f'{name} does not keep zeros'
    if part_lib.ZEROS in part.leaves:
      assert np.mean(found == 0) > 0.05, f'{name} leaves no zeros'
    if part_lib.SHARED_VALUES in part.leaves:
      assert len(np.unique(found)) <= 257, f'{name} leaves no shared values'


def test_recipes_are_read_and_help_is_shown_without_tensorflow():
  code = ('import sys; from tflite_export import cli\n'
          'try: cli.PROGRAM.parse(["inference", "--help"])\n'
          'except SystemExit: pass\n'
          'from tflite_export.inference import recipes; recipes.parse("prune+int8")\n'
          'assert not {"tensorflow", "keras"} & set(sys.modules)')
  done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  for name, part in parts.registry().items():
    assert f'  {part.form()}' in done.stdout and part.summary[:30] in done.stdout, name


GUIDE = pathlib.Path(__file__).resolve().parents[2] / 'docs' / 'adding-a-recipe-part.md'
EXAMPLE = re.search(r'^```python\n(.*?)^```$', GUIDE.read_text(encoding='utf-8'), re.MULTILINE | re.DOTALL)[1]


@pytest.fixture(name='dropped_in')
def _dropped_in(tmp_path, monkeypatch):
  """The part of the guide, as if it were a file in the folder."""
  (tmp_path / 'shorten.py').write_text(EXAMPLE, encoding='utf-8')
  monkeypatch.setattr(sys, 'dont_write_bytecode', True)
  monkeypatch.setattr(parts, '__path__', [*parts.__path__, str(tmp_path)])
  monkeypatch.setattr(parts, '_registry', {})
  importlib.invalidate_caches()
  yield 'shorten'
  sys.modules.pop('tflite_export.inference.parts.shorten', None)


def test_the_file_of_the_guide_is_a_part(model, pruned, make, dropped_in):
  names = list(parts.registry())
  assert names.index('cluster') < names.index(dropped_in) < names.index('qat')
  names.remove(dropped_in)
  assert names == PARTS
  test_a_part_is_described_and_its_limits_hold(dropped_in)
  check_kernels(model, pruned, dropped_in)
  for recipe in parts.registry()[dropped_in].examples:
    test_every_part_makes_files_that_pass_the_gate(model, make, recipe)
  assert make('shorten:4').size == make('float32').size and make('shorten:4').gzip_size < make('float32').gzip_size
  exported = models.Exported('model', None, None, {'x': tf.TensorSpec([None, 8, 8, 1])})
  with pytest.raises(ExportError, match='and shorten changes them: choose from float32, float16, dynamic'):
    inference.export_inference(exported, recipe='shorten')
