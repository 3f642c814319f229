"""Benchmarks."""

from benchmarks.lib import harness
from docs.tables import code
from docs.tables import Table


def names():
  """Every benchmark, by folder."""
  return Table(('name', 'folder', 'what it measures'),
               [(code(name), benchmark.folder, benchmark.summary.rstrip('.'))
                for name, benchmark in harness.benchmarks().items()])
