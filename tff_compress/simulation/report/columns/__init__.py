"""Columns of the table that ends `run`, `compare`, `demo` and `report`: one file each, found by being in this folder.

A column says all that is said of it anywhere: the table, the page with its sorting, the caption, `--json` and the list
in docs/command-line.md follow from it. What methods measure beyond the common figures has columns too, which are made
of what the methods declare.
"""

from __future__ import annotations

from collections.abc import Sequence
import inspect

from tff_compress.codec import discovery
from tff_compress.processes import methods
from tff_compress.processes.figures import Figure
from tff_compress.processes.figures import Total
from tff_compress.simulation.report import formats
from tff_compress.simulation.report.series import Series

_registry: list[Column] = []


class Column:
  """Base class of columns. The first paragraph of a column's docstring is its line in docs/command-line.md.

  Attributes:
    name: in `--json`, and of the file.
    title: above it.
    position: where it stands among the others: smaller ones are on the left.
    sentence: what the caption below the table says of it, without the full stop; one that begins with ';' goes on in
      the sentence of the column before it.
    scale: what its numbers are divided by to be shown, such as 1e6 for megabytes.
    of_uplink: whether its numbers come from the uplink's bytes, and so are estimates where these are.
    is_text: whether it has words and not numbers: it stands on the left, and is not in `--json`.
  """
  name: str = ''
  title: str = ''
  position: int = 0
  sentence: str = ''
  scale: float = 1
  of_uplink: bool = False
  is_text: bool = False

  def value(self, series: Series) -> float | str | None:
    """What the page sorts by, and `--json` has; None where there is none."""
    raise NotImplementedError

  def text(self, series: Series) -> str:
    """What is shown; '' for nothing. A column that shows nothing in any row is left out."""
    value = self.value(series)
    if isinstance(value, str):
      return value
    mark = '≈' if self.of_uplink and series.estimated and value is not None else ''
    return mark + formats.significant(None if value is None else value / self.scale)

  def caption(self, rows: Sequence[Series]) -> str:
    """What the caption says of it below these rows; as `sentence`."""
    del rows
    return self.sentence

  def figures(self, series: Series) -> dict:
    """Its numbers in `--json`."""
    return {self.name: self.value(series)}

  @property
  def meaning(self) -> str:
    """What it shows, in words: Markdown on one line."""
    return ' '.join((inspect.getdoc(type(self)) or '').partition('\n\n')[0].split())


class MeasuredColumn(Column):
  """What figures of a method add up to.

  Args:
    total: how, and what the column says.
    figures: those with this total.
  """

  def __init__(self, total: Total, figures: Sequence[Figure]):
    self._total, self._figures = total, figures
    self.name, self.title, self.position, self.sentence = figures[0].name, total.title, total.position, total.sentence

  def value(self, series: Series) -> float | None:
    values = [value for value in self.figures(series).values() if value is not None]
    return sum(values) if values else None

  def text(self, series: Series) -> str:
    value = self.value(series)
    if self._total.share:
      return formats.percent(value)
    return formats.significant(None if value is None else value / self._total.scale)

  def figures(self, series: Series) -> dict[str, float | None]:
    return {figure.total_name or figure.name: series.total(figure) for figure in self._figures}

  @property
  def meaning(self):
    return self._total.meaning


def registry() -> list[Column]:
  """All columns, from left to right."""
  if not _registry:
    _registry.extend(kind() for kind in discovery.classes(__name__, Column).values())
    totals: dict[Total, list[Figure]] = {}
    for figure in methods.figures():
      if figure.total is not None:
        totals.setdefault(figure.total, []).append(figure)
    _registry.extend(MeasuredColumn(total, figures) for total, figures in totals.items())
    _registry.sort(key=lambda column: (column.position, column.title))
  return list(_registry)
