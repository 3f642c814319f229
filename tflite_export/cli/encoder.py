"""`tflite-export encoder` and `decoder`: what computes with real values in a codec, as a .tflite file."""

import argparse
import dataclasses
import os

import numpy as np

from tff_compress import codec as codec_lib
from tff_compress.cli import autoencoders
from tff_compress.cli import output
from tff_compress.cli import specs
from tff_compress.codec import artefacts
from tff_compress.codec import Codec
from tff_compress.codec import Spec
from tff_compress.codec.transforms import autoencoder

_EPILOG = """\
    The model is a Keras model (.keras or .h5), or only the names and shapes of its variables: an .npz file with one
    array per variable, or a .json file such as
      {{"variables": [{{"name": "dense/kernel", "shape": [784, 10], "dtype": "float32"}}]}}

    examples:
      tflite-export {command} 'hadamard | uniform:bits=2 | pack' model.keras -o {command}.tflite
      tflite-export {command} 'concat | autoencoder:32,length=1024 | uniform:bits=8 | rans' model.keras \\
        --autoencoder updates.autoencoder{more} -o {command}.tflite"""


def add_encoder(parser: argparse.ArgumentParser) -> None:
  """Gives the parser of `encoder` its options."""
  parser.set_defaults(function=lambda o: export('encoder', o), python_words={'representative_data': '--examples'})
  parser.description = ('Make a .tflite file that turns an update into the symbols and side values of a codec, bit for '
                        'bit as NumPy does. The coder and the frame are left to the app.')
  parser.epilog = _EPILOG.format(command='encoder', more=' --int8 network.tflite --examples updates.npy')
  _add_common(parser)
  add_error_feedback(parser)
  parser.add_argument('--int8', metavar='FILE',
                      help="write the autoencoder's network to a file of its own, in int8, for an Edge TPU")
  parser.add_argument('--examples', metavar='FILE', nargs='+', action='extend', default=[],
                      help='updates for --int8, as tff-compress fit-autoencoder takes them: .npz files with one array '
                           'per variable, or .npy files with one update per row')


def add_error_feedback(parser: argparse.ArgumentParser) -> None:
  """The option that says whether an encoder takes and gives residuals."""
  parser.add_argument('--error-feedback', action=argparse.BooleanOptionalAction,
                      help='add what earlier messages left out, and return what this one leaves out (default: only for '
                           'presets that are meant for it)')


def add_decoder(parser: argparse.ArgumentParser) -> None:
  """Gives the parser of `decoder` its options."""
  parser.set_defaults(function=lambda o: export('decoder', o), error_feedback=False, int8=None)
  parser.description = 'Make a .tflite file that turns the symbols and side values of a codec into variables.'
  parser.epilog = _EPILOG.format(command='decoder', more='')
  _add_common(parser)


