"""Lists that are written by hand name what the code has: neither less nor more."""

import dataclasses
import re

import pytest

from docs import tables
from tff_compress.cli import program
from tff_compress.codec import codec as codec_lib
from tff_compress.codec import grammar
from tff_compress.codec import spec
from tff_compress.processes import ErrorFeedback
from tff_compress.wire import frame
from tflite_export import cli as export_cli
from tflite_export.cli import edgetpu


def _first_cells(document, header):
  """The first cells of the table with this header."""
  text = (tables.ROOT / document).read_text(encoding='utf-8')
  assert text.count(f'\n{header}') == 1, f'{document} has one table {header!r}'
  lines = text.partition(f'\n{header}')[2].partition('\n\n')[0].splitlines()[2:]
  return [line.split('|')[1].strip() for line in lines]


def _words(cells):
  return {word for cell in cells for word in re.findall(r'`([\w-]+)', cell)}


def test_the_readme_names_every_folder_of_the_product():
  cells = _first_cells('README.md', '| folder |')
  named = {path.strip('/') for cell in cells for path in re.findall(r'`([\w/]+)`', cell)}
  folders = {path.name for top in ('tff_compress', 'tflite_export') for path in (tables.ROOT / top).iterdir()
             if (path / '__init__.py').is_file()} | {'tests', 'benchmarks', 'docs'}
  assert folders <= {path.rpartition('/')[2] for path in named}


def test_the_readme_names_every_export():
  named = set(re.findall(r'[\w-]+', ' '.join(_first_cells('README.md', '| | |'))))
  assert {name for name, *_ in export_cli.PROGRAM.commands} <= named


def test_exit_codes():
  codes = [0, program.BAD_INPUT, edgetpu.FALLS_BACK, 1, program.INTERRUPTED, program.READER_GONE]
  assert _first_cells('docs/command-line.md', '| exit code |') == [str(code) for code in codes]


def test_options_of_error_feedback():
  options = _words(cell for cell in _first_cells('docs/stateful-processes.md', '| option | what it does |'))
  assert options == {field.name for field in dataclasses.fields(ErrorFeedback)}


def test_limits_of_the_wire_format():
  text = (tables.ROOT / 'docs' / 'wire-format.md').read_text(encoding='utf-8')
  assert re.search(rf'\| 3 \| 1 \| version, {frame.VERSION} \|', text)
  for fact in (f'| length of a codec text; of a pattern; of a number in it | {grammar.MAX_TEXT:,}; '
               f'{codec_lib.MAX_PATTERN:,}; 40 characters', f'| dimensions of a variable | {spec.MAX_DIMENSIONS},',
               f'| 1 … {spec.MAX_NAME} bytes in UTF-8', f'A frame adds {frame.FRAME_OVERHEAD} bytes'):
    assert fact in text, fact
  assert spec.MAX_VALUES == 2**31 - 1 and '| 2^31 - 1 (`SpecError`) |' in text


@pytest.mark.parametrize('document', tables.documents(), ids=lambda path: path.name)
def test_lines_have_at_most_120_columns(document):
  """Tables, formulas and what a console shows may be longer, as they cannot be broken."""
  fence, long = '', []
  for number, line in enumerate(document.read_text(encoding='utf-8').splitlines(), 1):
    if line.startswith('```'):
      fence = '' if fence else line
    elif len(line) > 120 and fence in ('', '```python') and (fence or not line.startswith(('|', '<!--', '    '))):
      long.append(f'{document.name}:{number}')
  assert not long, long
