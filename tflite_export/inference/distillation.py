"""Distillation: a smaller model learns what a larger one says (Hinton, Vinyals and Dean 2015)."""

from typing import Any

import numpy as np
import tensorflow as tf

from tflite_export import interpreters
from tflite_export.errors import ExportError
from tflite_export.inference import examples
from tflite_export.inference import finetuning
from tflite_export.inference import program


def distill(teacher: Any, student: Any, data: Any, *, training: finetuning.Training = finetuning.Training()) -> Any:
  """Teaches a smaller model what a trained one says (Hinton, Vinyals and Dean 2015).

  For a classifier the loss is hardness · (cross-entropy with the labels) + (1 - hardness) · T² · (cross-entropy of
  softmax(teacher / T) and softmax(student / T)), with both models' outputs as logits or as probabilities; for other
  models mean squared errors take the places of both.

  Args:
    teacher: trained Keras model. It is not changed.
    student: Keras model with the same inputs and outputs, trained or not. It is not changed.
    data: (x, y), or x alone: then hardness counts as 0.
    training: `Training`: epochs, batch_size, learning_rate, temperature, hardness.

  Returns:
    A trained copy of the student.

  Raises:
    ExportError: inputs, outputs and data do not fit each other.
  """
  training.check()
  specs = program.specs(teacher)
  if isinstance(data, (tuple, list)) and len(data) == 2:
    x, y = examples.labelled(data, specs, 'data')
  else:
    x, y = examples.inputs(data, specs, 'data'), None
  trainer = finetuning.Trainer(x, np.zeros(len(next(iter(x.values())))) if y is None else y, None, training,
                               finetuning.Progress('distillation'))
  return teach(teacher, student, trainer, y is not None)


def teach(teacher: Any, student: Any, trainer: finetuning.Trainer, labelled: bool = True) -> Any:
  """`distill` with a `finetuning.Trainer`."""
  if not isinstance(student, tf.keras.Model):
    raise ExportError(f'the student must be a Keras model, not {type(student).__name__}.')
  if [tuple(i.shape[1:]) for i in student.inputs or ()] != [tuple(i.shape[1:]) for i in teacher.inputs or ()] or (
      student.output_shape != teacher.output_shape) or isinstance(student.output_shape, list):
    raise ExportError(f'the student maps {student.input_shape} to {student.output_shape} and the teacher '
                      f'{teacher.input_shape} to {teacher.output_shape}: both must be the same, with one output.')
  student, settings = finetuning.copy(student), trainer.settings
  trainer.progress.say('asking the teacher')
  with interpreters.quiet():
    said = teacher.predict(trainer.x, batch_size=settings.batch_size, verbose=0)
    answered = student.predict(trainer.x, batch_size=settings.batch_size, verbose=0)
  classes = said.shape[-1]
  y, hardness = trainer.y, settings.hardness if labelled else 0.
  classifies = said.ndim == 2 and classes > 1 and (_are_probabilities(said) or not labelled or y.ndim == 1)
  if not classifies:
    targets = np.stack([said, np.asarray(y, np.float32).reshape(said.shape) if labelled else said], -1)
    trainer.fit(student, 'distillation', y=targets, loss=lambda wanted, got: tf.reduce_mean(
        (1 - hardness) * tf.square(wanted[..., 0] - got) + hardness * tf.square(wanted[..., 1] - got)))
    return student
  if labelled:
    if y.ndim == 1 and (y.min() < 0 or y.max() >= classes):
      raise ExportError(f'the labels go from {y.min()} to {y.max()} and the model has {classes} classes: number them '
                        'from 0.')
    hard = np.eye(classes, dtype=np.float32)[y.astype(np.int64)] if y.ndim == 1 else np.asarray(y, np.float32)
    if hard.shape != said.shape:
      raise ExportError(f'labels of shape {y.shape} do not fit an output of shape {said.shape}: give one class per '
                        'example.')
  else:
    hard = np.zeros_like(said)
  temperature, given = settings.temperature, _are_probabilities(answered)
  soft = tf.nn.softmax(logits_of(said, _are_probabilities(said)) / temperature).numpy()

  def loss(wanted, got):
    logits = logits_of(got, given)
    near = tf.nn.softmax_cross_entropy_with_logits(wanted[:, :classes], logits / temperature) * temperature ** 2
    right = tf.nn.softmax_cross_entropy_with_logits(wanted[:, classes:], logits)
    return tf.reduce_mean((1 - hardness) * near + hardness * right)

  trainer.fit(student, 'distillation', y=np.concatenate([soft, hard], 1), loss=loss)
  return student


def _are_probabilities(output):
  """Whether rows are probabilities."""
  return bool(np.all(output >= 0) and np.allclose(output.sum(-1), 1, atol=1e-3))


def logits_of(output: Any, probabilities: bool) -> Any:
  """A tensor of logits. The logarithm of probabilities is their logits up to a constant, which no softmax sees."""
  return tf.math.log(tf.clip_by_value(output, 1e-7, 1.)) if probabilities else tf.convert_to_tensor(output)
