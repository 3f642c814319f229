"""A chain of stages from real values to bytes, checked when it is made."""

import collections
from collections.abc import Iterable
from collections.abc import Sequence
import dataclasses
import functools
import math
from typing import TypeAlias

import numpy as np

from tff_compress.codec import counts
from tff_compress.codec import gaps
from tff_compress.codec import keys as keys_lib
from tff_compress.codec import stage as stage_lib
from tff_compress.codec import streams
from tff_compress.codec.errors import CodecError
from tff_compress.codec.keys import Keys
from tff_compress.codec.stage import Arrays
from tff_compress.codec.table import Array
from tff_compress.codec.table import Ops

Encoded: TypeAlias = tuple[Array, Array]
"""(uint8[n], int32[k]): the bytes of a segment, and its symbols for an entropy coder."""

_Kind: TypeAlias = type[stage_lib.Signal]
_NOUNS: dict[_Kind, str] = {stage_lib.Real: 'real values', stage_lib.Integers: 'integer symbols',
                            stage_lib.Bytes: 'bytes'}
_ORDER: dict[tuple[_Kind, _Kind], int] = {
    (stage_lib.Real, stage_lib.Real): 0, (stage_lib.Real, stage_lib.Integers): 1,
    (stage_lib.Real, stage_lib.Bytes): 1, (stage_lib.Integers, stage_lib.Bytes): 2}


