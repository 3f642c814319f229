"""What goes into an encoder or decoder file and what comes out: names, dtypes and sizes, from a codec and a spec.

Every array is flat. `i` is the position of a variable in the spec, `s` that of a segment in the payload, `t` that of a
stage in its pipeline:

    update_i, residual_i        float32, the variable's values in row-major order
    values_s                    symbols in the narrowest dtype that holds them, or the bytes of a float stage
    side_s_t_name               int32, one side array of a stage
    keys, words_r               the random numbers; see streams.py
    valid                       int32[1], 0 where the input is one that the codec refuses
"""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from tff_compress import codec as codec_lib
from tff_compress.codec import stage as stage_lib
from tff_compress.codec.codec import Codec
from tff_compress.codec.spec import SpecSource
from tflite_export.errors import ExportError


@dataclasses.dataclass(frozen=True)
class Array:
  """One input or output of a file: its name in the signature, dtype and number of entries."""
  name: str
  dtype: str
  size: int

  def check(self, value: npt.ArrayLike) -> np.ndarray:
    """The value as a flat NumPy array; raises ExportError if it is not this one."""
    value = np.asarray(value)
    if value.size != self.size or value.dtype.name != self.dtype:
      raise ExportError(f'{self.name} is {self.dtype}[{self.size}], not {value.dtype.name}{list(value.shape)}.')
    return value.reshape(-1)


@dataclasses.dataclass(frozen=True)
class Part:
  """One segment of the payload that is computed in the file.

  Attributes:
    index: its position in the payload.
    segment: the codec's `Segment`.
    variables: positions in the spec of its variables that are not empty.
    values: `Array` of what the coder takes.
    sides: tuple of (position of the stage, `Side`, `Array`).
  """
  index: int
  segment: Any
  variables: tuple
  values: Array
  sides: tuple

  @property
  def is_bytes(self) -> bool:
    """Whether the last stage makes bytes itself, so that there is no coder behind it."""
    return self.segment.pipeline.coder == len(self.segment.pipeline.stages)

  def grouped(self, arrays: dict) -> list[dict]:
    """{name: array} of a signature -> [{side name: array}] per stage before the coder."""
    groups: list[dict] = [{} for _ in range(self.segment.pipeline.coder)]
    for stage, side, array in self.sides:
      groups[stage][side.name] = arrays[array.name]
    return groups


class Layout:
  """How a codec's messages for a spec are divided between file and app.

  Args:
    codec: `Codec` or its text.
    spec: a `Spec`, or what one can be made of.

  Attributes:
    codec, spec, plan: what it was made from.
    variables: {position in the spec: `Array`} of the variables that go into the file: those of a float dtype that are
      not empty.
    residuals: the same positions: `Array` of what error feedback carries from one message to the next.
    parts: tuple of `Part`, in the order of the payload.

  Raises:
    CompressionError: no such codec, or it does not fit the spec.
    ExportError: a stage gives something of which the size is not known.
  """

  def __init__(self, codec: Codec | str, spec: SpecSource) -> None:
    self.codec, self.spec = codec_lib(codec), codec_lib.Spec.of(spec)
    self.plan = self.codec.plan(self.spec)
    self.variables = {i: Array(f'update_{i}', 'float32', tensor.size) for i, tensor in enumerate(self.spec.tensors)
                      if tensor.is_float and tensor.size}
    self.residuals = {i: Array(f'residual_{i}', 'float32', array.size) for i, array in self.variables.items()}
    self.parts = tuple(self._part(index, segment) for index, segment in enumerate(self.plan.segments)
                       if segment.pipeline is not None and segment.size)
    if not self.parts:
      raise ExportError('none of the variables holds float values, so there is nothing to encode: send them as they '
                        'are.')

  def _part(self, index, segment):
    pipeline = segment.pipeline
    signals = pipeline.signals(segment.size)
    signal = signals[pipeline.coder]
    if signal.size is None:
      raise ExportError(
          f'the size of what {pipeline.stages[pipeline.coder - 1]} gives depends on the values, but arrays '
          'of .tflite files have fixed sizes: choose a stage followed by a coder.')
    for stage, given in zip(pipeline.stages[:pipeline.coder], signals):
      if any(side.size is None for side in stage.side(given)):
        raise ExportError(
            f'how much {stage} sends depends on the values, but arrays of .tflite files have fixed sizes: '
            'choose another stage.')
    values = Array(f'values_{index}', _narrowest(signal), signal.size)
    sides = tuple((t, side, Array(f'side_{index}_{t}_{side.name}', 'int32', side.size))
                  for t in range(pipeline.coder) for side in pipeline.stages[t].side(signals[t]))
    variables = tuple(i for i in segment.tensors if self.spec.tensors[i].size)
    return Part(index, segment, variables, values, sides)

  @property
  def encoded_arrays(self) -> tuple[Array, ...]:
    """Tuple of `Array`: what an encoder gives and a decoder takes."""
    return tuple(array for part in self.parts for array in (part.values, *(array for *_, array in part.sides)))


def _narrowest(signal):
  """Name of the smallest dtype that holds the symbols and that Java's runtime has."""
  if isinstance(signal, stage_lib.Bytes):
    return 'uint8'
  for dtype in ('int8', 'uint8', 'int16'):
    if np.iinfo(dtype).min <= signal.low and signal.high <= np.iinfo(dtype).max:
      return dtype
  return 'int32'
