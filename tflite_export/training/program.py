"""The functions that become the signatures of a training file, and the variables they share."""

import contextlib
import dataclasses
import re

import numpy as np
import tensorflow as tf

from tff_compress.codec.spec import Spec
from tff_compress.codec.spec import unique_names
from tflite_export.errors import ExportError
from tflite_export.training import losses
from tflite_export.training import replay
from tflite_export.training import structured
from tflite_export.training.formulas.registry import place

_RECURRENT = (tf.keras.layers.RNN,)
_RATES = ((tf.keras.layers.Dropout, 'rate'), (tf.keras.layers.GaussianNoise, 'stddev'))
_STEP = ('train_step', 'compute_loss', 'make_train_function')
_REFUSED = {
    'AlphaDropout': 'Dropout', 'GaussianDropout': 'Dropout', 'SpatialDropout3D': 'Dropout',
    **dict.fromkeys(('TextVectorization', 'StringLookup', 'IntegerLookup', 'Hashing'),
                    'numbers that the app looks up as input'),
    'SpectralNormalization': 'a constraint on the kernel, or the layer without it,',
    'ConvLSTM1D': 'Conv1D and LSTM', 'ConvLSTM2D': 'Conv2D and LSTM', 'ConvLSTM3D': 'Conv2D and LSTM',
}


@dataclasses.dataclass(frozen=True)
class Shapes:
  """What a batch looks like: specs of the inputs (a list), of the labels and of the output; whether there are several
  inputs, and whether the model also takes fewer rows."""
  inputs: tuple
  labels: object
  output: tuple
  multiple: bool
  free: bool = True

  @property
  def weights(self):
    """Spec of the sample weights."""
    return tf.TensorSpec(self.output[:1], tf.float32)

  @property
  def input_names(self):
    return [f'x_{n}' for n in range(len(self.inputs))] if self.multiple else ['x']


def noisy(model):
  """Layers that draw random numbers while training: [(layer, attribute that says how much)]."""
  return [(layer, attribute) for layer in layers(model) for kind, attribute in _RATES
          if isinstance(layer, kind) and getattr(layer, attribute)]


def layers(model):
  return list(model._flatten_layers(include_self=False))


def check_step(model):
  """Raises ExportError where the user's own code replaces Keras's training step."""
  for name in _STEP:
    if getattr(getattr(model, name), '__func__', None) is not getattr(tf.keras.Model, name):
      raise ExportError(f'{type(model).__name__} has a {name} of its own, which the file would not take: put what it '
                        'adds into layers (add_loss), and export a model with the standard one, such as '
                        'tf.keras.Model(model.inputs, model.outputs).')


def check_layers(model):
  """Raises ExportError for a layer that is known not to work."""
  for layer in layers(model):
    name = type(layer).__name__
    if name in _REFUSED:
      raise ExportError(
          f'the layer {layer.name!r} ({name}) cannot be trained on a device: use {_REFUSED[name]} instead.')
    if isinstance(layer, _RECURRENT) and layer.stateful:
      raise ExportError(f'the layer {layer.name!r} is stateful, and a file keeps no states between batches: use '
                        'stateful=False.')
    for rate in ('dropout', 'recurrent_dropout'):
      if name.endswith('Cell') and getattr(layer, rate, 0):
        raise ExportError(
            f'the layer {layer.name!r} ({name}) has {rate}, which cannot be exported: put a Dropout layer before '
            'or after it instead.')
    kind = layer.compute_dtype
    if (layer.weights and kind not in ('float32', None)
        or kind in ('float16', 'bfloat16') and not isinstance(layer, tf.keras.layers.InputLayer)):
      raise ExportError(
          f'the layer {layer.name!r} computes in {layer.compute_dtype}: only float32 models can be exported.')
  for variable in model.variables:
    if variable.trainable and variable.dtype != tf.float32:
      raise ExportError(
          f'the variable {variable.name!r} is {variable.dtype.name}: only float32 models can be exported.')


def _check_random(model, *recordings):
  """Raises ExportError for random numbers that `noise` does not scale."""
  scaled = {_without_number(layer.name) for layer in layers(model)
            if isinstance(layer, tuple(kind for kind, _ in _RATES))}
  for recording in recordings:
    for op in recording.random():
      if not scaled.intersection(map(_without_number, op.name.split('/'))):
        raise ExportError(f'{place(op.name)} draws random numbers itself, which the file could not turn off: leave '
                          'that to Dropout or GaussianNoise layers, for example GaussianNoise(1.) of zeros.')


