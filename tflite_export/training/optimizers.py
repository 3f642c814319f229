"""Optimizers of the training step, with the arithmetic of Keras's own.

Each is data: what it keeps per variable, and one step as a function of tensors. The learning rate is an input of the
file.
"""

import dataclasses
from typing import Any

import tensorflow as tf

from tflite_export.errors import ExportError


@dataclasses.dataclass(frozen=True)
class Clipping:
  """What Keras does to gradients before the step; None: nothing. See `tf.keras.optimizers.Optimizer`.

  Gradients may be `tf.IndexedSlices`, whose values are clipped before those of the same row are added up.
  """
  clipvalue: float | None = None
  clipnorm: float | None = None
  global_clipnorm: float | None = None

  def __call__(self, gradients: list) -> list:
    if self.clipnorm and self.clipnorm > 0:
      return [tf.clip_by_norm(g, self.clipnorm) for g in gradients]
    if self.global_clipnorm and self.global_clipnorm > 0:
      return tf.clip_by_global_norm(gradients, self.global_clipnorm)[0]
    if self.clipvalue and self.clipvalue > 0:
      return [tf.clip_by_value(g, -self.clipvalue, self.clipvalue) for g in gradients]
    return gradients


@dataclasses.dataclass(frozen=True)
class Sgd:
  """w -= lr g; with momentum: v = momentum v - lr g, w += v; Nesterov's: w += momentum v - lr g.

  Attributes:
    lazy: whether a row of an embedding moves only in the steps that read it, momentum and all: Keras's legacy SGD.
  """
  momentum: float = 0.
  nesterov: bool = False
  lazy: bool = False

  @property
  def slots(self) -> tuple[str, ...]:
    """Names of what is kept per variable, of its shape and zero at first."""
    return ('momentum',) if self.momentum else ()

  counts_steps = False

  def step(self, gradient: Any, slots: Any, learning_rate: Any, iterations: Any) -> tuple[Any, tuple]:
    """Returns (what to add to the variable, new slots)."""
    del iterations
    change = -learning_rate * gradient
    if not self.momentum:
      return change, ()
    velocity = self.momentum * slots[0] + change
    return (self.momentum * velocity + change if self.nesterov else velocity), (velocity,)

  def gradient(self, before: Any, after: Any, slots_before: Any, slots_after: Any, learning_rate: float) -> Any:
    """The gradient that a step was made with, from what is left of it (NumPy arrays)."""
    if self.momentum:
      return (self.momentum * slots_before[0] - slots_after[0]) / learning_rate
    return (before - after) / learning_rate


@dataclasses.dataclass(frozen=True)
class Adam:
  """Kingma and Ba 2015, with the bias correction folded into the learning rate, as in Keras."""
  beta_1: float = 0.9
  beta_2: float = 0.999
  epsilon: float = 1e-7
  slots = ('m', 'v')
  counts_steps = True
  lazy = False

  def step(self, gradient: Any, slots: Any, learning_rate: Any, iterations: Any) -> tuple[Any, tuple]:
    t = tf.cast(iterations + 1, tf.float32)
    rate = learning_rate * tf.sqrt(1 - tf.pow(self.beta_2, t)) / (1 - tf.pow(self.beta_1, t))
    m, v = slots
    m = m + (gradient - m) * (1 - self.beta_1)
    v = v + (gradient * gradient - v) * (1 - self.beta_2)
    return -rate * m / (tf.sqrt(v) + self.epsilon), (m, v)

  def gradient(self, before: Any, after: Any, slots_before: Any, slots_after: Any, learning_rate: float) -> Any:
    del before, after, learning_rate
    return slots_before[0] + (slots_after[0] - slots_before[0]) / (1 - self.beta_1)


