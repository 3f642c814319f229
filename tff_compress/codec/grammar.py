"""The text form of codecs.

    codec     = pipeline | rule (";" rule)* | preset
    rule      = condition ("&" condition)* "=>" pipeline
    condition = pattern for the variable's name | "size" ("<" | "<=" | ">" | ">=") whole number
    pipeline  = ["concat" "|"] stage ("|" stage)*
    stage     = name [":" parameter ("," parameter)*]
    parameter = value | field "=" value              a value without a field is the stage's first parameter

The first rule whose conditions all hold gives a variable its pipeline. `concat` encodes all variables of the rule as
one vector. Presets are names for whole codecs; they are replaced by what they stand for.
"""

import dataclasses
import difflib
import functools
import os
import pkgutil
import re
from typing import Any
from typing import ClassVar
from typing import get_type_hints
from typing import Protocol
from typing import TypeVar

from tff_compress.codec import presets
from tff_compress.codec import stage as stage_lib
from tff_compress.codec.checks import shown
from tff_compress.codec.codec import Codec
from tff_compress.codec.codec import Condition
from tff_compress.codec.codec import Rule
from tff_compress.codec.errors import CodecError
from tff_compress.codec.pipeline import Pipeline

MAX_TEXT = 10_000
"""Longer texts are refused, in characters."""

BREAK = re.compile(r'\s@\s*([0-9]{1,10})\s')
"""What stands between the codecs of a schedule, 'topk:1/4 | float32 @5 topk:1/100 | float32'; in no codec."""

_METHODS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'processes', 'methods')


def parse(text: str) -> Codec:
  """Reads a codec's text.

  Returns:
    Codec

  Raises:
    CodecError: says what was expected, in one sentence.
  """
  if not isinstance(text, str):
    raise CodecError(f'a codec is written as a text, not as {type(text).__name__}.')
  if len(text) > MAX_TEXT:
    raise CodecError(f'a codec text has at most {MAX_TEXT} characters, not {len(text)}.')
  if re.search('[\ud800-\udfff]', text):
    raise CodecError('the codec text holds half a surrogate pair, which is not a character.')
  if BREAK.search(text):
    raise CodecError('this takes one codec for all rounds, not a schedule such as "int8 @5 drive": those are for the '
                     'uplink of tff_compress.build_fed_avg, tff_compress.keras.federate and "tff-compress run".')
  return _parse(text)


def as_codec(codec: Codec | str) -> Codec:
  """A codec's text, parsed and validated; a `Codec` as it is. Raises CodecError."""
  return codec if isinstance(codec, Codec) else parse(codec)


@functools.lru_cache(maxsize=1024)
def _parse(text: str) -> Codec:
  if not text.strip():
    raise CodecError('the codec text is empty; write for example "hadamard | uniform:bits=2 | pack".')
  named = preset(text)
  if named is not None:
    return _parse(named.text)
  if '=>' not in text:
    if ';' in text:
      raise CodecError('rules are separated by ";" and written "pattern => pipeline"; "=>" is missing.')
    return Codec((Rule((Condition('*'),), _pipeline(text)),))
  return Codec(tuple(_rule(part) for part in text.split(';') if part.strip()))


def _rule(text: str) -> Rule:
  when, arrow, pipeline = text.partition('=>')
  if not arrow or '=>' in pipeline:
    raise CodecError(f'each rule is "pattern => pipeline", separated by ";", not {shown(text.strip())}.')
  return Rule(tuple(_condition(part) for part in when.split('&')), _pipeline(pipeline))


def _condition(text: str) -> Condition:
  text = text.strip()
  comparison = re.fullmatch(r'size\s*(<=|>=|<|>)\s*([0-9]{1,12})', text)
  if comparison:
    return Condition('', comparison[1], int(comparison[2]))
  return Condition(text)


def _pipeline(text: str) -> Pipeline:
  parts = [part.strip() for part in text.split('|')]
  if any(not part for part in parts):
    raise CodecError(f'a stage is missing in {shown(text.strip())}: stages are separated by single "|".')
  joined = parts[0] == 'concat'
  return Pipeline(tuple(_stage(part) for part in parts[joined:]), joined)


