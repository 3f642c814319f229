"""What the parts of recipes train with: settings, a trainer, copies of models.

Each part takes a Keras model and returns another one. tensorflow-model-optimization wraps the layers of the model that
it is given and takes their variables over, so that each part starts from a copy.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
import sys
import time
from typing import Any

import numpy as np
import tensorflow as tf

from tff_compress.codec import checks
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
  loss: Any = None
  temperature: float = 4.
  hardness: float = 0.3

  def check(self) -> None:
    """Raises ExportError for a setting that is out of range."""
    for name, low, high in (('epochs', 1, 1 << 20), ('later_epochs', 1, 1 << 20), ('batch_size', 1, 1 << 20),
                            ('learning_rate', 0, 1e3), ('later_learning_rate', 0, 1e3), ('temperature', 0.1, 100),
                            ('hardness', 0, 1)):
      value = getattr(self, name)
      if isinstance(getattr(type(self), name), int):
        checks.whole_number(name, value, ExportError, least=int(low), most=int(high))
      else:
        checks.number(name, value, ExportError, least=low, most=high)


class Progress(tf.keras.callbacks.Callback):
  """Says on standard error what goes on, at most once a second and not within the first."""

  def __init__(self, what: str = 'inference export') -> None:
    super().__init__()
    self.what = what
    self.now = ''
    self._next = time.monotonic() + 1

  def say(self, text: str) -> None:
    """Names what is being done."""
    self.now = text
    self._show('')

  def _show(self, more):
    if time.monotonic() >= self._next:
      self._next = time.monotonic() + 1
      print(f'{self.what}: {self.now}{more}', file=sys.stderr, flush=True)

  def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
    self._show(f', epoch {epoch + 1} of {self.params["epochs"]}, loss {(logs or {}).get("loss", float("nan")):.4g}')


def copy(model: Any) -> Any:
  """A model with the same layers and weights of its own, and the same loss."""
  try:
    copied = tf.keras.models.clone_model(model)
    copied.set_weights(model.get_weights())
  except Exception as error:
    raise ExportError('a model that is trained further must be made of layers with the Sequential or functional API; '
                      f'this one cannot be copied ({reason(error)}).') from None
  return copied


def reason(error: BaseException) -> str:
  """What a foreign error says, at most 160 characters and without its full stop."""
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

  def __init__(self, x: dict, y: np.ndarray, loss: Any, settings: Training, progress: Progress) -> None:
    self.x = list(x.values()) if len(x) > 1 else next(iter(x.values()))
    self.y = y
    self.loss = loss
    self.settings = settings
    self.progress = progress

  @property
  def steps(self) -> int:
    """Steps of an epoch."""
    return -(-len(self.y) // self.settings.batch_size)

  def fit(self, model: Any, what: str, later: bool = False, callbacks: Iterable = (), loss: Any = None,
          y: Any = None) -> None:
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
      raise ExportError(f'{what} fails ({reason(error)}): check that the loss fits the labels.') from None
    finally:
      logger.setLevel(level)
    if not np.isfinite(history.history['loss'][-1]) or not all(np.isfinite(w).all() for w in model.get_weights()):
      raise ExportError(f'{what} diverged: choose a lower learning rate.')


def wrap(model: Any, wrapper: Callable, done: str, others: Sequence[str] = ()) -> Any:
  """A copy with its layers wrapped, where tensorflow-model-optimization knows how.

  Args:
    model: Keras model.
    wrapper: function from a layer to what takes its place, or the layer itself.
    done: what is done to the model, for messages: 'pruned'.
    others: names of layers that need not be wrapped; `wrapper` may add to them.

  Raises:
    ExportError: it cannot be copied, or no layer was wrapped and there are no others.
  """
  wrapped = []

  def wrap_or_not(layer):
    try:
      made = wrapper(layer)
    except ValueError:
      return layer
    if made is not layer and layer.trainable_weights:
      wrapped.append(layer.name)
    return made
  source = copy(model)
  try:
    made = tf.keras.models.clone_model(source, clone_function=wrap_or_not)
  except Exception as error:
    raise ExportError(f'this model cannot be {done} ({reason(error)}).') from None
  if not wrapped and not others:
    raise ExportError(f'this model cannot be {done}: no layer of it is of a kind that tensorflow-model-optimization '
                      'knows.')
  return made
