"""Inference export: size, accuracy and latency of each recipe for a CNN on digits, in both interpreters.

The CNN has 1,199,882 parameters and learns 1,437 of scikit-learn's digits, scaled to 28x28; the other 360 are the
validation data, so that one of them is 0.0028 of accuracy. One seed. Latencies are those of one example and one thread
on an x86 host.
"""

import numpy as np

from benchmarks.lib import progress

TRAINED = 1437

# (epochs, later epochs, learning rate, which student, recipes)
GROUPS = (
    (8, 2, 1e-3, None, ('float32', 'float16', 'dynamic', 'int8', 'qat', 'prune', 'prune+sparse', 'prune+int8',
                        'prune+qat', 'prune-2:4+int8', 'cluster+int8')),
    (16, 4, 1e-3, None, ('prune:0.9+int8', 'prune:0.9+cluster+int8', 'prune:0.9+cluster+qat',
                         'prune:0.95+cluster+int8')),
    (40, 4, 2e-3, (16, 32), ('distill+int8', 'distill+prune:0.7+cluster+int8')),
)
QUICK = ((1, 1, 1e-3, None, ('float32', 'int8', 'prune:0.9+cluster+int8')), (1, 1, 1e-3, (8, 16), ('distill+int8',)))


def digits():
  """(x, y) for training and (x, y) for validation: float32[n, 28, 28, 1] from 0 to 1, labels 0 to 9."""
  from sklearn import datasets
  import tensorflow as tf
  found = datasets.load_digits()
  order = np.random.default_rng(0).permutation(len(found.target))
  x = tf.image.resize(found.images[order, ..., None].astype(np.float32) / 16, (28, 28)).numpy()
  y = found.target[order]
  return (x[:TRAINED], y[:TRAINED]), (x[TRAINED:], y[TRAINED:])


def network():
  """The CNN that is exported."""
  import tensorflow as tf
  from tensorflow.keras import layers
  return tf.keras.Sequential([
      layers.Input((28, 28, 1)), layers.Conv2D(32, 3, activation='relu'), layers.Conv2D(64, 3, activation='relu'),
      layers.MaxPool2D(), layers.Dropout(.25), layers.Flatten(), layers.Dense(128, activation='relu'),
      layers.Dropout(.5), layers.Dense(10, activation='softmax')])


def student(first, second):
  """A smaller CNN, for distillation."""
  import tensorflow as tf
  from tensorflow.keras import layers
  return tf.keras.Sequential([
      layers.Input((28, 28, 1)), layers.Conv2D(first, 3, strides=2, activation='relu'), layers.MaxPool2D(),
      layers.Conv2D(second, 3, activation='relu'), layers.Flatten(), layers.Dense(10, activation='softmax')])


def run(quick):
  """Measures.

  Returns:
    List of rows: recipe, parameters, bytes, gzip_bytes, gzip_ratio (that of prune+int8 / this), and accuracy and
    milliseconds per interpreter.
  """
  import tensorflow as tf

  from tflite_export import inference
  from tflite_export import interpreters
  tf.keras.utils.set_random_seed(1)
  train, validation = digits()
  model = network()
  model.compile('adam', 'sparse_categorical_crossentropy')
  for _ in progress.bar(range(1 if quick else 12), 'training the CNN'):
    model.fit(*train, batch_size=32, verbose=0)
  found = []
  for epochs, later, rate, sizes, recipes in QUICK if quick else GROUPS:
    pupil = None if sizes is None else student(*sizes)
    training = inference.Training(epochs=epochs, later_epochs=later, learning_rate=rate)
    rows = inference.compare(model, validation, recipes=recipes, train_data=train, student=pupil, training=training)
    found += [(epochs, (pupil or model).count_params(), row) for row in rows]
  reference = next((row.gzip_bytes for _, _, row in found if row.recipe == 'prune+int8'), None)
  return [{
      'recipe': row.recipe, 'epochs': epochs, 'parameters': parameters, 'bytes': row.bytes,
      'gzip_bytes': row.gzip_bytes,
      'gzip_ratio': reference and reference / row.gzip_bytes,
      **{f'accuracy_{name}': row.quality[name] for name in interpreters.NAMES},
      **{f'milliseconds_{name}': row.milliseconds[name] for name in interpreters.NAMES}, 'edgetpu_list': row.edgetpu,
  } for epochs, parameters, row in found]