def _without_number(name):
  """A name as it was before it was made unique."""
  return re.sub(r'_\d+$', '', name)


@contextlib.contextmanager
def exportable(model, noise=0.):
  """While it lasts, recurrent layers unroll, and random layers are as random as `noise` (0 to 1, or a scalar tensor)
  says; then the model is as it was."""
  with silenced(model, noise), _changes() as change:
    for layer in layers(model):
      if isinstance(layer, _RECURRENT) and not layer.unroll:
        change(layer, 'unroll', True)
        if hasattr(layer, '_could_use_gpu_kernel'):
          change(layer, '_could_use_gpu_kernel', False)
        if layer.go_backwards:
          # Keras's unrolled loop sets outputs to zero by the mask in its original order.
          change(layer, 'call', _reversing(layer))
          change(layer, 'go_backwards', False)
    yield


@contextlib.contextmanager
def silenced(model, noise=0.):
  """While it lasts, random layers are as random as `noise` says; then the model is as it was."""
  with _changes() as change:
    for layer, attribute in noisy(model):
      change(layer, attribute, getattr(layer, attribute) * noise)
    yield


@contextlib.contextmanager
def _changes():
  """Gives a function (object, attribute, value), and takes back in the end what it changed."""
  changed = []

  def change(target, name, value):
    changed.append((target, name, vars(target).get(name, _changes)))
    object.__setattr__(target, name, value)
  try:
    yield change
  finally:
    for target, name, value in reversed(changed):
      if value is _changes:
        object.__delattr__(target, name)
      else:
        object.__setattr__(target, name, value)


def _reversing(layer):
  """`call` of a recurrent layer, with the steps of its inputs and of their mask from last to first."""
  forward, axis = layer.call, 0 if layer.time_major else 1

  def turn(steps):
    return tf.reverse(steps, [axis])

  def call(inputs, mask=None, training=None, initial_state=None, **constants):
    # A list has initial states after the input.
    inputs = [turn(inputs[0]), *inputs[1:]] if isinstance(inputs, list) else tf.nest.map_structure(turn, inputs)
    mask = mask[0] if isinstance(mask, list) else mask
    return forward(inputs, mask=None if mask is None else turn(mask), training=training, initial_state=initial_state,
                   **constants)
  return call


