"""The two commands."""

from docs.tables import code
from docs.tables import Table
from tff_compress import cli
from tff_compress.cli import extras as extras_lib
from tflite_export import cli as export_cli

_PROGRAMS = {program.name: program for program in (cli.PROGRAM, export_cli.PROGRAM)}


def names(program):
  """Every command of a program."""
  return Table(('command', 'what it does'), [(code(name), None) for name, *_ in _PROGRAMS[program].commands])


def extras():
  """What pip installs on demand."""
  return Table(('extra', 'for'), [(code(name), None) for name in extras_lib.EXTRAS])
