"""The app's half of a message in NumPy: from what an encoder gives to a payload, and from one to what a decoder
takes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tff_compress.codec.codec import Codec
from tff_compress.codec.errors import PayloadError
from tff_compress.codec.errors import UpdateError
from tff_compress.codec.ops import numpy_ops
from tff_compress.codec.spec import SpecSource
from tflite_export.encoder.layout import Layout
from tflite_export.errors import ExportError

NO_KEYS: Any = None
"""Coders draw no random numbers."""

def finish(codec: Codec | str, spec: SpecSource, outputs: Mapping[str, npt.ArrayLike],
           as_they_are: Mapping[str, npt.ArrayLike] | None = None) -> bytes:
  """Makes the payload out of an encoder's outputs.

  Args:
    codec: `Codec` or its text.
    spec: a `Spec`, or what one can be made of.
    outputs: {name: array}, what the signature `encode` returned.
    as_they_are: {variable: array} of the variables that are not of a float dtype, which no codec touches.

  Returns:
    bytes: what `Codec.encode` makes of the same update.

  Raises:
    UpdateError: the encoder was given a NaN, an infinity or a magnitude above 2^64.
    ExportError: an output is missing or not of this codec and spec.
  """
  layout = Layout(codec, spec)
  require_valid(_entry(outputs, 'valid'))
  arrays = {array.name: array.check(_entry(outputs, array.name)) for array in layout.encoded_arrays}
  parts = {part.index: part for part in layout.parts}
  pieces = []
  for index, segment in enumerate(layout.plan.segments):
    if segment.pipeline is None:
      tensor = layout.spec.tensors[segment.tensors[0]]
      value = np.asarray(_entry(as_they_are or {}, tensor.name))
      if value.shape != tensor.shape or value.dtype.name != tensor.dtype:
        raise ExportError(f'{tensor.name} is {tensor.dtype}{list(tensor.shape)}, not '
                          f'{value.dtype.name}{list(value.shape)}.')
      pieces.append((numpy_ops.raw_bytes(value), None))
    elif index in parts:
      part = parts[index]
      values, sides = arrays[part.values.name], part.grouped(arrays)
      values = values if part.is_bytes else values.astype(np.int32)
      pieces.append(segment.pipeline.code(numpy_ops, values, sides, segment.size, NO_KEYS, segment.name))
    else:
      pieces.append(segment.pipeline.encode(numpy_ops, np.zeros(0, np.float32), 0, NO_KEYS, segment.name))
  return layout.plan.join(numpy_ops, pieces).tobytes()


def require_valid(valid: Any) -> None:
  """Raises UpdateError unless the output `valid` of an encoder is 1."""
  if not np.all(valid):
    raise UpdateError('the update holds a NaN, an infinity or a magnitude above 2^64: clip or zero such updates before '
                      'they are encoded.')


def start(codec: Codec | str, spec: SpecSource,
          payload: bytes | bytearray | memoryview) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
  """Takes a payload apart for a decoder.

  Args:
    codec, spec: as for `finish`.
    payload: bytes.

  Returns:
    ({name: array} for the signature `decode`, but for keys or words; {variable: array} of those not of a float dtype)

  Raises:
    PayloadError: the payload is not one that this codec makes for this spec.
  """
  layout = Layout(codec, spec)
  if not isinstance(payload, (bytes, bytearray, memoryview)):
    raise PayloadError(f'a payload is bytes, not {type(payload).__name__}.')
  pieces = layout.plan.split(numpy_ops, np.frombuffer(memoryview(payload).tobytes(), np.uint8))
  inputs, others = {}, {}
  parts = {part.index: part for part in layout.parts}
  for index, (segment, piece) in enumerate(zip(layout.plan.segments, pieces)):
    if segment.pipeline is None:
      tensor = layout.spec.tensors[segment.tensors[0]]
      body = numpy_ops.static_bytes(piece[0], tensor.size * tensor.itemsize)
      others[tensor.name] = numpy_ops.raw_values(body, tensor.dtype).reshape(tensor.shape)
      continue
    values, sides = segment.pipeline.uncode(numpy_ops, piece, segment.size, NO_KEYS, segment.name)
    if index in parts:
      inputs[parts[index].values.name] = values.astype(parts[index].values.dtype)
      for stage, side, array in parts[index].sides:
        inputs[array.name] = sides[stage][side.name]
  return inputs, others


def _entry(values, name):
  if name not in values:
    raise ExportError(f'{name} is missing: it is needed for this codec and spec.')
  return np.asarray(values[name])
