"""Settings: each is declared once, and everything else about it follows from its declaration.

Settings are the fields of a frozen dataclass, made by `setting`:

    rounds: int = setting(20, 'training', 'number of rounds', least=1, most=10**6)

The annotation is the type, `| None` included. The check of its value, how it is read from a flag or a line of YAML, its
flag with the help, its line in the class's docstring and its row in docs/command-line.md come from there: see
`Setting`. None of it needs TensorFlow, so that a mistake is found before seconds are spent on an import.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses
import difflib
import functools
import os
import textwrap
import types
import typing
from typing import Any

from tff_compress.codec import checks
from tff_compress.codec.errors import CompressionError

_LONGEST_METAVAR = 30
_DECLARED = 'setting'  # Where a dataclass's field keeps its `Setting`.


class ConfigError(CompressionError):
  """A setting does not exist, or has a value that it cannot have."""


@dataclasses.dataclass(frozen=True)
class Setting:
  """One setting, as it was declared.

  Attributes:
    name: in Python and YAML; the flag has dashes for underscores.
    kind: int, float, bool or str.
    optional: whether it may be None, which is written `none`.
    default: its value where nothing is said.
    group: title that its flag is listed under.
    help: what it is, in a few words; of a setting that may be None, also what none stands for.
    words: the texts that it may be; () where it may be others.
    path: whether it is the path of a file or folder.
    given_metavar: what stands for its value in the help; '' for what follows from its type.
    check: of a text that may be more than a few words: returns it, or raises `ConfigError`.
    limits: of a number, as `tff_compress.codec.checks` has them: least, most, above, below.
  """
  name: str
  kind: type
  optional: bool
  default: Any
  group: str
  help: str
  words: tuple[str, ...] = ()
  path: bool = False
  given_metavar: str = ''
  check: Callable[[str], str] | None = None
  limits: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def annotation(self) -> Any:
    """Its type in a dataclass."""
    return self.kind | None if self.optional else self.kind

  @property
  def field(self) -> Any:
    """A field of a dataclass that is this setting; its name and type are those that it has there."""
    return dataclasses.field(default=self.default, metadata={_DECLARED: self})

  @property
  def flag(self) -> str:
    return '--' + self.name.replace('_', '-')

  @property
  def metavar(self) -> str:
    """What stands for the value in the help."""
    if self.given_metavar:
      return self.given_metavar
    words = '|'.join(self._choices)
    if words:
      return words if len(words) <= _LONGEST_METAVAR else 'NAME'
    return 'PATH' if self.path else {int: 'N', float: 'X', str: 'TEXT'}[self.kind]

  @property
  def flag_help(self) -> str:
    """The help of its flag: what it is, its words where they are too many for `metavar`, and the default."""
    words = f': {", ".join(self.words)}' if self.metavar == 'NAME' else ''
    return f'{self.help}{words} ({self.default_text})'

  @property
  def _choices(self):
    """What may be written, where that is a few words."""
    words = ('true', 'false') if self.kind is bool else self.words
    return (*words, 'none') if words and self.optional else words

  @property
  def values(self) -> str:
    """What values it may have, as documents say it."""
    if self._choices:
      *words, last = self._choices
      return f'{", ".join(words)} or {last}'
    if self.kind is str:
      text = 'a path' if self.path else f'a {self.metavar.lower()}'
    else:
      text = checks.whole_number_text(**self.limits) if self.kind is int else checks.number_text(**self.limits)
    return f'{text}, or none' if self.optional else text

  @property
  def default_text(self) -> str:
    """The default as it is written in a flag or in YAML."""
    return 'none' if self.default is None else str(self.default).lower() if self.kind is bool else str(self.default)

  def parse(self, value: Any, where: str = '') -> Any:
    """The setting's value from a text, or from what YAML made of one.

    Only the type is settled here; `checked` looks at the value.

    Args:
      value: str, int, float, bool or None.
      where: what the error calls it; the name by default.

    Raises:
      ConfigError: the value is not of the setting's type.
    """
    where = where or self.name
    if self.optional and (value is None or value == 'none'):
      return None
    noun = {int: 'a whole number', float: 'a number', bool: 'true or false', str: 'a text'}[self.kind]
    try:
      if self.kind is bool:
        return {True: True, False: False, 'true': True, 'false': False, 'yes': True, 'no': False}[value]
      if self.kind is str:
        if not isinstance(value, str):
          raise TypeError
        return value
      if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise TypeError
      if self.kind is int and (isinstance(value, float) or len(str(value)) > 40):
        raise TypeError
      return self.kind(value)
    except (KeyError, TypeError, ValueError, OverflowError):
      raise ConfigError(f'{where} must be {noun}, not {checks.shown(value)}.') from None

  def checked(self, value: Any, error: type[Exception] = ConfigError) -> Any:
    """The value that a setting has in Python, in its own type.

    Raises:
      `error`: it cannot have this value.
    """
    if value is None and self.optional:
      return None
    if self.kind is bool:
      return checks.boolean(self.name, value, error)
    if self.kind is int:
      return checks.whole_number(self.name, value, error, **self.limits)
    if self.kind is float:
      return checks.number(self.name, value, error, **self.limits)
    if self.words:
      return checks.one_of(self.name, value, self.words, error)
    if self.path:
      return self._checked_path(value, error)
    if not isinstance(value, str):
      raise error(f'{self.name} must be a text, not {checks.shown(value)}.')
    return value if self.check is None else self.check(value)

  def _checked_path(self, value, error):
    try:
      text = os.fspath(value)
    except TypeError:
      text = None
    if not isinstance(text, str) or not text or '\0' in text:
      raise error(f'{self.name} must be the path of a folder or file, not {checks.shown(value)}.')
    return text


def setting(default: Any, group: str, help: str, *, words: Iterable[str] = (), path: bool = False, metavar: str = '',
            check: Callable[[str], str] | None = None, **limits: float) -> Any:
  """A field of a dataclass that is a setting: see `Setting` for the arguments. Its annotation is its type."""
  unknown = limits.keys() - {'least', 'most', 'above', 'below'}
  if unknown:
    raise TypeError(f'there is no limit {min(unknown)}: use least, most, above or below.')
  return Setting('', type(default), default is None, default, group, help, tuple(words), path, metavar, check,
                 limits).field


@functools.cache
def settings_of(cls: type) -> Mapping[str, Setting]:
  """{name: `Setting`} of the fields of a dataclass, in their order."""
  hints = typing.get_type_hints(cls)
  result = {}
  for field in dataclasses.fields(cls):
    kinds = set(typing.get_args(hints[field.name])) or {hints[field.name]}
    kind, = kinds - {types.NoneType}
    result[field.name] = dataclasses.replace(field.metadata[_DECLARED], name=field.name, kind=kind,
                                             optional=types.NoneType in kinds)
  return types.MappingProxyType(result)


def check_all(config: Any, error: type[Exception] = ConfigError) -> None:
  """For `__post_init__` of a frozen dataclass: checks every setting, and gives it its type. Raises `error`."""
  kind: Any = type(config)
  for name, declared in settings_of(kind).items():
    object.__setattr__(config, name, declared.checked(getattr(config, name), error))


def documented(cls: type) -> type:
  """Decorates a dataclass of settings: its docstring ends with a list of its attributes."""
  lines = [textwrap.fill(f'{declared.name}: {declared.help}.', 120, subsequent_indent='      ', break_long_words=False,
                         initial_indent='    ') for declared in settings_of(cls).values()]
  cls.__doc__ = '\n'.join([(cls.__doc__ or '').rstrip(), '', '  Attributes:', *lines])
  return cls


def nearest(name: Any, known: Iterable[str]) -> str:
  """'did you mean rounds?', or a list of all where none is near."""
  name = name if isinstance(name, str) else ''
  close = difflib.get_close_matches(name.replace('-', '_').lower()[:100], known, 1)
  return f'did you mean {close[0]}?' if close else f'there are {", ".join(known)}.'
