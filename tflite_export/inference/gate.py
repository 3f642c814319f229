"""The gate that every file which predicts passes: it must say what the model says, each time as if it were the first.

What is compared is the model's own `predict_on_batch`, on several batches that one interpreter is given one after the
other.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from tflite_export import interpreters
from tflite_export import models
from tflite_export.errors import ExportError
from tflite_export.errors import FileError
from tflite_export.errors import ParityError
from tflite_export.inference import program as program_lib
from tflite_export.inference import recipes
from tflite_export.training import batches as batches_lib
from tflite_export.training import replay

BATCHES = 8
"""Batches of the gate, at most."""

SMALL = 1e-3
"""What is added to the size of each wanted value, so that outputs that are zero but for rounding have something to be
held against."""


def check(data: bytes, model: Any, recipe: recipes.Recipe, batch_size: int, examples: dict | None = None) -> tuple[dict,
          dict]:
  """Runs a file in both interpreters, and compares it with the model.

  Args:
    data: bytes of the file.
    model: what it was made from: a Keras model, or `models.Exported`.
    recipe: `recipes.Recipe`
    batch_size: examples in a batch of the file.
    examples: {input: array [n, …]}; None: random ones.

  Returns:
    (inputs, outputs): {name: {'dtype', 'shape', 'scale', 'zero_point'}} each.

  Raises:
    ExportError: the model itself does not take the examples.
    ParityError: it does not run, remembers, or is farther from the model than the `tolerance` of its storage.
  """
  given = examples is not None
  if examples is None:
    examples = random_examples(model, batch_size)
  count = min(BATCHES, len(next(iter(examples.values()))) // batch_size)
  batches = [{name: values[n * batch_size:(n + 1) * batch_size] for name, values in examples.items()}
             for n in range(count)]
  try:
    wanted = [predictions(model, batch) for batch in batches]
  except Exception as error:
    # Whatever a model may not take: words that it has not, for example.
    reason = next(line.strip() for line in [*reversed(str(error).splitlines()), type(error).__name__] if line.strip())
    raise ExportError(f'the model fails on {"the" if given else "random"} examples that its file is compared on '
                      f'({reason[:150]}): give representative_data as it will see them.') from error
  for name in interpreters.NAMES:
    try:
      with interpreters.quiet():
        file = File(interpreters.Interpreter(data, name))
        found = [file.predict(batch) for batch in batches]
        again = file.predict(batches[0])
    except (FileError, ExportError) as error:
      raise ParityError(f'the file that {recipe} gives does not run: {str(error).rstrip(".")}.') from None
    for position, output in enumerate(file.outputs):
      if not np.array_equal(again[position], found[0][position], equal_nan=True):
        raise ParityError(f'in {name}, the file that {recipe} gives answers the same examples differently the second '
                          'time: use layers that keep nothing between calls and draw no random numbers.')
      distance = _error([values[position] for values in found], [values[position] for values in wanted])
      if not distance <= recipe.storage.tolerance:
        raise ParityError(f'in {name}, {output} of the file that {recipe} gives is off by {distance:.2g} relative to '
                          f'Keras, and {recipe.storage.tolerance:.2g} is allowed: {recipe.advice}.')
  return file.inputs, file.outputs


def _error(found, wanted):
  """||found - wanted|| / ||wanted|| of lists of arrays; 0 for outputs that are whole numbers, such as a class."""
  found, wanted = np.concatenate(found).astype(np.float64), np.concatenate(wanted)
  if wanted.dtype.kind != 'f':
    return 0.
  # Infinities and NaN are right where the model has the same.
  same = (found == wanted) | (np.isnan(found) & np.isnan(wanted))
  difference = np.where(same, 0, found - wanted)
  return np.linalg.norm(difference) / np.linalg.norm(np.abs(np.where(same & ~np.isfinite(wanted), 0, wanted)) + SMALL)


def predictions(model: Any, batch: dict) -> list[np.ndarray]:
  """What a model itself says to a batch {input: array}: list of arrays, one for each output."""
  if isinstance(model, models.Exported):
    outputs = model.function(**{name: tf.constant(values) for name, values in zip(model.inputs, batch.values())})
    return [outputs[name].numpy() for name in sorted(outputs)]
  values = list(batch.values())
  outputs = model.predict_on_batch(values if len(values) > 1 else values[0])
  return [np.asarray(output) for output in tf.nest.flatten(outputs)]


def random_examples(model: Any, batch_size: int) -> dict[str, np.ndarray]:
  """{input: array [n, …]} of random values in the range that the model's first layers expect: see `batches.Draw`."""
  _, function = program_lib.traced(model, batch_size)
  specs = program_lib.specs(model)
  recording = replay.Recording.of(function, len(specs), function.graph.variables)
  generator, drawn = np.random.default_rng(0), {}
  for number, (name, spec) in enumerate(specs.items()):
    draw = batches_lib.Draw(recording, number, tf.TensorSpec([batch_size, *spec.shape[1:]], spec.dtype))
    drawn[name] = np.concatenate([draw(generator) for _ in range(BATCHES)])
  return drawn


class File:
  """A file that predicts, with what its integers stand for.

  Args:
    interpreter: `interpreters.Interpreter` of it.

  Attributes:
    inputs, outputs: {name: {'dtype', 'shape', 'scale', 'zero_point'}}, as in `InferenceFile`.
  """

  def __init__(self, interpreter: interpreters.Interpreter) -> None:
    self._interpreter = interpreter
    self.inputs, self.outputs = map(_described, interpreter.details(program_lib.SIGNATURE))

  def encode(self, x: dict) -> dict[str, np.ndarray]:
    """Examples {input: array} as the file takes them."""
    encoded = {}
    for name, tensor in self.inputs.items():
      values = x[name]
      if tensor['scale'] is not None:
        limits = np.iinfo(tensor['dtype'])
        values = np.clip(np.round(values / tensor['scale']) + tensor['zero_point'], limits.min, limits.max)
      encoded[name] = values.astype(tensor['dtype'])
    return encoded

  def run(self, encoded: dict) -> dict[str, np.ndarray]:
    """{output: array} as the file gives it."""
    return self._interpreter.run(program_lib.SIGNATURE, **encoded)

  def decode(self, name: str, values: np.ndarray) -> np.ndarray:
    """What an output's values stand for."""
    tensor = self.outputs[name]
    if tensor['scale'] is None:
      return values
    return (values.astype(np.float32) - tensor['zero_point']) * np.float32(tensor['scale'])

  def predict(self, x: dict) -> list[np.ndarray]:
    """The outputs for one batch {input: array}: list of arrays, in the order of `outputs`."""
    answers = self.run(self.encode(x))
    return [self.decode(name, answers[name]) for name in self.outputs]


def _described(tensors):
  found = {}
  # x_2 before x_10.
  for name, tensor in sorted(tensors.items(), key=lambda item: (len(item[0]), item[0])):
    scale, zero_point = tensor['quantization']
    found[name] = {'dtype': np.dtype(tensor['dtype']).name, 'shape': tuple(int(size) for size in tensor['shape']),
                   'scale': float(scale) or None, 'zero_point': int(zero_point) if scale else None}
  return found
