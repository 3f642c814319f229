"""The gate that every exported file passes: it must train as Keras does.

From the same weights, on the same random batch, the file's step is compared with the model's own gradients
(`tf.GradientTape`) and its own optimizer. Before each step the weights and state are read back from the file, so that
errors of one step do not add to those of the next: two correct float32 programs drift apart within tens of steps.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from tflite_export import interpreters
from tflite_export.errors import ParityError
from tflite_export.training import optimizers
from tflite_export.training.program import exportable


@dataclasses.dataclass(frozen=True)
class Tolerances:
  """How far the file may be from Keras.

  Attributes:
    loss: |loss - Keras's| / max(1, |Keras's|).
    gradient: |g - Keras's| / |Keras's| in L2 norm, per variable. To |Keras's| a tenth of what an average variable of
      its size has is added: gradients that are zero but for rounding, such as those of a bias before batch
      normalization, have nothing to compare.
    update: the change of a variable against that of Keras's optimizer, in the same measure.
    rounding: where a gradient is farther off, how many times as far as rounding alone moves Keras's own gradient it
      may be.
    average: |new moving average - Keras's|, relative to the largest.
    output: |output of infer - Keras's| / max(1, largest |Keras's|).
  """
  loss: float = 1e-4
  gradient: float = 5e-3
  update: float = 5e-3
  average: float = 1e-4
  rounding: float = 10.
  output: float = 1e-4


@dataclasses.dataclass(frozen=True)
class Parity:
  """What the gate saw: the largest error of each kind, over all steps, by interpreter.

  Attributes:
    steps: steps per interpreter.
    errors: {interpreter: {'loss': …, 'gradient': …, 'update': …, 'average': …, 'output': …, 'rounding': …}}; the last
      is how far rounding alone moves Keras's own gradient, relative to it, and 0 where that was not needed.
    worst: {interpreter: name of the variable with the largest error of its gradient}
  """
  steps: int
  errors: dict
  worst: dict


def check(model, data, program, loss, optimizer, batch, tolerances, steps, proximal, names=interpreters.NAMES):
  """Compares a file with the model that it was made from. The model is as before, afterwards.

  Args:
    model: Keras model.
    data: bytes of the file.
    program: `Program` that the file was converted from.
    loss: `losses.Loss`.
    optimizer: `optimizers.Settings`.
    batch: function of the step's number that returns (list of inputs, labels, sample weights).
    tolerances: `Tolerances`.
    steps: how many.
    proximal: strength of FedProx's term.
    names: interpreters.

  Returns:
    `Parity`

  Raises:
    ParityError: some error is above its tolerance.
  """
  saved = [v.numpy() for v in model.variables]
  errors, worst = {}, {}
  try:
    for name in names:
      with interpreters.quiet():
        file = interpreters.Interpreter(data, name)
        gate = _Gate(model, file, program, loss, optimizer, tolerances, proximal)
        for step in range(steps):
          gate.step(*batch(step))
        gate.infer(batch(steps)[0])
      errors[name], worst[name] = gate.errors, gate.worst
      for v, value in zip(model.variables, saved):
        v.assign(value)
  finally:
    for v, value in zip(model.variables, saved):
      v.assign(value)
  return Parity(steps, errors, worst)


class _Gate:
  """A file and its model, step by step."""

  def __init__(self, model, file, program, loss, optimizer, tolerances, proximal):
    self._model, self._file, self._program, self._loss = model, file, program, loss
    self._tolerances, self._proximal = tolerances, proximal
    # Without slots only the change of a weight shows its gradient: the step is large, so that the weight's rounding
    # does not.
    self._rate = 0.01 if program.optimizer.slots else 0.1
    self._trained = {name: tf.Variable(program.trained(name), constraint=program.original(name).constraint)
                     for name in program.weights}
    self._keras = optimizer.copy(self._rate, list(self._trained.values()),
                                 [program.original(name) for name in self._trained])
    self._received = {name: program.original(name).numpy() for name in program.weights}
    self.errors = dict.fromkeys(('loss', 'gradient', 'update', 'average', 'output', 'rounding'), 0.)
    self.worst = ''
    file.run('set_weights', **self._received)
    generator = np.random.default_rng(0)
    self._masks = {name: generator.integers(0, 2, v.shape).astype(np.float32) for name, v in program.masks.items()}
    self._bases = {name: (generator.standard_normal(factors.basis.shape) / np.sqrt(factors.basis.shape[1])).astype(np.float32)
                   for name, factors in program.factors.items()}
    if self._masks:
      file.run('set_masks', **self._masks)
    if self._bases:
      file.run('set_bases', **self._bases)

  def _read(self):
    """(weights, what is trained, state), {name: array} each."""
    program = self._program
    weights = self._get('get_weights', {name: program.original(name) for name in program.weights})
    factors = {name: factors.factor for name, factors in program.factors.items()}
    trained = weights | (self._get('get_factors', factors) if factors else {})
    return weights, trained, self._get('get_state', program.state) if program.state else {}

  def _get(self, signature, variables):
    """{name: array} of what a signature returns for these variables, in their shapes and their order."""
    found = self._file.run(signature, unused=np.zeros(1, np.int32))
    return {name: found[name].reshape(v.shape) for name, v in variables.items()}

  def _confined(self, gradients):
    """Gradients of weights as gradients of what is trained."""
    return {name: tf.constant(self._program.factors[name].gradient(self._bases[name], tf.convert_to_tensor(g).numpy()))
                  if name in self._bases else g for name, g in gradients.items()}

  def step(self, inputs, labels, sample_weight):
    """One step in the file and in Keras, compared."""
    program, tolerances = self._program, self._tolerances
    weights, before, state = self._read()
    for name, value in weights.items():
      program.original(name).assign(value)
    for name in program.averages:
      program.original(name).assign(state[name])
    feeds = dict(zip(program.input_names, inputs), y=labels, sample_weight=sample_weight,
                 learning_rate=np.float32(self._rate))
    if program.noise:
      feeds['noise'] = np.float32(0)
    loss = float(self._file.run('train', **feeds)['loss'])
    _, after, state_after = self._read()

    expected, gradients = self._keras_gradients(inputs, labels, sample_weight)
    self._compare('loss', abs(loss - expected) / max(1, abs(expected)), tolerances.loss, 'the loss')
    for name in program.averages:
      value = program.original(name).numpy()
      self._compare('average', np.max(np.abs(state_after[name] - value)) / max(1e-3, np.max(np.abs(value))),
                    tolerances.average,
                    f'the new {name!r}')
    slots = [{name: [values[f'{name}/{slot}'] for slot in program.optimizer.slots] for name in before}
             for values in (state, state_after)]
    adjusted = program.adjusts_weights or self._masks
    if program.optimizer.slots or not adjusted:
      found = {name: program.optimizer.gradient(before[name], after[name], slots[0][name], slots[1][name], self._rate)
               for name in before}
      self._compare_vectors('gradient', found, gradients, before, 'the gradient of',
                            lambda: self._rounding(inputs, labels, sample_weight, weights, gradients))
      gradients = found
    if program.optimizer.slots or adjusted:
      # Keras's optimizer takes the same step, with the file's own gradients where they are known.
      optimizers.restore(self._keras, [slots[0][name] for name in before], state.get('iterations', 0))
      for name, v in self._trained.items():
        v.assign(before[name])
      self._keras.apply_gradients([(tf.constant(gradients[name], v.dtype), v) for name, v in self._trained.items()])
      self._compare_vectors('update', {name: (before[name] - after[name]) / self._rate for name in before},
                            {name: self._masks.get(name, np.float32(1)) * (before[name] - v.numpy()) / self._rate
                             for name, v in self._trained.items()}, before, 'the update of',
                             lambda: dict.fromkeys(before, 0.))

  def _keras_gradients(self, inputs, labels, sample_weight):
    """(loss, {name: gradient of what is trained}) of the model, whose moving averages are updated."""
    program, model = self._program, self._model
    kept = sample_weight != 0
    inputs, labels, sample_weight = [x[kept] for x in inputs], labels[kept], sample_weight[kept]
    with exportable(model, 0.), tf.GradientTape() as tape:
      output = model([tf.constant(x) for x in inputs] if len(inputs) > 1 else tf.constant(inputs[0]), training=True)
      loss, reported = (tf.add_n([value, *model.losses])
                        for value in self._loss(tf.constant(labels), output, tf.constant(sample_weight)))
    variables = [program.original(name) for name in program.weights]
    gradients = {}
    for name, v, gradient in zip(program.weights, variables, tape.gradient(loss, variables)):
      gradient = tf.zeros_like(v) if gradient is None else gradient
      if self._proximal:
        gradient = tf.convert_to_tensor(gradient) + self._proximal * (v - self._received[name])
      gradients[name] = gradient
    clipped = program.clipping(list(self._confined(gradients).values()))
    return float(reported), {name: tf.convert_to_tensor(g).numpy() for name, g in zip(gradients, clipped)}

  def _rounding(self, inputs, labels, sample_weight, weights, gradients):
    """{name: how far Keras's own gradient moves, in L2 norm, when the weights change by a millionth}.

    That is about what summing in another order does to activations. Deep networks with normalization amplify rounding,
    and a value at the kink of a ReLU takes one side or the other: there two correct programs differ by more than any
    fixed tolerance.
    """
    generator = np.random.default_rng(0)
    distances = dict.fromkeys(weights, 0.)
    for _ in range(2):
      for name, value in weights.items():
        signs = generator.choice(np.float32([-1, 1]), value.shape)
        self._program.original(name).assign(value * (1 + np.float32(2**-20) * signs))
      _, moved = self._keras_gradients(inputs, labels, sample_weight)
      for name in weights:
        distances[name] = max(distances[name], np.linalg.norm((moved[name] - gradients[name]).astype(np.float64)))
    for name, value in weights.items():
      self._program.original(name).assign(value)
    whole = np.sqrt(sum(np.sum(np.square(g, dtype=np.float64)) for g in gradients.values()))
    share = np.sqrt(sum(m * m for m in distances.values())) / whole
    self.errors['rounding'] = max(self.errors['rounding'], float(share))
    return {name: max(m, share * np.linalg.norm(gradients[name])) for name, m in distances.items()}

  def infer(self, inputs):
    """The output of both, with the weights that the steps have led to."""
    weights, _, state = self._read()
    for name, value in [*weights.items(), *((name, state[name]) for name in self._program.averages)]:
      self._program.original(name).assign(value)
    found = self._file.run('infer', **dict(zip(self._program.input_names, inputs)))['output']
    expected = self._model([tf.constant(x) for x in inputs] if len(inputs) > 1 else tf.constant(inputs[0]),
                           training=False).numpy()
    self._compare('output', np.max(np.abs(found - expected)) / max(1, np.max(np.abs(expected))),
                  self._tolerances.output,
                  'the output of infer')

  def _compare_vectors(self, kind, found, expected, weights, what, rounding):
    """In L2 norm, beyond what the rounding of weights can hide or add. `rounding` is asked only if that is not close
    enough."""
    squares = sum(float(np.sum(np.square(g, dtype=np.float64))) for g in expected.values())
    average = np.sqrt(squares / sum(g.size for g in expected.values()))
    tolerance, excuse = getattr(self._tolerances, kind), None
    for name, vector in expected.items():
      hidden = np.linalg.norm(np.spacing(np.abs(weights[name]) + np.abs(self._rate * vector)).astype(np.float64)) / self._rate
      distance = max(0., np.linalg.norm((found[name] - vector).astype(np.float64)) - hidden)
      scale = np.linalg.norm(vector.astype(np.float64)) + 0.1 * average * np.sqrt(vector.size) + 1e-12
      allowed = tolerance
      if not distance / scale <= tolerance:
        excuse = rounding() if excuse is None else excuse
        allowed += self._tolerances.rounding * excuse[name] / scale
      self._compare(kind, distance / scale, allowed, f'{what} {name!r}', name)

  def _compare(self, kind, error, tolerance, what, variable=''):
    if not error <= tolerance:
      raise ParityError(f'in {self._file.name}, {what} is off by {error:.2g} relative to Keras, and {tolerance:.2g} is allowed: '
                        'nothing was written.')
    if kind == 'gradient' and error >= self.errors[kind]:
      self.worst = variable
    self.errors[kind] = max(self.errors[kind], float(error))
