"""From a model and a recipe to a file that predicts."""

import dataclasses
import gzip
import os
import pathlib
from typing import Any

from tff_compress.codec import checks
from tflite_export import conversion
from tflite_export import edgetpu
from tflite_export import files
from tflite_export import flatbuffer
from tflite_export import models
from tflite_export.errors import ExportError
from tflite_export.inference import examples
from tflite_export.inference import finetuning
from tflite_export.inference import gate
from tflite_export.inference import part as part_lib
from tflite_export.inference import parts
from tflite_export.inference import program as program_lib
from tflite_export.inference import recipes

MOST_CALIBRATION = 256
"""Examples that activations are measured with; further ones of the representative data are left out."""


@dataclasses.dataclass(frozen=True)
class InferenceFile:
  """What an export made.

  Attributes:
    data: the file, as bytes.
    path: where it was written, or None.
    recipe: the recipe as text.
    operators: {name: count} of built-in operators.
    inputs, outputs: {name: {'dtype', 'shape', 'scale', 'zero_point'}} of the signature 'infer'. A value v of an 8-bit
      tensor stands for scale · (v - zero_point); scale is None where values are what they are.
  """
  data: bytes
  path: pathlib.Path | None
  recipe: str
  operators: dict
  inputs: dict
  outputs: dict

  @property
  def size(self) -> int:
    """Bytes of the file."""
    return len(self.data)

  @property
  def gzip_size(self) -> int:
    """Bytes of the file after gzip, as an app's package or a download stores it."""
    return len(gzip.compress(self.data, 9, mtime=0))

  def check_edgetpu(self) -> edgetpu.Report:
    """`edgetpu.Report` of the file."""
    return edgetpu.check_edgetpu(self.data)


def export_inference(model: Any, *, recipe: recipes.Recipe | str = 'int8', representative_data: Any = None,
                     train_data: Any = None, student: Any = None, training: finetuning.Training = finetuning.Training(),
                     batch_size: int = 1, path: str | os.PathLike[str] | None = None, overwrite: bool = False,
                     progress: finetuning.Progress | None = None) -> InferenceFile:
  """Makes a .tflite file that predicts, with the built-in operators alone.

  Its one signature is 'infer'. Before the file is returned or written, it is compared with the model in both
  interpreters.
  Without a part that trains, the same model and data give the same bytes.

  Args:
    model: a built Keras model of float32; for recipes that do not train also a `models.Exported`. It is not changed.
    recipe: text such as 'int8' or 'prune:0.9+cluster:16+int8'; docs/inference-on-device.md lists the parts.
    representative_data: examples as the model will see them, [n, …], or one array per input: int8 measures the range
      of activations with up to 256 of them, and the file is compared with the model on the first ones.
    train_data: (x, y), for the parts that train.
    student: Keras model that `distill` trains in the place of `model`.
    training: `Training`: epochs, learning rates, loss.
    batch_size: examples in a batch of the file.
    path: file to write; None: none, see the result's `data`.
    overwrite: whether `path` may exist.
    progress: `finetuning.Progress` that says what goes on; a new one by default.

  Returns:
    `InferenceFile`

  Raises:
    ExportError: the model, the recipe, the data or an option do not go together; the message says what to do.
    ParityError: the file does not predict as the model does.
    FileError: `path` exists or cannot be written.
  """
  recipe = recipes.parse(recipe)
  if path is not None:
    files.check_free(path, overwrite)
  checks.whole_number('batch_size', batch_size, ExportError, least=1, most=2**20 - 1)
  training.check()
  specs = program_lib.specs(model)
  progress = progress or finetuning.Progress()
  shown = None
  if representative_data is not None:
    shown = examples.inputs(representative_data, specs, 'representative_data')
    if len(next(iter(shown.values()))) < batch_size:
      raise ExportError(f'representative_data has fewer examples than a batch ({batch_size}): give more.')
  elif recipe.calibrates:
    raise ExportError(f'{recipe} measures the range of activations: give about a hundred examples as the model will '
                      'see them (representative_data=).')
  if recipe.changes:
    model = _changed(model, recipe, specs, train_data, student, training, progress)
  progress.say('converting')
  data = _convert(model, recipe, batch_size, shown)
  inputs, outputs = gate.check(data, model, recipe, batch_size, shown)
  if path is not None:
    path = files.write(path, data, overwrite)
  return InferenceFile(data, path, str(recipe), flatbuffer.operators(data).counts, inputs, outputs)


def _changed(model, recipe, specs, train_data, student, training, progress):
  """The model after the parts that change it."""
  if isinstance(model, models.Exported):
    *others, last = parts.storages()
    does = 'trains' if recipe.trains else 'changes them'
    raise ExportError(f'{model.name} holds no Keras layers, and {recipe} {does}: choose from {", ".join(others)} '
                      f'and {last}.')
  if recipe.trains and train_data is None:
    raise ExportError(f'{recipe} trains the model further: give training data (train_data=(x, y)).')
  x, y = examples.labelled(train_data, specs, 'train_data') if recipe.trains else (None, None)
  teaches = next((part.name for part in recipe.changes if part_lib.STUDENT in part.needs), None)
  if teaches and student is None:
    raise ExportError(f'{teaches} needs the smaller model that learns: give a student (student=).')
  loss = training.loss or getattr(model, 'loss', None)
  if loss is None and part_lib.LOSS in recipe.needs:
    raise ExportError('there is no loss: compile the model with one, or give training=Training(loss=…).')
  trainer = finetuning.Trainer(x, y, loss, training, progress) if recipe.trains else None
  # What cannot become a file is found before it is trained.
  program_lib.traced(student if teaches else model, 1, recipe.calibrates)
  keep = frozenset()
  for part in recipe.changes:
    model = part.change(model, trainer, student, keep)
    keep |= frozenset(part.leaves)
  return model


def _convert(model, recipe, batch_size, shown):
  """Bytes of the file."""
  module, function = program_lib.traced(model, batch_size, recipe.calibrates)

  def batches():
    rows = min(MOST_CALIBRATION, len(next(iter(shown.values()))) // batch_size)
    for row in range(rows):
      piece = slice(row * batch_size, (row + 1) * batch_size)
      yield program_lib.SIGNATURE, {name: array[piece] for name, array in shown.items()}

  def configure(converter):
    for part in recipe.conversion:
      part.configure(converter, program_lib.specs(model), batches if recipe.calibrates else None)

  return conversion.convert(module, {program_lib.SIGNATURE: function}, configure)
