"""Codecs: rules that give each variable of a model a pipeline, and the messages they make."""

from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
import hashlib
import re
import sys
from typing import Any
import warnings

import numpy as np
import numpy.typing as npt

from tff_compress.codec import counts
from tff_compress.codec import keys as keys_lib
from tff_compress.codec import streams
from tff_compress.codec.checks import shown
from tff_compress.codec.errors import CodecError
from tff_compress.codec.errors import PayloadError
from tff_compress.codec.errors import SpecError
from tff_compress.codec.errors import UnmatchedRuleWarning
from tff_compress.codec.errors import UpdateError
from tff_compress.codec.keys import Keys
from tff_compress.codec.ops import numpy_ops
from tff_compress.codec.pipeline import Encoded
from tff_compress.codec.pipeline import Pipeline
from tff_compress.codec.spec import MAX_VALUES
from tff_compress.codec.spec import Spec
from tff_compress.codec.spec import SpecSource
from tff_compress.codec.spec import TensorSpec
from tff_compress.codec.stage import Coder
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops

LARGEST = 2.0**64
"""Values of a larger magnitude are refused by the encoder."""

MAX_PATTERN = 1000
"""Longest pattern of a condition, in characters: what matching a name may cost grows with both."""

# Stars, several characters in brackets, or one character.
_TOKEN = re.compile(r'\*+|\[!?+\]?+[^\]]*+\]|.', re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Condition:
  """A test of one variable: a pattern for its name, or a comparison of its size.

  Attributes:
    pattern: the pattern, or '' for a comparison. It is compared with the whole name, with case: `*` is any text, `?`
      any character, `[ab]` one of several, `[a-c]` one of a range, `[!ab]` any other. A `]` right behind `[` or `[!` is
      one of the several, and a `[` without an end stands for itself.
    comparison: '<', '<=', '>' or '>='; '' for a pattern.
    size: number of values to compare with.
  """
  pattern: str = ''
  comparison: str = ''
  size: int = 0

  def __post_init__(self) -> None:
    if self.comparison:
      return
    if not self.pattern or re.search(r'[<>=|;&,\s]', self.pattern):
      raise CodecError('a condition is a pattern such as */bias, or a size such as size<20000, not '
                       f'{self.pattern[:60]!r}.')
    if len(self.pattern) > MAX_PATTERN:
      raise CodecError(f'a pattern has at most {MAX_PATTERN} characters, and {self.pattern[:20]!r}… has '
                       f'{len(self.pattern)}.')

  def matches(self, tensor: TensorSpec) -> bool:
    if self.comparison:
      return {'<': tensor.size < self.size, '<=': tensor.size <= self.size,
              '>': tensor.size > self.size, '>=': tensor.size >= self.size}[self.comparison]
    return self._expression.fullmatch(tensor.name) is not None

  @functools.cached_property
  def _expression(self) -> re.Pattern[str]:
    """The pattern as a regular expression, which never takes back what stands before a later `*`: no time is
    exponential.
    """
    parts: list[list[str]] = [[]]
    for token in _TOKEN.findall(self.pattern):
      if token[0] == '*':
        parts.append([])
      else:
        parts[-1].append(_expression_of(token))
    first, *others = map(''.join, parts)
    text = first + ''.join(f'(?>.*?{part})' for part in others[:-1]) + ''.join(f'.*{part}' for part in others[-1:])
    return re.compile(text, re.DOTALL)

  def __str__(self) -> str:
    return f'size{self.comparison}{self.size}' if self.comparison else self.pattern


def _expression_of(token: str) -> str:
  """The regular expression for a part of a pattern that stands for one character."""
  if token == '?':
    return '.'
  if len(token) == 1:
    return re.escape(token)
  negative = token[1] == '!'
  members = [member for member in re.findall('.-.|.', token[1 + negative:-1], re.DOTALL)
             if len(member) == 1 or member[0] <= member[2]]
  if not members:  # Only ranges that go backwards, which hold nothing.
    return '.' if negative else '(?!)'
  return f'[{"^" * negative}{"".join("-".join(map(re.escape, member[::2])) for member in members)}]'


@dataclasses.dataclass(frozen=True)
class Rule:
  """All conditions must hold for the pipeline to be used."""
  conditions: tuple[Condition, ...]
  pipeline: Pipeline

  def matches(self, tensor: TensorSpec) -> bool:
    return all(condition.matches(tensor) for condition in self.conditions)

  @property
  def when(self) -> str:
    return ' & '.join(map(str, self.conditions))

  def __str__(self) -> str:
    return f'{self.when} => {self.pipeline}'


@dataclasses.dataclass(frozen=True)
class Segment:
  """A part of a message: one variable, or the variables that one rule joins.

  Attributes:
    name: what its keys are derived with: the variable's name, or the rule's conditions.
    tensors: positions of its variables in the spec.
    size: number of values.
    pipeline: its `Pipeline`; None for variables that are sent as they are.
  """
  name: str
  tensors: tuple[int, ...]
  size: int
  pipeline: Pipeline | None


@dataclasses.dataclass(frozen=True)
class Codec:
  """A codec. Make one from its text: `tff_compress.codec('hadamard | uniform:bits=2 | pack')`.

  `str(codec)` is its text in canonical form, and `tff_compress.codec(str(codec)) == codec`.
  """
  rules: tuple[Rule, ...]

  def __str__(self) -> str:
    if len(self.rules) == 1 and self.rules[0].when == '*':
      return str(self.rules[0].pipeline)
    return '; '.join(map(str, self.rules))

  @functools.lru_cache(maxsize=256)  # noqa: B019 - equal codecs share an entry, and there are few
  def plan(self, spec: Spec) -> 'Plan':
    """The layout of this codec's messages for a spec: a `Plan`.

    Warns:
      UnmatchedRuleWarning: a rule that names variables gives none of the spec's its pipeline.
    """
    plan = Plan(self, spec)
    for text in plan.unmatched():
      warnings.warn(text, UnmatchedRuleWarning, stacklevel=_level_of_caller())
    return plan

  def encode(self, update: Mapping[str, npt.ArrayLike], *, seed: int, round: int, client: int) -> bytes:
    """Encodes one client's update.

    Args:
      update: mapping of variable name to array.
      seed: session seed, 0 … 2^64-1.
      round: round number, 0 … 2^32-1.
      client: the client's number, 0 … 2^32-2; 2^32-1 for a message from the server to all clients.

    Returns:
      bytes: the payload. `tff_compress.wire.pack` puts it in a frame that says whose it is.

    Raises:
      UpdateError: a value is NaN, infinite or above 2^64 in magnitude.
      SpecError: the update is not a mapping of names to arrays, or an argument is out of range.
      CodecError: no rule of the codec matches a variable.
    """
    keys = keys_lib.MessageKeys(seed, round, client)
    spec = Spec.of(update)
    arrays = [_checked(update[tensor.name], tensor) for tensor in spec.tensors]
    with np.errstate(all='ignore'):
      return self.plan(spec).encode(numpy_ops, arrays, keys).tobytes()

  def decode(self, payload: bytes | bytearray | memoryview, spec: SpecSource, *, seed: int, round: int,
             client: int) -> dict[str, np.ndarray]:
    """Decodes what `encode` made with the same seed, round and client.

    Args:
      payload: bytes.
      spec: a `Spec`, or what one can be made of: a Keras model or a mapping of name to array.

    Returns:
      dict of variable name to array, in the spec's shapes and dtypes.

    Raises:
      PayloadError: the payload is not one that this codec makes for this spec.
    """
    keys = keys_lib.MessageKeys(seed, round, client)
    spec = Spec.of(spec)
    if not isinstance(payload, (bytes, bytearray, memoryview)):
      raise PayloadError(f'a payload is bytes, not {type(payload).__name__}.')
    data = np.frombuffer(memoryview(payload).tobytes(), np.uint8)
    with np.errstate(all='ignore'):
      arrays = self.plan(spec).decode(numpy_ops, data, keys)
    for tensor, array in zip(spec.tensors, arrays):
      if tensor.is_float and not np.all(np.isfinite(array)):
        raise PayloadError(f'the payload decodes to infinite values in variable {shown(tensor.name)}.')
    return {tensor.name: array for tensor, array in zip(spec.tensors, arrays)}

  def fingerprint(self, spec: Spec) -> bytes:
    """Four bytes that differ, nearly surely, for another codec or another spec."""
    table = '\n'.join(f'{t.name}\t{t.dtype}\t{",".join(map(str, t.shape))}' for t in spec.tensors)
    return hashlib.sha256(f'{self}\n{table}'.encode()).digest()[:4]


class Plan:
  """How a codec's messages for one spec are laid out. Works with any operation table.

  A payload is: the byte length of every segment whose length depends on its values (a count each, in order), then the
  segments, then what entropy coders make of their symbols.

  Attributes:
    codec, spec: what it was made from.
    segments: tuple of `Segment`, in the order of the wire.
    sizes: tuple of the bytes of the segments, None where these depend on the values.
    groups: tuple of `streams.Group`: what entropy coders write, in the order of the wire.
  """

  def __init__(self, codec: Codec, spec: Spec) -> None:
    self.codec, self.spec = codec, spec
    groups: dict[str, tuple[Rule | None, list[int]]] = {}  # By name, in the order of the wire.
    for position, tensor in enumerate(spec.tensors):
      rule = next((rule for rule in codec.rules if rule.matches(tensor)), None) if tensor.is_float else None
      if tensor.is_float and rule is None:
        raise CodecError(f'no rule of the codec matches variable {shown(tensor.name)} with {tensor.size} values: '
                         'end the codec with "* => float32" or another pipeline.')
      joined = rule is not None and rule.pipeline.joined
      name = rule.when if rule is not None and joined else tensor.name
      found, positions = groups.setdefault(name, (rule, []))
      # Keys are derived from names.
      if positions and (not joined or found is not rule):
        raise SpecError(f'variable {shown(name)} is named as the variables that a rule joins are: rename it.')
      positions.append(position)
    self._used = {id(rule) for rule, _ in groups.values()}
    segments = []
    for name, (rule, positions) in groups.items():
      tensors = [spec.tensors[position] for position in positions]
      size = sum(tensor.size for tensor in tensors)
      if size > MAX_VALUES:
        raise SpecError(f'{shown(name)} joins {size} values; the limit is 2^31-1.')
      pipeline = None if rule is None else rule.pipeline.of_shapes([tensor.shape for tensor in tensors])
      segments.append(Segment(name, tuple(positions), size, pipeline))
    self.segments = tuple(segments)
    self.sizes = tuple(self._segment_bytes(segment) for segment in segments)
    self.groups = _groups(segments)

  def unmatched(self) -> Iterator[str]:
    """Yields a sentence about each rule with a pattern, other than `*`, that has no variable: it was meant for some.

    Rules by size and a last `*` are written for any model, and may have none.
    """
    for rule in self.codec.rules:
      patterns = [condition for condition in rule.conditions if condition.pattern not in ('', '*')]
      if not patterns or not self.spec.tensors or id(rule) in self._used:
        continue
      named = [tensor for tensor in self.spec.tensors if all(pattern.matches(tensor) for pattern in patterns)]
      fitting = [tensor.name for tensor in named if tensor.is_float and rule.matches(tensor)]
      if fitting:
        yield (f'the rule {shown(rule.when)} comes too late for {_some(fitting)}, which an earlier rule takes: put it '
               'before that one.')
      elif not named:
        yield (f'the rule {shown(rule.when)} fits no variable, as there are only '
               f'{_some([t.name for t in self.spec.tensors])}: write names as the model has them, or leave the '
               'rule out.')

  def _segment_bytes(self, segment: Segment) -> int | None:
    if segment.pipeline is None:
      return segment.size * self.spec.tensors[segment.tensors[0]].itemsize
    return segment.pipeline.body_size(segment.size)

  @property
  def payload_size(self) -> int | None:
    """Bytes of a payload, or None where that depends on the values."""
    known = [size for size in self.sizes if size is not None]
    return None if self.groups or len(known) < len(self.sizes) else sum(known)

  @property
  def uses_client_keys(self) -> bool:
    return any(s.pipeline is not None and s.pipeline.uses_client_keys for s in self.segments)

  def encode(self, xp: Ops, arrays: Sequence[Array], keys: Keys) -> Array:
    """Arrays in the order of the spec (any shape) -> uint8[n]."""
    values = []
    for segment in self.segments:
      if segment.pipeline is None:
        values.append((xp.raw_bytes(arrays[segment.tensors[0]]), None))
      else:
        flat = [xp.reshape(xp.cast(arrays[i], np.float32), [self.spec.tensors[i].size]) for i in segment.tensors]
        values.append(flat[0] if len(flat) == 1 else xp.concat(flat))
    return self.join(xp, self._applied(xp, 'encode', values, keys))

  def _applied(self, xp: Ops, method: str, values: Sequence[Any], keys: Keys) -> list[Any]:
    """The values with a method of its pipeline applied to those of each segment that has one."""
    places = [i for i, segment in enumerate(self.segments) if segment.pipeline is not None]
    results = xp.segments([self.segments[i] for i in places], method, [values[i] for i in places], keys)
    found = dict(zip(places, results))
    return [found.get(i, value) for i, value in enumerate(values)]

  def join(self, xp: Ops, parts: Sequence[Encoded]) -> Array:
    """The payload of these segments: (uint8[n], int32[k] symbols for an entropy coder) for each, in order."""
    bodies = [body for body, _ in parts]
    sizes = [xp.vector(xp.size(body)) for body, size in zip(bodies, self.sizes) if size is None]
    lengths = [counts.encode(xp, xp.concat(sizes))] if sizes else []
    symbols = [group.encode(xp, [parts[i][1] for i in group.segments]) for group in self.groups]
    return xp.concat(lengths + bodies + symbols) if parts else xp.zeros([0], np.uint8)

  def decode(self, xp: Ops, payload: Array, keys: Keys) -> list[Array]:
    """uint8[n] -> arrays in the order of the spec. Raises PayloadError."""
    return self.decode_prefixes(xp, self.decode_to_prefixes(xp, payload, keys), keys)

  def split(self, xp: Ops, payload: Array) -> list[Encoded]:
    """Inverse of `join`: uint8[n] -> list of (uint8[n], int32[k]). Raises PayloadError where the payload does not fit.
    """
    bodies, payload = self.bodies(xp, payload)
    symbols = [xp.zeros([0], np.int32)] * len(bodies)
    for group in self.groups:
      found, payload = group.decode(xp, payload)
      for i, values in zip(group.segments, found):
        symbols[i] = values
    xp.require(xp.equal(xp.size(payload), 0), 'there are bytes behind the end of a payload.')
    return list(zip(bodies, symbols))

  def bodies(self, xp: Ops, payload: Array) -> tuple[list[Array], Array]:
    """uint8[n] -> (list of uint8[n]: the segments without what entropy coders write, the bytes that follow)."""
    variable = [i for i, size in enumerate(self.sizes) if size is None]
    sizes = xp.constant([size or 0 for size in self.sizes], np.int32)
    if variable:
      lengths, payload = counts.decode(xp, payload, len(variable))
      sizes = sizes + xp.scatter(xp.constant(variable, np.int32), lengths, len(self.sizes))
    return streams.cut(xp, payload, sizes)

  def decode_to_prefixes(self, xp: Ops, payload: Array, keys: Keys) -> list[Array]:
    """uint8[n] -> for each segment a vector that may be summed over clients before `decode_prefixes`."""
    values = []
    for segment, part in zip(self.segments, self.split(xp, payload)):
      if segment.pipeline is None:
        tensor = self.spec.tensors[segment.tensors[0]]
        part = xp.raw_values(xp.static_bytes(part[0], segment.size * tensor.itemsize), tensor.dtype)
      values.append(part)
    return self._applied(xp, 'decode_to_prefix', values, keys)

  def decode_prefixes(self, xp: Ops, values: Sequence[Any], keys: Keys) -> list[Array]:
    """Inverse of the linear prefixes, and back to the spec's shapes and dtypes."""
    arrays = [None] * len(self.spec.tensors)
    for segment, value in zip(self.segments, self._applied(xp, 'decode_prefix', values, keys)):
      tensors = [self.spec.tensors[i] for i in segment.tensors]
      pieces = xp.split(value, [tensor.size for tensor in tensors])
      for i, tensor, piece in zip(segment.tensors, tensors, pieces):
        if tensor.dtype == 'float16':
          # Rounding may lead beyond the largest float16, which must not become an infinity.
          piece = xp.minimum(xp.maximum(piece, np.float32(-65504)), np.float32(65504))
        arrays[i] = xp.cast(xp.reshape(piece, list(tensor.shape)), xp.dtype(tensor.dtype))
    return arrays


def _some(names: Sequence[str]) -> str:
  return ', '.join(map(shown, names[:3])) + (f' and {len(names) - 3} more' if len(names) > 3 else '')


def _level_of_caller() -> int:
  """The `stacklevel` with which a warning of the function that calls this shows the line outside of this package."""
  frame, level = sys._getframe(1), 1
  while frame.f_back and frame.f_globals.get('__name__', '').startswith(f'{__package__.partition(".")[0]}.'):
    frame, level = frame.f_back, level + 1
  return level


def _groups(segments: Sequence[Segment]) -> tuple[streams.Group, ...]:
  """Tuple of `streams.Group` of the symbols that entropy coders of these segments write."""
  members: dict[tuple[Coder, int, int], list[tuple[int, int]]] = {}
  for i, segment in enumerate(segments):
    pipeline = segment.pipeline
    if pipeline is not None and pipeline.entropy_coder is not None:
      symbols = pipeline.symbols(segment.size)
      if symbols.size:
        members.setdefault((pipeline.entropy_coder, symbols.low, symbols.high), []).append((i, symbols.size))
  return tuple(streams.Group(*key, *zip(*found)) for key, found in members.items())


def _checked(value: npt.ArrayLike, tensor: TensorSpec) -> np.ndarray:
  value = np.asarray(value)
  if tensor.is_float:
    with np.errstate(over='ignore'):
      value = value.astype(np.float32, copy=False)
    # Also false where a value is NaN.
    if value.size and not (np.max(value) <= LARGEST and np.min(value) >= -LARGEST):
      raise UpdateError(f'variable {shown(tensor.name)} holds a NaN, an infinity or a magnitude above 2^64: '
                        'clip or zero such updates before they are encoded.')
  return value
