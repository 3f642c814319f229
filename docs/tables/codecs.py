"""Stages and presets."""

import dataclasses

from docs.tables import code
from docs.tables import Table
from tff_compress import codec as codec_lib
from tff_compress.codec import presets as registry


def presets():
  """Every preset, with its defaults."""
  rows = [(code(name), code(codec_lib(name)),
           ', '.join(f'{field.name}={field.default}' for field in dataclasses.fields(kind)))
          for name, kind in sorted(registry.registry().items())]
  return Table(('preset', 'stands for', 'parameters'), rows)
