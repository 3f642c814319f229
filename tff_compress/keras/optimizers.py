"""The optimizer a Keras model was compiled with, as one of TFF's.

Clients start with a fresh optimizer in every round, as they keep nothing between rounds.
"""

import collections
from collections.abc import Sequence
import math
from typing import Any

import tensorflow as tf
import tensorflow_federated as tff

from tff_compress.codec import checks
from tff_compress.keras import isolation
from tff_compress.keras.errors import FederateError
from tff_compress.keras.layers import all_layers

SUPPORTED = ('SGD', 'Adam', 'AdamW', 'Adagrad', 'RMSprop')

# Options that TFF's optimizers do not have, with the value that means "not used".
_UNUSED = {
    'nesterov': False, 'amsgrad': False, 'centered': False, 'clipnorm': None, 'clipvalue': None,
    'global_clipnorm': None,
    'use_ema': False, 'weight_decay': None, 'decay': 0.0, 'momentum': 0.0,
}
_OWN = {'SGD': ('momentum',), 'AdamW': ('weight_decay',)}


def from_keras(optimizer: Any, learning_rate: float | None = None,
               model: tf.keras.Model | None = None) -> tff.learning.optimizers.Optimizer:
  """Makes the TFF optimizer that does what a Keras optimizer does.

  SGD, Adam and AdamW and Adagrad are the same, step for step. RMSprop divides by sqrt(v) + sqrt(epsilon) where Keras
  divides by sqrt(v + epsilon): at most a factor of sqrt(2) apart.

  Args:
    optimizer: a Keras optimizer, new or legacy.
    learning_rate: number to use in place of the optimizer's own; None for its own.
    model: the Keras model that it trains, whose layers and names of weights decide some of what Keras does.

  Returns:
    `tff.learning.optimizers.Optimizer`.

  Raises:
    FederateError: TFF has no such optimizer, or not with these options.
  """
  layers = all_layers(model) if model is not None else ()
  if isinstance(optimizer, tf.keras.mixed_precision.LossScaleOptimizer):
    half = next((layer for layer in layers if layer.compute_dtype == 'float16'
                 and (layer._autocast or not isinstance(layer, tf.keras.Model))), None)  # Else its layers compute.
    if half is not None:
      raise FederateError(f'the layer {half.name!r} computes in float16, where small gradients vanish unless the loss '
                          "is scaled as Keras does, which TFF's optimizers do not: use mixed_bfloat16 or float32.")
    # Gradients are float32, where a scale that is taken out again changes nothing.
    optimizer = optimizer.inner_optimizer
  kind = type(optimizer).__name__
  config = optimizer.get_config() if kind in SUPPORTED else {}
  if kind in SUPPORTED and not _is_of_keras(optimizer):
    raise FederateError(f'the optimizer {kind} is a class of {type(optimizer).__module__}, not the one of Keras, so '
                        'TFF does not know what it does: compile the model with tf.keras.optimizers.…, or pass '
                        'client_optimizer=tff.learning.optimizers.….')
  if kind not in SUPPORTED:
    raise FederateError(f'TFF has no optimizer like {kind}: compile the model with {", ".join(SUPPORTED)}, or pass '
                        'client_optimizer=tff.learning.optimizers.….')
  for option, unused in _UNUSED.items():
    value = config.get(option, unused)
    # Keras writes False or 0 for some options that are not used.
    if option not in _OWN.get(kind, ()) and value and value != unused:
      raise FederateError(f'TFF has no {kind} with {option}={value!r}: compile the model without it, or pass '
                          'client_optimizer=tff.learning.optimizers.….')
  # Legacy optimizers keep these out of their configuration.
  plain = tf.keras.optimizers.legacy.SGD()
  for option in ('gradient_transformers', 'gradient_aggregator'):
    if hasattr(optimizer, option) and getattr(optimizer, option) != getattr(plain, option):
      raise FederateError(f'TFF has no {kind} with {option}: compile the model without it, or pass '
                          'client_optimizer=tff.learning.optimizers.….')
  if isinstance(optimizer, tf.keras.optimizers.legacy.SGD) and config['momentum'] and any(
      isinstance(layer, tf.keras.layers.Embedding) for layer in layers):
    raise FederateError('the legacy SGD with momentum moves only the rows of an Embedding that a batch reads, and TFF '
                        'has none like it: use tf.keras.optimizers.SGD.')
  if learning_rate is None:
    learning_rate = config['learning_rate']
    if isinstance(learning_rate, dict):
      raise FederateError(
          'the learning rate is a schedule over optimizer steps, which start again on every client: pass '
          'learning_rate= with a number.')
  rate = checks.number('learning_rate', learning_rate, FederateError, above=0)
  library = tff.learning.optimizers
  if kind == 'SGD':
    return library.build_sgdm(rate, float(config['momentum']) or None)
  if kind == 'Adagrad':
    return library.build_adagrad(rate, float(config['initial_accumulator_value']), float(config['epsilon']))
  if kind == 'RMSprop':
    return library.build_rmsprop(rate, float(config['rho']), math.sqrt(config['epsilon']))
  moments = float(config['beta_1']), float(config['beta_2']), float(config['epsilon'])
  if kind == 'AdamW':
    # Which weights are excluded is not in the configuration.
    decays = [optimizer._use_weight_decay(v) for v in (model.trainable_variables if model is not None else ())]
    decay = float(config['weight_decay'] or 0)
    made = library.build_adamw(rate, *moments, weight_decay=decay)
    return made if all(decays) else _Partitioned(decays, made, library.build_adamw(rate, *moments, weight_decay=0.))
  return library.build_adam(rate, *moments)


