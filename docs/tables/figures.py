"""Numbers of a round that only some methods measure."""

from docs.tables import code
from docs.tables import Table
from tff_compress.processes import methods


def of_methods():
  """Every figure, and whose it is."""
  owners = {figure: [code(name) for name, kind in methods.registry().items() if figure in kind.figures]
            for figure in methods.figures()}
  return Table(('number', 'of', 'says'), [(code(figure.name), ', '.join(names) or 'all whose clients remember',
                                           figure.meaning) for figure, names in owners.items()])