class Program(tf.Module):
  """A model, a loss and an optimizer as functions over variables of their own.

  Args:
    model: Keras model; only its values are read.
    loss: `losses.Loss`.
    optimizer: `optimizers.Settings`.
    shapes: `Shapes`.
    proximal: strength of FedProx's term; 0: none.
    structure: `structured.RandomMask`, `structured.LowRank` or None.
  """

  def __init__(self, model, loss, optimizer, shapes, proximal=0., structure=None):
    super().__init__(name='program')
    self._shapes = shapes
    self._optimizer, self._clipping = optimizer.rule, optimizer.clipping
    self._proximal = proximal
    self._model_variables = model.variables
    self.noise = bool(noisy(model))
    self._record(model, loss)
    _check_random(model, self._training, self._inference)
    trainable = model.trainable_variables
    if not trainable:
      raise ExportError('the model has no trainable variables: set trainable=True on the layers to train.')
    names = [tensor.name for tensor in Spec.of(model).tensors]
    written = {v.ref() for v in self._training.written()}
    others = [v for v in model.variables if v.ref() in written - {t.ref() for t in trainable}]
    self._weights = {}
    self._state = {}
    self._ref = {}
    self._constraints = {}
    self._decay = {}
    for name, v in zip(names, trainable):
      self._weights[name] = self._variable(v)
      self._ref[name] = v.ref()
      self._constraints[name] = v.constraint
      self._decay[name] = optimizer.decay(v)
    # A name stands for one variable, also where a layer calls two the same.
    reserved = [*names, *(f'{name}/{slot}' for name in names for slot in self._optimizer.slots), 'iterations']
    kept = unique_names([*reserved, *(v.name.split(':')[0] for v in others)])[len(reserved):]
    for name, v in zip(kept, others):
      self._state[name] = self._variable(v)
      self._ref[name] = v.ref()
    self._averages = list(self._state)
    mixed = {v.ref() for v in self._training.written(from_inputs=True)}
    self._mixing += [f'the layer {layer.name!r}' for layer in layers(model)
                     if any(v.ref() in mixed for v in layer._non_trainable_weights)]
    changing = {v.ref() for v in trainable} | {v.ref() for v in others}
    self._constants = {v.ref(): v.numpy() for v in model.variables if v.ref() not in changing}
    self._masks, self._factors = {}, {}
    for n, (name, v) in enumerate(self._weights.items()):
      if isinstance(structure, structured.RandomMask):
        self._masks[name] = tf.Variable(tf.ones(v.shape), name=f'mask{n}')
      elif isinstance(structure, structured.LowRank) and structure.applies(v.shape):
        self._factors[name] = structured.Factors.of(v.shape, structure.rank, f'factor{n}')
        if self._constraints[name] is not None:
          raise ExportError(
              f'the variable {name!r} has a constraint, which does not go with a product of low rank: take it off.')
    if isinstance(structure, structured.LowRank) and not self._factors:
      raise ExportError(f'no kernel has both sides above the rank {structure.rank}: choose a smaller one.')
    if self._factors and proximal:
      raise ExportError('proximal_mu does not go with LowRank, which keeps to its subspace already: leave one out.')
    # Modules find variables in lists, but not in other objects.
    self._tracked = [v for factors in self._factors.values() for v in (factors.basis, factors.factor)]
    for name in self._weights:
      for slot in self._optimizer.slots:
        self._state[f'{name}/{slot}'] = tf.Variable(tf.zeros(self.trained(name).shape), name=f's{len(self._state)}')
    if self._optimizer.counts_steps:
      self._state['iterations'] = tf.Variable(0, name='iterations')
    self._received = {name: tf.Variable(v, name=f'received{n}') for n, (name, v) in enumerate(self._weights.items())
                      } if proximal else {}

  def _variable(self, original):
    return tf.Variable(original.numpy(), trainable=False, name=f'v{len(self._ref)}')

  def _record(self, model, loss):
    """Records the model twice: with its loss, training; and without, predicting."""
    shapes = self._shapes

    def call(inputs, training):
      [output] = tf.nest.flatten(model(list(inputs) if shapes.multiple else inputs[0], training=training))
      return output

    def train(*arguments):
      *inputs, labels, sample_weight = arguments[:-1] if self.noise else arguments
      activities = losses.Activities(sample_weight)
      with exportable(model, arguments[-1] if self.noise else 0.), _changes() as change:
        activities.limit(layers(model), change)
        output = call(inputs, True)
        found = loss(labels, output, sample_weight)
        extra = list(model.losses)
      if extra and loss.reduction == tf.keras.losses.Reduction.NONE:
        raise ExportError("a loss with reduction='none' does not go with regularizers and add_loss, which Keras cannot "
                          "add to it: use reduction='sum'.")
      self._mixing = [place(e.op.name) for e in extra if replay.depends(e, inputs, activities.limited)]
      return [tf.add_n([value, *extra]) for value in found]

    def infer(*inputs):
      with exportable(model):
        return [call(inputs, False)]
    noise = [tf.TensorSpec([], tf.float32)] * self.noise
    self._training = replay.record(train, [*shapes.inputs, shapes.labels, shapes.weights, *noise],
                                   self._model_variables)
    self._inference = replay.record(infer, list(shapes.inputs), self._model_variables)

  @property
  def weights(self):
    """{name as in the spec: variable}: what set_weights receives and get_weights returns."""
    return self._weights

  @property
  def state(self):
    """{name: variable}: what else training changes."""
    return self._state

  @property
  def mixing(self):
    """Where rows of weight 0 count all the same: 'the layer NAME', …"""
    return self._mixing

  @property
  def loss_axes(self):
    """Sizes of 1 for each axis that an example's losses have."""
    return [1] * (len(self._shapes.output) - 2)

  @property
  def training(self):
    """`replay.Recording` of the model and its loss, training."""
    return self._training

  @property
  def operators(self):
    """How many operators the model and its loss have in a graph."""
    return len(self._training.graph.get_operations())

  @property
  def optimizer(self):
    return self._optimizer

  @property
  def clipping(self):
    return self._clipping

  @property
  def adjusts_weights(self):
    """Whether a step does more to weights than adding what the gradient asks for: weight decay, constraints."""
    return any(self._decay.values()) or any(constraint is not None for constraint in self._constraints.values())

  @property
  def input_names(self):
    return self._shapes.input_names

  def original(self, name):
    """The model's own variable."""
    return self._ref[name].deref()

  @property
  def averages(self):
    """Names of the state that belongs to the model, such as moving averages."""
    return self._averages

  def trained(self, name):
    """The variable that the optimizer changes for a weight: its own, or the factor of its product."""
    return self._factors[name].factor if name in self._factors else self._weights[name]

  @property
  def factors(self):
    """{name of a weight: `structured.Factors`}"""
    return self._factors

  @property
  def masks(self):
    """{name of a weight: variable}"""
    return self._masks

  def _reads(self):
    """({name: tensor of what is trained}, {ref of a model variable: tensor}).

    What training does not change is a constant of the file.
    """
    values = {self._ref[name]: v.read_value() for name, v in (self._weights | self._state).items() if name in self._ref}
    trained = {name: values[self._ref[name]] for name in self._weights}
    for name, factors in self._factors.items():
      trained[name] = factors.factor.read_value()
      values[self._ref[name]] += factors.kernel(factors.basis.read_value(), trained[name])
    return trained, values | {ref: tf.constant(value) for ref, value in self._constants.items()}

  def signatures(self):
    """{signature: (tf.function, input names, {output: name})}; arguments are positional, named a0, a1, …"""
    shapes = self._shapes
    scalar, one = tf.TensorSpec([], tf.float32), tf.TensorSpec([1], tf.int32)
    made = {
        'train': (self._train, [*shapes.inputs, shapes.labels, shapes.weights, scalar,
                                *[scalar] * self.noise],
                  [*shapes.input_names, 'y', 'sample_weight', 'learning_rate', *['noise'] * self.noise], ['loss']),
        'infer': (self._infer, shapes.inputs, shapes.input_names, ['output']),
        'get_weights': (self._get_weights, [one], ['unused'], list(self._weights)),
        'set_weights': (self._set_weights, _specs(self._weights), list(self._weights), ['values']),
    }
    if self._state:
      made['get_state'] = (self._getter(self._state), [one], ['unused'], list(self._state))
      made['set_state'] = (self._setter(self._state), _specs(self._state), list(self._state), ['values'])
    if self._masks:
      made['set_masks'] = (self._setter(self._masks), _specs(self._masks), list(self._masks), ['values'])
    if self._factors:
      bases = {name: factors.basis for name, factors in self._factors.items()}
      trained = {name: factors.factor for name, factors in self._factors.items()}
      made['set_bases'] = (self._setter(bases), _specs(bases), list(bases), ['values'])
      made['get_factors'] = (self._getter(trained), [one], ['unused'], list(trained))
    return {name: Signature.of(*parts) for name, parts in made.items()}

  def _train(self, *arguments):
    noise = arguments[-1:] if self.noise else ()
    *inputs, labels, sample_weight, learning_rate = arguments[:len(arguments) - len(noise)]
    rows = _real_rows(sample_weight)
    inputs, labels = [tf.gather(x, rows) for x in inputs], tf.gather(labels, rows)
    before, values = self._reads()
    loss, reported = replay.replay(self._training, [*inputs, labels, sample_weight, *noise], values, True)
    with replay.overridden_gradients():
      found = dict(zip(before, tf.gradients(loss, list(before.values()))))
    # A variable that the loss does not depend on stays as it is.
    gradients = {name: g for name, g in found.items() if g is not None}
    for name, g in gradients.items():
      if self._optimizer.lazy and isinstance(g, tf.IndexedSlices):
        raise ExportError(f'the legacy SGD with momentum moves only the rows of {name!r} that a batch reads, which '
                          'cannot be exported: use tf.keras.optimizers.SGD.')
    if self._proximal:
      gradients = {name: tf.convert_to_tensor(g) + self._proximal * (before[name] - self._received[name])
                   for name, g in gradients.items()}
    gradients = dict(zip(gradients, map(tf.convert_to_tensor, self._clipping(list(gradients.values())))))
    iterations = self._state['iterations'].read_value() if self._optimizer.counts_steps else None
    for name, gradient in gradients.items():
      slots = [self._state[f'{name}/{slot}'] for slot in self._optimizer.slots]
      change, new = self._optimizer.step(gradient, [s.read_value() for s in slots], learning_rate, iterations)
      weight = before[name]
      if self._decay[name]:
        weight = weight - weight * self._decay[name] * learning_rate
      weight = weight + change
      if self._constraints[name] is not None:
        weight = self._constraints[name](weight)
      if self._masks:
        weight = before[name] + self._masks[name] * (weight - before[name])
      self.trained(name).assign(weight)
      for slot, value in zip(slots, new):
        slot.assign(value)
    for name in self._averages:
      self._state[name].assign(values[self._ref[name]])
    if iterations is not None:
      self._state['iterations'].assign(iterations + 1)
    return [reported]

  def _infer(self, *inputs):
    return replay.replay(self._inference, inputs, self._reads()[1], False)

  def _get_weights(self, unused):
    values = self._reads()[1]
    return _using(unused, [values[self._ref[name]] for name in self._weights])

  def _getter(self, variables):
    return lambda unused: _using(unused, [v.read_value() for v in variables.values()])

  def _setter(self, variables):
    def assign(*arguments):
      for v, value in zip(variables.values(), arguments):
        v.assign(value)
      return [_count(arguments)]
    return assign

  def _set_weights(self, *arguments):
    for received, value in zip(self._received.values(), arguments):
      received.assign(value)
    for factors in self._factors.values():
      factors.factor.assign(tf.zeros(factors.factor.shape))
    return self._setter(self._weights)(*arguments)


