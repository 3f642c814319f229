"""What `tflite_export` knows to do."""

from docs.tables import code
from docs.tables import Table


def recipe_parts():
  """The parts of recipes, in their order."""
  from tflite_export.inference import parts
  return Table(('part', 'what it does', 'needs'), [
      (code(part.form()), '; '.join(filter(None, (part.summary, part.parameter_text()))), ', '.join(part.needs))
      for part in parts.registry().values()])


def formulas():
  """The operators that have a formula, and those that are known to have none."""
  from tflite_export.training import formulas as tables
  shown = {'`@forward`: computed otherwise': tables.FORWARD, '`@gradient`: differentiated otherwise': tables.GRADIENTS,
           'none: the error says what to use instead': tables.UNSUPPORTED}
  return Table(('formula', 'TensorFlow operators'),
               [(title, ', '.join(map(code, sorted(table)))) for title, table in shown.items()])
