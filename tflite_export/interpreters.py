"""The interpreters that exports are run in: the one that TensorFlow 2.14 ships, and LiteRT's."""

from collections.abc import Iterator
import contextlib
import os
from typing import Any

import numpy as np

from tflite_export.errors import ExportError
from tflite_export.errors import FileError

NAMES = ('tf.lite', 'litert')


def _make(name, data, threads):
  if name == 'tf.lite':
    import tensorflow as tf
    return tf.lite.Interpreter(model_content=data, num_threads=threads)
  if name == 'litert':
    from ai_edge_litert import interpreter
    return interpreter.Interpreter(model_content=data, num_threads=threads)
  raise ExportError(f'there is no interpreter {name!r}: choose from {", ".join(NAMES)}.')


class Interpreter:
  """A .tflite file in one interpreter. What a file remembers (variables) lives as long as this object.

  Args:
    data: bytes of the file.
    name: one of `NAMES`.
    threads: how many threads it computes with.

  Raises:
    FileError: the interpreter refuses the file.
  """

  def __init__(self, data: bytes, name: str = 'tf.lite', threads: int = 1) -> None:
    self.name = name
    try:
      self._interpreter = _make(name, bytes(data), threads)
      self._signatures = self._interpreter.get_signature_list()
    except (ValueError, RuntimeError) as error:
      raise FileError(f'{name} refuses this file: {str(error).splitlines()[0][:200]}') from None
    self._runners: dict[str, Any] = {}

  @property
  def signatures(self) -> dict:
    """{signature: {'inputs': [names], 'outputs': [names]}}"""
    return self._signatures

  def details(self, signature: str) -> tuple[dict, dict]:
    """(inputs, outputs) of a signature: {name: dict with shape, dtype, quantization, …} each."""
    runner = self._runner(signature)
    return runner.get_input_details(), runner.get_output_details()

  def _runner(self, signature):
    if signature not in self._runners:
      if signature not in self._signatures:
        raise ExportError(f'this file has no signature {signature!r}; it has {", ".join(self._signatures) or "none"}.')
      try:
        self._runners[signature] = self._interpreter.get_signature_runner(signature)
      except (ValueError, RuntimeError) as error:
        raise FileError(
            f'{self.name} cannot prepare the signature {signature!r}: {str(error).splitlines()[0][:200]}') from None
    return self._runners[signature]

  def run(self, signature: str, **inputs: Any) -> dict[str, np.ndarray]:
    """Runs a signature: arrays in, {name: array} out. A number counts as an array of one: no input is without axes."""
    try:
      return self._runner(signature)(**{name: np.atleast_1d(value) for name, value in inputs.items()})
    except (ValueError, RuntimeError) as error:
      raise ExportError(
          f'{self.name} fails in the signature {signature!r}: {str(error).splitlines()[0][:200]}') from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """Hides what the interpreters' C++ code prints on standard error, such as which delegate they use."""
  with open(os.devnull, 'w', encoding='utf-8') as nowhere:
    saved = os.dup(2)
    os.dup2(nowhere.fileno(), 2)
    try:
      yield
    finally:
      os.dup2(saved, 2)
      os.close(saved)