def _real_rows(sample_weight):
  """The number of the row to read for each row of a batch: its own, or where its weight is 0 that of another, in turn.

  So it does not matter what fills a batch up. Rows of zeros may have no finite loss, and 0 times that is not 0: words
  that are padding alone have no mean.
  """
  numbers = tf.range(sample_weight.shape[0])
  present = tf.cast(tf.not_equal(sample_weight, 0), tf.int32)
  # 1, 2, … where the weight is not 0, and otherwise 0.
  order = tf.cumsum(present) * present
  found = tf.reduce_sum(tf.cast(tf.equal(numbers[:, None] + 1, order), tf.int32) * numbers, 1)
  turns = tf.math.floormod(numbers, tf.maximum(tf.reduce_sum(present), 1))
  return tf.where(present > 0, numbers, tf.gather(found, turns))


def _using(unused, tensors):
  """The tensors, made to depend on an input of shape [1]: interpreters refuse an input that nothing uses.

  A tensor without axes gets one by that, as it has where it goes in.
  """
  nothing = unused * 0
  return [t + tf.cast(nothing, t.dtype) for t in tensors]


def _count(tensors):
  """How many values there are, computed from them so that every input is used."""
  counted = [tf.reshape(t, [-1])[:1] for t in tensors]
  return tf.add_n([tf.cast(tf.equal(c, c), tf.int32) * int(np.prod(t.shape)) for c, t in zip(counted, tensors)])


