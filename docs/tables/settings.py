"""Settings of runs."""

from docs.tables import code
from docs.tables import Table
from tff_compress.simulation import config


def table():
  """All of them, in the order of `tff-compress run --help`."""
  groups = {}
  for setting in config.settings().values():
    groups.setdefault(setting.group, []).append(setting)
  rows = [(code(setting.name), setting.values, code(setting.default_text), setting.help)
          for group in groups.values() for setting in group]
  return Table(('setting', 'what it may be', 'default', 'what it is'), rows)
