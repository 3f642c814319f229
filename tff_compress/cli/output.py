"""What the commands print: results on standard output, progress on standard error."""

from collections.abc import Iterable
from collections.abc import Sequence
import json
import math
import shutil
import sys
import textwrap
from typing import Any


def print_json(value: Any) -> None:
  """Prints strict JSON: a NaN or an infinity, which JSON has no word for, becomes null."""
  text = json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False)
  try:
    text.encode(getattr(sys.stdout, 'encoding', None) or 'utf-8')
  except UnicodeEncodeError:  # Such as a path that is no text: a question mark in its place would be another one.
    text = json.dumps(finite(value), indent=2, allow_nan=False)
  print(text)


def finite(value: Any) -> Any:
  """The value with every NaN and infinity in it replaced by None, and tuples by lists."""
  if isinstance(value, dict):
    return {key: finite(item) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [finite(item) for item in value]
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value


def say(text: str) -> None:
  """One line of progress or advice, on standard error."""
  if sys.stderr is not None:  # It is None where it was closed; print would take standard output then.
    print(text, file=sys.stderr, flush=True)


def printable(text: object) -> str:
  """Text from outside with control characters escaped, so that it cannot steer a terminal."""
  return ''.join(c if c.isprintable() else c.encode('unicode_escape').decode('ascii') for c in str(text))


def table(header: Sequence[str], rows: Iterable[Sequence[object]], align: Sequence[str] | None = None,
          wrap: bool = True) -> str:
  """Rows of texts as aligned columns.

  Args:
    header: column titles.
    rows: sequences of texts, as long as the header.
    align: one '<' or '>' per column; all '<' by default.
    wrap: whether the last column may be wrapped to the terminal's width; it never is where output is not a terminal, so
      that one row stays one line.

  Returns:
    str
  """
  cells_of = [[printable(cell) for cell in row] for row in rows]
  align = align or '<' * len(header)
  widths = [max(len(row[i]) for row in [list(header), *cells_of]) for i in range(len(header))]
  room = None
  if wrap and sys.stdout is not None and sys.stdout.isatty():
    room = shutil.get_terminal_size().columns - sum(widths[:-1]) - 2 * (len(header) - 1)
    room = room if 24 <= room < widths[-1] else None
  lines = []
  for row in [list(header), ['-' * min(width, room or width) for width in widths], *cells_of]:
    last = textwrap.wrap(row[-1], room) or [''] if room else [row[-1]]
    cells = [f'{cell:{side}{width}}' for cell, side, width in zip(row[:-1], align, widths)]
    end = last[0] if room or align[-1] == '<' else f'{last[0]:>{widths[-1]}}'
    lines.append('  '.join([*cells, end]).rstrip())
    indent = ' ' * (sum(widths[:-1]) + 2 * (len(header) - 1))
    lines += [indent + more for more in last[1:]]
  return '\n'.join(lines)


def properties(pairs: Iterable[tuple[str, object]]) -> str:
  """Names and values, one pair a line, the values in one column; pairs whose value is None are left out."""
  shown = [(name, printable(value)) for name, value in pairs if value is not None]
  width = max(len(name) for name, _ in shown)
  return '\n'.join(f'{name:<{width}}  {value}' for name, value in shown)


def bytes_text(count: float) -> str:
  """Bytes in words: '97 bytes', '12.3 kB', '4.8 MB' (decimal prefixes)."""
  for unit, scale in (('GB', 1e9), ('MB', 1e6), ('kB', 1e3)):
    if count >= scale:
      return f'{count / scale:.3g} {unit}' if count < 999.5 * scale else f'{count / scale:,.0f} {unit}'
  return f'{count:.0f} byte' + ('' if count == 1 else 's')
