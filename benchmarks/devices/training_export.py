"""A training step on the device, without Flex: against Keras and against an export that needs Flex.

The CNN has 1,199,882 parameters, batches of 32, plain SGD. All are timed in turns in one process with one thread.
Memory is the growth of the largest resident set of a process of its own, from before the file is loaded until after
three steps.
"""

import importlib
import pathlib
import tempfile
import time

import numpy as np

from benchmarks.lib import harness
from benchmarks.lib import memory
from benchmarks.lib import progress

BATCH = 32
RATE = np.float32(0.01)


def run(quick):
  """Measures.

  Returns:
    Rows of three tables: 'step' (what, milliseconds, ratio to Keras, ratio to Flex), 'file' (what, bytes, peak memory
    in MB, operators that need Flex) and 'MobileNetV2' (what, milliseconds, bytes, seconds of the export, errors).
  """
  import tensorflow as tf

  from tff_compress.simulation import models
  from tflite_export import flatbuffer
  from tflite_export.training import export_training

  tf.get_logger().setLevel('ERROR')
  model = models.build('mnist_cnn', input_shape=(28, 28, 1), num_classes=10, seed=0)
  loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
  progress.say('exporting the CNN')
  ours = export_training(model, loss=loss, optimizer='sgd', batch_size=BATCH).data
  flex = _flex_export(model, loss)
  steps = {'Keras, tf.function': _keras_step(model, loss), 'Flex export, tf.lite': _step(flex, 'tf.lite', False),
           'this, tf.lite': _step(ours, 'tf.lite'), 'this, litert': _step(ours, 'litert')}
  seconds = harness.fastest(steps, 3 if quick else 60)
  rows = [dict(table='step', what=name, milliseconds=1e3 * value, ratio_to_keras=value / seconds['Keras, tf.function'],
               ratio_to_flex=value / seconds['Flex export, tf.lite']) for name, value in seconds.items()]
  del steps
  for name, data, runtimes in (('Flex export', flex, ['tf.lite']), ('this', ours, ['tf.lite', 'litert'])):
    for runtime in runtimes:
      progress.say(f'memory: {name}, {runtime}')
      rows.append(dict(table='file', what=f'{name}, {runtime}', bytes=len(data),
                       peak_megabytes=_peak(data, runtime, name == 'this'),
                       flex_operators=' '.join(name.partition(':')[2] for name in flatbuffer.operators(data).foreign)))
  return rows + _mobilenet(quick)


def _feeds(weighted, shape=(28, 28, 1)):
  generator = np.random.default_rng(0)
  feeds = dict(x=generator.standard_normal((BATCH, *shape)).astype(np.float32),
               y=generator.integers(0, 10, BATCH).astype(np.int32),
               learning_rate=RATE)
  return feeds | dict(sample_weight=np.ones(BATCH, np.float32)) if weighted else feeds


def _step(data, runtime, weighted=True, shape=(28, 28, 1)):
  from tflite_export import interpreters
  with interpreters.quiet():
    run_file = interpreters.Interpreter(data, runtime)
  feeds = _feeds(weighted, shape)
  return lambda: run_file.run('train', **feeds)


def _keras_step(model, loss, shape=(28, 28, 1)):
  import tensorflow as tf
  feeds = _feeds(False, shape)

  @tf.function
  def train(x, y, rate):
    with tf.GradientTape() as tape:
      value = loss(y, model(x, training=True))
    for v, gradient in zip(model.trainable_variables, tape.gradient(value, model.trainable_variables)):
      v.assign_sub(rate * gradient)
    return value
  return lambda: train(feeds['x'], feeds['y'], feeds['learning_rate']).numpy()


def _flex_export(model, loss):
  """The usual way: a tf.function with a GradientTape, converted with TensorFlow's operators allowed."""
  import tensorflow as tf

  from tflite_export import interpreters
  holder = tf.Module()
  holder.model = model

  @tf.function(input_signature=[tf.TensorSpec([BATCH, 28, 28, 1], name='x'), tf.TensorSpec([BATCH], tf.int32, name='y'),
                                tf.TensorSpec([1], name='learning_rate')])
  def train(x, y, learning_rate):
    with tf.GradientTape() as tape:
      value = loss(y, model(x, training=True))
    for v, gradient in zip(model.trainable_variables, tape.gradient(value, model.trainable_variables)):
      v.assign_sub(learning_rate * gradient)
    return {'loss': value}
  with tempfile.TemporaryDirectory() as folder, interpreters.quiet():
    tf.saved_model.save(holder, folder, signatures={'train': train})
    converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=['train'])
    converter.experimental_enable_resource_variables = True
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
    return converter.convert()


def _peak(data, runtime, weighted):
  """Megabytes that a process of its own grows by at most."""
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'model.tflite'
    path.write_bytes(data)
    return harness.in_new_process(_growth, str(path), runtime, weighted)


def _growth(path, runtime, weighted):
  # What the runtime takes before it has a model is not counted.
  importlib.import_module('tensorflow' if runtime == 'tf.lite' else 'ai_edge_litert.interpreter')
  importlib.import_module('tflite_export.interpreters')
  before = memory.peak()
  step = _step(pathlib.Path(path).read_bytes(), runtime, weighted)
  for _ in range(3):
    step()
  return (memory.peak() - before) / 1024**2


def _mobilenet(quick):
  """MobileNetV2, width 0.35, all of it trained, and its last layer alone."""
  import tensorflow as tf

  from tflite_export.training import export_training
  shape = (32, 32, 3) if quick else (96, 96, 3)
  rows = []
  loss = tf.keras.losses.SparseCategoricalCrossentropy()
  for name, trained in (('whole', None), ('last layer', -1)):
    progress.say(f'exporting MobileNetV2, {name}')
    tf.keras.utils.set_random_seed(0)
    model = tf.keras.applications.MobileNetV2(shape, alpha=.35, weights=None, classes=10)
    for layer in model.layers[:trained] if trained else ():
      layer.trainable = False
    begin = time.perf_counter()
    file = export_training(model, loss=loss, optimizer='sgd', batch_size=BATCH)
    export = time.perf_counter() - begin
    seconds = harness.fastest({'Keras, tf.function': _keras_step(model, loss, shape),
                               **{f'this, {runtime}': _step(file.data, runtime, shape=shape)
                                  for runtime in ('tf.lite', 'litert')}},
                              3 if quick else 30)
    for what, value in seconds.items():
      errors = file.parity.errors.get(what.partition(', ')[2], {})
      rows.append(dict(table='MobileNetV2', what=f'{name}: {what}', milliseconds=1e3 * value,
                       ratio_to_keras=value / seconds['Keras, tf.function'], bytes=file.size, export_seconds=export,
                       loss_error=errors.get('loss'), gradient_error=errors.get('gradient'),
                       rounding=errors.get('rounding')))
  return rows
