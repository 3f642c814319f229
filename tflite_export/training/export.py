"""From a Keras model to a file that trains."""

import dataclasses
import os
import pathlib
import re
import sys
import time
from typing import Any

import tensorflow as tf

from tff_compress.codec import checks
from tflite_export import conversion
from tflite_export import files
from tflite_export import flatbuffer
from tflite_export.errors import ExportError
from tflite_export.errors import reason
from tflite_export.training import batches
from tflite_export.training import finishing
from tflite_export.training import losses
from tflite_export.training import optimizers
from tflite_export.training import parity as parity_lib
from tflite_export.training import program as program_lib
from tflite_export.training import replay
from tflite_export.training import structured
from tflite_export.training.formulas.registry import place


@dataclasses.dataclass(frozen=True)
class TrainingFile:
  """What an export made.

  Attributes:
    data: the file, as bytes.
    path: where it was written, or None.
    signatures: {signature: {'inputs': {name: (dtype, shape)}, 'outputs': {…}}}
    operators: {name: count} of built-in operators.
    weights: names of the variables that set_weights takes and get_weights returns: those of `Spec.of(model)`.
    state: names of what get_state returns.
    learning_rate: the optimizer's, for the `learning_rate` input; None if it is a schedule.
    parity: `Parity`: how close the file is to Keras; None if the gate was skipped.
    notes: sentences about what the file cannot do as Keras does.
  """
  data: bytes
  path: pathlib.Path | None
  signatures: dict
  operators: dict
  weights: tuple
  state: tuple
  learning_rate: float | None
  parity: parity_lib.Parity | None
  notes: tuple = ()

  @property
  def size(self) -> int:
    """Bytes of the file."""
    return len(self.data)


def export_training(model: tf.keras.Model, *, loss: Any = None, optimizer: Any = None, batch_size: int = 32,
                    path: str | os.PathLike[str] | None = None, overwrite: bool = False, proximal_mu: float = 0.,
                    structure: structured.RandomMask | structured.LowRank | None = None, parity_steps: int = 2,
                    parity_data: Any = None,
                    tolerances: parity_lib.Tolerances = parity_lib.Tolerances()) -> TrainingFile:
  """Makes a .tflite file that trains a Keras model with the built-in operators alone.

  Its signatures are train, infer, get_weights, set_weights, and get_state and set_state where training keeps more than
  weights; docs/training-on-device.md describes them. Before it is written, the file takes a few steps beside Keras in
  both interpreters.

  Args:
    model: a built Keras model of float32 with one output. It is not changed.
    loss: name or `tf.keras.losses.Loss`; None: what the model was compiled with.
    optimizer: name or `tf.keras.optimizers.Optimizer`, SGD or Adam; None: what the model was compiled with.
    batch_size: examples in a batch; smaller ones are filled up with rows whose sample_weight is 0.
    path: file to write; None: none, see the result's `data`.
    overwrite: whether `path` may exist.
    proximal_mu: FedProx's mu: adds mu (w - w_received) to the gradient, where w_received is what set_weights last
      received.
    structure: None, `RandomMask()` or `LowRank(rank)`: trains only what a mask or a basis allows, for structured
      updates.
    parity_steps: steps of the parity gate in each interpreter; 0 skips the gate.
    parity_data: (x, y) of at least `batch_size` examples for the gate; None: random ones.
    tolerances: `Tolerances` of the gate.

  Returns:
    `TrainingFile`

  Raises:
    ExportError: the model, the loss, the optimizer or an option cannot be exported; the message says what to do.
    ParityError: the file does not train as Keras does.
    FileError: `path` exists or cannot be written.
  """
  if path is not None:
    files.check_free(path, overwrite)
  checks.whole_number('batch_size', batch_size, ExportError, least=1, most=2**31 - 1)
  checks.whole_number('parity_steps', parity_steps, ExportError, least=0, most=2**31 - 1)
  checks.number('proximal_mu', proximal_mu, ExportError, least=0, below=2**31)
  if structure is not None and not isinstance(structure, (structured.RandomMask, structured.LowRank)):
    raise ExportError(f'structure must be RandomMask() or LowRank(rank), not {structure!r}.')
  _check_model(model)
  optimizer = getattr(model, 'optimizer', None) if optimizer is None else optimizer
  if optimizer is None:
    raise ExportError('there is no optimizer: compile the model with one, or give optimizer=.')
  settings = optimizers.of(optimizer)
  compiled = losses.compiled(model, loss)
  loss, shapes = _read(model, compiled, batch_size)

  say = _Progress()
  say('recording the model')
  program = program_lib.Program(model, loss, settings, shapes, proximal_mu, structure)
  signatures = program.signatures()
  say('converting', program.operators)
  data = _convert(program, signatures)
  data = finishing.finish(data, signatures)
  checked = None
  if parity_steps:
    say('comparing with Keras', program.operators)
    batch = batches.Batches(program, loss, shapes, parity_data)
    checked = parity_lib.check(model, data, program, compiled, settings, batch, tolerances, parity_steps, proximal_mu)
  if path is not None:
    path = files.write(path, data, overwrite)
  return TrainingFile(data, path, {name: s.described() for name, s in signatures.items()},
                      flatbuffer.operators(data).counts,
                      tuple(program.weights), tuple(program.state), settings.learning_rate, checked, _notes(program))


