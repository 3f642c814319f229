"""`tflite-export training`: a model that trains on the device."""

import argparse
from typing import Any

from tff_compress.cli import arguments
from tff_compress.cli import output

LOSSES = {
    'sparse-categorical-crossentropy': 'SparseCategoricalCrossentropy',
    'categorical-crossentropy': 'CategoricalCrossentropy',
    'binary-crossentropy': 'BinaryCrossentropy',
    'mean-squared-error': 'MeanSquaredError',
    'mean-absolute-error': 'MeanAbsoluteError',
}
_WITH_LOGITS = ('sparse-categorical-crossentropy', 'categorical-crossentropy', 'binary-crossentropy')
OPTIMIZERS = ('sgd', 'momentum', 'adam')
POSITIVE = arguments.whole_number(1, 2**20 - 1)
RATE = arguments.number(least=0, below=10**9)
WORDS = {'LowRank': '--structure low-rank'}
"""What errors call it, and what is typed."""


def add_training(parser: argparse.ArgumentParser) -> None:
  """Gives the parser of `training` its options."""
  parser.set_defaults(function=lambda o: export(o), python_words=WORDS)
  parser.description = (
      'Turn a Keras model into a .tflite file with the signatures train, infer, get_weights and set_weights, using '
      'built-in operators only. Before the file is written, a few of its steps are compared with those of Keras.')
  parser.epilog = """\
      example:
        tflite-export training model.keras --loss sparse-categorical-crossentropy --from-logits --optimizer sgd \\
          -o training.tflite"""
  parser.add_argument('model', metavar='MODEL', help='Keras model: a .keras or .h5 file')
  parser.add_argument('-o', '--output', metavar='FILE', required=True, help='the .tflite file to write')
  add_options(parser)
  parser.add_argument('--overwrite', action='store_true', help='replace the file if it exists')
  parser.add_argument('--json', action='store_true', help='print JSON')


def add_options(parser: argparse.ArgumentParser) -> None:
  """The options that say how a model trains."""
  parser.add_argument('--batch-size', metavar='N', type=POSITIVE, default=32, help='examples in a batch (default: 32)')
  add_loss(parser)
  parser.add_argument('--optimizer', choices=OPTIMIZERS,
                      help='the optimizer (default: the one that the model was compiled with)')
  parser.add_argument('--learning-rate', metavar='RATE', type=RATE,
                      help="the optimizer's (default: that of Keras); the app can pass a different one to each step")
  parser.add_argument('--proximal-mu', metavar='MU', type=RATE, default=0.,
                      help="strength of FedProx's pull towards the weights received (default: 0)")
  parser.add_argument('--structure', metavar='TEXT', type=_structure,
                      help='train only part of the weights: random-mask, or low-rank:R with rank R (default: train '
                           'all of them)')


def add_loss(parser: argparse.ArgumentParser) -> None:
  """The options that `loss` reads."""
  parser.add_argument('--loss', metavar='NAME', choices=sorted(LOSSES),
                      help=f'the loss: {", ".join(sorted(LOSSES))} (default: the one that the model was compiled with)')
  parser.add_argument('--from-logits', action='store_true', help="the model's outputs are logits, not probabilities")


def loss(options: argparse.Namespace) -> Any:
  """`tf.keras.losses.Loss` from the options of `add_loss`; None: what the model was compiled with."""
  import tensorflow as tf
  if not options.loss:
    return None
  logits = {'from_logits': options.from_logits} if options.loss in _WITH_LOGITS else {}
  return getattr(tf.keras.losses, LOSSES[options.loss])(**logits)


def _structure(text):
  kind, _, rank = text.partition(':')
  if text == 'random-mask' or (kind == 'low-rank' and rank.isdecimal() and 1 <= int(rank) < 1 << 20):
    return text
  raise argparse.ArgumentTypeError(f'it must be random-mask, or low-rank:R with a whole number R, not {text[:40]!r}')


def optimizer(name: str, learning_rate: float | None) -> Any:
  """`tf.keras.optimizers.Optimizer` of a name in `OPTIMIZERS`; with Keras's own learning rate if that is None."""
  import tensorflow as tf
  rate = {} if learning_rate is None else {'learning_rate': learning_rate}
  if name == 'adam':
    return tf.keras.optimizers.Adam(**rate)
  return tf.keras.optimizers.SGD(momentum=0.9 if name == 'momentum' else 0., **rate)


def settings(options: argparse.Namespace) -> dict:
  """Keyword arguments of `export_training` from the options of `add_options`."""
  from tflite_export import training
  from tflite_export.errors import ExportError
  if options.learning_rate is not None and not options.optimizer:
    raise ExportError('--learning-rate is that of an optimizer: give --optimizer too.')
  found = {'batch_size': options.batch_size, 'proximal_mu': options.proximal_mu, 'loss': loss(options)}
  if options.structure:
    rank = options.structure.partition(':')[2]
    found['structure'] = training.LowRank(int(rank)) if rank else training.RandomMask()
  if options.optimizer:
    found['optimizer'] = optimizer(options.optimizer, options.learning_rate)
  return found


def export(options: argparse.Namespace) -> None:
  """Makes the file and says what is in it."""
  from tflite_export import files
  files.check_free(options.output, options.overwrite)
  from tflite_export import models
  from tflite_export import training
  made = training.export_training(models.load(options.model), path=options.output, overwrite=options.overwrite,
                                  **settings(options))
  if options.json:
    output.print_json({'file': str(made.path), 'bytes': made.size, 'operators': made.operators, 'weights': made.weights,
                       'state': made.state, 'learning_rate': made.learning_rate, 'notes': made.notes,
                       'signatures': {name: sorted(parts['inputs']) for name, parts in made.signatures.items()}})
    return
  print(output.properties([
      ('file', made.path), ('size', output.bytes_text(made.size)),
      ('signatures', ', '.join(made.signatures)),
      ('weights', f'{len(made.weights)} variables'),
      ('state', f'{len(made.state)} variables of the optimizer and of layers' if made.state else None),
      ('learning rate', made.learning_rate),
      ('operators', ', '.join(made.operators)),
      *(('note', note) for note in made.notes),
  ]))
