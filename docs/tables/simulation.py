"""Data sets, models, and the kinds of data that they are for."""

from docs.tables import code
from docs.tables import Table
from tff_compress.simulation import datasets as datasets_lib
from tff_compress.simulation import kinds as kinds_lib
from tff_compress.simulation import models as models_lib


def datasets():
  """Every data set."""
  rows = [(code(name), source.kind.name, source.summary, source.files or 'nothing')
          for name, source in sorted(datasets_lib.SOURCES.items())]
  return Table(('data set', 'kind', 'what it is', '`--data-dir` is'), rows)


def models():
  """Every model."""
  rows = [(code(name), ', '.join(kind.name for kind in model.kinds), model.layers,
           ' × '.join('any' if size is None else str(size) for size in model.input_shape), f'{model.num_classes:,}',
           f'{model.parameters:,}', model.source) for name, model in sorted(models_lib.ARCHITECTURES.items())]
  return Table(('model', 'kind', 'layers', 'input', 'outputs', 'parameters', 'source'), rows)


def kinds():
  """Every kind of data."""
  rows = [(kind.name, f'{kind.x_dtype} {code(kind.x_shape)}', f'{kind.y_dtype} {code(kind.y_shape)}',
           code(kind.output_shape), kind.trained_on) for kind in kinds_lib.KINDS]
  return Table(('kind', '`x`', '`y`', 'the model returns', 'trained on, measured by'), rows)
