"""Stages, presets and random numbers."""

import dataclasses

from docs.tables import code
from docs.tables import Table
from tff_compress import codec as codec_lib
from tff_compress.codec import presets as registry
from tff_compress.codec import random
from tff_compress.codec import stage as stage_lib


def presets():
  """Every preset, with its defaults."""
  rows = [(code(name), code(codec_lib(name)),
           ', '.join(f'{field.name}={field.default}' for field in dataclasses.fields(kind)))
          for name, kind in sorted(registry.registry().items())]
  return Table(('preset', 'stands for', 'parameters'), rows)


def chain():
  """What a chain of stages is made of, and the stages for each place."""
  words = {stage_lib.Real: 'real values', stage_lib.Integers: 'whole numbers, the symbols', stage_lib.Bytes: 'bytes'}
  parts = {'transforms, any number': (stage_lib.Real, stage_lib.Real),
           'one quantizer': (stage_lib.Real, stage_lib.Integers),
           'one coder': (stage_lib.Integers, stage_lib.Bytes),
           'or one in place of both': (stage_lib.Real, stage_lib.Bytes)}
  return Table(('part of a chain', 'takes', 'gives', 'stages'), [
      (part, *(words[signal] for signal in place), ', '.join(code(name) for name in _stages() if _place(name) == place))
      for part, place in parts.items()])


def stages():
  """Every stage, in the order in which they may stand in a pipeline."""
  return Table(('stage', 'parameters and defaults', 'unbiased', 'bits per value it is given'),
               [(code(name), None, None, None) for name in _stages()])


def segments():
  """Every stage, with what it puts into a segment."""
  return Table(('stage', 'takes', 'gives', 'side arrays'), [(code(name), None, None, None) for name in _stages()])


def purposes():
  """What streams of random numbers are for."""
  return Table(('purpose', 'number', 'drawn', 'by'),
               [(purpose.name.lower().replace('_', ' '), str(purpose.value), None, None) for purpose in random.Purpose])


def _place(name):
  """What a stage takes and what it gives."""
  kind = stage_lib.registry()[name]
  return kind.domain, kind.codomain


def _stages():
  order = [stage_lib.Real, stage_lib.Integers, stage_lib.Bytes]
  return sorted(stage_lib.registry(), key=lambda name: (*map(order.index, _place(name)), name))
