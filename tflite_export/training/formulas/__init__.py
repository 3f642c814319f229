"""Formulas for operators that the built-in runtime cannot compute or differentiate, a family to a file.

A file in this folder is found by being there: importing it enters its formulas into the tables of `registry`.
docs/adding-a-layer-formula.md says how to write one.
"""

import importlib
import pkgutil

from tflite_export.training.formulas.registry import EXAMPLES
from tflite_export.training.formulas.registry import FORWARD
from tflite_export.training.formulas.registry import GRADIENTS
from tflite_export.training.formulas.registry import UNSUPPORTED


def load() -> None:
  """Enters the formulas of every file in this folder."""
  for module in pkgutil.iter_modules(__path__):
    importlib.import_module(f'{__name__}.{module.name}')


load()