def _convert(program, signatures):
  """conversion.convert, with errors that name the layer."""
  functions = {name: signature.function for name, signature in signatures.items()}
  try:
    return conversion.convert(program, functions, variables=True)
  except ExportError as error:
    wanted = set(re.findall(r'(?:tf\.|Flex)(\w+)', str(error)))
    found = [op for function in functions.values() for op in function.get_concrete_function().graph.get_operations()
             if op.type in wanted]
    if not found:
      raise
    raise ExportError(
        f'{place(found[0].name)} needs {found[0].type}, which the built-in runtime does not have: use another '
        'layer or activation.') from error
  except LookupError as error:
    # tf.gradients found an operator without a gradient.
    raise ExportError(f'the model has an operator that cannot be differentiated: {reason(error)}.') from error


class _Progress:
  """Says on standard error what is going on, where it takes more than a second."""

  # Such a model takes that long; and while the converter runs, nothing could be said any more.
  MANY_OPERATORS = 150

  def __init__(self):
    self._start = time.monotonic()

  def __call__(self, what, operators=0):
    if time.monotonic() - self._start > 1 or operators > self.MANY_OPERATORS:
      print(f'training export: {what}', file=sys.stderr, flush=True)


def _check_model(model):
  if not isinstance(model, tf.keras.Model):
    raise ExportError(f'a Keras model of TensorFlow {tf.__version__} is needed, not {type(model).__name__}.')
  if not model.built:
    raise ExportError('the model has no weights yet: give it an Input layer, or call it once on data.')
  program_lib.check_step(model)
  program_lib.check_layers(model)


def _notes(program):
  if not program.mixing:
    return ()
  places = ', '.join(dict.fromkeys(program.mixing))
  return (f'Rows whose sample_weight is 0 count in what {places} computes over a batch, as repeats of the others: '
          'Keras would leave them out.',)


def _read(model, compiled, batch_size):
  """(`Loss`, `Shapes`)"""
  called = getattr(model, '_saved_model_inputs_spec', None)
  inputs = getattr(model, 'inputs', None) or tf.nest.flatten(called)
  if not inputs or inputs[0] is None:
    raise ExportError('this subclassed model does not say what its input looks like: call it once on data.')
  specs = []
  for given in inputs:
    if given.shape.rank is None or None in given.shape[1:]:
      raise ExportError(
          f'the input {given.name!r} has shape {tuple(given.shape)}: all sizes but that of the batch must be fixed.')
    specs.append(tf.TensorSpec([batch_size, *given.shape[1:]], given.dtype))
  multiple, free = len(specs) > 1, all(given.shape[0] is None for given in inputs)
  with program_lib.exportable(model):
    structure = replay.trace(lambda *x: model(list(x) if multiple else x[0], training=False), specs).structured_outputs
  outputs = tf.nest.flatten(structure)
  if len(outputs) != 1:
    raise ExportError(f'the model has {len(outputs)} outputs: make a model with the one that is trained.')
  output = outputs[0]
  if output.dtype != tf.float32 or None in output.shape or output.shape.rank < 2 or output.shape[0] != batch_size:
    raise ExportError(f'the output is {output.dtype.name} of shape {tuple(output.shape)}: '
                      'it must be float32 with the batch first and at least one more axis.')
  shape = tuple(output.shape)
  loss = losses.of(model, compiled, structure)
  return loss, program_lib.Shapes(tuple(specs), loss.label_spec(shape), shape, multiple, free)
