"""What a stage is: one pure, printable step of a codec.

A codec is a chain of stages, each a small frozen dataclass whose fields are its whole configuration:

    R→R transforms*  →  one R→Z quantizer  →  one Z→bytes coder        (or one R→bytes quantizer)

To add a stage, write one file in `transforms/`, `quantizers/` or `coders/` with a class that derives from `Stage`.
It is found by itself: the grammar, `tff-compress codecs` and the contract suite take it from the registry.
"""

import dataclasses
import fractions
import re
from typing import Any
from typing import ClassVar
from typing import TypeAlias

from tff_compress.codec import checks
from tff_compress.codec import discovery
from tff_compress.codec.errors import CodecError
from tff_compress.codec.keys import Draws
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops
from tff_compress.codec.table import Scalar


@dataclasses.dataclass(frozen=True)
class Real:
  """A vector of `size` float32 values.

  Attributes:
    size: number of values.
    shapes: shapes of the variables that lie in the vector one after the other; () behind the first stage, and where no
      stage asks for them.
  """
  size: int
  shapes: tuple[tuple[int, ...], ...] = ()


@dataclasses.dataclass(frozen=True)
class Integers:
  """A vector of `size` int32 symbols, each in low … high; how many may be known only when a graph runs."""
  size: Scalar
  low: int
  high: int


@dataclasses.dataclass(frozen=True)
class Bytes:
  """A byte string; `size` is None where it depends on the values."""
  size: int | None


Signal: TypeAlias = Real | Integers | Bytes
"""What stages are given and give, without its values."""

Arrays: TypeAlias = dict[str, Array]
"""What a stage sends beside its values, by the names of its `Side`s: int32 arrays."""


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
  size: int | None
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
  domain: ClassVar[type[Signal]] = Real
  codomain: ClassVar[type[Signal]] = Real
  summary: ClassVar[str] = ''
  source: ClassVar[str] = ''
  isotropic: ClassVar[bool] = False
  needs_shapes: ClassVar[bool] = False
  examples: ClassVar[tuple[str, ...]] = ('',)

  @property
  def linear(self) -> bool:
    return False

  @property
  def unbiased(self) -> bool:
    return False

  @property
  def needs_rotation(self) -> bool:
    return False

  @property
  def summable(self) -> bool:
    return self.linear

  def output(self, signal: Any) -> Signal:
    """The signal this stage makes from an input signal (static)."""
    raise NotImplementedError

  def side(self, signal: Any) -> tuple[Side, ...]:
    """Tuple of `Side`: what is sent beside the values for this input signal (static)."""
    del signal
    return ()

  def encode(self, xp: Ops, values: Array, draws: Draws, signal: Any) -> tuple[Array, Arrays]:
    """Returns (values, {side name: int32 array}). `signal` describes the input."""
    raise NotImplementedError

  def decode(self, xp: Ops, values: Array, side: Arrays, draws: Draws, signal: Any) -> Array:
    """Inverse of `encode` up to the stage's error; `signal` is the input signal of `encode`."""
    raise NotImplementedError

  def nmse_bound(self, signal: Any) -> float | None:
    """Declared bound on E||decode(encode(x)) - x||^2 / ||x||^2 for any x; None where there is none."""
    raise NotImplementedError

  def __str__(self) -> str:
    shown = []
    for position, field in enumerate(dataclasses.fields(self)):
      value = getattr(self, field.name)
      if value == field.default:
        continue
      text = format_value(value)
      shown.append(text if position == 0 and _positional(self) else f'{field.name}={text}')
    return self.name + (':' + ','.join(shown) if shown else '')


