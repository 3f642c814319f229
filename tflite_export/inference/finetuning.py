"""The parts of recipes that train: pruning, clustering, quantization-aware training, distillation.

Each takes a Keras model and returns another one. tensorflow-model-optimization wraps the layers of the model that it is
given and takes their variables over, so that each part starts from a copy.
"""

import dataclasses
import sys
import time

import numpy as np
import tensorflow as tf

from tff_compress.codec import checks
from tflite_export import interpreters
from tflite_export.errors import ExportError


@dataclasses.dataclass(frozen=True)
class Training:
  """How the parts of a recipe train.

  Attributes:
    epochs: epochs of pruning and of distillation.
    later_epochs: epochs of clustering and of quantization-aware training, which change weights less.
    batch_size: examples in a batch.
    learning_rate: of Adam in pruning and distillation.
    later_learning_rate: of Adam in clustering and quantization-aware training.
    loss: Keras loss, or its name; None: what the model was compiled with.
    temperature: distillation: what the logits are divided by.
    hardness: distillation: the share of the loss that is that of the labels; the rest is the distance to the teacher.
  """
  epochs: int = 8
  later_epochs: int = 2
  batch_size: int = 32
  learning_rate: float = 1e-3
  later_learning_rate: float = 1e-4
  loss: object = None
  temperature: float = 4.
  hardness: float = 0.3

  def check(self):
    """Raises ExportError for a setting that is out of range."""
    for name, low, high in (('epochs', 1, 1 << 20), ('later_epochs', 1, 1 << 20), ('batch_size', 1, 1 << 20),
                            ('learning_rate', 0, 1e3), ('later_learning_rate', 0, 1e3), ('temperature', 0.1, 100),
                            ('hardness', 0, 1)):
      value = getattr(self, name)
      check = checks.whole_number if isinstance(getattr(type(self), name), int) else checks.number
      check(name, value, ExportError, least=low, most=high)


class Progress(tf.keras.callbacks.Callback):
  """Says on standard error what goes on, at most once a second and not within the first."""

  def __init__(self, what='inference export'):
    super().__init__()
    self.what = what
    self.now = ''
    self._next = time.monotonic() + 1

  def say(self, text):
    """Names what is being done."""
    self.now = text
    self._show('')

  def _show(self, more):
    if time.monotonic() >= self._next:
      self._next = time.monotonic() + 1
      print(f'{self.what}: {self.now}{more}', file=sys.stderr, flush=True)

  def on_epoch_end(self, epoch, logs=None):
    self._show(f', epoch {epoch + 1} of {self.params["epochs"]}, loss {(logs or {}).get("loss", float("nan")):.4g}')


def copy(model):
  """A model with the same layers and weights of its own, and the same loss."""
  try:
    copied = tf.keras.models.clone_model(model)
    copied.set_weights(model.get_weights())
  except Exception as error:
    raise ExportError('a model that is trained further must be made of layers with the Sequential or functional API; '
                      f'this one cannot be copied ({_reason(error)}).') from None
  return copied


def _reason(error):
  return ' '.join(str(error).split())[:160].rstrip('.') or type(error).__name__


