"""Messages: frozen dataclasses whose fields say what they may hold, as JSON. Both sides read what the other sent as
hostile: a message that is too long, or a field that is missing or not what it says, is a `MessageError`.

Names that a reader does not know are ignored: they are those of a later release.
"""

from collections.abc import Callable
import dataclasses
import json
import math
import re
from typing import Any
from typing import ClassVar
from typing import TypeVar

from tff_compress.codec import checks
from tff_compress.codec.errors import CompressionError

LARGEST = 64 * 1024
"""Bytes of the longest message."""


class MessageError(CompressionError):
  """What was received is not the message that it should be."""


@dataclasses.dataclass(frozen=True)
class Kind:
  """What a field holds.

  Attributes:
    text: in a few words, for documents.
    read: function of (name, value of JSON) that gives the value; raises MessageError.
    schema: its JSON Schema.
    write: function of the value that gives what JSON holds.
  """
  text: str
  read: Callable[[str, Any], Any]
  schema: dict[str, Any]
  write: Callable[[Any], Any] = lambda value: value


def field(kind: Kind, text: str, **more: Any) -> Any:
  """A field of a message: what it holds and what it is for."""
  return dataclasses.field(metadata={'kind': kind, 'text': text}, **more)


def whole(least: int, most: int) -> Kind:
  """A whole number between limits, both included."""
  return Kind(checks.whole_number_text(least, most),
              lambda name, value: checks.whole_number(name, value, MessageError, least=least, most=most),
              {'type': 'integer', 'minimum': least, 'maximum': most})


def number(least: float, most: float) -> Kind:
  """A finite number between limits, both included."""
  return Kind(checks.number_text(least, most),
              lambda name, value: checks.number(name, value, MessageError, least=least, most=most),
              {'type': 'number', 'minimum': least, 'maximum': most})


def text(most: int) -> Kind:
  """A printable text."""
  def read(name: str, value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= most or not value.isprintable():
      raise MessageError(f'{name} must be a printable text of 1 to {most} characters.')
    return value
  schema = {'type': 'string', 'minLength': 1, 'maxLength': most}
  return Kind(f'a printable text of 1 to {most} characters', read, schema)


def pattern(expression: str, said: str) -> Kind:
  """A text of a form."""
  def read(name: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > 1000 or re.fullmatch(expression, value, re.ASCII) is None:
      raise MessageError(f'{name} must be {said}.')
    return value
  return Kind(said, read, {'type': 'string', 'pattern': f'^(?:{expression})$'})


def hexadecimal(digits: int) -> Kind:
  """So many hexadecimal digits, in small letters."""
  return pattern(f'[0-9a-f]{{{digits}}}', f'{digits} hexadecimal digits')


def word(words: Any) -> Kind:
  """One of a closed list (an enumeration of texts)."""
  def read(name: str, value: Any) -> Any:
    try:
      return words(value)
    except ValueError:
      raise MessageError(f'{name} must be {checks.words_text(map(str, words))}.') from None
  return Kind('one of ' + ', '.join(f'`{item}`' for item in words), read,
              {'type': 'string', 'enum': [str(item) for item in words]}, str)


def optional(kind: Kind) -> Kind:
  """The same, or null, which may be left out as well."""
  return Kind(f'{kind.text}; or null', lambda name, value: None if value is None else kind.read(name, value),
              {'anyOf': [kind.schema, {'type': 'null'}]}, lambda value: None if value is None else kind.write(value))


def several(kind: Kind, most: int) -> Kind:
  """A list of at most so many."""
  def read(name: str, value: Any) -> tuple:
    if not isinstance(value, list) or len(value) > most:
      raise MessageError(f'{name} must be a list of at most {most}.')
    return tuple(kind.read(f'{name}[{place}]', item) for place, item in enumerate(value))
  return Kind(f'a list of at most {most}, each {kind.text}', read,
              {'type': 'array', 'items': kind.schema, 'maxItems': most}, lambda value: [kind.write(v) for v in value])


def nested(message: 'type[Message]') -> Kind:
  """Another message."""
  return Kind(f'a `{message.__name__}`', lambda name, value: message.of(value, name), message.schema(),
              lambda value: value.as_dict())


_Self = TypeVar('_Self', bound='Message')


@dataclasses.dataclass(frozen=True)
class Message:
  """Base class. A class with `kind` is told from others by it.

  Class attributes:
    kind: the value of the name `kind` in its JSON; '' for none.
  """
  kind: ClassVar[str] = ''

  def __post_init__(self) -> None:
    for item in dataclasses.fields(self):
      item.metadata['kind'].read(item.name, item.metadata['kind'].write(getattr(self, item.name)))

  @classmethod
  def of(cls: type[_Self], value: Any, where: str = 'the message') -> _Self:
    """The message in a value of JSON. Raises MessageError."""
    if not isinstance(value, dict):
      raise MessageError(f'{where} must be an object of JSON.')
    if cls.kind and value.get('kind') != cls.kind:
      raise MessageError(f'{where} must be of the kind {cls.kind}.')
    found = {}
    for item in dataclasses.fields(cls):
      if item.name in value or item.default is dataclasses.MISSING:
        found[item.name] = item.metadata['kind'].read(item.name, value.get(item.name))
    return cls(**found)

  @classmethod
  def read(cls: type[_Self], data: bytes) -> _Self:
    """The message in bytes of JSON. Raises MessageError."""
    return cls.of(parse(data))

  def as_dict(self) -> dict[str, Any]:
    """For JSON."""
    own = {item.name: item.metadata['kind'].write(getattr(self, item.name)) for item in dataclasses.fields(self)}
    return {'kind': self.kind, **own} if self.kind else own

  def to_bytes(self) -> bytes:
    """UTF-8 JSON, the same for equal messages."""
    return (json.dumps(self.as_dict(), ensure_ascii=False, allow_nan=False, separators=(',', ':'))).encode()

  @classmethod
  def schema(cls) -> dict[str, Any]:
    """Its JSON Schema."""
    own = {item.name: {**item.metadata['kind'].schema, 'description': item.metadata['text']}
           for item in dataclasses.fields(cls)}
    needed = [item.name for item in dataclasses.fields(cls) if item.default is dataclasses.MISSING]
    if cls.kind:
      own, needed = {'kind': {'const': cls.kind}, **own}, ['kind', *needed]
    return {'type': 'object', 'properties': own, 'required': needed}


def parse(data: bytes) -> Any:
  """The value of bytes of JSON. Raises MessageError."""
  if len(data) > LARGEST:
    raise MessageError(f'a message has at most {LARGEST} bytes.')
  try:
    return json.loads(data, parse_constant=_no_number, parse_float=_finite, parse_int=_short)
  except (ValueError, RecursionError):
    raise MessageError('the message is not JSON.') from None


def _no_number(word: str) -> Any:
  raise ValueError(word)


def _finite(digits: str) -> float:
  found = float(digits)
  if not math.isfinite(found):
    raise ValueError(digits)
  return found


def _short(digits: str) -> int:
  if len(digits) > 20:
    raise ValueError('a number of too many digits')
  return int(digits)