def _add_common(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('codec', metavar='CODEC', help='the codec, such as drive; see tff-compress codecs')
  parser.add_argument('model', metavar='MODEL', help='Keras model, or the spec of one: .keras, .h5, .npz or .json')
  parser.add_argument('-o', '--output', metavar='FILE', required=True, help='the .tflite file to write')
  autoencoders.add_option(parser)
  parser.add_argument('--words', choices=('inside', 'passed'), default='inside',
                      help='whether the file makes its random numbers itself, or the app passes them in (default: '
                           'inside)')
  parser.add_argument('--overwrite', action='store_true', help='replace the file if it exists')
  parser.add_argument('--json', action='store_true',
                      help='print, as JSON, everything that an app needs to know about the file')


def with_autoencoders(codec: Codec, paths: list[str]) -> Codec:
  """The codec with the weights of `autoencoder` stages loaded from files, and filled in where it names none.

  Raises:
    ArtefactError: a file cannot be read or is none of an autoencoder.
    CodecError: weights have no file, or files have no use.
  """
  files = {artefacts.load(path): path for path in paths}
  used = set()

  def filled(pipeline):
    stage = pipeline.stages[0]
    if not isinstance(stage, autoencoder.Autoencoder) or stage.weights == autoencoder.COSINE:
      return pipeline
    if not stage.weights and len(files) == 1:
      stage = dataclasses.replace(stage, weights=next(iter(files)))
    if stage.weights not in files:
      held = ''.join(f'; {path} holds {digest}' for digest, path in files.items())
      asked = f'asks for the weights {stage.weights}' if stage.weights else 'leaves the weights of an autoencoder open'
      raise codec_lib.CodecError(
          f'the codec {asked}{held}: give the file of the ones that are meant with --autoencoder, '
          'and name them in the codec if there are several.')
    used.add(stage.weights)
    return dataclasses.replace(pipeline, stages=(stage, *pipeline.stages[1:]))

  rules = tuple(dataclasses.replace(rule, pipeline=filled(rule.pipeline)) for rule in codec.rules)
  for digest in files.keys() - used:
    raise codec_lib.CodecError(f'the codec does not use {files[digest]} (weights {digest}): leave it out, or name it '
                               'in the codec.')
  return dataclasses.replace(codec, rules=rules)


def export(kind: str, options: argparse.Namespace) -> None:
  """Makes the file and says what goes in and comes out.

  Args:
    kind: 'encoder' or 'decoder'.
    options: what the parser read.

  Raises:
    CompressionError: the codec, the model or the path is of no use.
  """
  codec = with_autoencoders(codec_lib(options.codec), options.autoencoder)
  from tflite_export import files
  from tflite_export.errors import ExportError
  for output_path in (options.output, options.int8):
    if output_path:
      files.check_free(output_path, options.overwrite)
  if kind == 'encoder' and bool(options.int8) != bool(options.examples):
    raise ExportError(
        '--int8 and --examples go together, as what a network in int8 rounds to is measured with updates: '
        'give both or none.')
  # Before TensorFlow is imported, which reads it then; 3 hides what it says about devices that it did not find.
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '0' if options.debug else '3')
  spec = read(options.model)
  output.say(f'making the {kind}: {len(spec.tensors)} variables, {spec.parameters:,} parameters')
  from tflite_export import encoder as encoder_lib
  common = {'path': options.output, 'overwrite': options.overwrite, 'words': options.words}
  if kind == 'encoder':
    if options.int8:
      common |= {'representative_data': _examples(options.examples, spec), 'network_path': options.int8}
    remembers = encoder_lib.remembers(options.codec, options.error_feedback)
    made = encoder_lib.export_encoder(codec, spec, error_feedback=remembers, **common)
  else:
    made = encoder_lib.export_decoder(codec, spec, **common)
  if options.json:
    network = {'network_file': str(made.network_path)} if made.network else {}
    output.print_json({'file': str(made.path), **network, **made.describe()})
    return
  print(output.properties([
      ('file', made.path), ('size', output.bytes_text(len(made.data))), ('codec', codec),
      ('signature', f'{encoder_lib.PIECES}, {made.signature}' if made.network else made.signature),
      ('operators', f'{sum(made.operators.values())}, all built in: {", ".join(made.operators)}')]))
  for title, arrays in (('in', made.inputs), ('out', made.outputs)):
    print('\n' + output.table([title, 'dtype', 'values'], [[a.name, a.dtype, f'{a.size:,}'] for a in arrays], '<<>'))
  if made.requests:
    print('\n' + output.table(['key', 'scope', 'name', 'purpose', 'chunk', 'words'],
                              [[str(r), q.scope, q.name, str(q.purpose), str(q.chunk), f'{q.words:,}']
                               for r, q in enumerate(made.requests)], '><<>>>'))
  if made.network:
    _print_network(made)


def _examples(paths, spec):
  """float32[n, d]: the float variables of the updates in some files."""
  _, rows = autoencoders.read_snapshots(paths, spec)
  return rows[:, np.repeat([tensor.is_float for tensor in spec.tensors], [tensor.size for tensor in spec.tensors])]


def _print_network(made):
  network = made.network
  print('\n' + output.properties([
      ('network', made.network_path), ('size', output.bytes_text(len(network.data))), ('signature', 'network'),
      ('operators', ', '.join(f'{count} {name}' for name, count in network.operators.items())),
      ('error',
       f'{network.errors[1]:.4f} of the examples, {network.errors[0]:.4f} without int8; sending nothing has 1'),
      ('Edge TPU', network.check_edgetpu().summary)]))
  for title, tensors in (('in', network.inputs), ('out', network.outputs)):
    print('\n' + output.table([title, 'dtype', 'shape'],
                              [[tensor.name, 'int8', ' x '.join(map(str, tensor.shape))]
                               for tensor in tensors.values()], '<<<'))



def read(path: str) -> Spec:
  """The `Spec` of a model: of a Keras model in a .keras or .h5 file, or as `specs.read_spec` reads it."""
  if os.path.splitext(path)[1].lower() in ('.keras', '.h5'):
    from tflite_export import models
    return codec_lib.Spec.of(models.load(path))
  return specs.read_spec(path)
