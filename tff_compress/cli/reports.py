"""`tff-compress report`, and the table and report that end `run`, `compare` and `demo`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import os
import shlex
import textwrap

from tff_compress.cli import output
from tff_compress.codec import files
from tff_compress.codec.errors import CompressionError
from tff_compress.simulation import report as report_lib
from tff_compress.simulation.report import table
from tff_compress.simulation.run import RunResult


def add_report(parser: argparse.ArgumentParser) -> None:
  """Gives the parser of `report` its options."""
  parser.set_defaults(function=_report)
  parser.description = 'Read the result.json files in a folder, and make its plots and report.html from them.'
  parser.add_argument('folder', metavar='DIR', help='what --output was, or a folder of such folders')
  add_sort(parser)
  parser.add_argument('--json', action='store_true', help='print JSON')


def add_sort(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
  """Gives a parser or a group of it the option that sorts the rows of the table and the page."""
  parser.add_argument('--sort', metavar='COLUMN', choices=table.sortable(), default=table.SORT,
                      help=f'sort rows by this number, called as in --json, such as accuracy: the largest first, below '
                      f'float32 ({table.SORT})')


def _report(options):
  runs = report_lib.load(options.folder, lambda problem: output.say(output.printable(f'Left out: {problem}')))
  path = report_lib.write(runs, options.folder, _read_command(options.folder),
                          options.sort)
  _show(runs, path, options)


def finish(results: Sequence[RunResult], folder: str | None, options: argparse.Namespace,
           details: dict | None = None) -> None:
  """Writes the report of finished runs, and shows them; `details` is what else `--json` prints."""
  runs = [report_lib.Run.of(result) for result in results if result.rounds]
  if not runs:
    raise CompressionError('training came to NaN or infinite values in the first round: lower client_learning_rate.')
  for result in results:
    if result.reason or not result.rounds:
      config = result.config
      left_out = '' if result.rounds else 'It came to no round, so it is left out.'
      which = f'{config.uplink} / {config.downlink}, seed {config.seed}'
      output.say(output.printable(' '.join(filter(None, (f'{which}:', result.reason, left_out)))))
  path = None
  if folder is not None:
    command = shlex.join(['tff-compress', *(text for text in options.arguments if text != '--restart')])
    try:
      path = report_lib.write(runs, folder, command, options.sort)
      _write_command(folder, command)
    except report_lib.ReportError:
      _show(runs, None, options, details)  # What was measured is not lost with the page.
      raise
  _show(runs, path, options, details)


def _show(runs, path, options, details=None):
  """Prints the table and where the report is."""
  series = table.ordered(report_lib.summarize(runs), options.sort)
  if options.json:
    output.print_json({**(details or {}), 'summary': [table.numbers(entry) for entry in series], 'report': path})
    return
  header, rows = table.rows(series)
  print(output.printable(table.subtitle(series)) + '\n')
  rows = [[cell if len(cell) <= 40 else cell[:39] + '…' for cell in row] for row in rows]
  print(output.table(header, rows, ['<' if column.is_text else '>' for column in table.columns(series)], wrap=False))
  print('\n' + textwrap.fill(table.caption(series), 120))
  if path is not None:
    print(f'\nReport: {path}')


_COMMAND = 'command.txt'


def _write_command(folder, command):
  """Keeps the command in the folder, for `report`; a path in it may hold bytes that are no text."""
  files.write(os.path.join(folder, _COMMAND), f'{command}\n'.encode(errors='surrogateescape'), report_lib.ReportError)


def _read_command(folder):
  """The command that made the runs in a folder; '' where it is not known."""
  try:
    with open(os.path.join(folder, _COMMAND), encoding='utf-8', errors='surrogateescape') as file:
      return file.read(10_000).strip()
  except OSError:
    return ''
