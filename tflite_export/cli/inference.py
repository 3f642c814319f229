"""`tflite-export inference` and `tflite-export compare`."""

import argparse
import dataclasses
import textwrap

from tff_compress.cli import output
from tff_compress.cli import program
from tflite_export.cli import training as training_command
from tflite_export.inference import parts

_DATA = """\
An .npz file has arrays of numbers: x and y for validation, x_train and y_train
for recipes that train. The ranges of activations are measured with x_train if
it is there, and otherwise with x."""


# What errors call it, and what is typed; longer ones first.
_WORDS = {
    'training=Training(loss=…)': '--loss',
    'representative_data=': 'x in the file of --data', 'representative_data': 'x of --data',
    'train_data=(x, y)': 'x_train and y_train in the file of --data',
    'x of train_data': 'x_train of --data', 'y of train_data': 'y_train of --data', 'train_data': 'x_train of --data',
}


def add_inference(parser: argparse.ArgumentParser) -> None:
  """Gives the parser of `inference` its options."""
  parser.set_defaults(function=lambda o: export(o))
  parser.description = 'Turn a Keras model into a .tflite file that predicts, using built-in operators only.'
  parser.epilog = f"""\
parts of a recipe, in this order:
{_parts()}

{_DATA}

example:
  tflite-export inference model.keras --recipe prune:0.9+int8 --data digits.npz -o model.tflite"""
  parser.add_argument('model', metavar='MODEL', help='Keras model (.keras, .h5), or the folder of a SavedModel')
  parser.add_argument('-o', '--output', metavar='FILE', required=True, help='the .tflite file to write')
  parser.add_argument('--recipe', metavar='TEXT', default='int8',
                      help='what to do to the model, parts with + between them (default: int8); see below')
  parser.add_argument('--data', metavar='FILE', help='examples, an .npz file; see below')
  parser.add_argument('--batch-size', metavar='N', type=training_command.POSITIVE, default=1,
                      help='examples in a batch of the file (default: 1)')
  _add_training(parser)
  parser.add_argument('--overwrite', action='store_true', help='replace the file if it exists')
  parser.add_argument('--json', action='store_true', help='print JSON')


def add_compare(parser: argparse.ArgumentParser) -> None:
  """Gives the parser of `compare` its options."""
  parser.set_defaults(function=lambda o: compare(o))
  parser.description = ('Export a model in several ways and show the size, accuracy and latency of each in both '
                        'interpreters.')
  parser.epilog = f"""\
{_DATA} Without x_train,
recipes that train are left out.

`tflite-export inference --help` lists the parts of recipes.

example:
  tflite-export compare model.keras --data digits.npz --recipe int8 --recipe prune:0.9+int8"""
  parser.add_argument('model', metavar='MODEL', help='Keras model (.keras, .h5), or the folder of a SavedModel')
  parser.add_argument('--data', metavar='FILE', required=True, help='examples, an .npz file; see below')
  parser.add_argument('--recipe', metavar='TEXT', action='append',
                      help='a recipe; repeat it for each one to compare (default: a choice of ten)')
  parser.add_argument('--examples', metavar='N', type=training_command.POSITIVE, default=1000,
                      help='measure with at most this many examples of x and y (default: 1000)')
  _add_training(parser)
  parser.add_argument('--json', action='store_true', help='print JSON')


def _parts():
  """The parts of recipes, as lines of help."""
  found = parts.registry().values()
  width = max(len(part.form()) for part in found)
  lines = []
  for part in found:
    more = [part.parameter_text()] if part.parameter_text() else []
    more += [f'needs {" and ".join(part.needs)}'] if part.needs else []
    lines += textwrap.wrap('; '.join([part.summary, *more]), 79, initial_indent=f'  {part.form():{width}}  ',
                           subsequent_indent=' ' * (width + 4))
  return '\n'.join(lines)


