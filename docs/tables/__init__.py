"""Tables in documents that repeat facts of the code, made from the code.

A document marks the place with two comments, which readers do not see:

    <!-- generated: codecs.presets -->
    | preset | stands for | parameters |
    …
    <!-- end -->

`make docs` writes between them what the function `presets` of docs/tables/codecs.py returns, and
`tests/docs/test_tables.py` fails where a document is not what `make docs` would write. Words behind the name are
arguments of the function: `<!-- generated: settings.flags data -->` calls `flags('data')`. A function returns a
`Table`, or a text that is written as it is. Modules are found by being in this folder; what is slow to import, such as
TensorFlow, belongs inside the function.
"""

import dataclasses
import importlib
import pathlib
import re
import types
import typing

ROOT = pathlib.Path(__file__).resolve().parents[2]

MISSING = 'TODO'
"""What stands in a cell that is written by hand until somebody does; no document may hold it."""

_BLOCK = re.compile(r'^<!-- generated: (?P<call>.*?) -->\n(?P<text>.*?)^<!-- end -->$', re.MULTILINE | re.DOTALL)


class TableError(Exception):
  """A mark in a document that cannot be followed: one sentence that says where and what to do."""


class Table(typing.NamedTuple):
  """A table of a document.

  Attributes:
    header: titles of the columns.
    rows: tuples of cells, as they are read: `|` is escaped when it is written. A cell that is None is written by hand:
      it keeps what the document has in the row whose first cell is the same.
  """
  header: tuple[str, ...]
  rows: list[tuple[str | None, ...]]

  def markdown(self, before: str = '') -> str:
    """The table as Markdown, ends with a line break; `before` is the text that it replaces."""
    kept = {row[0]: row for row in _cells(before)}
    lines = [self.header, *([cell if cell is not None else _kept(kept.get(row[0] or ''), position)
                             for position, cell in enumerate(row)] for row in self.rows)]
    head, *body = [('| ' + ' | '.join(cell.replace('|', r'\|') for cell in line) + ' |').replace('|  |', '| |')
                   for line in lines]
    return '\n'.join([head, '|' + '---|' * len(self.header), *body]) + '\n'


@dataclasses.dataclass(frozen=True)
class Block:
  """What stands between two comments of a document.

  Attributes:
    path: the document.
    line: of the first comment, from 1.
    call: `module.function` and its arguments, as the comment has them.
    text: what stands there.
  """
  path: pathlib.Path
  line: int
  call: str
  text: str

  @property
  def function(self) -> types.FunctionType:
    """What makes it.

    Raises:
      TableError: there is no such function.
    """
    name = self.call.split()[0]
    module, _, function = name.partition('.')
    try:
      return getattr(importlib.import_module(f'{__name__}.{module}'), function)
    except (AttributeError, ModuleNotFoundError) as error:
      raise TableError(f'{self.path.relative_to(ROOT)}:{self.line}: docs/tables has no {name}: {error}.') from error

  def made(self) -> str:
    """What has to stand there. Raises TableError."""
    table = self.function(*self.call.split()[1:])
    return table.markdown(self.text) if isinstance(table, Table) else table


def documents() -> list[pathlib.Path]:
  """All documents that may have marks in them."""
  return sorted([*ROOT.glob('*.md'), *ROOT.glob('docs/**/*.md')])


def blocks(path: pathlib.Path) -> list[Block]:
  """The marked places of a document, in order.

  Raises:
    TableError: a mark has no end, or an end no mark.
  """
  text = path.read_text(encoding='utf-8')
  found = [Block(path, text[:match.start()].count('\n') + 1, match['call'], match['text'])
           for match in _BLOCK.finditer(text)]
  for mark in ('generated: ', 'end -->'):
    if len(re.findall(f'^<!-- {mark}', text, re.MULTILINE)) != len(found):
      raise TableError(f'{path.relative_to(ROOT)}: each line "<!-- generated: … -->" needs a line "<!-- end -->".')
  return found


def write(path: pathlib.Path) -> bool:
  """Makes the marked places of a document anew; whether anything changed."""
  made = iter([block.made() for block in blocks(path)])
  before = path.read_text(encoding='utf-8')
  after = _BLOCK.sub(lambda match: f'<!-- generated: {match["call"]} -->\n{next(made)}<!-- end -->', before)
  if after != before:
    path.write_text(after, encoding='utf-8')
  return after != before


def code(text: object) -> str:
  """A text as code."""
  return f'`{text}`'


def _cells(markdown):
  rows = [re.split(r'(?<!\\)\|', line)[1:-1] for line in markdown.splitlines() if line.startswith('|')]
  return [[cell.strip().replace(r'\|', '|') for cell in row] for row in rows]


def _kept(row, position):
  return row[position] if row and position < len(row) else MISSING
