"""`tff-compress codecs`: which stages, presets and methods exist, and what each costs on a fixed tensor."""

import argparse
from collections.abc import Callable
from collections.abc import Iterable
import dataclasses
import functools
import inspect
import typing
from typing import Any

import numpy as np

from tff_compress import codec as codec_lib
from tff_compress.cli import output
from tff_compress.codec import presets
from tff_compress.codec import stage as stage_lib
from tff_compress.codec.codec import Codec
from tff_compress.codec.errors import CodecError
from tff_compress.processes import methods
from tff_compress.processes.up import steps

SHAPE = (256, 128)
"""Shape of the tensor that bits and error are measured on: normally distributed values, always the same."""

_MESSAGE = {'seed': 0, 'round': 0, 'client': 0}


def add_codecs(parser: argparse.ArgumentParser) -> None:
  """Gives the parser of `codecs` its options."""
  parser.set_defaults(function=lambda o: list_all(o.json) if o.name is None else describe(o.name, o.json))
  parser.description = 'List the stages and presets that codecs are made of, and the methods, or show one in full.'
  parser.add_argument('name', nargs='?', metavar='NAME',
                      help='show this stage, preset or method: what it does, parameters, examples')
  parser.add_argument('--json', action='store_true', help='print JSON')


@dataclasses.dataclass(frozen=True)
class Entry:
  """A stage, a preset or a method, as the list shows it.

  Attributes:
    name: the word that names it.
    kind: 'transform', 'quantizer', 'coder', 'preset' or 'method'.
    summary, source: one line each.
    page: of a preset or method, where it is described, from the repository's top; None for stages.
    memory: what has to remember something between rounds: 'clients', 'server', 'clients, server' or 'nothing'.
    command: of a preset or method, how to train with it; None for stages.
    measured: the codec that was measured: a preset as it is, a stage with the stages that it needs around it, of a
      method its uplink, or the last one where it changes with the round.
    bits_per_parameter: bits of the payload per value of the tensor.
    nmse: ||decoded - x||^2 / ||x||^2 on the tensor, of this one message; None for coders, which are lossless, and for
      methods, of which one message says little.
    bias: 'unbiased', 'biased', or 'either' where that is a parameter's choice; None for methods.
    linear: 'yes', 'no', or 'either': whether a sum of encoded updates can be decoded at once. For a preset: 'yes' where
      it starts with stages that can. None for methods.
  """
  name: str
  kind: str
  summary: str
  source: str
  page: str | None
  memory: str
  command: str | None
  measured: str
  bits_per_parameter: float
  nmse: float | None
  bias: str | None
  linear: str | None


@functools.lru_cache(maxsize=1)
def _values() -> np.ndarray:
  values = np.random.Generator(np.random.Philox(key=1)).standard_normal(SHAPE, np.float32)
  values.flags.writeable = False
  return values


def measure(codec: Codec, lossless: bool = False,
            coded: Callable[[np.ndarray], np.ndarray] = lambda update: update) -> tuple[float, float | None]:
  """(bits per parameter, NMSE) of one message of a `Codec` on the fixed tensor.

  `lossless` says that the stage of interest adds no error; the NMSE, which would be that of the stages around it, is
  then None. So it has to be where the codec is given something else of the tensor, by the function `coded`.
  """
  update = {'kernel': coded(_values())}
  payload = codec.encode(update, **_MESSAGE)
  exact = _values().astype(np.float64)
  bits = 8 * len(payload) / exact.size
  if lossless:
    return bits, None
  decoded = codec.decode(payload, update, **_MESSAGE)['kernel'].astype(np.float64)
  return bits, float(np.sum((decoded - exact)**2) / np.sum(exact**2))


def kind_of(stage: type[stage_lib.Stage]) -> str:
  """'transform', 'quantizer' or 'coder' of a stage class."""
  if stage.codomain is stage_lib.Real:
    return 'transform'
  return 'quantizer' if stage.domain is stage_lib.Real else 'coder'


def written(cls: Any, parameters: str) -> str:
  """`name:parameters`, or the name alone."""
  return f'{cls.name}:{parameters}' if parameters else cls.name


def _usual(cls: Any) -> str:
  """The parameters to measure in the list: the defaults, or the first example of what has none."""
  needed = any(field.default is dataclasses.MISSING for field in dataclasses.fields(cls))
  return cls.examples[0] if needed else ''