class _Partitioned(tff.learning.optimizers.Optimizer):
  """One optimizer for the weights that are chosen, another for the others. Hyperparameters are those of each."""

  def __init__(self, chosen, first, second):
    """`chosen` has a bool for each weight, in order."""
    self._chosen, self._optimizers = chosen, collections.OrderedDict(first=first, second=second)

  def _split(self, structure):
    flat = tf.nest.flatten(structure)
    return {name: [value for value, chosen in zip(flat, self._chosen) if chosen == (name == 'first')]
            for name in self._optimizers}

  def initialize(self, specs):
    parts = self._split(specs)
    return collections.OrderedDict((name, made.initialize(parts[name])) for name, made in self._optimizers.items())

  def next(self, state, weights, gradients):
    states, stepped = collections.OrderedDict(), {}
    before, slopes = self._split(weights), self._split(gradients)
    for name, made in self._optimizers.items():
      states[name], after = made.next(state[name], before[name], slopes[name])
      stepped[name] = iter(after)
    flat = [next(stepped['first' if chosen else 'second']) for chosen in self._chosen]
    return states, tf.nest.pack_sequence_as(weights, flat)

  def get_hparams(self, state):
    return collections.OrderedDict((name, made.get_hparams(state[name])) for name, made in self._optimizers.items())

  def set_hparams(self, state, hparams):
    return collections.OrderedDict(
        (name, made.set_hparams(state[name], hparams[name])) for name, made in self._optimizers.items())


def sgd(learning_rate: float, momentum: float = 0.0) -> tff.learning.optimizers.Optimizer:
  """TFF's SGD."""
  return tff.learning.optimizers.build_sgdm(learning_rate, momentum or None)


def of_server(name: str, learning_rate: float, momentum: float = 0.0) -> tff.learning.optimizers.Optimizer:
  """Makes the server's optimizer: 'sgd', 'adam', 'yogi' or 'adagrad', with the constants of Reddi et al. 2021, section
  5."""
  library = tff.learning.optimizers
  learning_rate = checks.number('server_learning_rate', learning_rate, FederateError, above=0)
  checks.number('server_momentum', momentum, FederateError, least=0, below=1)
  if momentum and name != 'sgd':
    raise FederateError("server_momentum is for server_optimizer='sgd': leave it out.")
  if name == 'sgd':
    return library.build_sgdm(learning_rate, momentum or None)
  # Updates are sums of many small gradients: the 1e-7 that suits gradients would divide by noise.
  if name == 'adam':
    return library.build_adam(learning_rate, 0.9, 0.99, 1e-3)
  if name == 'yogi':
    return library.build_yogi(learning_rate, 0.9, 0.99, 1e-3)
  if name == 'adagrad':
    return library.build_adagrad(learning_rate, 0.0, 1e-6)
  raise FederateError(f'there is no server optimizer {str(name)[:40]!r}: use sgd, adam, yogi or adagrad.')


