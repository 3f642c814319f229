"""The gate that every exported file passes: it must train as Keras does.

From the same weights, on the same random batch, the file's step is compared with `train_on_batch`, its output with
`predict_on_batch`. Nothing of the two is written again here: Keras's training step runs up to its optimizer's, whose
gradients are kept, and Keras's optimizer runs with those of the file. Before each step the weights and state are read
back from the file, so that errors of one step do not add to those of the next: two correct float32 programs drift apart
within tens of steps.
"""

import dataclasses
import functools

import numpy as np
import tensorflow as tf

from tflite_export import interpreters
from tflite_export.errors import ExportError
from tflite_export.errors import ParityError
from tflite_export.errors import reason
from tflite_export.training import optimizers
from tflite_export.training.program import silenced


@dataclasses.dataclass(frozen=True)
class Tolerances:
  """How far the file may be from Keras.

  Attributes:
    loss: |loss - Keras's| / max(1, |Keras's|).
    gradient: |g - Keras's| / |Keras's| in L2 norm, per variable. To |Keras's| a tenth of what an average variable of
      its size has is added: gradients that are zero but for rounding, such as those of a bias before batch
      normalization, have nothing to compare.
    update: the change of a variable against that of Keras's optimizer, in the same measure.
    rounding: where something is farther off, how many times as far as rounding alone moves Keras's own value it may be.
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


def check(model, data, program, compiled, optimizer, batch, tolerances, steps, proximal, names=interpreters.NAMES):
  """Compares a file with the model that it was made from. The model is as before, afterwards.

  Args:
    model: Keras model.
    data: bytes of the file.
    program: `Program` that the file was converted from.
    compiled: what Keras compiles a model with, besides the optimizer: {'loss': …, 'loss_weights': …}.
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
    ExportError: Keras cannot train the model.
  """
  saved = [v.numpy() for v in model.variables]
  errors, worst = {}, {}
  try:
    with interpreters.quiet(), silenced(model):
      keras = _Keras(model, program, compiled, proximal)
      for name in names:
        gate = _Gate(interpreters.Interpreter(data, name), program, keras, optimizer, tolerances)
        for step in range(steps):
          gate.step(*batch(step))
        gate.infer(batch(steps)[0])
        errors[name], worst[name] = gate.errors, gate.worst
        keras.assign(saved)
  finally:
    for v, value in zip(model.variables, saved):
      v.assign(value)
  return Parity(steps, errors, worst)


@dataclasses.dataclass(frozen=True)
class _Step:
  """What a training step comes to: its loss, {name: gradient}, clipped, and {name: new moving average}; or how far two
  steps are apart in each of these."""
  loss: float
  gradients: dict
  averages: dict

  def apart(self, other):
    """Distances to another step: of gradients in L2 norm, of averages the largest."""
    return _Step(abs(self.loss - other.loss),
                 {name: _norm(value - other.gradients[name]) for name, value in self.gradients.items()},
                 {name: _largest(value - other.averages[name]) for name, value in self.averages.items()})

  def farther(self, other):
    """The larger ones of two distances."""
    return _Step(max(self.loss, other.loss),
                 {name: max(value, other.gradients[name]) for name, value in self.gradients.items()},
                 {name: max(value, other.averages[name]) for name, value in self.averages.items()})


class _Recorder(tf.keras.optimizers.Optimizer):
  """Clips gradients as Keras's optimizers do, and keeps them instead of taking a step.

  Args:
    clipping: `optimizers.Clipping`.
    adapted: function of Keras's list of (gradient, variable) that returns such a list.
    variables: the variables in the latter.
  """

  def __init__(self, clipping, adapted, variables):
    super().__init__('recorder', jit_compile=False, **dataclasses.asdict(clipping))
    self._learning_rate = self._build_learning_rate(0.)
    self._adapted = adapted
    self.kept = [tf.Variable(tf.zeros(v.shape, v.dtype), trainable=False) for v in variables]
    self.build(variables)

  def apply_gradients(self, grads_and_vars, **options):
    # A variable that the loss does not depend on has no gradient.
    for kept in self.kept:
      kept.assign(tf.zeros_like(kept))
    return super().apply_gradients(self._adapted(list(grads_and_vars)), **options)

  def update_step(self, gradient, variable):
    self.kept[self._index_dict[self._var_key(variable)]].assign(tf.convert_to_tensor(gradient))

  def get_config(self):
    raise NotImplementedError


class _Wrapped(tf.keras.Model):
  """A model around the user's, which is compiled in its place: so its optimizer, metrics and settings stay as they
  are."""

  def __init__(self, model):
    super().__init__()
    self._model = model
    self.output_names = getattr(model, 'output_names', None)

  def call(self, inputs, training=None):
    return self._model(inputs, training=training)


class _Keras:
  """A model as Keras trains it and predicts with it.

  FedProx's term, and gradients in the subspace of `LowRank`, Keras has not: they are put between its gradients and its
  clipping. A mask comes after its step.
  """

  def __init__(self, model, program, compiled, proximal):
    self._model, self._program, self._proximal = model, program, proximal
    self._weights = {name: program.original(name) for name in program.weights}
    self._names = {v.ref(): name for name, v in self._weights.items()}
    self.received = {name: v.numpy() for name, v in self._weights.items()}
    generator = np.random.default_rng(0)
    self.masks = {name: generator.integers(0, 2, v.shape).astype(np.float32) for name, v in program.masks.items()}
    self.bases = {}
    for name, factors in program.factors.items():
      drawn = generator.standard_normal(factors.basis.shape) / np.sqrt(factors.basis.shape[1])
      self.bases[name] = drawn.astype(np.float32)
    self.learned = set()
    """Names of what has a gradient: Keras changes nothing else, not even by weight decay."""
    self.trained = self._weights | {name: tf.Variable(factors.factor) for name, factors in program.factors.items()}
    self._recorder = _Recorder(program.clipping, self._adapted, list(self.trained.values()))
    self._wrapped = _Wrapped(model)
    self._wrapped.compile(self._recorder, **compiled)

  def _adapted(self, grads_and_vars):
    found = []
    for gradient, variable in grads_and_vars:
      name = self._names[variable.ref()]
      if gradient is not None and self._proximal:
        gradient = tf.convert_to_tensor(gradient) + self._proximal * (variable - self.received[name])
      if gradient is not None and name in self.bases:
        gradient = self._program.factors[name].gradient(self.bases[name], tf.convert_to_tensor(gradient))
      if gradient is not None:
        self.learned.add(name)
      found.append((gradient, self.trained[name]))
    return found

  def assign(self, values):
    """Sets all variables of the model to a list of arrays, or some to {name: array}."""
    pairs = ([(self._program.original(name), value) for name, value in values.items()] if isinstance(values, dict)
             else zip(self._model.variables, values))
    for v, value in pairs:
      v.assign(value)

  def step(self, inputs, labels, sample_weight):
    """`_Step` that `train_on_batch` takes for the rows whose weight is not 0. Moving averages of the model advance."""
    kept = sample_weight != 0
    # Where an example has losses with several axes, Keras takes no weights without these.
    weights = sample_weight[kept].reshape(-1, *self._program.loss_axes)
    try:
      logs = self._wrapped.train_on_batch(_batch([x[kept] for x in inputs]), labels[kept], weights, return_dict=True)
    except Exception as error:
      # Whatever layers and losses of the user's may do.
      raise ExportError(f'Keras cannot train this model: {reason(error)}.') from error
    return _Step(float(logs['loss']), {name: v.numpy() for name, v in zip(self.trained, self._recorder.kept)},
                 {name: self._program.original(name).numpy() for name in self._program.averages})

  def predict(self, inputs):
    """Output of `predict_on_batch`."""
    return tf.nest.flatten(self._wrapped.predict_on_batch(_batch(inputs)))[0]


class _Gate:
  """A file beside Keras, step by step."""

  def __init__(self, file, program, keras, optimizer, tolerances):
    self._file, self._program, self._keras, self._tolerances = file, program, keras, tolerances
    # Without slots only the change of a weight shows its gradient: the step is large, so that the weight's rounding
    # does not.
    self._rate = 0.01 if program.optimizer.slots else 0.1
    self._optimizer = optimizer.copy(self._rate, list(keras.trained.values()),
                                     [program.original(name) for name in keras.trained])
    self.errors = dict.fromkeys(('loss', 'gradient', 'update', 'average', 'output', 'rounding'), 0.)
    self.worst = ''
    file.run('set_weights', **keras.received)
    if keras.masks:
      file.run('set_masks', **keras.masks)
    if keras.bases:
      file.run('set_bases', **keras.bases)

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

  def _values(self, weights, state):
    """{name: array} of the model's own variables."""
    return weights | {name: state[name] for name in self._program.averages}

  def step(self, inputs, labels, sample_weight):
    """One step in the file and in Keras, compared."""
    program, keras = self._program, self._keras
    weights, before, state = self._read()
    feeds = dict(zip(program.input_names, inputs), y=labels, sample_weight=sample_weight,
                 learning_rate=np.float32(self._rate))
    if program.noise:
      feeds['noise'] = np.float32(0)
    loss = float(self._file.run('train', **feeds)['loss'])
    _, after, state_after = self._read()

    keras.assign(self._values(weights, state))
    expected = keras.step(inputs, labels, sample_weight)
    rounding = self._rounding(self._values(weights, state), lambda: keras.step(inputs, labels, sample_weight), expected)
    self._compare('loss', abs(loss - expected.loss), max(1, abs(expected.loss)), 'the loss', lambda: rounding().loss)
    for name, value in expected.averages.items():
      self._compare('average', _largest(state_after[name] - value), max(1e-3, _largest(value)), f'the new {name!r}',
                    lambda name=name: rounding().averages[name])
    slots = [{name: [values[f'{name}/{slot}'] for slot in program.optimizer.slots] for name in before}
             for values in (state, state_after)]
    gradients, adjusted = expected.gradients, program.adjusts_weights or keras.masks
    if program.optimizer.slots or not adjusted:
      gradients = {name: program.optimizer.gradient(value, after[name], slots[0][name], slots[1][name], self._rate)
                   for name, value in before.items()}
      self._compare_vectors('gradient', gradients, expected.gradients, before, 'the gradient of',
                            lambda: self._share(rounding(), expected))
    if program.optimizer.slots or adjusted:
      # Keras's optimizer takes the same step, with the file's own gradients where they are known.
      optimizers.restore(self._optimizer, [slots[0][name] for name in before], state.get('iterations', 0))
      for name, v in keras.trained.items():
        v.assign(before[name])
      self._optimizer.apply_gradients([(tf.constant(gradients[name], v.dtype), v) for name, v in keras.trained.items()
                                       if name in keras.learned])
      self._compare_vectors('update', {name: (before[name] - after[name]) / self._rate for name in before},
                            {name: keras.masks.get(name, np.float32(1)) * (before[name] - v.numpy()) / self._rate
                             for name, v in keras.trained.items()}, before, 'the update of',
                            lambda: dict.fromkeys(before, 0.))

  def infer(self, inputs):
    """The output of both, with the weights that the steps have led to."""
    weights, _, state = self._read()
    values = self._values(weights, state)
    self._keras.assign(values)
    found = self._file.run('infer', **dict(zip(self._program.input_names, inputs)))['output']
    expected = self._keras.predict(inputs)
    rounding = self._rounding(values, lambda: _Step(0., {}, {'output': self._keras.predict(inputs)}),
                              _Step(0., {}, {'output': expected}))
    self._compare('output', _largest(found - expected), max(1, _largest(expected)), 'the output of infer',
                  lambda: rounding().averages['output'])

  def _rounding(self, values, run, expected):
    """Function that returns how far Keras's own step, or output, moves when the weights change by a millionth.

    That is about what summing in another order does to activations. Deep networks with normalization amplify rounding,
    and a value at the kink of a ReLU takes one side or the other: there two correct programs differ by more than any
    fixed tolerance.

    Args:
      values: {name: array} of the model's variables.
      run: function that returns a `_Step` of Keras from there.
      expected: what it returned for these values.
    """
    @functools.cache
    def measured():
      generator = np.random.default_rng(0)
      distances = []
      for _ in range(2):
        moved = {}
        for name in self._program.weights:
          signs = generator.choice(np.float32([-1, 1]), values[name].shape)
          moved[name] = values[name] * (1 + np.float32(2**-20) * signs)
        self._keras.assign(values | moved)
        distances.append(run().apart(expected))
      self._keras.assign(values)
      return distances[0].farther(distances[1])
    return measured

  def _share(self, distances, expected):
    """{name: how far a gradient may be off}: by its own distance, or the share of it by which all gradients moved."""
    share = (np.sqrt(sum(d * d for d in distances.gradients.values()))
             / np.sqrt(sum(_norm(g)**2 for g in expected.gradients.values())))
    self.errors['rounding'] = max(self.errors['rounding'], float(share))
    return {name: max(d, share * _norm(expected.gradients[name])) for name, d in distances.gradients.items()}

  def _compare_vectors(self, kind, found, expected, weights, what, rounding):
    """In L2 norm, beyond what the rounding of weights can hide or add."""
    squares = sum(_norm(g)**2 for g in expected.values())
    average = np.sqrt(squares / sum(g.size for g in expected.values()))
    for name, vector in expected.items():
      hidden = _norm(np.spacing(np.abs(weights[name]) + np.abs(self._rate * vector))) / self._rate
      distance = max(0., _norm(found[name] - vector) - hidden)
      scale = _norm(vector) + 0.1 * average * np.sqrt(vector.size) + 1e-12
      self._compare(kind, distance, scale, f'{what} {name!r}', lambda name=name: rounding()[name], name)

  def _compare(self, kind, distance, scale, what, rounding, variable=''):
    """Refuses a distance that is too large. `rounding`, the distance that rounding explains, is asked only then."""
    error, allowed = distance / scale, getattr(self._tolerances, kind)
    if not error <= allowed:
      allowed += self._tolerances.rounding * rounding() / scale
    if not error <= allowed:
      raise ParityError(f'in {self._file.name}, {what} is off by {error:.2g} relative to Keras, and {allowed:.2g} is '
                        'allowed: nothing was written.')
    if kind == 'gradient' and error >= self.errors[kind]:
      self.worst = variable
    self.errors[kind] = max(self.errors[kind], float(error))


def _batch(inputs):
  """A list of inputs as Keras takes them."""
  return inputs if len(inputs) > 1 else inputs[0]


def _norm(vector):
  return float(np.linalg.norm(np.asarray(vector, np.float64).reshape(-1)))


def _largest(array):
  return float(np.max(np.abs(array))) if np.size(array) else 0.