def _specs(variables):
  return [tf.TensorSpec(v.shape, v.dtype) for v in variables.values()]


@dataclasses.dataclass(frozen=True)
class Signature:
  """A tf.function with placeholder names, and the names that the file shall show."""
  function: object
  inputs: list
  outputs: list

  @classmethod
  def of(cls, function, specs, inputs, outputs):
    """The signature of a function of tensors of these specs. What has no axes goes in with one: see conversion.py."""
    named = [tf.TensorSpec(s.shape.as_list() or [1], s.dtype, name=f'a{n:04}') for n, s in enumerate(specs)]

    def numbered(*arguments):
      arguments = [a if s.shape.rank else a[0] for a, s in zip(arguments, specs)]
      return {f'r{n:04}': tf.identity(t) for n, t in enumerate(function(*arguments))}
    return cls(tf.function(numbered, input_signature=named, autograph=False), inputs, outputs)

  def described(self):
    """{'inputs': {name: (dtype, shape)}, 'outputs': {name: (dtype, shape)}}"""
    made = self.function.get_concrete_function()
    return {'inputs': _described(self.inputs, self.function.input_signature),
            'outputs': _described(self.outputs, [made.structured_outputs[f'r{n:04}']
                                                 for n in range(len(self.outputs))])}


def _described(names, specs):
  return {name: (spec.dtype.name, tuple(spec.shape)) for name, spec in zip(names, specs)}
