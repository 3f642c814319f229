"""Settings of runs from text: command-line flags and YAML files to `RunConfig`.

The settings are the fields of `tff_compress.simulation.run.RunConfig`, which also says what values they may have. Here
texts become values of the right type, and a name that does not exist is answered with the nearest that does. None of it
needs TensorFlow, so that a mistake is found before seconds are spent on an import.
"""

import dataclasses
import difflib
import functools
import os
import stat
import types
import typing

from tff_compress.codec.errors import CompressionError

MAX_YAML = 1 << 16
"""Largest YAML file, in bytes."""

MAX_BRACKETS = 200
"""Most opening brackets in a YAML file: the time that PyYAML takes for nested ones grows with the square of their
number."""


class ConfigError(CompressionError):
  """A setting does not exist, or has a value that it cannot have."""


@dataclasses.dataclass(frozen=True)
class Setting:
  """One field of `RunConfig` as a flag or a line of YAML.

  Attributes:
    name: in YAML; the flag has dashes for underscores.
    kind: int, float, bool or str.
    optional: whether it may be None, which is written `none`.
    default: what it is where nothing is said.
  """
  name: str
  kind: type
  optional: bool
  default: object

  @property
  def flag(self):
    return '--' + self.name.replace('_', '-')

  def parse(self, value, where=''):
    """The setting's value from a text, or from what YAML made of one.

    Only the type is settled here; `RunConfig` checks the value.

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
      raise ConfigError(f'{where} must be {noun}, not {shown(value)}.') from None


@functools.lru_cache(maxsize=1)
def settings():
  """{name: `Setting`} of all fields of `RunConfig`, in their order."""
  from tff_compress.simulation.run import RunConfig
  hints = typing.get_type_hints(RunConfig)
  result = {}
  for field in dataclasses.fields(RunConfig):
    kinds = set(typing.get_args(hints[field.name])) or {hints[field.name]}
    kind, = kinds - {types.NoneType}
    result[field.name] = Setting(field.name, kind, types.NoneType in kinds, field.default)
  return types.MappingProxyType(result)


def make(values):
  """The `RunConfig` of some settings; the others have their defaults.

  Args:
    values: mapping of setting name to value.

  Raises:
    ConfigError: a setting does not exist, cannot have its value, or does not go with another.
  """
  from tff_compress.simulation.run import RunConfig
  for name in values:
    if name not in settings():
      raise ConfigError(f'there is no setting {shown(name)}; {nearest(name, settings())}')
  return RunConfig(**values)


def nearest(name, known):
  """'did you mean rounds?', or a list of all where none is near."""
  name = name if isinstance(name, str) else ''
  close = difflib.get_close_matches(name.replace('-', '_').lower()[:100], known, 1)
  return f'did you mean {close[0]}?' if close else f'there are {", ".join(known)}.'


def shown(value):
  """A value from outside as an error may show it: short, and on one line."""
  if isinstance(value, (list, dict, set, tuple)):
    # Not its text: a few lines of YAML can refer to themselves so often that it would fill the memory.
    return 'a list' if isinstance(value, (list, tuple)) else 'a mapping'
  text = repr(value) if isinstance(value, str) else str(value)
  return text if len(text) <= 60 else text[:57] + '…'


def load_yaml(path, known=None, lists=()):
  """Reads a YAML file of `name: value` lines.

  Args:
    path: the file.
    known: {name: `Setting`} that it may have; all of `settings()` by default.
    lists: names of settings of which it may have a list.

  Returns:
    dict of setting name to its value, or to a list of values.

  Raises:
    ConfigError: the file cannot be read, is no such file, or has a setting that does not exist or cannot have its
      value.
  """
  import yaml

  class Loader(yaml.SafeLoader):
    """A safe loader that refuses a key that is there twice; YAML's own takes the last."""

    def construct_mapping(self, node, deep=False):
      seen = set()
      for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
          continue
        if key.value in seen:
          raise yaml.constructor.ConstructorError(None, None, f'{shown(key.value)} is there twice', key.start_mark)
        seen.add(key.value)
      return super().construct_mapping(node, deep)

  data = _read(path)
  try:
    values = yaml.load(data, Loader)  # A SafeLoader: it makes nothing but plain values.
  except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
    raise ConfigError(f'{path} is not valid YAML: {_yaml_problem(error)}.') from None
  if not isinstance(values, dict):
    raise ConfigError(f'{path} must have lines of the form "name: value", such as "rounds: 20".')
  known = settings() if known is None else known
  result = {}
  for name, value in values.items():
    setting = known.get(name) if isinstance(name, str) else None
    if setting is None:
      raise ConfigError(f'{path}: there is no setting {shown(name)}; {nearest(name, known)}')
    if name in lists and isinstance(value, list):
      if not value:
        raise ConfigError(f'{path}: {name} must not be an empty list.')
      result[name] = [setting.parse(item, f'{path}: {name}') for item in value]
    else:
      result[name] = setting.parse(value, f'{path}: {name}')
  return result


def _read(path):
  try:
    if not stat.S_ISREG(os.stat(path).st_mode):
      raise ConfigError(f'{path} is not a file.')
    with open(path, 'rb') as file:
      data = file.read(MAX_YAML + 1)
  except (OSError, ValueError) as error:
    if isinstance(error, ConfigError):
      raise
    raise ConfigError(f'{path} cannot be read: {getattr(error, "strerror", None) or error}.') from None
  if len(data) > MAX_YAML:
    raise ConfigError(f'{path} has more than {MAX_YAML} bytes, too many for a list of settings.')
  if data.count(b'[') + data.count(b'{') > MAX_BRACKETS:
    raise ConfigError(f'{path} is not valid YAML: it has more than {MAX_BRACKETS} opening brackets.')
  return data


def _yaml_problem(error):
  mark = getattr(error, 'problem_mark', None)
  problem = getattr(error, 'problem',
                    None) or ('it is nested too deeply' if isinstance(error, RecursionError) else str(error))
  where = f' in line {mark.line + 1}' if mark else ''
  hint = '; put a codec that starts with * in quotes' if 'alias' in str(error) else ''
  return ' '.join(str(problem).split())[:150].rstrip('.') + where + hint