def around(cls: type[stage_lib.Stage], parameters: str) -> Codec:
  """The shortest `Codec` worth measuring that has a stage with these parameters in it."""
  text = written(cls, parameters)
  if kind_of(cls) == 'transform':
    return codec_lib.parse(f'{text} | float32')
  if kind_of(cls) == 'coder':
    # One source for all coders, so that their bits can be compared.
    return codec_lib.parse(f'hadamard:key=client | ternary | {text}')
  if cls.codomain is not stage_lib.Integers:
    return codec_lib.parse(text)
  try:
    return codec_lib.parse(f'{text} | pack')
  except CodecError:
    return codec_lib.parse(f'hadamard:key=client | {text} | pack')


def _choice(values: Iterable[bool], yes: str, no: str) -> str:
  values = set(values)
  return 'either' if len(values) > 1 else yes if True in values else no


def entry(name: str) -> Entry:
  """The `Entry` of a stage, preset or method."""
  page: str | None = None
  command: str | None = None
  memory = 'nothing'
  if name not in stage_lib.registry():
    cls = _named()[name]
    kind = 'preset' if name in presets.registry() else 'method'
    examples = [_last_codec(cls, parameters) for parameters in cls.examples]
    default = examples[0]
    page, command = f'docs/{cls.page}', f'tff-compress run --uplink {name}'
    if kind == 'method':
      memory = cls.memory
      command += ''.join(f' {need.options}' for need in cls.needs if need.options)
    else:
      memory = 'clients' if cls.feedback else 'nothing'
      command += f' --downlink {name}' if cls.changes else ''
    pipelines = [rule.pipeline for codec in examples for rule in codec.rules]
    unbiased, linear = {all(p.unbiased for p in pipelines)}, {any(p.prefix > 0 for p in pipelines)}
  else:
    cls = stage_lib.registry()[name]
    kind = kind_of(cls)
    default = around(cls, _usual(cls))
    examples = [around(cls, parameters) for parameters in cls.examples]
    stages = [stage for codec in examples for stage in codec.rules[0].pipeline.stages if stage.name == name]
    unbiased, linear = {stage.unbiased for stage in stages}, {stage.summable for stage in stages}
  bits, nmse = _measured(cls, default, cls.examples[0], kind)
  claims = (None, None) if kind == 'method' else (
      _choice(unbiased, 'unbiased', 'biased'), _choice(linear, 'yes', 'no'))
  return Entry(name, kind, cls.summary, cls.source, page, memory, command, str(default), bits, nmse, *claims)


def _named() -> dict[str, Any]:
  """{name: class} of presets and methods."""
  return {**dict(sorted(presets.registry().items())), **dict(sorted(methods.registry().items()))}


def _last_codec(cls: Any, parameters: str) -> Codec:
  """The `Codec` of a preset or of a method's messages; the last where it changes with the round."""
  return steps.schedule(methods.method(written(cls, parameters)).codec_of_same_length)[-1][1]


def _measured(cls: Any, codec: Codec, parameters: str, kind: str) -> tuple[float, float | None]:
  """`measure` for a stage, preset or method with these parameters, which the codec is of."""
  if kind == 'method':
    return measure(codec, True, methods.method(written(cls, parameters)).encoder_input)
  return measure(codec, lossless=kind == 'coder')


def entries() -> list[Entry]:
  """Every stage, preset and method: a list of `Entry`, in this order."""
  order = {'transform': 0, 'quantizer': 1, 'coder': 2}
  stages = sorted(stage_lib.registry().items(), key=lambda item: (order[kind_of(item[1])], item[0]))
  return [entry(name) for name in [*(name for name, _ in stages), *_named()]]


def _nmse(value: float | None) -> str:
  return '0' if value is None else f'{value:.2g}'


_COLUMNS = (
    ('name', '<', lambda e: e.name),
    ('kind', '<', lambda e: e.kind),
    ('memory', '<', lambda e: e.memory),
    ('bits', '>', lambda e: f'{e.bits_per_parameter:.3f}'),
    ('NMSE', '>', lambda e: _nmse(e.nmse)),
    ('bias', '<', lambda e: e.bias),
    ('linear', '<', lambda e: e.linear),
    ('what it does [source]', '<', lambda e: f'{e.summary} [{e.source}]'),
)
# Title, kinds of entries, columns that are left out.
_SECTIONS = (
    ('Stages', ('transform', 'quantizer', 'coder'), ('memory',)),
    ('Presets', ('preset',), ('kind',)),
    ('Methods', ('method',), ('kind', 'NMSE', 'bias', 'linear')),
)


