"""Types of options: what a text on the command line becomes, and the sentence where it cannot."""

import argparse
from collections.abc import Callable
from typing import Any

from tff_compress.codec import checks


def whole_number(least: int, most: int) -> Callable[[str], int]:
  """A `type=` of argparse: a whole number between limits, both included."""
  def read(text: str) -> int:
    return _checked(checks.whole_number, int, text, least=least, most=most)
  return read


def number(**limits: float) -> Callable[[str], float]:
  """A `type=` of argparse: a finite number, with limits as `checks.number` has them."""
  def read(text: str) -> float:
    return _checked(checks.number, float, text, **limits)
  return read


def _checked(check: Callable[..., Any], kind: Callable[[str], Any], text: str, **limits: float) -> Any:
  try:
    value = kind(text)
  except ValueError:
    value = text  # Which is refused with the limits.
  return check('it', value, argparse.ArgumentTypeError, **limits)