class Trainer:
  """Trains models on the same examples.

  Args:
    x: {input: array}
    y: labels.
    loss: Keras loss or its name.
    settings: Training
    progress: Progress
  """

  def __init__(self, x, y, loss, settings, progress):
    self.x = list(x.values()) if len(x) > 1 else next(iter(x.values()))
    self.y = y
    self.loss = loss
    self.settings = settings
    self.progress = progress

  @property
  def steps(self):
    """Steps of an epoch."""
    return -(-len(self.y) // self.settings.batch_size)

  def fit(self, model, what, later=False, callbacks=(), loss=None, y=None):
    """Trains a model in place.

    Raises:
      ExportError: the loss does not fit model and labels, or training diverged.
    """
    settings = self.settings
    self.progress.say(what)
    epochs = settings.later_epochs if later else settings.epochs
    rate = settings.later_learning_rate if later else settings.learning_rate
    logger = tf.get_logger()
    level = logger.level
    # Each recipe's model is traced anew, which TensorFlow would advise against every time.
    logger.setLevel('ERROR')
    try:
      model.compile(tf.keras.optimizers.Adam(rate), loss or self.loss)
      history = model.fit(self.x, self.y if y is None else y, settings.batch_size, epochs, verbose=0,
                          callbacks=[*callbacks, self.progress])
    except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
      raise ExportError(f'{what} fails ({_reason(error)}): check that the loss fits the labels.') from None
    finally:
      logger.setLevel(level)
    if not np.isfinite(history.history['loss'][-1]) or not all(np.isfinite(w).all() for w in model.get_weights()):
      raise ExportError(f'{what} diverged: choose a lower learning rate.')


def prune(model, sparsity, two_of_four, trainer):
  """Sets the smallest weights of each layer to zero, more and more of them (Zhu and Gupta 2017, a cubic schedule)."""
  from tensorflow_model_optimization.sparsity import keras as pruning
  steps = trainer.steps * trainer.settings.epochs
  # The last two fifths are trained with the final masks. Masks are found anew some forty times on the way.
  end, frequency = int(0.6 * steps), max(1, steps // 40)
  if two_of_four:
    options = {'sparsity_m_by_n': (2, 4), 'pruning_schedule': pruning.ConstantSparsity(0.5, 0, max(1, end), frequency)}
  else:
    options = {'pruning_schedule': pruning.PolynomialDecay(0., sparsity, 0, max(1, end), frequency=frequency)}
  wrapped = _wrap(model, lambda layer: pruning.prune_low_magnitude(layer, **options), 'pruned')
  trainer.fit(wrapped, 'pruning', callbacks=[pruning.UpdatePruningStep()])
  return copy(pruning.strip_pruning(wrapped))


def cluster(model, clusters, pruned, trainer):
  """Gives each layer's weights few values; zeros of a pruned model stay zeros."""
  from tensorflow_model_optimization.clustering import keras as clustering
  from tensorflow_model_optimization.python.core.clustering.keras.experimental import cluster as experimental

  few = []

  def wrap(layer):
    kernels = [weight for weight in layer.trainable_weights if weight.shape.rank > 1]
    if any(np.count_nonzero(kernel) <= clusters for kernel in kernels):
      few.append(layer.name)
      layer.trainable = False  # It has that few values already; what is zero stays zero.
      return layer
    return experimental.cluster_weights(layer, number_of_clusters=clusters, preserve_sparsity=pruned,
                                        cluster_centroids_init=clustering.CentroidInitialization.KMEANS_PLUS_PLUS)
  wrapped = _wrap(model, wrap, 'clustered', few)
  if wrapped.trainable_weights:
    trainer.fit(wrapped, 'clustering', later=True)
  return copy(clustering.strip_clustering(wrapped))


def _wrap(model, wrap, done, others=()):
  """A copy with its layers wrapped, where tensorflow-model-optimization knows how. `wrap` may note others by name."""
  wrapped = []

  def wrap_or_not(layer):
    try:
      made = wrap(layer)
    except ValueError:
      return layer
    if made is not layer and layer.trainable_weights:
      wrapped.append(layer.name)
    return made
  source = copy(model)
  try:
    made = tf.keras.models.clone_model(source, clone_function=wrap_or_not)
  except Exception as error:
    raise ExportError(f'this model cannot be {done} ({_reason(error)}).') from None
  if not wrapped and not others:
    raise ExportError(f'this model cannot be {done}: no layer of it is of a kind that tensorflow-model-optimization '
                      'knows.')
  return made


def quantization_aware(model, pruned, clustered, trainer):
  """Trains with the rounding of int8 in place; zeros and shared values of earlier parts stay. Returns a model to
  convert."""
  import tensorflow_model_optimization as tfmot
  from tensorflow_model_optimization.quantization import keras as quantization
  combine = tfmot.experimental.combine
  scheme = {}
  if clustered:
    scheme = {'scheme': combine.Default8BitClusterPreserveQuantizeScheme(preserve_sparsity=pruned)}
  elif pruned:
    scheme = {'scheme': combine.Default8BitPrunePreserveQuantizeScheme()}
  try:
    annotated = quantization.quantize_annotate_model(copy(model))
    aware = quantization.quantize_apply(annotated, **scheme)
  except (ValueError, RuntimeError, AttributeError, TypeError) as error:
    raise ExportError('tensorflow-model-optimization cannot put the rounding of int8 into this model: '
                      f'{_reason(error)}; use int8 without qat.') from None
  trainer.fit(aware, 'quantization-aware training', later=True)
  return combine.strip_clustering_cqat(aware) if clustered else aware


def distill(teacher, student, data, *, training=Training()):
  """Teaches a smaller model what a trained one says (Hinton, Vinyals and Dean 2015).

  For a classifier the loss is hardness · (cross-entropy with the labels) + (1 - hardness) · T² · (cross-entropy of
  softmax(teacher / T) and softmax(student / T)), with both models' outputs as logits or as probabilities; for other
  models mean squared errors take the places of both.

  Args:
    teacher: trained Keras model. It is not changed.
    student: Keras model with the same inputs and outputs, trained or not. It is not changed.
    data: (x, y), or x alone: then hardness counts as 0.
    training: `Training`: epochs, batch_size, learning_rate, temperature, hardness.

  Returns:
    A trained copy of the student.

  Raises:
    ExportError: inputs, outputs and data do not fit each other.
  """
  from tflite_export.inference import examples
  from tflite_export.inference import program
  training.check()
  specs = program.specs(teacher)
  if isinstance(data, (tuple, list)) and len(data) == 2:
    x, y = examples.labelled(data, specs, 'data')
  else:
    x, y = examples.inputs(data, specs, 'data'), None
  return teach(teacher, student, Trainer(x, np.zeros(len(next(iter(x.values())))) if y is None else y, None, training,
                                         Progress('distillation')), y is not None)


def teach(teacher, student, trainer, labelled=True):
  """`distill` with a `Trainer`."""
  if not isinstance(student, tf.keras.Model):
    raise ExportError(f'the student must be a Keras model, not {type(student).__name__}.')
  if [tuple(i.shape[1:]) for i in student.inputs or ()] != [tuple(i.shape[1:]) for i in teacher.inputs or ()] or (
      student.output_shape != teacher.output_shape) or isinstance(student.output_shape, list):
    raise ExportError(f'the student maps {student.input_shape} to {student.output_shape} and the teacher '
                      f'{teacher.input_shape} to {teacher.output_shape}: both must be the same, with one output.')
  student, settings = copy(student), trainer.settings
  trainer.progress.say('asking the teacher')
  with interpreters.quiet():
    said = teacher.predict(trainer.x, batch_size=settings.batch_size, verbose=0)
    answered = student.predict(trainer.x, batch_size=settings.batch_size, verbose=0)
  classes = said.shape[-1]
  y, hardness = trainer.y, settings.hardness if labelled else 0.
  classifies = said.ndim == 2 and classes > 1 and (_probabilities(said) or not labelled or y.ndim == 1)
  if not classifies:
    targets = np.stack([said, np.asarray(y, np.float32).reshape(said.shape) if labelled else said], -1)
    trainer.fit(student, 'distillation', y=targets, loss=lambda wanted, got: tf.reduce_mean(
        (1 - hardness) * tf.square(wanted[..., 0] - got) + hardness * tf.square(wanted[..., 1] - got)))
    return student
  if labelled:
    if y.ndim == 1 and (y.min() < 0 or y.max() >= classes):
      raise ExportError(f'the labels go from {y.min()} to {y.max()} and the model has {classes} classes: number them '
                        'from 0.')
    hard = np.eye(classes, dtype=np.float32)[y.astype(np.int64)] if y.ndim == 1 else np.asarray(y, np.float32)
    if hard.shape != said.shape:
      raise ExportError(f'labels of shape {y.shape} do not fit an output of shape {said.shape}: give one class per '
                        'example.')
  else:
    hard = np.zeros_like(said)
  temperature, given = settings.temperature, _probabilities(answered)
  soft = tf.nn.softmax(_logits(said, _probabilities(said)) / temperature).numpy()

  def loss(wanted, got):
    logits = _logits(got, given)
    near = tf.nn.softmax_cross_entropy_with_logits(wanted[:, :classes], logits / temperature) * temperature ** 2
    right = tf.nn.softmax_cross_entropy_with_logits(wanted[:, classes:], logits)
    return tf.reduce_mean((1 - hardness) * near + hardness * right)

  trainer.fit(student, 'distillation', y=np.concatenate([soft, hard], 1), loss=loss)
  return student


def _probabilities(output):
  """Whether rows are probabilities."""
  return bool(np.all(output >= 0) and np.allclose(output.sum(-1), 1, atol=1e-3))


def _logits(output, probabilities):
  # The logarithm of probabilities is their logits up to a constant, which no softmax sees.
  return tf.math.log(tf.clip_by_value(output, 1e-7, 1.)) if probabilities else tf.convert_to_tensor(output)
