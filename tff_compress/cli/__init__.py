"""The command `tff-compress`.

`main` reads the command line and keeps the promises that hold for every command: bad input is one sentence on standard
error and exit code 2; an unexpected error is one sentence and exit code 1 (--debug shows the traceback); Ctrl-C is 130; a
reader that goes away (`| head`) ends the command quietly. Results go to standard output, progress to standard error.

One file per command: codecs.py, frames.py (`inspect`), training.py (`run`, `compare`, `demo`, `report`). TensorFlow is
imported by the commands that train, when they start, and by nothing else.
"""

import argparse
import difflib
import importlib
import os
import sys
import textwrap

import tff_compress
from tff_compress.cli import output
from tff_compress.codec.errors import CompressionError

# Command, its line in the list, and the file whose `add_<command>` gives the parser its options.
_COMMANDS = (
    ('run', 'train once, with one uplink and one downlink', 'training'),
    ('compare', 'train with several codecs on the same clients and seeds', 'training'),
    ('report', 'make the plots and the page of finished runs again', 'training'),
    ('demo', 'train a small CNN on digits with and without compression, up and down', 'training'),
    ('codecs', 'list the stages and presets that codecs are made of, with measured bits', 'codecs'),
    ('inspect', 'take a frame apart', 'frames'),
)

BAD_INPUT = 2
UNEXPECTED = 1
INTERRUPTED = 130
READER_GONE = 141


class _Parser(argparse.ArgumentParser):
  """argparse with errors of one sentence and with the nearest valid word."""

  def __init__(self, **keywords):
    super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **keywords)

  def error(self, message):
    raise CompressionError(f'{message.rstrip(".")}: see {self.prog} --help.')

  def _check_value(self, action, value):
    if action.choices is not None and value not in action.choices:
      what = action.option_strings[0] if action.option_strings else action.dest
      close = difflib.get_close_matches(str(value), map(str, action.choices), 1)
      hint = f'did you mean {close[0]}' if close else f'choose from {", ".join(map(str, action.choices))}'
      raise argparse.ArgumentError(None, f'{what} {output.printable(value)[:60]!r} does not exist; {hint}')

  def unknown(self, arguments):
    """Error for arguments that no option takes."""
    name = arguments[0].split('=')[0]
    known = [option for action in self._actions for option in action.option_strings if option.startswith('--')]
    close = difflib.get_close_matches(name, known, 1) if name.startswith('-') else []
    self.error(f'there is no option {output.printable(name)[:60]!r}' + (f'; did you mean {close[0]}' if close else '')
               if name.startswith('-') else f'{output.printable(name)[:60]!r} is an argument too many')


def main(argv=None):
  """Runs the command line.

  Args:
    argv: list of texts; those of the process by default.

  Returns:
    The exit code.
  """
  arguments = list(sys.argv[1:] if argv is None else argv)
  for stream in (sys.stdout, sys.stderr):
    if hasattr(stream, 'reconfigure'):
      stream.reconfigure(errors='replace')  # A terminal without the sign ± is no reason to fail.
  try:
    try:
      code = _guarded(arguments)
    except SystemExit as error:  # How argparse ends after --help and --version.
      code = error.code or 0
    if sys.stdout is not None:
      sys.stdout.flush()
    return code
  except BrokenPipeError:
    # What is still in the buffers cannot be written either, and Python would say so at exit.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in filter(None, (sys.stdout, sys.stderr)):
      os.dup2(nowhere, stream.fileno())
    return READER_GONE


def _guarded(arguments):
  """Runs the command; errors become sentences and exit codes."""
  debug = '--debug' in arguments
  try:
    return _run(arguments)
  except BrokenPipeError:
    raise
  except CompressionError as error:
    if debug:
      raise
    _complain(error)
    return BAD_INPUT
  except KeyboardInterrupt as error:
    output.say('\n' + (str(error) or 'tff-compress: stopped.'))
    return INTERRUPTED
  except Exception as error:  # pylint: disable=broad-exception-caught
    if debug:
      raise
    what = ' '.join(str(error).split())
    _complain(f'unexpected {type(error).__name__}{": " if what else ""}{what[:300]} '
              '(run it again with --debug for the traceback)')
    return UNEXPECTED


def _complain(error):
  output.say('tff-compress: ' + output.printable(' '.join(str(error).split())))


def _run(arguments):
  wanted = next((text for text in arguments if not text.startswith('-')), None)
  parser, commands = _parser(wanted)
  options, unknown = parser.parse_known_args(arguments)
  if unknown:
    (commands.get(options.command) or parser).unknown(unknown)
  if options.command is None:
    parser.print_help()
    return BAD_INPUT
  options.arguments = arguments
  return options.function(options) or 0


def _parser(wanted):
  """(the parser, {command: its parser}); only the wanted command has its options, so that only its file is imported."""
  parser = _Parser(prog='tff-compress', description='Federated training with compressed uplinks and downlinks.')
  parser.epilog = textwrap.dedent("""\
      examples:
        tff-compress run --uplink int8 --downlink int8
        tff-compress compare --uplink int8 --uplink 'hadamard | uniform:bits=2 | pack' --seeds 3
        tff-compress codecs drive

      tff-compress COMMAND --help says more.""")
  parser.add_argument('--version', action='version', version=f'tff-compress {tff_compress.__version__}')
  subparsers = parser.add_subparsers(dest='command', metavar='COMMAND', title='commands')
  commands = {}
  for name, summary, file in _COMMANDS:
    commands[name] = subparsers.add_parser(name, help=summary)
    if name == wanted:
      getattr(importlib.import_module(f'tff_compress.cli.{file}'), f'add_{name}')(commands[name])
      commands[name].description = textwrap.fill(commands[name].description, 79)
      commands[name].epilog = textwrap.dedent(commands[name].epilog or '')
      commands[name].add_argument('--debug', action='store_true',
                                  help='show the traceback of an error, and what TensorFlow logs')
  return parser, commands
