"""Losses: which are supported, what their labels look like, and what Keras makes of them in a step."""

from collections.abc import Callable
from collections.abc import Iterable
import dataclasses
import functools
from typing import Any

from keras.src.engine.compile_utils import LossesContainer
import tensorflow as tf

from tflite_export.errors import ExportError
from tflite_export.errors import reason

LABELS = {
    'sparse_categorical_crossentropy': 'classes',
    'categorical_crossentropy': 'one-hot',
    'binary_crossentropy': 'bits',
    'mean_squared_error': 'values',
    'mean_absolute_error': 'values',
}
"""{loss that is supported: what its labels are}"""
_REDUCTION = tf.keras.losses.Reduction


@dataclasses.dataclass(frozen=True)
class Loss:
  """A loss of Keras, for a model with one output.

  Attributes:
    name: 'sparse_categorical_crossentropy', …
    function: (labels, output) -> loss of each element, [batch] or [batch, …].
    reduction: of `tf.keras.losses.Reduction`.
    weight: what `compile(loss_weights=…)` multiplies it with.
    ignored: class whose elements do not count; None: all count.
  """
  name: str
  function: Callable
  reduction: str = _REDUCTION.AUTO
  weight: float = 1.
  ignored: int | None = None

  def __call__(self, labels: Any, output: Any, sample_weight: Any) -> tuple[Any, Any]:
    """The loss of a batch as `train_on_batch` has it for the rows whose weight is not 0.

    An element counts where the output's mask keeps it and its class is not ignored.

    Args:
      labels, output: tensors.
      sample_weight: float32 [batch].

    Returns:
      (what Keras differentiates, what it reports): two scalars. They differ for the reduction 'none' alone, where Keras
      differentiates the sum and reports the mean.
    """
    valid = None if self.ignored is None else tf.not_equal(labels, self.ignored)
    losses = self.function(labels if valid is None else tf.where(valid, labels, tf.zeros_like(labels)), output)
    masks = [m for m in (getattr(output, '_keras_mask', None), valid) if m is not None]
    if any(m.shape.rank > losses.shape.rank for m in masks):
      raise ExportError('the mask of the output has more axes than its losses: give the last layer a compute_mask that '
                        'fits.')

    def spread(tensor):
      tensor = tf.cast(tensor, losses.dtype)
      return tf.reshape(tensor, [*tensor.shape, *[1] * (losses.shape.rank - tensor.shape.rank)])
    present = spread(tf.not_equal(sample_weight, 0))
    kept = functools.reduce(lambda a, b: a * b, map(spread, masks), tf.ones_like(losses))
    total = self.weight * tf.reduce_sum(losses * kept * spread(sample_weight))
    if self.reduction == _REDUCTION.SUM:
      return total, total
    counted = tf.ones_like(losses) if self.reduction == _REDUCTION.NONE else kept
    # Where nothing counts the loss is 0 and not 0/0.
    mean = total / tf.maximum(tf.reduce_sum(counted * present), 1)
    return (total if self.reduction == _REDUCTION.NONE else mean), mean

  def label_spec(self, output: tuple[int, ...]) -> tf.TensorSpec:
    """`tf.TensorSpec` of the labels for a model's output of this shape."""
    if LABELS[self.name] == 'classes':
      return tf.TensorSpec(output[:-1], tf.int32)
    return tf.TensorSpec(output, tf.float32)

  def draw(self, generator: Any, output: tuple[int, ...]) -> Any:
    """Random labels (NumPy) for an output of this shape."""
    kind = LABELS[self.name]
    if kind == 'values':
      return generator.standard_normal(output).astype('float32')
    if kind == 'bits':
      return generator.integers(0, 2, output).astype('float32')
    classes = generator.integers(0, output[-1], output[:-1]).astype('int32')
    if self.ignored is not None:
      classes[generator.random(classes.shape) < .25] = self.ignored
    return classes if kind == 'classes' else (classes[..., None] == range(output[-1])).astype('float32')


