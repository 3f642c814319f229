"""Checks of arguments and settings, for every layer: one sentence for each thing that a value may have to be.

    rounds = checks.whole_number('rounds', rounds, FederateError, least=1)

Each returns the value, or raises the error class it was given: 'rounds must be a whole number of at least 1, not 0.'
True and False are no numbers here, and a text is none; NumPy's integers are whole numbers.
"""

import math
import operator
from typing import Any
from typing import NoReturn


def whole_number(name: str, value: Any, error: type[Exception], *, least: int | None = None, most: int | None = None,
                 optional: bool = False) -> Any:
  """Checks a whole number.

  Args:
    name: what the sentence calls it: 'rounds', or 'fedpaq: steps'.
    value: what was given.
    error: class of the error that is raised.
    least, most: limits, both included; None: no limit. A limit above needs one below.
    optional: whether it may be None.

  Returns:
    int; or None.

  Raises:
    `error`: it is none, or beyond the limits.
  """
  if value is None and optional:
    return None
  if not is_whole_number(value, least, most):
    _refuse(name, whole_number_text(least, most), value, error, optional)
  return operator.index(value)


def is_whole_number(value: Any, least: int | None = None, most: int | None = None) -> bool:
  """Whether a value is a whole number between limits, both included; for sentences that have more to say."""
  if _is_bool(value):
    return False
  try:
    found = operator.index(value)
  except TypeError:
    return False
  return (least is None or least <= found) and (most is None or found <= most)


def number(name: str, value: Any, error: type[Exception], *, least: float | None = None, most: float | None = None,
           above: float | None = None, below: float | None = None, optional: bool = False) -> Any:
  """Checks a finite number.

  Args:
    name, value, error, optional: as for `whole_number`.
    least, most: limits that the number may have; None: no limit.
    above, below: limits that it may not have, in place of `least` and `most`.

  Returns:
    float; or None.

  Raises:
    `error`: it is no number, not finite, or beyond the limits.
  """
  if value is None and optional:
    return None
  try:
    if _is_bool(value) or isinstance(value, (str, bytes)):
      raise TypeError
    found = float(value)
  except (TypeError, ValueError, OverflowError):
    found = math.nan
  if not (math.isfinite(found) and (least is None or least <= found) and (most is None or found <= most)
          and (above is None or above < found) and (below is None or found < below)):
    _refuse(name, number_text(least, most, above, below), value, error, optional)
  return found


def boolean(name: str, value: Any, error: type[Exception]) -> bool:
  """Returns True or False; raises `error` for anything else, also for 0 and 1."""
  if not isinstance(value, bool):
    _refuse(name, 'True or False', value, error)
  return value


def one_of(name: str, value: Any, words: Any, error: type[Exception], *, optional: bool = False) -> Any:
  """Returns one of a few words (an iterable of texts), or None where that is allowed; raises `error` for others."""
  if value is None and optional:
    return None
  words = tuple(words)
  if not isinstance(value, str) or value not in words:
    _refuse(name, words_text(words), value, error, optional)
  return value


def whole_number_text(least: int | None = None, most: int | None = None) -> str:
  """'a whole number from 1 to 10^6', as sentences and documents have it."""
  return _range_text('a whole number', least, most)


def number_text(least: float | None = None, most: float | None = None, above: float | None = None,
                below: float | None = None) -> str:
  """'a number above 0 and at most 1', as sentences and documents have it."""
  return _range_text('a number', least, most, above, below)


def words_text(words: Any) -> str:
  """'examples or uniform', 'one of sgd, adam, yogi', as sentences and documents have it."""
  words = tuple(words)
  return ' or '.join(words) if len(words) <= 2 else f'one of {", ".join(words)}'


def _range_text(noun: str, least: float | None, most: float | None, above: float | None = None,
                below: float | None = None) -> str:
  if least is not None and most is not None:
    return f'{noun} from {limit_text(least)} to {limit_text(most)}'
  low = f'of at least {limit_text(least)}' if least is not None else f'above {limit_text(above)}' if (
      above is not None) else ''
  high = f'at most {limit_text(most)}' if most is not None else f'below {limit_text(below)}' if (
      below is not None) else ''
  if noun == 'a number' and not high:
    noun = 'a finite number'
  return ' '.join(filter(None, (noun, ' and '.join(filter(None, (low, high))))))


def limit_text(limit: float) -> str:
  """A limit as sentences show it: from 10^5 on, powers of ten and two are written as such, as in 2^64-1."""
  if limit != int(limit):
    return f'{limit:g}'
  limit = int(limit)
  if limit < 10**5:
    return str(limit)
  zeros = len(str(limit)) - 1
  if limit == 10**zeros:
    return f'10^{zeros}'
  if limit & (limit - 1) == 0:
    return f'2^{limit.bit_length() - 1}'
  return f'2^{limit.bit_length()}-1' if limit & (limit + 1) == 0 else str(limit)


def shown(value: Any) -> str:
  """A value from outside as errors show it: on one line, and short."""
  for kind, text in ((dict, 'a mapping'), (list, 'a list'), (tuple, 'a tuple'), (set, 'a set')):
    # Not its own text: a few lines of YAML can refer to themselves so often that it would fill the memory.
    if isinstance(value, kind):
      return text
  if isinstance(value, str):
    return repr(value if len(value) <= 60 else value[:59] + '…')
  if isinstance(value, int) and abs(value) >= 10**60:
    return 'a number of more than 60 digits'  # Python refuses to write out those of some thousands.
  text = ' '.join(repr(value).split())
  return text if len(text) <= 60 else text[:59] + '…'


def _is_bool(value: object) -> bool:
  """Whether it is Python's bool or NumPy's."""
  return isinstance(value, bool) or getattr(getattr(value, 'dtype', None), 'kind', '') == 'b'


def _refuse(name: str, wanted: str, value: object, error: type[Exception], optional: bool = False) -> NoReturn:
  raise error(f'{name} must be {wanted}{", or None" if optional else ""}, not {shown(value)}.')
