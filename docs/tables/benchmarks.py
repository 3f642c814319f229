"""Benchmarks."""

import json

from benchmarks.lib import harness
from docs.tables import code
from docs.tables import Table


def names():
  """Every benchmark, by folder."""
  return Table(('name', 'folder', 'what it measures'),
               [(code(name), benchmark.folder, benchmark.summary.rstrip('.'))
                for name, benchmark in harness.benchmarks().items()])


def both_directions():
  """Long training, every codec against float32; the fewest bytes of a task first."""
  rows = sorted(_results('means'), key=lambda row: (row['task order'], row['lr'], row['MB both']))
  return Table(
      ('task', 'learning rate', 'codec', 'n', 'MB up', 'MB down', 'MB both', 'times fewer bytes', 'accuracy',
       'against float32, points', 'averaged weights', 'against float32, points'),
      [(code(row['task']), str(row['lr']), code(row['codec']), str(row['seeds']), *_megabytes(row),
        f'{row["x"]:,.0f}' if row['x'] else '', *_accuracy(row, 'accuracy'), *_accuracy(row, 'averaged'))
       for row in rows])


def to_target():
  """Bytes until an accuracy is reached."""
  return Table(
      ('task', 'weights', 'codec', 'reached', 'round', 'MB up', 'MB down', 'MB both', 'most MB both'),
      [(code(row['task']), weights, code(row['codec']), row['reached'], f'{row["round"]:.1f}', *_megabytes(row),
        _shown(row['most MB both']))
       for weights, column in (("the server's", 'accuracy'), ('averaged', 'averaged'))
       for row in sorted(_results(f'to 74 %, {column}'), key=lambda row: (row['task'], row['MB both']))])


def _results(table):
  """Rows of `both_directions` that are of a table; of tasks in the order in which they stand there."""
  rows = json.loads((harness.RESULTS / 'both_directions.json').read_text(encoding='utf-8'))['rows']
  order = list(dict.fromkeys(row['task'] for row in rows if row['table'] == 'per seed'))
  return [{**row, 'task order': order.index(row['task'])} for row in rows if row['table'] == table]


def _megabytes(row):
  return tuple(_shown(row[column]) for column in ('MB up', 'MB down', 'MB both'))


def _shown(number):
  """Three digits that count."""
  return f'{number:,.0f}' if number >= 100 else f'{number:.3g}'


def _accuracy(row, column):
  """(accuracy, difference to float32 with its standard error) of a column."""
  difference, error = row[f'{column} +'], row[f'{column} s.e.']
  if row['codec'] == 'float32' or difference is None:
    return f'{row[column]:.2f} %', ''
  return f'{row[column]:.2f} %', _with_error(difference, error)


def _with_error(difference, error):
  return f'{difference:+.2f}' + (f' ± {error:.2f}' if error is not None else '')
