"""`tflite-export check-edgetpu`: a file against the documented operator list of the Edge TPU."""

import argparse

from tff_compress.cli import output

FALLS_BACK = 3
"""Exit code where something falls back to the CPU."""


def add_check_edgetpu(parser: argparse.ArgumentParser) -> None:
  """Gives the parser of `check-edgetpu` its options."""
  parser.set_defaults(function=lambda o: check(o.file, o.json))
  parser.description = ('Say for each operator of a .tflite file whether the documented operator list of the Edge TPU '
                        "covers it, and if not, why. This does not run the vendor's compiler, which may still refuse "
                        'what is on the list.')
  parser.epilog = f'Exit code: 0 if everything would map, {FALLS_BACK} if something would fall back to the CPU.'
  parser.add_argument('file', metavar='FILE', help='the .tflite file')
  parser.add_argument('--json', action='store_true', help='print JSON')


def check(path: str, as_json: bool) -> int:
  """Prints the report of a file.

  Args:
    path: the .tflite file.
    as_json: bool.

  Returns:
    The exit code.

  Raises:
    FileError: it cannot be read or is no whole .tflite file.
  """
  from tflite_export.edgetpu import check_edgetpu
  report = check_edgetpu(path)
  if as_json:
    output.print_json({'file': path, **report.as_dict()})
  else:
    several = any(operator.subgraph for operator in report.operators)
    rows = [[f'{operator.subgraph}:{operator.index}' if several else str(operator.index), operator.name,
             'maps' if operator.maps else 'CPU', '; '.join(filter(None, (operator.reason, operator.note)))]
            for operator in report.operators]
    if rows:
      print(output.table(['#', 'operator', 'where', 'why, and what to know'], rows, '><<<') + '\n')
    print(report.summary)
  return 0 if report.compatible else FALLS_BACK