def constrained(optimizer: tff.learning.optimizers.Optimizer,
                weights: Sequence[tf.Variable]) -> tff.learning.optimizers.Optimizer:
  """The optimizer, with the constraint of each weight applied after each step, as Keras's optimizers do.

  Args:
    optimizer: `tff.learning.optimizers.Optimizer`.
    weights: the trainable weights of a Keras model, in order.
  """
  constraints = [weight.constraint and isolation.Program(weight.constraint, tf.TensorSpec(weight.shape, weight.dtype))
                 for weight in weights]
  return _Constrained(optimizer, constraints) if any(constraints) else optimizer


class _Constrained(tff.learning.optimizers.Optimizer):

  def __init__(self, optimizer, constraints):
    self._optimizer, self._constraints = optimizer, constraints

  def initialize(self, specs):
    return self._optimizer.initialize(specs)

  def next(self, state, weights, gradients):
    state, weights = self._optimizer.next(state, weights, gradients)
    # As in Keras, a weight without a gradient is left alone.
    flat = [constraint.bind()(w) if constraint and g is not None else w
            for w, g, constraint in zip(tf.nest.flatten(weights), tf.nest.flatten(gradients), self._constraints)]
    return state, tf.nest.pack_sequence_as(weights, flat)

  def get_hparams(self, state):
    return self._optimizer.get_hparams(state)

  def set_hparams(self, state, hparams):
    return self._optimizer.set_hparams(state, hparams)


def proximal(optimizer: tff.learning.optimizers.Optimizer, strength: float) -> tff.learning.optimizers.Optimizer:
  """The optimizer with FedProx's term: strength / 2 * ||w - w_0||^2 is added to the loss, w_0 being the server's
  weights.

  TFF 0.87 has `build_weighted_fed_prox`, which adds strength * (w_0 - w) to the gradient: the wrong sign, so that
  clients are driven away from the server's weights (python/learning/templates/proximal_client_work.py).

  Source: Li et al. 2020, "Federated optimization in heterogeneous networks", equation 2.

  Args:
    optimizer: `tff.learning.optimizers.Optimizer`.
    strength: mu, a float; 0 gives the optimizer back.
  """
  return _Proximal(optimizer, strength) if strength else optimizer


class _Proximal(tff.learning.optimizers.Optimizer):
  """Takes the weights of the first step after `initialize` for the server's: those are what a client starts from."""

  def __init__(self, optimizer, strength):
    self._optimizer, self._strength = optimizer, strength

  def initialize(self, specs):
    return collections.OrderedDict(
        inner=self._optimizer.initialize(specs), started=tf.constant(False),
        start=tf.nest.map_structure(lambda spec: tf.zeros(spec.shape, spec.dtype), specs))

  def next(self, state, weights, gradients):
    start = tf.nest.map_structure(lambda old, w: tf.where(state['started'], old, w), state['start'], weights)
    gradients = tf.nest.map_structure(
        lambda w, w_0, g: None if g is None else tf.convert_to_tensor(g) + self._strength * (w - w_0), weights, start,
        gradients)
    inner, weights = self._optimizer.next(state['inner'], weights, gradients)
    return collections.OrderedDict(inner=inner, started=tf.constant(True), start=start), weights

  def get_hparams(self, state):
    return self._optimizer.get_hparams(state['inner'])

  def set_hparams(self, state, hparams):
    return collections.OrderedDict(state, inner=self._optimizer.set_hparams(state['inner'], hparams))


def _is_of_keras(optimizer):
  """Whether the class is one of Keras's, and not one of the same name with another rule."""
  kind = type(optimizer).__name__
  modules = (tf.keras.optimizers, tf.keras.optimizers.legacy, tf.keras.optimizers.experimental)
  return any(type(optimizer) is getattr(module, kind, None) for module in modules)
