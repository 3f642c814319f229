"""Recipes side by side on validation data: sizes, accuracy and latency in both interpreters."""

from collections.abc import Sequence
import dataclasses
import sys
import time
from typing import Any

import numpy as np

from tflite_export import interpreters
from tflite_export.errors import ExportError
from tflite_export.inference import examples
from tflite_export.inference import export
from tflite_export.inference import finetuning
from tflite_export.inference import gate
from tflite_export.inference import program as program_lib
from tflite_export.inference import recipes as recipes_lib

CALLS = 50
"""Calls of which the fastest is a latency, unless they take more than `SECONDS`."""
SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class Row:
  """What a recipe comes to.

  Attributes:
    recipe: text.
    bytes, gzip_bytes: size of the file as it is and after gzip.
    metric: 'accuracy' (share of examples whose class is right) or 'mean absolute error'.
    quality: {interpreter: the metric's value}
    milliseconds: {interpreter: the fastest of some calls with one example and one thread}
    edgetpu: whether the file is statically compatible with the Edge TPU's documented operator list.
    refused: why there is no file; '' where there is one. Then what is above is None.
  """
  recipe: str
  bytes: int | None = None
  gzip_bytes: int | None = None
  metric: str | None = None
  quality: dict[str, float] | None = None
  milliseconds: dict[str, float] | None = None
  edgetpu: bool | None = None
  refused: str = ''


class Predictor:
  """A file in one interpreter: float32 examples in, float32 predictions out, whatever the file computes with.

  Args:
    made: `InferenceFile` with batch size 1.
    name: one of `interpreters.NAMES`.
  """

  def __init__(self, made: export.InferenceFile, name: str) -> None:
    with interpreters.quiet():
      self._file = gate.File(interpreters.Interpreter(made.data, name))
      self.predict({key: np.zeros((1, *tensor['shape'][1:])) for key, tensor in made.inputs.items()})

  def predict(self, x: dict) -> np.ndarray:
    """First output for examples {input: [n, …]}: float32[n, …]."""
    encoded = self._file.encode(x)
    name = next(iter(self._file.outputs))
    answers = np.stack([self._file.run({key: values[row:row + 1] for key, values in encoded.items()})[name][0]
                        for row in range(len(next(iter(encoded.values()))))])
    return self._file.decode(name, answers).astype(np.float32)

  def seconds(self, x: dict) -> float:
    """How long the fastest of some calls with the first example takes."""
    first = self._file.encode({key: values[:1] for key, values in x.items()})
    best, start = float('inf'), time.perf_counter()
    for _ in range(CALLS):
      begin = time.perf_counter()
      self._file.run(first)
      end = time.perf_counter()
      best = min(best, end - begin)
      if end - start > SECONDS:
        break
    return best


def compare(model: Any, data: Any, *, recipes: Sequence | None = None, train_data: Any = None,
            representative_data: Any = None, student: Any = None, training: finetuning.Training = finetuning.Training(),
            timing_rounds: int = 3) -> list[Row]:
  """Exports a model in several ways and measures each on validation data, in both interpreters.

  Args:
    model, train_data, student, training: as `export_inference` takes them.
    data: (x, y) of validation. Integer labels [n] or one-hot ones are compared by class, everything else by the mean
      absolute error.
    recipes: texts; None: `recipes.COMPARED`, without those that train where there is no train_data.
    representative_data: as `export_inference` takes it; None: x of train_data, or else of the validation data.
    timing_rounds: how often the recipes are timed in turns.

  Returns:
    list of `Row`, in the order of the recipes. A recipe that this model or data do not allow has a row with the reason.

  Raises:
    ExportError: model and data do not fit each other, or a recipe's text is wrong.
  """
  if recipes is None:
    recipes = [text for text in recipes_lib.COMPARED if train_data is not None or not recipes_lib.parse(text).trains]
  parsed = [recipes_lib.parse(recipe) for recipe in recipes]
  specs = program_lib.specs(model)
  x, y = examples.labelled(data, specs, 'the validation data')
  if representative_data is None:
    representative_data = x if train_data is None else examples.labelled(train_data, specs, 'train_data')[0]
  rows, timed = [], {}
  progress = finetuning.Progress('compare')
  for number, recipe in enumerate(parsed):
    print(f'compare: {recipe} ({number + 1} of {len(parsed)})', file=sys.stderr, flush=True)
    try:
      made = export.export_inference(model, recipe=recipe, train_data=train_data, student=student, training=training,
                                     representative_data=representative_data, progress=progress)
    except ExportError as error:
      rows.append(Row(str(recipe), refused=str(error)))
      continue
    quality = {}
    for name in interpreters.NAMES:
      progress.say(f'{recipe} in {name}')
      timed[recipe, name] = Predictor(made, name)
      metric, quality[name] = measure(timed[recipe, name].predict(x), y)
    rows.append(Row(str(recipe), made.size, made.gzip_size, metric, quality, None, made.check_edgetpu().compatible))
  best = dict.fromkeys(timed, float('inf'))
  for _ in range(timing_rounds):
    for key, predictor in timed.items():
      best[key] = min(best[key], predictor.seconds(x))
  return [row if row.refused else dataclasses.replace(row, milliseconds={
      name: 1e3 * best[recipe, name] for name in interpreters.NAMES}) for row, recipe in zip(rows, parsed)]


def measure(answers: np.ndarray, y: np.ndarray) -> tuple[str, float]:
  """How good answers are: (metric's name, value).

  Args:
    answers: float32[n, …].
    y: labels [n], [n, 1], or of the answers' shape.

  Raises:
    ExportError: they do not fit.
  """
  flat = y.reshape(-1) if y.size == len(y) else None
  if answers.ndim == 2 and answers.shape[1] > 1 and flat is not None and y.dtype.kind in 'biu':
    if flat.max() >= answers.shape[1] or flat.min() < 0:
      raise ExportError(f'the labels go from {flat.min()} to {flat.max()} and the model has {answers.shape[1]} '
                        'classes: number them from 0.')
    return 'accuracy', float(np.mean(answers.argmax(1) == flat))
  if answers.size == len(answers) and flat is not None and y.dtype.kind in 'biu' and set(np.unique(flat)) <= {0, 1}:
    # One output is a probability, or else a logit.
    middle = 0.5 if answers.min() >= 0 and answers.max() <= 1 else 0
    return 'accuracy', float(np.mean((answers.reshape(-1) > middle) == flat))
  wanted = y.reshape(answers.shape) if y.size == answers.size else None
  if wanted is None:
    raise ExportError(f'labels of shape {y.shape} do not fit an output of shape {answers.shape}: give one per example.')
  if answers.ndim == 2 and answers.shape[1] > 1 and np.all(np.sort(wanted, 1) == np.eye(answers.shape[1])[-1]):
    return 'accuracy', float(np.mean(answers.argmax(1) == wanted.argmax(1)))
  return 'mean absolute error', float(np.mean(np.abs(answers - wanted)))