def preset(text: str) -> presets.Preset | None:
  """The preset that a codec's text names, with its parameters; None where it names none. Raises CodecError."""
  kind = presets.registry().get(name_of(text))
  return None if kind is None else configured(kind, text.strip(), 'preset')


@functools.lru_cache(maxsize=1)
def method_names() -> tuple[str, ...]:
  """Names of the methods of `tff_compress.processes.methods`, in order, none where that is not installed.

  A method is named as its file, so they are read off the folder: whoever takes a codec can say what such a name is
  without importing what lies above it. No stage or preset may have one of them.
  """
  return tuple(sorted(module.name.replace('_', '-') for module in pkgutil.iter_modules([_METHODS])))


def name_of(text: str) -> str:
  """The word before the parameters of `name:parameters`."""
  return text.partition(':')[0].strip()


def _stage(text: str) -> stage_lib.Stage:
  name = name_of(text)
  stages = stage_lib.registry()
  if name == 'concat':
    raise CodecError('concat may only stand first in a pipeline, and has no parameters.')
  if name not in stages:
    if name in presets.registry():
      raise CodecError(f'{name} is a preset, which stands for a whole codec and cannot be a part of another: '
                       f'write it alone, or write out what it stands for ("tff-compress codecs" shows it).')
    if name in method_names():
      raise CodecError(f'{name} is a method, which settles more than a codec and cannot be one or a part of one: write '
                       'it alone as uplink of tff_compress.keras.federate or of "tff-compress run", or, with method = '
                       f'tff_compress.processes.method({name!r}), call '
                       'method.build(model_fn, **method.arguments(keras_model)).')
    close = difflib.get_close_matches(name, [*stages, *presets.registry(), *method_names()], 1)
    raise CodecError(f'there is no stage {shown(name)}; '
                     + (f'did you mean {close[0]}?' if close else f'there are {", ".join(sorted(stages))}.'))
  return configured(stages[name], text, 'stage')


class _Configurable(Protocol):
  """A class of stages, presets or methods, or another dataclass whose instances are written name:parameters."""
  __dataclass_fields__: ClassVar[dict[str, Any]]
  examples: ClassVar[tuple[str, ...]]


Configured = TypeVar('Configured', bound=_Configurable)


def configured(kind: type[Configured], text: str, noun: str) -> Configured:
  """Makes a stage, a preset or another dataclass of such parameters from `name:parameters`.

  Args:
    kind: its class.
    text: `name:parameters`.
    noun: what errors call it.

  Raises:
    CodecError: a parameter is not one of the class's fields, or cannot have its value.
  """
  name, colon, rest = text.partition(':')
  name = name.strip()
  fields = {field.name: field for field in dataclasses.fields(kind)}
  hints = get_type_hints(kind)
  values = {}
  for position, part in enumerate(rest.split(',') if colon else []):
    field, equals, value = (piece.strip() for piece in part.partition('='))
    if not equals:
      if position or not fields:
        raise CodecError(f'{noun} {name}: {shown(part)} is not a parameter; '
                         + (f'write field=value with a field of {", ".join(fields)}.' if fields else 'it takes none.'))
      field, value = next(iter(fields)), field
    if field not in fields:
      raise CodecError(f'{noun} {name} has no parameter {shown(field)}; '
                       + (f'it takes {", ".join(fields)}.' if fields else 'it takes none.'))
    if field in values:
      raise CodecError(f'{noun} {name}: parameter {field} is given twice.')
    expected = fields[field].metadata.get('kind', hints[field])
    values[field] = stage_lib.parse_value(value, expected, f'{name}: {field}')
  missing = [n for n, f in fields.items() if n not in values and f.default is dataclasses.MISSING]
  if missing:
    raise CodecError(f'{noun} {name} needs a value for {missing[0]}, such as {name}:{kind.examples[0]}.')
  return kind(**values)