def compiled(model: Any, loss: Any) -> dict:
  """What Keras compiles a model with for the loss that was given, or else as it was compiled: {'loss': …,
  'loss_weights': …}."""
  if loss is None and getattr(model, 'compiled_loss', None) is not None:
    return {'loss': model.compiled_loss._user_losses, 'loss_weights': model.compiled_loss._user_loss_weights}
  return {'loss': loss, 'loss_weights': None}


def of(model: Any, given: dict, output: Any) -> Loss:
  """The loss that a model is compiled with, with its weight.

  Args:
    model: Keras model.
    given: from `compiled`: the loss is a name, a function, a `tf.keras.losses.Loss`, or one of these in a list or dict.
    output: `tf.TensorSpec` of the model's only output, in the structure in which the model returns it.

  Raises:
    ExportError: there is none, or none of the supported ones.
  """
  given, weights = given['loss'], given['loss_weights']
  if given is None:
    raise ExportError('there is no loss: compile the model with one, or give loss=.')
  # What the loss and its weight are for this output is Keras's to say.
  container = LossesContainer(given, weights, output_names=getattr(model, 'output_names', None))
  try:
    container.build(output)
  except (ValueError, TypeError) as error:
    raise ExportError(f'the loss {str(given)[:60]!r} cannot be exported ({reason(error)}): use one of '
                      f"{', '.join(LABELS)} for the model's output.") from None
  if len(container._losses) != 1 or len(container._loss_weights) != 1:
    raise ExportError('there are losses or loss_weights for several outputs, and the model has one: give one of each.')
  [found], [weight] = container._losses, container._loss_weights
  if found is None:
    raise ExportError('there is no loss for the model\'s output: compile the model with one, or give loss=.')
  if isinstance(weight, tf.Variable):
    raise ExportError('loss_weights that are variables cannot be exported: use numbers.')
  name = getattr(getattr(found, 'fn', None), '__name__', found.name)
  if name not in LABELS or type(found).__call__ is not tf.keras.losses.Loss.__call__:
    raise ExportError(f'the loss {name[:60]!r} cannot be exported: use one of {", ".join(LABELS)}.')
  settings = getattr(found, '_fn_kwargs', {})
  ignored = settings.get('ignore_class')
  function = found.call
  if ignored is not None:
    # Keras picks the valid elements out, whose number the file does not know.
    function = functools.partial(found.fn, **{**settings, 'ignore_class': None})
  return Loss(name, function, found.reduction, 1. if weight is None else float(weight),
              None if ignored is None else int(ignored))


class Activities:
  """What layers add to the loss for their activities, where rows of weight 0 are not to count.

  Keras divides an `activity_regularizer` by the number of rows. Those of Keras are sums over elements, with 0 for 0.

  Args:
    sample_weight: tensor, float32 [batch].
  """

  _SUMS = (tf.keras.regularizers.L1, tf.keras.regularizers.L2, tf.keras.regularizers.L1L2)

  def __init__(self, sample_weight: Any) -> None:
    self._present = tf.cast(tf.not_equal(sample_weight, 0), tf.float32)
    self._made: set[tf.Operation] = set()

  def limit(self, layers: Iterable, change: Callable) -> None:
    """Lets regularizers of activities see no row of weight 0. `change` sets an attribute: (object, name, value)."""
    for layer in layers:
      regularizer = layer._activity_regularizer
      if type(regularizer) in self._SUMS:
        change(layer, '_activity_regularizer', functools.partial(self._regularize, regularizer))

  def _regularize(self, regularizer, activity):
    rows = self._present.shape[0]
    if activity.shape[0] != rows:
      return regularizer(activity)
    present = tf.reshape(self._present, [rows, *[1] * (activity.shape.rank - 1)])
    loss = regularizer(activity * present) * (rows / tf.maximum(tf.reduce_sum(present), 1))
    self._made.add(loss.op)
    return loss

  @property
  def limited(self) -> frozenset:
    """The operators that they come from."""
    return frozenset(self._made)
