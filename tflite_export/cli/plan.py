"""`tflite-export plan`: everything a device needs, in one folder."""

import argparse

from tff_compress.cli import autoencoders
from tff_compress.cli import output
from tflite_export.cli import encoder
from tflite_export.cli import training

_CHANGES = {None: '', 'last': ', of what changed since the last message', 'start': ', of what changed since the start'}


def add_plan(parser: argparse.ArgumentParser) -> None:
  """Gives the parser of `plan` its options."""
  parser.set_defaults(function=plan, python_words={'representative_data': 'x of --data', **training.WORDS})
  parser.description = (
      'Make a folder with a training model, the encoder of the uplink, the decoder of the downlink, an inference '
      'model, and plan.json, which describes them. The same input gives the same bytes.')
  parser.epilog = """\
      example:
        tflite-export plan model.keras --uplink 'hadamard | uniform:bits=2 | pack' --downlink int8 \\
          --data validation.npz -o plan"""
  parser.add_argument('model', metavar='MODEL', help='Keras model: a .keras or .h5 file')
  parser.add_argument('--uplink', metavar='CODEC', required=True, help="codec of the clients' updates")
  parser.add_argument('--downlink', metavar='CODEC',
                      help='codec of the weights that the server sends, or of what changed in them, if it is a preset '
                           'that is meant for changes (default: float32)')
  parser.add_argument('-o', '--output', metavar='FOLDER', required=True, help='the folder to make')
  autoencoders.add_option(parser)
  training.add_options(parser)
  parser.add_argument('--words', choices=('inside', 'passed'), default='inside',
                      help='whether encoder and decoder make their random numbers themselves, or the app passes '
                           'them in (default: inside)')
  encoder.add_error_feedback(parser)
  parser.add_argument('--recipe', metavar='NAME',
                      help='how the inference model is made; see tflite-export inference --help (default: int8 with '
                           '--data, dynamic without)')
  parser.add_argument('--data', metavar='FILE',
                      help='.npz file with examples in x_train or x, to calibrate an int8 model with')
  parser.add_argument('--overwrite', action='store_true', help='replace a plan that is there already')
  parser.add_argument('--json', action='store_true', help='print plan.json')


def plan(options: argparse.Namespace) -> None:
  """Makes a plan and says what is in it."""
  from tff_compress import codec as codec_lib
  # A wrong codec is found before TensorFlow is imported.
  codec = encoder.with_autoencoders(codec_lib(options.uplink), options.autoencoder)
  if options.downlink:
    codec_lib(options.downlink)
  from tflite_export import encoder as encoder_lib
  from tflite_export import manifest
  from tflite_export import models
  from tflite_export.errors import ExportError
  from tflite_export.inference import examples
  arrays = examples.read(options.data, ('x', 'x_train')) if options.data else {}
  if options.data and not arrays:
    raise ExportError(f'{options.data} has neither x nor x_train: save examples under one of these names.')
  data = arrays.get('x_train', arrays.get('x'))
  model = models.load(options.model)
  made = manifest.export_plan(
      model, uplink=codec, downlink=options.downlink, path=options.output, overwrite=options.overwrite,
      words=options.words, error_feedback=encoder_lib.remembers(options.uplink, options.error_feedback),
      recipe=options.recipe, representative_data=data, **training.settings(options))
  if options.json:
    output.print_json(made.manifest)
    return
  entries, uplink, downlink = made.manifest['files'].values(), made.manifest['uplink'], made.manifest['downlink']
  print(output.table(['file', 'bytes', 'needs', 'SHA-256'],
                     [[entry['file'], f'{entry["bytes"]:,}', entry['min_runtime_version'], entry['sha256'][:16]]
                      for entry in entries],
                     '<>><'))
  print()
  print(output.properties([
      ('plan', made.path),
      ('model', f'{made.manifest["model"]["name"]}, {made.manifest["model"]["parameters"]:,} parameters'),
      ('uplink', f'{uplink["codec"]}{", with error feedback" if uplink["error_feedback"] else ""}'),
      ('downlink', f'{downlink["codec"]}{_CHANGES[downlink["changes"]]}' if downlink else 'float32'),
      ('runtime', f'TensorFlow Lite {made.manifest["min_runtime_version"]} or later, built-in operators only'),
  ]))
