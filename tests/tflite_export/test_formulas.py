"""Every formula computes and differentiates as TensorFlow does, with the built-in operators alone, on its examples."""

import importlib
import pathlib
import re
import sys

import numpy as np
import pytest
import tensorflow as tf

from tflite_export import conversion
from tflite_export import interpreters
from tflite_export.errors import ExportError
from tflite_export.training import export_training
from tflite_export.training import formulas
from tflite_export.training import replay

KINDS = sorted({*formulas.FORWARD, *formulas.GRADIENTS})


def inputs_of(example):
  """Normal values, some of which are 0: many operators have a kink there."""
  generator = np.random.default_rng(0)
  return [tf.constant(np.where(generator.random(spec.shape) < .2, 0, generator.standard_normal(spec.shape)), tf.float32)
          for spec in example.specs]


def with_gradients(output, inputs, weights):
  """[output, gradient of each input] for this gradient of the output; 0 where an input has none."""
  found = tf.gradients([output], inputs, [weights])
  return [output, *(tf.zeros_like(x) if g is None else tf.convert_to_tensor(g) for x, g in zip(inputs, found))]


def check_formulas(kind):
  """Holds the formulas of an operator type against TensorFlow's own, in a graph and in both interpreters."""
  assert formulas.EXAMPLES[kind], f'{kind} has no examples'
  used = set().union(*(check_example(kind, example) for example in formulas.EXAMPLES[kind]))
  assert kind in used, f'no example of {kind} has that operator in it'


def check_example(kind, example):
  """Returns the types of the operators in an example."""
  inputs = inputs_of(example)
  recording = replay.record(lambda *x: [example.function(*x)], example.specs, [])
  output, = recording.outputs
  assert output.dtype == tf.float32 and output.shape.is_fully_defined() and output.shape.rank
  weights = tf.constant(np.random.default_rng(1).standard_normal(output.shape), tf.float32)

  def by_tensorflow(*x):
    return with_gradients(example.function(*x), x, weights)

  def by_formula(*x):
    outputs = replay.replay(recording, x, {}, True)
    with replay.overridden_gradients():
      return {f'r{n}': value for n, value in enumerate(with_gradients(outputs[0], x, weights))}
  expected = [value.numpy() for value in tf.function(by_tensorflow, autograph=False)(*inputs)]
  specs = [tf.TensorSpec(spec.shape, tf.float32, f'x{n}') for n, spec in enumerate(example.specs)]
  function = tf.function(by_formula, input_signature=specs, autograph=False)
  compare(f'{kind} in a graph', function(*inputs), expected)
  data = conversion.convert(tf.Module(), {'run': function})
  with interpreters.quiet():
    for name in interpreters.NAMES:
      file = interpreters.Interpreter(data, name)
      feeds = {spec.name: x.numpy() for spec, x in zip(specs, inputs)}
      compare(f'{kind} in {name}', file.run('run', **feeds), expected)
  return {op.type for op in recording.graph.get_operations()}


def compare(where, found, expected):
  for n, value in enumerate(expected):
    np.testing.assert_allclose(found[f'r{n}'], value, rtol=1e-4, atol=2e-5, err_msg=(
        f'{where}: {f"the gradient of input {n - 1}" if n else "the output"} is not that of TensorFlow'))


@pytest.mark.parametrize('kind', KINDS)
def test_a_formula_is_what_tensorflow_computes(kind):
  check_formulas(kind)


GUIDE = pathlib.Path(__file__).resolve().parents[2] / 'docs' / 'adding-a-layer-formula.md'
EXAMPLE = re.search(r'^```python\n(.*?)^```$', GUIDE.read_text(encoding='utf-8'), re.MULTILINE | re.DOTALL)[1]


@pytest.fixture
def drop_in(tmp_path, monkeypatch):
  """Function that enters the formulas of a module's text, as if it were a file in the folder."""
  def drop(text):
    (tmp_path / 'dropped_in.py').write_text(text, encoding='utf-8')
    sys.modules.pop('tflite_export.training.formulas.dropped_in', None)
    importlib.invalidate_caches()
    formulas.load()
  monkeypatch.setattr(sys, 'dont_write_bytecode', True)
  monkeypatch.setattr(formulas, '__path__', [*formulas.__path__, str(tmp_path)])
  for table in (formulas.FORWARD, formulas.EXAMPLES):
    for kind in ('Sinh', 'Cosh'):
      assert kind not in table
      monkeypatch.setitem(table, kind, None)
      monkeypatch.delitem(table, kind)
  yield drop
  sys.modules.pop('tflite_export.training.formulas.dropped_in', None)


def test_the_file_of_the_guide_is_a_formula(drop_in):
  """It makes a layer trainable that was not, without any other change."""
  layers = tf.keras.layers
  model = tf.keras.Sequential([layers.Input((4,)), layers.Dense(3), layers.Lambda(tf.sinh, name='curve')])
  with pytest.raises(ExportError, match="the layer 'curve' needs (Sinh|Cosh)"):
    export_training(model, loss='mse', optimizer='sgd', batch_size=2)
  drop_in(EXAMPLE)
  export_training(model, loss='mse', optimizer='sgd', batch_size=2)
  check_formulas('Sinh')
  check_formulas('Cosh')


@pytest.mark.parametrize('right, wrong, says', [
    ('up - down', 'up', 'Sinh in a graph: the output'),
    ('[0.5 *', '[tf.stop_gradient(up) +', 'Sinh in a graph: the output'),
    ('tf.exp(-x)', 'tf.stop_gradient(tf.exp(-x))', 'Sinh in a graph: the gradient of input 0'),
    ('tf.exp(-x)', 'tf.cosh(x) - tf.sinh(x)', 'there is none for tf.Cosh, tf.Sinh'),
    ('Example(tf.sinh', 'Example(tf.tanh', 'no example of Sinh has that operator'),
])
def test_the_contract_finds_what_is_wrong(drop_in, right, wrong, says):
  assert right in EXAMPLE
  drop_in(EXAMPLE.replace(right, wrong, 1))
  with pytest.raises((AssertionError, ExportError), match=says):
    check_formulas('Sinh')