@dataclasses.dataclass(frozen=True)
class Coder(Stage):
  """Base class of coders, which make bytes of symbols and symbols of bytes, without loss and without random numbers.

  One whose `output` has no size is an entropy coder: it writes the symbols of several variables, see streams.py.
  """
  domain: ClassVar[type[Signal]] = Integers
  codomain: ClassVar[type[Signal]] = Bytes
  unbiased: ClassVar[bool] = True

  def nmse_bound(self, signal: Integers) -> float:
    return 0.0

  def encode(self, xp: Ops, values: Array, draws: Draws | None, signal: Integers) -> tuple[Array, Arrays]:
    raise NotImplementedError

  def decode(self, xp: Ops, values: Array, side: Arrays, draws: Draws | None, signal: Integers) -> Array:
    raise NotImplementedError

  def cost(self, xp: Ops, symbols: Array, signal: Integers) -> Scalar:
    """How many bytes `encode` makes of these symbols, exactly or nearly, as an integer scalar.

    Variables of a message share a stream where the sum of this says so, so it is the same wherever it is computed.
    """
    return xp.size(self.encode(xp, symbols, None, signal)[0])


def _positional(stage: Stage) -> bool:
  """Whether the stage's first field may be written without its name: it may where it has no default."""
  first = dataclasses.fields(stage)[0]
  return first.default is dataclasses.MISSING


def format_value(value: object) -> str:
  """The shortest text that `parse_value` reads back as the same value."""
  if isinstance(value, fractions.Fraction):
    return str(value)
  if isinstance(value, float):
    return repr(value)
  return str(value)


MAX_DENOMINATOR = 10**9
"""Fractions with a larger denominator are refused."""


class Size(int):
  """A number of bytes, as a parameter: 20000, '20kB', '2MB' and '1.5GB', in powers of a thousand."""

  _UNITS: ClassVar = {'GB': 10**9, 'MB': 10**6, 'kB': 10**3, 'B': 1, '': 1}

  def __new__(cls, value: int | str) -> 'Size':
    if isinstance(value, str):
      found = re.fullmatch(r'([0-9]{1,12}(?:\.[0-9]{1,9})?) ?([kMG]?B)?', value.strip())
      if not found:
        raise ValueError
      value = int(fractions.Fraction(found[1]) * cls._UNITS[found[2] or ''])
    return super().__new__(cls, value)

  def __str__(self) -> str:
    for unit, size in self._UNITS.items():
      if self and self % size == 0:
        return f'{self // size}{unit if size > 1 else ""}'
    return '0'


def parse_value(text: str, kind: type | tuple[str, ...], what: str) -> Any:
  """Reads one parameter.

  Args:
    text: what was written after `=`.
    kind: int, float, str, fractions.Fraction, `Size` or a tuple of allowed strings.
    what: 'stage parameter' for the error.

  Raises:
    CodecError: the text is not of that kind.
  """
  if isinstance(kind, tuple):
    return checks.one_of(what, text, kind, CodecError)
  try:
    # The limits keep numbers such as 1e999999999 from being written out, and the text of every number readable.
    if kind is not str and len(text) > 40:
      raise ValueError
    if kind is fractions.Fraction and not re.fullmatch(r'[^eE]*([eE][+-]?[0-9]{1,2})?', text):
      raise ValueError
    value = kind(text)
  except (ValueError, ZeroDivisionError):
    noun = {int: 'a whole number', float: 'a number', fractions.Fraction: 'a number or a fraction such as 1/16',
            Size: 'a number of bytes such as 20000, 20kB or 2MB'}[kind]
    raise CodecError(f'{what} must be {noun}, not {checks.shown(text)}.') from None
  check(kind is not fractions.Fraction or value.denominator <= MAX_DENOMINATOR,
        f'{what} must not need more than nine digits behind the point, as {text!r} does.')
  return value


def choice(default: str, *others: str) -> Any:
  """A field that takes one of a few words."""
  return dataclasses.field(default=default, metadata={'kind': (default,) + others})


def check(condition: object, message: str) -> None:
  """Raises CodecError(message) unless the condition holds."""
  if not condition:
    raise CodecError(message)


_registry: dict[str, type[Stage]] = {}


def registry() -> dict[str, type[Stage]]:
  """{name: stage class} of everything under transforms/, quantizers/ and coders/."""
  if not _registry:
    for package in ('transforms', 'quantizers', 'coders'):
      _registry.update(discovery.classes(f'tff_compress.codec.{package}', Stage))
  return dict(_registry)
