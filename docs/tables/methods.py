"""Methods, and what they are made of."""

import inspect

from docs.tables import code
from docs.tables import ROOT
from docs.tables import Table
from tff_compress import autoencoders
from tff_compress.codec import presets
from tff_compress.processes import methods


def uplinks():
  """Every method, and every preset that is described with the methods."""
  kinds = {**{name: kind for name, kind in presets.registry().items() if kind.page.startswith('methods/')},
           **methods.registry()}
  return Table(('`--uplink`', 'what it stands for in Python', 'page'),
               [(code(name), None, f'[{_title(kind.page)}]({kind.page})') for name, kind in sorted(kinds.items())])


def architectures():
  """Every architecture of autoencoders."""
  return Table(('architecture', 'what it is'),
               [(code(f'{name}({", ".join(_needed(function))})'), None)
                for name, function in autoencoders.ARCHITECTURES.items()])


def _title(page):
  """The heading of a page, in the middle of a sentence."""
  heading = (ROOT / 'docs' / page).read_text(encoding='utf-8').partition('\n')[0].removeprefix('# ')
  return heading[0].lower() + heading[1:].partition(':')[0]


def _needed(function):
  """Names of the parameters that have no default."""
  return [name for name, parameter in inspect.signature(function).parameters.items()
          if parameter.default is parameter.empty]
