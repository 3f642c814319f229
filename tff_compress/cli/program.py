"""What the project's commands share: reading the command line, and the promises that hold for every command.

Bad input, a file that cannot be read or written and a package that is not installed are one sentence on standard error
and exit code 2; an unexpected error is one sentence and exit code 1 (--debug shows the traceback); Ctrl-C is 130; a
reader that goes away (`| head`) ends the command quietly. Results go to standard output, progress to standard error.
"""

import argparse
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import difflib
import errno
import importlib
import os
import re
import sys
import textwrap
from typing import Any
from typing import NoReturn
from typing import TextIO
import warnings

from tff_compress.cli import extras
from tff_compress.cli import output
from tff_compress.codec import files
from tff_compress.codec.errors import CompressionError
from tff_compress.codec.errors import UnmatchedRuleWarning

BAD_INPUT = 2
UNEXPECTED = 1
INTERRUPTED = 130
READER_GONE = 141


class UsageError(CompressionError):
  """The command line itself is not valid. Always one sentence: there is nothing to debug."""


# What argparse says, and what it means.
_PLAIN = (
    (r'argument (\S+): ignored explicit argument (.*)', r'\1 takes no value, and \2 is one'),
    (r'argument (\S+): expected one argument', r'\1 needs a value'),
    (r'argument (\S+): expected at least one argument', r'\1 needs at least one value'),
    (r'argument (\S+): it (must be .*)', r'\1 \2'),
    (r'argument (\S+): (.*)', r'\1: \2'),
    (r'the following arguments are required: (.*)', r'\1 must be given'),
)


class _Parser(argparse.ArgumentParser):
  """argparse with errors of one sentence and with the nearest valid word."""

  def __init__(self, **keywords: Any) -> None:
    super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **keywords)

  def error(self, message: str) -> NoReturn:
    for pattern, plain in _PLAIN:
      message, found = re.subn(f'^{pattern}$', plain, message, flags=re.DOTALL)
      if found:
        break
    raise UsageError(f'{output.printable(message.rstrip("."))}: see {self.prog} --help.')

  def _print_message(self, message: str, file: Any = None) -> None:
    if file is not None:  # argparse's own takes no notice of what cannot be written.
      file.write(message)

  def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
    self._given: set[argparse.Action] = set()
    return super().parse_known_args(args, namespace)

  def _get_values(self, action: argparse.Action, arg_strings: Any) -> Any:
    """Called for each time that an option is given: argparse itself would take the last."""
    if action.option_strings and not isinstance(action, argparse._AppendAction):
      if action in self._given:
        raise argparse.ArgumentError(None, f'{action.option_strings[-1]} is given twice; leave one of them out')
      self._given.add(action)
    return super()._get_values(action, arg_strings)

  def _check_value(self, action: argparse.Action, value: Any) -> None:
    if action.choices is not None and value not in action.choices:
      what = action.option_strings[0] if action.option_strings else action.dest
      close = difflib.get_close_matches(str(value), map(str, action.choices), 1)
      hint = f'did you mean {close[0]}' if close else f'choose from {", ".join(map(str, action.choices))}'
      raise argparse.ArgumentError(None, f'{what} {output.printable(value)[:60]!r} does not exist; {hint}')

  @property
  def options(self) -> list[str]:
    """The texts of all options, '-o' and '--output'."""
    return [option for action in self._actions for option in action.option_strings]

  @property
  def flags(self) -> dict[str, str]:
    """{Python's name of an option: what is typed}."""
    return {action.dest: action.option_strings[-1] for action in self._actions if action.option_strings}

  def unknown(self, arguments: list[str]) -> NoReturn:
    """Error for arguments that no option takes."""
    name = arguments[0].split('=')[0]
    known = [option for option in self.options if option.startswith('--')]
    close = difflib.get_close_matches(name, known, 1) if name.startswith('-') else []
    self.error(f'there is no option {output.printable(name)[:60]!r}' + (f'; did you mean {close[0]}' if close else '')
               if name.startswith('-') else f'{output.printable(name)[:60]!r} is an argument too many')