@dataclasses.dataclass(frozen=True)
class Settings:
  """What a Keras optimizer does in a step.

  Attributes:
    rule: `Sgd` or `Adam`.
    clipping: `Clipping`.
    learning_rate: float; None if it follows a schedule.
    keras: the Keras optimizer.
  """
  rule: Sgd | Adam
  clipping: Clipping
  learning_rate: float | None
  keras: Any

  def decay(self, variable: Any) -> float:
    """The weight decay of a model's variable, 0 for none: before the step w -= decay * learning rate * w."""
    rate = getattr(self.keras, 'weight_decay', None)
    return float(rate) if rate and self.keras._use_weight_decay(variable) else 0.

  def copy(self, learning_rate: float, variables: list, originals: list) -> Any:
    """A Keras optimizer of the newer kind that takes such steps with gradients that are clipped already.

    Args:
      learning_rate: float.
      variables: what it will change.
      originals: for each the model's variable that it stands for, which says whether it decays.
    """
    kind = getattr(tf.keras.optimizers, type(self.keras).__name__)
    config = {name: value for name, value in self.keras.get_config().items() if name in kind().get_config()}
    config.update(learning_rate=learning_rate, **{field.name: None for field in dataclasses.fields(Clipping)})
    made = kind.from_config(config)
    made.exclude_from_weight_decay([v for v, original in zip(variables, originals) if not self.decay(original)])
    made.build(variables)
    return made


def restore(optimizer: Any, slots: Any, iterations: Any) -> None:
  """Gives a Keras optimizer that was built the state of a file.

  Args:
    optimizer: from `Settings.copy`.
    slots: for each variable a list of arrays, as `Sgd.slots` or `Adam.slots` name them.
    iterations: steps taken so far.
  """
  kept = [optimizer.momentums] if hasattr(optimizer, 'momentums') else [optimizer._momentums, optimizer._velocities]
  for n, values in enumerate(slots):
    for variables, value in zip(kept, values):
      variables[n].assign(value)
  optimizer.iterations.assign(int(iterations))


def of(optimizer: Any) -> Settings:
  """What an optimizer does, one of Keras's own or its name.

  Returns:
    `Settings`

  Raises:
    ExportError: it is another, or has an option that is not here.
  """
  try:
    optimizer = tf.keras.optimizers.get(optimizer)
  except (ValueError, TypeError):
    raise ExportError(
        f'there is no optimizer {str(optimizer)[:60]!r}: use SGD or Adam of tf.keras.optimizers.') from None
  if isinstance(optimizer, tf.keras.mixed_precision.LossScaleOptimizer):
    # Gradients are float32, where a scale that is taken out again changes nothing.
    optimizer = optimizer.inner_optimizer
  kind = type(optimizer)
  if kind not in _RULES:
    # A class of the user's may be called SGD, too.
    name = kind.__name__ if kind.__module__.startswith('keras.') else f'{kind.__module__}.{kind.__name__}'
    raise ExportError(f'the optimizer {name} cannot be exported: use SGD (with momentum or without) or Adam of '
                      'tf.keras.optimizers.')
  settings = optimizer.get_config()
  for option in ('use_ema', 'amsgrad', 'decay'):
    if settings.get(option):
      raise ExportError(f'the optimizer\'s option {option} cannot be exported: leave it out.')
  clipping = Clipping(*(getattr(optimizer, f.name) for f in dataclasses.fields(Clipping)))
  legacy = isinstance(optimizer, tf.keras.optimizers.legacy.Optimizer)
  # These are not in the configuration.
  untouched = tf.keras.optimizers.legacy.SGD()
  for option in ('gradient_transformers', 'gradient_aggregator') if legacy else ():
    if getattr(optimizer, option) != getattr(untouched, option):
      raise ExportError(f"the optimizer's option {option} cannot be exported: leave it out.")
  if legacy and sum(value is not None for value in dataclasses.astuple(clipping)) > 1:
    raise ExportError(f'the legacy optimizer {kind.__name__} clips in two ways one after the other, which cannot be '
                      'exported: choose one.')
  rate = settings['learning_rate']
  return Settings(_RULES[kind](settings, legacy), clipping,
                  None if isinstance(rate, dict) or callable(rate) else float(rate), optimizer)


def _sgd(settings, legacy):
  momentum = float(settings['momentum'])
  return Sgd(momentum, bool(settings['nesterov']), lazy=bool(legacy and momentum))


def _adam(settings, legacy):
  del legacy
  return Adam(*(float(settings[key]) for key in ('beta_1', 'beta_2', 'epsilon')))


_RULES = {
    tf.keras.optimizers.SGD: _sgd, tf.keras.optimizers.legacy.SGD: _sgd, tf.keras.optimizers.Adam: _adam,
    tf.keras.optimizers.AdamW: _adam, tf.keras.optimizers.legacy.Adam: _adam,
}
