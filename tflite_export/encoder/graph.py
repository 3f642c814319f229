"""The graphs of encoders and decoders: the codec's own stages, over the operation table of TensorFlow Lite."""

import contextlib

import numpy as np
import tensorflow as tf

from tff_compress.codec.codec import LARGEST
from tff_compress.codec.errors import CompressionError
from tflite_export.encoder import networks
from tflite_export.encoder.ops import TFLiteOps
from tflite_export.errors import ExportError

_FINITE = float(np.finfo(np.float32).max)


def encode(layout, inputs, keys, error_feedback=False, network=None):
  """Builds an encoder.

  Args:
    layout: `Layout`.
    inputs: {name: tensor} of the variables, of the residuals where there is error feedback, and of the latent values
      where there is a network, without whose variables it does if there is no error feedback.
    keys: function of the `TFLiteOps` that gives an object with `key(scope, name, purpose, chunk)`; see streams.py.
    error_feedback: whether residuals are added to the update, and what the message leaves out comes back as the next.
    network: `networks.Network` that computes first stages in a file of its own, or None.

  Returns:
    {name: tensor}
  """
  xp, flat = _updates(layout, inputs, error_feedback)
  keys = keys(xp)
  outputs, made = {}, []
  for part in layout.parts:
    x = _joined(xp, part, flat)
    latent = network.outputs.get(part.index) if network else None
    values, sides = quantize(xp, part, x, keys, latent and latent.values(xp, inputs[latent.name]))
    made.append((part, x, values, sides))
    outputs[part.values.name] = tf.cast(tf.reshape(values, [part.values.size]), part.values.dtype)
    for stage, side, array in part.sides:
      outputs[array.name] = tf.reshape(sides[stage][side.name], [array.size])
  # Before anything is decoded: what this encoder makes needs none of a decoder's checks.
  outputs['valid'] = xp.valid
  if error_feedback:
    for part, x, values, sides in made:
      for i, piece in _split(layout, part, x - dequantize(xp, part, values, sides, keys)):
        outputs[layout.residuals[i].name] = piece
  return outputs


def pieces(layout, inputs, network, error_feedback=False):
  """Builds what comes before a network: {name: tensor} of variables and residuals -> {name: tensor} of what it
  takes."""
  xp, flat = _updates(layout, inputs, error_feedback)
  outputs = {'valid': xp.valid}
  for part in layout.parts:
    if part.index in network.inputs:
      array = network.inputs[part.index]
      x = networks.pieces(xp, part, _joined(xp, part, flat))
      outputs[array.name] = tf.cast(tf.reshape(array.rounded(xp, x), [-1]), tf.int8)
  return outputs


def decode(layout, inputs, keys):
  """Builds a decoder: {name: tensor} of what an encoder gives -> {name: tensor} of the variables. See `encode`."""
  xp = TFLiteOps(tf.cast(inputs[layout.parts[0].values.name], tf.int32))
  keys = keys(xp)
  outputs = {}
  for part in layout.parts:
    values = inputs[part.values.name]
    values = values if part.is_bytes else tf.cast(values, tf.int32)
    for i, piece in _split(layout, part, dequantize(xp, part, values, part.grouped(inputs), keys)):
      if layout.spec.tensors[i].dtype == 'float16':
        # Rounding may lead beyond the largest float16, which must not become an infinity.
        piece = tf.minimum(tf.maximum(piece, tf.constant(-65504.0)), tf.constant(65504.0))
      outputs[layout.variables[i].name] = piece
  outputs['valid'] = xp.valid
  return outputs


def quantize(xp, part, x, keys, latent=None):
  """All stages of a segment before its coder: float32[n] -> (values, side arrays per stage).

  Args:
    latent: float32[k], what the first stage makes, if it has been computed already.

  Raises:
    ExportError: names the stage that cannot be built.
  """
  segment, sides, first = part.segment, [], 0
  if latent is not None:
    x, sides, first = latent, [{}], 1
  for t in range(first, segment.pipeline.coder):
    with _blaming(segment.pipeline.stages[t]):
      x, made = segment.pipeline.encode_stages(xp, x, [t], segment.size, keys, segment.name)
    sides += made
  return x, sides


def dequantize(xp, part, values, sides, keys):
  """Inverse of `quantize`."""
  segment = part.segment
  for t in reversed(range(segment.pipeline.coder)):
    with _blaming(segment.pipeline.stages[t]):
      values = segment.pipeline.decode_stages(xp, values, sides, [t], segment.size, keys, segment.name)
  return values


@contextlib.contextmanager
def _blaming(stage):
  try:
    yield
  except Exception as error:  # Whatever a stage meets when it is given tensors of unknown value.
    reason = f'it needs values while the file is made ({type(error).__name__})'
    if isinstance(error, CompressionError):
      reason = str(error).rstrip('.')
    raise ExportError(f'{stage} cannot be computed in a .tflite file: {reason}; choose another stage.') from error


def _updates(layout, inputs, error_feedback):
  """(`TFLiteOps` that requires what can be encoded, {position: values} of the variables among the inputs)"""
  flat = {i: inputs[array.name] for i, array in layout.variables.items() if array.name in inputs}
  if error_feedback:
    flat = {i: x + inputs[layout.residuals[i].name] for i, x in flat.items()}
  if not flat:
    return TFLiteOps(tf.cast(next(iter(inputs.values())), tf.int32)), flat
  xp = TFLiteOps(tf.bitcast(next(iter(flat.values())), tf.int32))
  _require_encodable(xp, xp.concat(list(flat.values())))
  return xp, flat


def _joined(xp, part, flat):
  """The values of a segment; None where they are not among the inputs."""
  found = [flat[i] for i in part.variables if i in flat]
  return xp.concat(found) if len(found) > 1 else found[0] if found else None


def _split(layout, part, x):
  """(position, values) of each variable of a segment."""
  sizes = [layout.variables[i].size for i in part.variables]
  return zip(part.variables, tf.split(x, sizes) if len(sizes) > 1 else [x])


def _require_encodable(xp, x):
  # A sum keeps every NaN, which a maximum may lose, and cannot overflow below 2^64.
  total = xp.reduce_sum(x)
  xp.require(xp.abs(total) <= tf.constant(_FINITE), 'the update holds a NaN.')
  xp.require(xp.reduce_max(xp.abs(x)) <= tf.constant(LARGEST), 'the update holds a magnitude above 2^64.')