@dataclasses.dataclass(frozen=True)
class Program:
  """A program with commands.

  Attributes:
    name: what it is called on the command line.
    description: one sentence.
    version: text.
    package: dotted name of the package that holds its files.
    commands: tuple of (command, its line in the list, the file whose `add_<command>` gives the parser its options, the
      modules beyond NumPy that it cannot do without).
    extra: the extra of this package that brings TensorFlow, for who uses this program.
    examples: texts of command lines.
  """
  name: str
  description: str
  version: str
  package: str
  commands: tuple[tuple[str, str, str, tuple[str, ...]], ...]
  extra: str
  examples: tuple[str, ...]

  def main(self, argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
      argv: list of texts; those of the process by default.

    Returns:
      The exit code.
    """
    return _main(self, list(sys.argv[1:] if argv is None else argv))

  def parse(self, arguments: list[str]) -> argparse.Namespace:
    """The options (an argparse namespace) of a list of texts; raises CompressionError where they are not valid."""
    names = [name for name, *_ in self.commands]
    wanted = next((text for text in arguments if text in names), None)
    parser, commands = _parser(self, wanted)
    first = arguments[0].split('=')[0] if arguments else ''
    if wanted and first.startswith('-') and first not in parser.options:
      parser.error(f'{output.printable(first)[:60]!r} stands before the command; options come after it, as in '
                   f'{self.name} {wanted} {output.printable(first)[:60]}')
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
      (commands.get(options.command) or parser).unknown(unknown)
    options.arguments = arguments
    options.print_help = parser.print_help
    options.flags = commands[options.command].flags if options.command else {}
    return options


def _main(program: Program, arguments: list[str]) -> int:
  for stream in (sys.stdout, sys.stderr):
    if hasattr(stream, 'reconfigure'):
      stream.reconfigure(errors='replace')  # A terminal without the sign ± is no reason to fail.
  try:
    try:
      code = _guarded(program, arguments)
    except SystemExit as error:  # How argparse ends after --help and --version.
      code = int(error.code or 0)
    if sys.stdout is not None:
      sys.stdout.flush()
    return code
  except BrokenPipeError:
    _forget(sys.stdout, sys.stderr)
    return READER_GONE
  except OSError as error:
    if not _is_of_output(error):
      raise
    _forget(sys.stdout)
    _complain(program, f'standard output cannot be written: {error.strerror}.')
    return BAD_INPUT


def _is_of_output(error: OSError) -> bool:
  """Whether an OSError is one of printing: those of files have a name."""
  return error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def _forget(*streams: TextIO | None) -> None:
  """What is still in the buffers cannot be written either, and Python would say so at exit."""
  nowhere = os.open(os.devnull, os.O_WRONLY)
  for stream in filter(None, streams):
    os.dup2(nowhere, stream.fileno())


def _guarded(program: Program, arguments: list[str]) -> int:
  """Runs the command; errors become sentences and exit codes."""
  debug = '--debug' in arguments
  try:
    return _run(program, arguments)
  except BrokenPipeError:
    raise
  except CompressionError as error:
    if debug and not isinstance(error, UsageError):
      raise
    _complain(program, error)
    return BAD_INPUT
  except KeyboardInterrupt as error:
    output.say('\n' + (str(error) or f'{program.name}: stopped.'))
    return INTERRUPTED
  except OSError as error:
    if debug or _is_of_output(error):
      raise
    where = '' if error.filename is None else f'{os.fsdecode(error.filename)}: '
    _complain(program, f'{where}{files.reason(error)}.')
    return BAD_INPUT
  except Exception as error:
    if debug:
      raise
    what = ' '.join(str(error).split())
    _complain(program, f'unexpected {type(error).__name__}{": " if what else ""}{what[:300]} '
              '(run it again with --debug for the traceback)')
    return UNEXPECTED


def _complain(program: Program, error: object) -> None:
  output.say(f'{program.name}: ' + output.printable(' '.join(str(error).split())))


def _run(program: Program, arguments: list[str]) -> int:
  with extras.named(program.extra):
    return _command(program, arguments)


def _command(program: Program, arguments: list[str]) -> int:
  options = program.parse(arguments)
  if options.command is None:
    options.print_help()
    return BAD_INPUT
  extras.need(program.extra, *next(needs for name, _, _, needs in program.commands if name == options.command))
  # What TensorFlow logs when it is imported is about devices that it did not find.
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '0' if options.debug else '3')
  try:
    with warnings.catch_warnings():
      warnings.simplefilter('always', UnmatchedRuleWarning)
      warnings.showwarning = _Shown(program, warnings.showwarning)
      return options.function(options) or 0
  except CompressionError as error:
    error.args = (in_flags(str(error), options.flags, getattr(options, 'python_words', {})),)
    raise


def in_flags(text: str, flags: Mapping[str, str], words: Mapping[str, str]) -> str:
  """An error of the library with what is typed in place of Python's names.

  Args:
    text: the error's.
    flags: {name of an argument in Python: flag}. A name with _ in it is replaced wherever it is a word, others where
      text begins with one, as in 'rounds must be', or calls it an argument, as in 'give loss=' and 'workers=1'.
    words: {other text: what to write instead}, before that.
  """
  for word, instead in words.items():
    text = text.replace(word, instead)
  names = '|'.join(map(re.escape, sorted(flags, key=len, reverse=True))) or '(?!)'
  compound = '|'.join(re.escape(name) for name in sorted(flags, key=len, reverse=True) if '_' in name) or '(?!)'
  word = r'(?<![\w/.:,-])'
  text = re.sub(rf'{word}({names})=(True\b|(?=[\s.,;:)]|$))', lambda m: flags[m[1]], text)
  text = re.sub(rf'{word}({names})=(?=\S)', lambda m: f'{flags[m[1]]} ', text)
  text = re.sub(rf'^({names})(?= must | is |: )', lambda m: flags[m[1]], text)
  return re.sub(rf'{word}({compound})(?![\w/])', lambda m: flags[m[1]], text)


class _Shown:
  """In place of `warnings.showwarning`: what a codec says of its rules is one line, once."""

  def __init__(self, program: Program, usual: Callable[..., None]) -> None:
    self._program, self._usual = program, usual
    self._seen: set[str] = set()

  def __call__(self, message: Any, category: type[Warning], *arguments: Any, **keywords: Any) -> None:
    if not issubclass(category, UnmatchedRuleWarning):
      self._usual(message, category, *arguments, **keywords)
    elif str(message) not in self._seen:
      self._seen.add(str(message))
      _complain(self._program, message)


def _parser(program: Program, wanted: str | None) -> tuple[_Parser, dict[str, _Parser]]:
  """(the parser, {command: its parser}); only the wanted command has its options, so that only its file is imported."""
  parser = _Parser(prog=program.name, description=program.description)
  parser.epilog = '\n  '.join(['examples:', *program.examples]) + f'\n\n{program.name} COMMAND --help says more.'
  parser.add_argument('--version', action='version', version=f'{program.name} {program.version}')
  subparsers = parser.add_subparsers(dest='command', metavar='COMMAND', title='commands')
  commands = {}
  for name, summary, file, _ in program.commands:
    commands[name] = subparsers.add_parser(name, help=summary)
    if name == wanted:
      add = getattr(importlib.import_module(f'{program.package}.{file}'), f'add_{name.replace("-", "_")}')
      add(commands[name])
      commands[name].description = textwrap.fill(commands[name].description or '', 79)
      commands[name].epilog = textwrap.dedent(commands[name].epilog or '')
      commands[name].add_argument('--debug', action='store_true',
                                  help='show the traceback of an error, and what TensorFlow logs')
  return parser, commands
