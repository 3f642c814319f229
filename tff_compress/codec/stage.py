"""What a stage is: one pure, printable step of a codec.

A codec is a chain of stages, each a small frozen dataclass whose fields are its whole configuration:

    R→R transforms*  →  one R→Z quantizer  →  one Z→bytes coder        (or one R→bytes quantizer)

To add a stage, write one file in `transforms/`, `quantizers/` or `coders/` with a class that derives from `Stage`.
It is found by itself: the grammar, `tff-compress codecs` and the contract suite take it from the registry.
"""

import dataclasses
import fractions
import importlib
import pkgutil
import re
from typing import ClassVar

from tff_compress.codec.errors import CodecError


@dataclasses.dataclass(frozen=True)
class Real:
  """A vector of `size` float32 values.

  Attributes:
    size: number of values.
    shapes: shapes of the variables that lie in the vector one after the other; () behind the first stage, and where no
      stage asks for them.
  """
  size: int
  shapes: tuple = ()


@dataclasses.dataclass(frozen=True)
class Integers:
  """A vector of `size` int32 symbols, each in low … high."""
  size: int
  low: int
  high: int


@dataclasses.dataclass(frozen=True)
class Bytes:
  """A byte string; `size` is None where it depends on the values."""
  size: int | None


@dataclasses.dataclass(frozen=True)
class Side:
  """One named array that a stage sends beside its values.

  Attributes:
    name: unique within the stage.
    size: number of int32 entries; None where it depends on the values, in which case it is sent before them (4 bytes).
    width: bytes sent per entry, little endian (4 also carries the bits of a float32); None for an ascending list of
      positions, which is sent as Rice-coded gaps.
    below: exclusive upper limit of the positions, where width is None.
  """
  name: str
  size: int
  width: int | None
  below: int = 0


@dataclasses.dataclass(frozen=True)
class Stage:
  """Base class of all stages. Subclasses are frozen dataclasses; the fields are the configuration, nothing else is.

  Class attributes:
    name: the word that names the stage in a codec text.
    domain, codomain: the signal types that it maps between.
    summary: one line for `tff-compress codecs`.
    source: where the formula is from.
    linear: `decode` is linear in the values and draws at most on the round's key, so that decode(sum) == sum(decodes).
    unbiased: E[decode(encode(x))] == x over the stage's own randomness.
    isotropic: the stage rotates; quantizers that owe their unbiasedness to a rotation ask for it.
    needs_rotation: the stage is only unbiased behind an isotropic stage with the client's own key.
    needs_shapes: the stage works on variables in their shape (`signal.shapes`), so it can only stand first.
    summable: what the clients of a round encode may be added before it is decoded. So it is where `decode` is linear;
      other stages may say so where decoding the sum is what they are for.
  """
  name: ClassVar[str] = ''
  domain: ClassVar[type] = Real
  codomain: ClassVar[type] = Real
  summary: ClassVar[str] = ''
  source: ClassVar[str] = ''
  linear: ClassVar[bool] = False
  unbiased: ClassVar[bool] = False
  isotropic: ClassVar[bool] = False
  needs_shapes: ClassVar[bool] = False
  examples: ClassVar[tuple] = ('',)

  @property
  def needs_rotation(self):
    return False

  @property
  def summable(self):
    return self.linear

  def output(self, signal):
    """The signal this stage makes from an input signal (static)."""
    raise NotImplementedError

  def side(self, signal):
    """Tuple of `Side`: what is sent beside the values for this input signal (static)."""
    del signal
    return ()

  def encode(self, xp, values, draws, signal):
    """Returns (values, {side name: int32 array}). `signal` describes the input."""
    raise NotImplementedError

  def decode(self, xp, values, side, draws, signal):
    """Inverse of `encode` up to the stage's error; `signal` is the input signal of `encode`."""
    raise NotImplementedError

  def cost(self, xp, symbols, signal):
    """Of a coder: how many bytes `encode` makes of these symbols, exactly or nearly, as an integer scalar.

    Variables of a message share a stream where the sum of this says so, so it is the same wherever it is computed.
    """
    return xp.size(self.encode(xp, symbols, None, signal)[0])

  def nmse_bound(self, signal):
    """Declared bound on E||decode(encode(x)) - x||^2 / ||x||^2 for any x; None where there is none."""
    raise NotImplementedError

  def __str__(self):
    shown = []
    for position, field in enumerate(dataclasses.fields(self)):
      value = getattr(self, field.name)
      if value == field.default:
        continue
      text = format_value(value)
      shown.append(text if position == 0 and _positional(self) else f'{field.name}={text}')
    return self.name + (':' + ','.join(shown) if shown else '')


def _positional(stage):
  """Whether the stage's first field may be written without its name: it may where it has no default."""
  first = dataclasses.fields(stage)[0]
  return first.default is dataclasses.MISSING


def format_value(value):
  """The shortest text that `parse_value` reads back as the same value."""
  if isinstance(value, fractions.Fraction):
    return str(value)
  if isinstance(value, float):
    return repr(value)
  return str(value)


MAX_DENOMINATOR = 10**9
"""Fractions with a larger denominator are refused."""


def parse_value(text, kind, what):
  """Reads one parameter.

  Args:
    text: what was written after `=`.
    kind: int, float, str, fractions.Fraction or a tuple of allowed strings.
    what: 'stage parameter' for the error.

  Raises:
    CodecError: the text is not of that kind.
  """
  if isinstance(kind, tuple):
    if text not in kind:
      raise CodecError(f'{what} must be one of {", ".join(kind)}, not {text[:40]!r}.')
    return text
  try:
    # The limits keep numbers such as 1e999999999 from being written out, and the text of every number readable.
    if kind is not str and len(text) > 40:
      raise ValueError
    if kind is fractions.Fraction and not re.fullmatch(r'[^eE]*([eE][+-]?[0-9]{1,2})?', text):
      raise ValueError
    value = kind(text)
  except (ValueError, ZeroDivisionError):
    noun = {int: 'a whole number', float: 'a number', fractions.Fraction: 'a number or a fraction such as 1/16'}[kind]
    raise CodecError(f'{what} must be {noun}, not {text[:40]!r}.') from None
  check(kind is not fractions.Fraction or value.denominator <= MAX_DENOMINATOR,
        f'{what} must not need more than nine digits behind the point, as {text!r} does.')
  return value


def choice(default, *others):
  """A field that takes one of a few words."""
  return dataclasses.field(default=default, metadata={'kind': (default,) + others})


def check(condition, message):
  """Raises CodecError(message) unless the condition holds."""
  if not condition:
    raise CodecError(message)


_registry = {}


def registry():
  """{name: stage class} of everything under transforms/, quantizers/ and coders/."""
  if not _registry:
    for package in ('transforms', 'quantizers', 'coders'):
      root = importlib.import_module(f'tff_compress.codec.{package}')
      for module in pkgutil.iter_modules(root.__path__):
        found = importlib.import_module(f'{root.__name__}.{module.name}')
        for value in vars(found).values():
          if isinstance(value, type) and issubclass(value, Stage) and value.name and value.__module__ == found.__name__:
            _registry[value.name] = value
  return dict(_registry)
