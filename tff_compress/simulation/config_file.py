"""Settings of runs from YAML files. The files are hostile: they are small, and make nothing but plain values."""

from collections.abc import Iterable
from collections.abc import Mapping
import os
import stat
from typing import Any

from tff_compress.codec import files
from tff_compress.codec.checks import shown
from tff_compress.simulation import config as config_lib
from tff_compress.simulation.settings import ConfigError
from tff_compress.simulation.settings import nearest
from tff_compress.simulation.settings import Setting

MAX_YAML = 1 << 16
"""Largest YAML file, in bytes."""

MAX_BRACKETS = 200
"""Most opening brackets in a YAML file: the time that PyYAML takes for nested ones grows with the square of their
number."""


def load_yaml(path: str, known: Mapping[str, Setting] | None = None, lists: Iterable[str] = ()) -> dict[str, Any]:
  """Reads a YAML file of `name: value` lines.

  Args:
    path: the file.
    known: {name: `Setting`} that it may have; those of a run by default.
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
  known = config_lib.settings() if known is None else known
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
    raise ConfigError(f'{path} cannot be read: {files.reason(error)}.') from None
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
