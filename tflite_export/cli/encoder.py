"""`tflite-export encoder` and `decoder`: what computes with real values in a codec, as a .tflite file."""

import os

from tff_compress import codec as codec_lib
from tff_compress.cli import output
from tff_compress.cli import specs

_EPILOG = """\
    The model is a Keras model (.keras or .h5), or only the names and shapes of its variables: an .npz file with one
    array per variable, or {{"variables": [{{"name": "dense/kernel", "shape": [784, 10], "dtype": "float32"}}]}} in .json.

    example:
      tflite-export {command} 'hadamard | uniform:bits=2 | pack' model.keras -o {command}.tflite"""


def add_encoder(parser):
  """Gives the parser of `encoder` its options."""
  parser.set_defaults(function=lambda o: export('encoder', o))
  parser.description = ('Make a .tflite file that turns an update into the symbols and side values of a codec, bit for '
                        'bit as NumPy does. Coders and frame are left to the app.')
  parser.epilog = _EPILOG.format(command='encoder')
  _add_common(parser)
  parser.add_argument('--error-feedback', action='store_true',
                      help='add what earlier messages left out, and give what this one leaves out')


def add_decoder(parser):
  """Gives the parser of `decoder` its options."""
  parser.set_defaults(function=lambda o: export('decoder', o), error_feedback=False)
  parser.description = 'Make a .tflite file that turns the symbols and side values of a codec into variables.'
  parser.epilog = _EPILOG.format(command='decoder')
  _add_common(parser)


def _add_common(parser):
  parser.add_argument('codec', metavar='CODEC', help='the codec, such as drive; see tff-compress codecs')
  parser.add_argument('model', metavar='MODEL', help='Keras model, or the spec of one: .keras, .h5, .npz or .json')
  parser.add_argument('-o', '--output', metavar='FILE', required=True, help='the .tflite file to write')
  parser.add_argument('--words', choices=('inside', 'passed'), default='inside',
                      help='whether the file makes its random numbers or the app does (default: inside)')
  parser.add_argument('--overwrite', action='store_true', help='replace the file if it exists')
  parser.add_argument('--json', action='store_true', help='print JSON: all that an app needs to know about the file')


def export(kind, options):
  """Makes the file and says what goes in and comes out.

  Args:
    kind: 'encoder' or 'decoder'.
    options: what the parser read.

  Raises:
    CompressionError: the codec, the model or the path is of no use.
  """
  # pylint: disable=g-import-not-at-top
  codec = codec_lib(options.codec)
  from tflite_export import files
  files.check_free(options.output, options.overwrite)
  # Before TensorFlow is imported, which reads it then; 3 hides what it says about devices that it did not find.
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '0' if options.debug else '3')
  spec = read(options.model)
  output.say(f'making the {kind}: {len(spec.tensors)} variables, {spec.parameters:,} parameters')
  from tflite_export import encoder as encoder_lib
  common = {'path': options.output, 'overwrite': options.overwrite, 'words': options.words}
  if kind == 'encoder':
    made = encoder_lib.export_encoder(codec, spec, error_feedback=options.error_feedback, **common)
  else:
    made = encoder_lib.export_decoder(codec, spec, **common)
  if options.json:
    output.print_json({'file': str(made.path), **made.describe()})
    return
  print(output.properties([
      ('file', made.path), ('size', output.bytes_text(len(made.data))), ('codec', codec), ('signature', made.signature),
      ('operators', f'{sum(made.operators.values())}, all built in: {", ".join(made.operators)}')]))
  for title, arrays in (('in', made.inputs), ('out', made.outputs)):
    print('\n' + output.table([title, 'dtype', 'values'], [[a.name, a.dtype, f'{a.size:,}'] for a in arrays], '<<>'))
  if made.requests:
    print('\n' + output.table(['key', 'scope', 'name', 'purpose', 'chunk', 'words'],
                              [[str(r), q.scope, q.name, str(q.purpose), str(q.chunk), f'{q.words:,}']
                               for r, q in enumerate(made.requests)], '><<>>>'))


def read(path):
  """The `Spec` of a model: of a Keras model in a .keras or .h5 file, or as `specs.read_spec` reads it."""
  if os.path.splitext(path)[1].lower() in ('.keras', '.h5'):
    from tflite_export import models  # pylint: disable=g-import-not-at-top
    return codec_lib.Spec.of(models.load(path))
  return specs.read_spec(path)