def _add_training(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('--student', metavar='MODEL', help='the smaller model that distill trains')
  parser.add_argument('--epochs', metavar='N', type=training_command.POSITIVE, default=8,
                      help='epochs of pruning and distillation (default: 8); clustering and qat take a quarter as many')
  parser.add_argument('--learning-rate', metavar='RATE', type=training_command.RATE, default=1e-3,
                      help='for pruning and distillation (default: 0.001); clustering and qat take a tenth of it')
  training_command.add_loss(parser)
  parser.set_defaults(python_words=_WORDS)


def _read(options):
  """(model, student or None, arrays of the data)"""
  from tflite_export import models
  from tflite_export.errors import ExportError
  from tflite_export.inference import examples
  arrays = examples.read(options.data, ('x', 'y', 'x_train', 'y_train')) if options.data else {}
  if ('x_train' in arrays) != ('y_train' in arrays):
    raise ExportError(f'{options.data} has only one of x_train and y_train: save both or none.')
  return models.load(options.model, layers=False), options.student and models.load(options.student), arrays


def _training(options):
  from tflite_export import inference
  return inference.Training(epochs=options.epochs, later_epochs=-(-options.epochs // 4),
                            loss=training_command.loss(options),
                            learning_rate=options.learning_rate, later_learning_rate=options.learning_rate / 10)


def _train_data(arrays):
  return (arrays['x_train'], arrays['y_train']) if 'x_train' in arrays else None


def export(options: argparse.Namespace) -> None:
  """Makes the file and says what is in it."""
  from tflite_export import files
  from tflite_export.inference import recipes
  files.check_free(options.output, options.overwrite)
  recipe = recipes.parse(options.recipe)
  _need_data(recipe, options)
  from tflite_export import inference
  model, student, arrays = _read(options)
  made = inference.export_inference(
      model, recipe=recipe, representative_data=arrays.get('x_train', arrays.get('x')), train_data=_train_data(arrays),
      student=student, training=_training(options), batch_size=options.batch_size, path=options.output,
      overwrite=options.overwrite)
  report = made.check_edgetpu()
  if options.json:
    output.print_json({'file': str(made.path), 'recipe': made.recipe, 'bytes': made.size, 'gzip_bytes': made.gzip_size,
                       'operators': made.operators, 'inputs': made.inputs, 'outputs': made.outputs,
                       'edgetpu': report.compatible})
    return
  print(output.properties([
      ('file', made.path), ('recipe', made.recipe),
      ('size', f'{output.bytes_text(made.size)}, {output.bytes_text(made.gzip_size)} after gzip'),
      *(('input', f'{name}: {_tensor(tensor)}') for name, tensor in made.inputs.items()),
      *(('output', f'{name}: {_tensor(tensor)}') for name, tensor in made.outputs.items()),
      ('operators', ', '.join(made.operators)),
      ('Edge TPU', report.summary),
  ]))


def _need_data(recipe, options):
  """Says what is missing before TensorFlow is loaded."""
  from tflite_export.errors import ExportError
  if options.data is None and (recipe.trains or recipe.calibrates):
    what = 'x_train and y_train to train with' if recipe.trains else 'x to measure the range of activations with'
    raise ExportError(f'{recipe} needs examples: give --data FILE.npz with {what}.')


def _tensor(tensor):
  text = f'{tensor["dtype"]} [{", ".join(map(str, tensor["shape"]))}]'
  return text if tensor['scale'] is None else f'{text}, {tensor["scale"]:.6g} · (value - {tensor["zero_point"]})'


def compare(options: argparse.Namespace) -> None:
  """Prints the table."""
  from tflite_export.errors import ExportError
  from tflite_export.inference import recipes
  chosen = [recipes.parse(text) for text in options.recipe] if options.recipe else None
  from tflite_export import inference
  from tflite_export import interpreters
  model, student, arrays = _read(options)
  if 'x' not in arrays or 'y' not in arrays:
    raise ExportError(f'{options.data} has no x and y: save validation data under these names.')
  rows = inference.compare(model, (arrays['x'][:options.examples], arrays['y'][:options.examples]), recipes=chosen,
                           train_data=_train_data(arrays), student=student, training=_training(options))
  rows = [dataclasses.replace(row, refused=row.refused and program.in_flags(row.refused, options.flags, _WORDS))
          for row in rows]
  if options.json:
    output.print_json([vars(row) for row in rows])
    return
  metric = next((row.metric for row in rows if row.metric), 'quality')
  header = ['recipe', 'bytes', 'gzip', *(f'{metric}, {name}' for name in interpreters.NAMES),
            *(f'ms, {name}' for name in interpreters.NAMES), 'Edge TPU list']
  cells = [[row.recipe, f'{row.bytes:,}', f'{row.gzip_bytes:,}',
            *(f'{row.quality[name]:.4f}' for name in interpreters.NAMES),
            *(f'{row.milliseconds[name]:.3f}' for name in interpreters.NAMES), 'yes' if row.edgetpu else 'no']
           for row in rows if not row.refused]
  if cells:
    print(output.table(header, cells, '<>>>>>>>'))
  for row in rows:
    if row.refused:
      print(f'{row.recipe}: {output.printable(row.refused)}')
