"""Columns of the table that ends runs."""

from docs.tables import Table
from tff_compress.simulation.report import columns


def all_columns():
  """Every column, from left to right."""
  return Table(('column', 'says'), [(f'**{column.title}**', column.meaning) for column in columns.registry()])