@dataclasses.dataclass(frozen=True)
class Pipeline:
  """A chain of stages.

  Attributes:
    stages: tuple of `Stage`.
    joined: whether the tensors that the codec gives this pipeline are encoded as one vector (`concat | …`).
    shapes: those of the variables of one segment, where a stage asks for them; see `of_shapes`.
  """
  stages: tuple[stage_lib.Stage, ...]
  joined: bool = False
  shapes: tuple[tuple[int, ...], ...] = ()

  def __post_init__(self) -> None:
    if not self.stages:
      raise CodecError('a codec needs at least one stage, such as float32.')
    problem = _chain_problem(self.stages)
    if problem:
      ordered = sorted(self.stages, key=lambda s: _ORDER[s.domain, s.codomain])
      hint = '' if _chain_problem(ordered) else f' The order {" | ".join(map(str, ordered))} works.'
      raise CodecError(problem + hint)
    for position, stage in enumerate(self.stages):
      if stage.needs_shapes and position:
        raise CodecError(
            f'{stage} works on variables in their shape, which {self.stages[position - 1]} changes: put it first.')
      if stage.needs_rotation:
        rotations = [s for s in self.stages[:position] if s.isotropic]
        if not rotations or rotations[-1].linear:
          raise CodecError(f'{stage} owes its unbiasedness to a rotation of the client\'s own: put hadamard:key=client '
                           f'{"directly before it" if rotations else "(or hadamard:rotations=2,key=client) before it"}'
                           '.')
    # Lets a stage refuse what the one before gives, such as too many different symbols.
    self.signals(1)
    if self.entropy_coder:
      streams.packed_size(self.symbols(1))

  def __str__(self) -> str:
    return ' | '.join(['concat'] * self.joined + [str(s) for s in self.stages])

  def of_shapes(self, shapes: Iterable[tuple[int, ...]]) -> 'Pipeline':
    """The same pipeline for variables of these shapes: itself where no stage asks for shapes."""
    return dataclasses.replace(self, shapes=tuple(shapes)) if self.stages[0].needs_shapes else self

  @functools.lru_cache(maxsize=1024)  # noqa: B019 - equal pipelines share an entry, and there are few
  def signals(self, size: int) -> tuple[stage_lib.Signal, ...]:
    """The signals before each stage and behind the last for `size` values: a tuple, one longer than `stages`."""
    fitting = size == sum(math.prod(shape) for shape in self.shapes)
    signals: list[stage_lib.Signal] = [stage_lib.Real(size, self.shapes if fitting else ())]
    for stage in self.stages:
      signals.append(stage.output(signals[-1]))
    return tuple(signals)

  def real(self, size: int, position: int) -> stage_lib.Real:
    """The signal before the stage at this position, at most that of the quantizer, for `size` values."""
    signal = self.signals(size)[position]
    assert isinstance(signal, stage_lib.Real)
    return signal

  def symbols(self, size: int) -> stage_lib.Integers:
    """What the coder is given of `size` values. The pipeline has a coder."""
    signal = self.signals(size)[-2]
    assert isinstance(signal, stage_lib.Integers)
    return signal

  @property
  def prefix(self) -> int:
    """Number of leading stages of which the sum of what clients encode is decoded at once."""
    for count, stage in enumerate(self.stages):
      if not stage.summable:
        return count
    return len(self.stages)

  @property
  def unbiased(self) -> bool:
    return all(stage.unbiased for stage in self.stages)

  @property
  def uses_client_keys(self) -> bool:
    """Whether decoding needs the client's number."""
    return any(getattr(stage, 'key', 'round') == 'client' for stage in self.stages)

  def nmse_bound(self, size: int) -> float | None:
    """Declared bound on the mean NMSE for any update; None where a stage declares none."""
    total = 1.0
    for stage, signal in zip(self.stages, self.signals(size)):
      bound = stage.nmse_bound(signal)
      if bound is None:
        return None
      total *= 1 + bound
    return total - 1

  @property
  def entropy_coder(self) -> stage_lib.Coder | None:
    """The last stage, if it makes bytes of symbols whose number depends on the values; otherwise None. See streams.py.
    """
    last = self.stages[-1]
    return last if isinstance(last, stage_lib.Coder) and self.signals(1)[-1].size is None else None

  def body_size(self, size: int) -> int | None:
    """Bytes that `size` values take beside what an entropy coder writes, or None where that depends on the values."""
    total = 0 if self.entropy_coder else self.signals(size)[-1].size
    for stage, signal in zip(self.stages, self.signals(size)):
      for side in stage.side(signal):
        if side.width is None or side.size is None:
          return None
        if total is not None:
          total += side.size * side.width
    return total

  def _draws(self, xp: Ops, keys: Keys, name: str) -> list[keys_lib.Draws]:
    seen: collections.Counter[str] = collections.Counter()
    result = []
    for stage in self.stages:
      result.append(keys_lib.Draws(xp, keys, name, seen[stage.name]))
      seen[stage.name] += 1
    return result

  @property
  def coder(self) -> int:
    """Position of the first stage that takes symbols; the number of stages where a quantizer makes the bytes itself."""
    return next((i for i, stage in enumerate(self.stages) if stage.domain is not stage_lib.Real), len(self.stages))

  def encode(self, xp: Ops, x: Array, size: int, keys: Keys, name: str) -> Encoded:
    """Encodes up to what an entropy coder writes, which it does for all variables of a message.

    Returns:
      (uint8[n]: the side arrays of the stages in order, then the last stage's bytes; int32[k]: in place of those, the
      symbols for an entropy coder, and none if there is no such coder)
    """
    values, sides = self.encode_stages(xp, x, range(self.coder), size, keys, name)
    return self.code(xp, values, sides, size, keys, name)

  def encode_stages(self, xp: Ops, values: Array, order: Iterable[int], size: int, keys: Keys,
                    name: str) -> tuple[Array, list[Arrays]]:
    """Applies the stages at these positions.

    Returns:
      (what the last of them makes, [{side name: int32 array}] of each)
    """
    signals, draws = self.signals(size), self._draws(xp, keys, name)
    sides = []
    for i in order:
      values, arrays = self.stages[i].encode(xp, values, draws[i], signals[i])
      sides.append(arrays)
    return values, sides

  def code(self, xp: Ops, values: Array, sides: list[Arrays], size: int, keys: Keys, name: str) -> Encoded:
    """The end of `encode`, which computes with integers alone.

    Args:
      values: what the stages before the coder made: int32 symbols, or uint8 bytes where there is no coder.
      sides: the side arrays of each of these stages.

    Returns:
      as `encode`
    """
    values, more = self.encode_stages(xp, values, self._inline, size, keys, name)
    parts = []
    for stage, signal, arrays in zip(self.stages, self.signals(size), sides + more):
      for side in stage.side(signal):
        array = arrays[side.name]
        if side.width is None:
          parts.append(gaps.encode(xp, array))
        else:
          if side.size is None:
            parts.append(counts.encode(xp, xp.vector(xp.size(array))))
          parts.append(xp.integers_to_bytes(array, side.width))
    body, symbols = (parts, values) if self.entropy_coder else (parts + [values], xp.zeros([0], np.int32))
    return xp.concat(body) if body else xp.zeros([0], np.uint8), symbols

  @property
  def _inline(self) -> range:
    """Positions of the stages from the coder on that are not entropy coders."""
    return range(self.coder, len(self.stages) - bool(self.entropy_coder))

  def decode(self, xp: Ops, encoded: Encoded, size: int, keys: Keys, name: str) -> Array:
    """What `encode` gives -> float32[size].

    Raises:
      PayloadError: no encoder of this pipeline writes these bytes for `size` values.
    """
    return self.decode_prefix(xp, self.decode_to_prefix(xp, encoded, size, keys, name), size, keys, name)

  def decode_to_prefix(self, xp: Ops, encoded: Encoded, size: int, keys: Keys, name: str) -> Array:
    """Undoes all stages behind the summable prefix: what `encode` gives -> float32[k]. Sums of the results are
    meaningful.
    """
    values, sides = self.uncode(xp, encoded, size, keys, name)
    return self.decode_stages(xp, values, sides, range(self.coder - 1, self.prefix - 1, -1), size, keys, name)

  def uncode(self, xp: Ops, encoded: Encoded, size: int, keys: Keys, name: str) -> tuple[Array, list[Arrays]]:
    """Inverse of `code`: (uint8[n], int32[k]) -> (values, sides)."""
    payload, symbols = encoded
    signals = self.signals(size)
    sides = []
    for stage, signal in zip(self.stages, signals):
      arrays = {}
      for side in stage.side(signal):
        if side.width is None:
          assert side.size is not None, 'the number of positions is known'
          arrays[side.name], payload = gaps.decode(xp, payload, xp.constant(side.size, np.int32), side.below)
        else:
          if side.size is None:
            count, payload = counts.decode_one(xp, payload)
            # Compared before it is multiplied, so that nothing wraps around.
            xp.require(count <= xp.size(payload) // side.width, 'a tensor is cut short.')
          else:
            count = side.size
          length = count * side.width
          xp.require(xp.size(payload) >= length, 'a tensor is cut short.')
          arrays[side.name] = xp.integers_from_bytes(payload[:length], side.width)
          payload = payload[length:]
      sides.append(arrays)
    if self.entropy_coder:
      xp.static_bytes(payload, 0)
      payload = xp.reshape(symbols, [self.symbols(size).size])
    elif signals[-1].size is not None:
      payload = xp.static_bytes(payload, signals[-1].size)
    return self.decode_stages(xp, payload, sides, reversed(self._inline), size, keys, name), sides

  def decode_prefix(self, xp: Ops, values: Array, size: int, keys: Keys, name: str) -> Array:
    """Undoes the summable prefix: float32[k] -> float32[size], for one client's values or a sum of several."""
    return self.decode_stages(xp, values, [{}] * self.prefix, range(self.prefix - 1, -1, -1), size, keys, name)

  def decode_stages(self, xp: Ops, values: Array, sides: list[Arrays], order: Iterable[int], size: int, keys: Keys,
                    name: str) -> Array:
    """Undoes the stages at these positions; `sides` has the side arrays of every stage up to the first of them."""
    signals, draws = self.signals(size), self._draws(xp, keys, name)
    for i in order:
      values = self.stages[i].decode(xp, values, sides[i], draws[i], signals[i])
      values = xp.reshape(values, [signals[i].size])
    return values


def _chain_problem(stages: Sequence[stage_lib.Stage]) -> str:
  """What is wrong with the order of stages, as a sentence; '' if nothing is."""
  current: _Kind = stage_lib.Real
  for stage in stages:
    if stage.domain is not current:
      before = 'comes first, where the update is' if stage is stages[0] else 'is given'
      return f'{stage} takes {_NOUNS[stage.domain]} but {before} {_NOUNS[current]}.'
    current = stage.codomain
  if current is not stage_lib.Bytes:
    ends = sorted(s.name for s in stage_lib.registry().values()
                  if s.codomain is stage_lib.Bytes and s.domain is current)
    return (f'the codec ends with {stages[-1]}, which gives {_NOUNS[current]}: add a last stage such as '
            f'{", ".join(ends)}.')
  return ''
