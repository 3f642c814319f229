"""Optimizers of the training step, with the arithmetic of Keras's own.

Each is data: what it keeps per variable, and one step as a function of tensors. The learning rate is an input of the
file.
"""

import dataclasses

import tensorflow as tf

from tflite_export.errors import ExportError


@dataclasses.dataclass(frozen=True)
class Clipping:
  """What Keras does to gradients before the step; None: nothing. See `tf.keras.optimizers.Optimizer`."""
  clipvalue: float = None
  clipnorm: float = None
  global_clipnorm: float = None

  def __call__(self, gradients):
    if self.clipnorm:
      return [tf.clip_by_norm(g, self.clipnorm) for g in gradients]
    if self.global_clipnorm:
      return tf.clip_by_global_norm(gradients, self.global_clipnorm)[0]
    if self.clipvalue:
      return [tf.clip_by_value(g, -self.clipvalue, self.clipvalue) for g in gradients]
    return gradients


@dataclasses.dataclass(frozen=True)
class Sgd:
  """w -= lr g; with momentum: v = momentum v - lr g, w += v; Nesterov's: w += momentum v - lr g."""
  momentum: float = 0.
  nesterov: bool = False

  @property
  def slots(self):
    """Names of what is kept per variable, of its shape and zero at first."""
    return ('momentum',) if self.momentum else ()

  counts_steps = False

  def step(self, gradient, slots, learning_rate, iterations):
    """Returns (what to add to the variable, new slots)."""
    del iterations
    change = -learning_rate * gradient
    if not self.momentum:
      return change, ()
    velocity = self.momentum * slots[0] + change
    return (self.momentum * velocity + change if self.nesterov else velocity), (velocity,)

  def gradient(self, before, after, slots_before, slots_after, learning_rate):
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

  def step(self, gradient, slots, learning_rate, iterations):
    t = tf.cast(iterations + 1, tf.float32)
    rate = learning_rate * tf.sqrt(1 - tf.pow(self.beta_2, t)) / (1 - tf.pow(self.beta_1, t))
    m, v = slots
    m = m + (gradient - m) * (1 - self.beta_1)
    v = v + (gradient * gradient - v) * (1 - self.beta_2)
    return -rate * m / (tf.sqrt(v) + self.epsilon), (m, v)

  def gradient(self, before, after, slots_before, slots_after, learning_rate):
    del before, after, learning_rate
    return slots_before[0] + (slots_after[0] - slots_before[0]) / (1 - self.beta_1)


def copy(optimizer):
  """A Keras optimizer with the settings of another, without its state; a legacy one becomes one of the newer kind."""
  optimizer = tf.keras.optimizers.get(optimizer)
  kind = getattr(tf.keras.optimizers, type(optimizer).__name__)
  known = kind().get_config()
  return kind.from_config({name: value for name, value in optimizer.get_config().items() if name in known})


def restore(optimizer, slots, iterations):
  """Gives a Keras optimizer that was built the state of a file.

  Args:
    optimizer: from `copy`.
    slots: for each variable a list of arrays, as `Sgd.slots` or `Adam.slots` name them.
    iterations: steps taken so far.
  """
  # pylint: disable=protected-access
  kept = [optimizer.momentums] if hasattr(optimizer, 'momentums') else [optimizer._momentums, optimizer._velocities]
  for n, values in enumerate(slots):
    for variables, value in zip(kept, values):
      variables[n].assign(value)
  optimizer.iterations.assign(int(iterations))


def of(optimizer):
  """The parts of a Keras optimizer.

  Returns:
    (Sgd or Adam, Clipping, weight decay or None)

  Raises:
    ExportError: it is another, or has an option that is not here.
  """
  try:
    optimizer = tf.keras.optimizers.get(optimizer)
  except (ValueError, TypeError):
    raise ExportError(f'there is no optimizer {str(optimizer)[:60]!r}: use SGD or Adam of tf.keras.optimizers.') from None
  settings, name = optimizer.get_config(), type(optimizer).__name__
  for option in ('use_ema', 'amsgrad', 'decay'):
    if settings.get(option):
      raise ExportError(f'the optimizer\'s option {option} cannot be exported: leave it out.')
  clipping = Clipping(*(settings.get(f.name) for f in dataclasses.fields(Clipping)))
  decay = settings.get('weight_decay') or None
  if name == 'SGD':
    return Sgd(float(settings['momentum']), bool(settings['nesterov'])), clipping, decay
  if name in ('Adam', 'AdamW'):
    return Adam(*(float(settings[key]) for key in ('beta_1', 'beta_2', 'epsilon'))), clipping, decay
  raise ExportError(f'the optimizer {name} cannot be exported: use SGD (with momentum or without) or Adam.')


def learning_rate(optimizer):
  """The learning rate of a Keras optimizer as a float; None if it follows a schedule."""
  rate = tf.keras.optimizers.get(optimizer).get_config()['learning_rate']
  return None if isinstance(rate, dict) or callable(rate) else float(rate)