def list_all(as_json: bool) -> None:
  """Prints every stage, preset and method."""
  found = entries()
  if as_json:
    output.print_json([dataclasses.asdict(entry) for entry in found])
    return
  for title, kinds, left_out in _SECTIONS:
    chosen = [column for column in _COLUMNS if column[0] not in left_out]
    rows = [[text(e) for _, _, text in chosen] for e in found if e.kind in kinds]
    print(f'{title}\n')
    print(output.table([header for header, _, _ in chosen], rows, ''.join(side for _, side, _ in chosen)))
    print()
  size = SHAPE[0] * SHAPE[1]
  print(f'bits    measured bits per parameter of one message with {size:,} normally distributed values; a stage is')
  print('        measured with the stages it needs around it: `tff-compress codecs NAME` shows them')
  print('NMSE    squared error of that message over the squared norm')
  print('linear  the server decodes the sum of all clients once; for a preset: its first stages')
  print('memory  what has to remember something between rounds; `tff-compress run` sees to it. Bits and NMSE are those')
  print('        of one message without it')
  print("\nA codec is a chain of stages, 'hadamard | uniform:bits=2 | pack', or a preset, 'int8'. A method is more")
  print('than a codec, and is an uplink for `tff-compress run` and `compare`.')


def describe(name: str, as_json: bool) -> None:
  """Prints what one stage, preset or method is: docstring, parameters, measured examples.

  Raises:
    CodecError: there is none of that name.
  """
  stages, named = stage_lib.registry(), _named()
  if name not in stages and name not in named:
    import difflib
    close = difflib.get_close_matches(name, [*stages, *named], 1)
    hint = f'did you mean {close[0]}?' if close else '`tff-compress codecs` lists them all.'
    raise CodecError(f'there is no stage, preset or method {output.printable(name)[:60]!r}; {hint}')
  cls = stages.get(name) or named[name]
  found = entry(name)
  hints = typing.get_type_hints(cls)
  parameters = [{'name': f.name, 'kind': _kind_text(f, hints[f.name]),
                 'default': None if f.default is dataclasses.MISSING else stage_lib.format_value(f.default)}
                for f in dataclasses.fields(cls)]
  examples: list[dict[str, Any]] = []
  for text in cls.examples:
    codec = around(cls, text) if name in stages else _last_codec(cls, text)
    bits, nmse = _measured(cls, codec, text, found.kind)
    examples.append({'codec': str(codec) if name in stages else written(cls, text), 'bits_per_parameter': bits,
                     'nmse': nmse})
  documentation = inspect.getdoc(cls) or ''
  if as_json:
    output.print_json({**dataclasses.asdict(found), 'documentation': documentation, 'parameters': parameters,
                       'examples': examples})
    return
  print(f'{name} ({found.kind}): {found.summary}\n')
  print(documentation + '\n')
  print(output.properties([
      ('source', found.source), ('page', found.page), ('bias', found.bias), ('linear', found.linear),
      ('memory', found.memory if name in named else None),
      ('stands for', found.measured if found.kind == 'preset' else None),
      ('uplink', _schedule_text(cls()) if found.kind == 'method' else None),
      ('downlink', getattr(cls, 'downlink', None) or None), ('example', found.command)]) + '\n')
  if parameters:
    print(output.table(['parameter', 'default', 'value'],
                       [[p['name'], p['default'] or '(needed)', p['kind']] for p in parameters]) + '\n')
  rows = [[f'{e["bits_per_parameter"]:.3f}', _nmse(e['nmse']), e['codec']] for e in examples]
  header = ['bits per parameter', 'NMSE', 'example']
  if found.kind == 'method':
    header, rows = [header[0], header[2]], [[row[0], row[2]] for row in rows]
  print(output.table(header, rows, '>' * (len(header) - 1) + '<', wrap=False))


def _schedule_text(method: Any) -> str:
  """The uplink of a method as one text."""
  first, *later = steps.schedule(method.uplink)
  return str(first[1]) + ''.join(f' @{start} {codec}' for start, codec in later)


def _kind_text(field: dataclasses.Field, hint: Any) -> str:
  kind = field.metadata.get('kind')
  if kind:
    return ' or '.join(kind)
  return {'int': 'whole number', 'float': 'number', 'Fraction': 'number or fraction such as 1/16'}.get(
      getattr(hint, '__name__', ''), 'text')
