"""The networks of learned encoders in int8: a file of their own, for hardware that computes in 8 bits alone.

    update --> [ encoder, pieces ] --> int8 --> [ network ] --> int8 --> [ encoder, encode ] --> symbols, side values

A layer that serves several positions is a convolution whose windows do not overlap. All pieces of an update lie side by
side, so that one run encodes it. Weights stay those of the autoencoder, which are int8 with a scale for each output;
what values are rounded to between the layers comes from examples. A network gives nearly the latent values that
`tff_compress` computes, and anyone can decode them: it is the error that differs a little, never what a frame means.
"""

from collections.abc import Mapping
import dataclasses
import hashlib
import math
from typing import Any

import numpy as np
import tensorflow as tf

from tff_compress.codec import network as network_lib
from tff_compress.codec.ops import numpy_ops
from tff_compress.codec.transforms import autoencoder
from tflite_export import conversion
from tflite_export import edgetpu
from tflite_export import flatbuffer
from tflite_export import interpreters
from tflite_export.encoder.host import require_valid
from tflite_export.encoder.layout import Array
from tflite_export.encoder.layout import Layout
from tflite_export.errors import ExportError
from tflite_export.inference import examples as examples_lib

SIGNATURE = 'network'

MOST_WEIGHTS = 1 << 26
"""Weights of the largest encoder or decoder that becomes a file."""

MOST_INPUTS = (1 << 31) // (128 * 127)
"""Values that a layer adds up at most: int32 holds the sum of so many products of int8."""

_MOST_VALUES = 1 << 23
_MOST_TRIED = 1 << 21
"""Values of the examples that ranges are measured with, and that each range is tried with."""


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
  """An input or output of a network's file: int8 values v that stand for scale · (v - zero_point).

  Attributes:
    name: in the signatures of both files.
    shape: in the network's file; the encoder's has the same values in the same order, flat.
    scale: float32[m]: one, or one for each index of the last dimension.
    zero_point: whole number.
  """
  name: str
  shape: tuple
  scale: np.ndarray
  zero_point: int

  @property
  def array(self) -> Array:
    """`Array` of the encoder's file."""
    return Array(self.name, 'int8', math.prod(self.shape))

  def rounded(self, xp: Any, x: Any) -> Any:
    """float32 of any shape -> whole numbers -128 … 127 in float32: the nearest ones. For a single scale."""
    nearest = xp.floor(x * (np.float32(1) / self.scale[0]) + np.float32(0.5)) + np.float32(self.zero_point)
    return xp.minimum(xp.maximum(nearest, np.float32(-128)), np.float32(127))

  def values(self, xp: Any, integers: Any) -> Any:
    """int8[n] -> float32[n]: what they stand for."""
    shifted = xp.cast(integers, np.float32) - np.float32(self.zero_point)
    return xp.reshape(xp.reshape(shifted, [-1, len(self.scale)]) * self.scale, [-1])

  def describe(self) -> dict:
    """For JSON."""
    return {'name': self.name, 'dtype': 'int8', 'shape': list(self.shape), 'scale': self.scale.tolist(),
            'zero_point': self.zero_point}


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
  """The file of one or several networks, one for each segment that begins with an autoencoder.

  Attributes:
    data: bytes of the .tflite file; its one signature is 'network'.
    inputs, outputs: {position of the segment: `Tensor`}.
    operators: {operator: how often}.
    errors: (float, float): ||decoded - x||² / ||x||² of examples, through the autoencoder as it is and through this
      file.
  """
  data: bytes
  inputs: dict
  outputs: dict
  operators: dict
  errors: tuple

  def run(self, interpreter: Any, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Runs it.

    Args:
      interpreter: `Interpreter` of `data`.
      arrays: {name: array} that the encoder's signature `pieces` gave.

    Returns:
      {name: int8[n]} for its signature `encode`.

    Raises:
      UpdateError: the encoder was given a NaN, an infinity or a magnitude above 2^64.
      ExportError: an array is missing or of another size.
    """
    for name in ('valid', *(tensor.name for tensor in self.inputs.values())):
      if name not in arrays:
        raise ExportError(f'{name} is missing: give all that the signature pieces gave.')
    require_valid(arrays['valid'])
    inputs = {tensor.name: tensor.array.check(arrays[tensor.name]).reshape(tensor.shape)
              for tensor in self.inputs.values()}
    return {name: value.reshape(-1) for name, value in interpreter.run(SIGNATURE, **inputs).items()}

  def check_edgetpu(self) -> edgetpu.Report:
    """`edgetpu.Report` of the file."""
    return edgetpu.check_edgetpu(self.data)

  def describe(self) -> dict[str, Any]:
    """What an app needs to know about the file, as a dict for JSON."""
    return {'signature': SIGNATURE, 'bytes': len(self.data), 'sha256': hashlib.sha256(self.data).hexdigest(),
            'operators': dict(self.operators), 'inputs': [tensor.describe() for tensor in self.inputs.values()],
            'outputs': [tensor.describe() for tensor in self.outputs.values()],
            'errors': {'exact': self.errors[0], 'int8': self.errors[1]}}


def pieces(xp, part, x):
  """float32[n] -> float32[chunks, length]: what the network of a segment is given."""
  stage, signal = _first(part)
  return stage.network(signal).pieces(xp, stage.turned(xp, x, signal), signal.size)


def check_sizes(layout: Layout) -> None:
  """Refuses networks of which no file can be made.

  Raises:
    ExportError: an encoder or a decoder has too many weights.
  """
  for part, net in _learned(layout):
    most = max(sum(layer.weights.size for layer in layers) for layers in (net.encoder, net.decoder))
    if most > MOST_WEIGHTS:
      raise ExportError(f'the network of {_first(part)[0]} has {most:,} weights, and a file at most {MOST_WEIGHTS:,}: '
                        'learn one for shorter pieces (length=1024).')


def quantized(layout: Layout, examples: Any) -> Network:
  """Makes the file.

  Args:
    layout: `Layout` of a codec with a segment that begins with an autoencoder.
    examples: updates, float[n, d]: all values of its float variables, one variable after the other.

  Returns:
    `Network`

  Raises:
    ExportError: there is no autoencoder, it cannot be computed in int8, or the examples do not fit.
  """
  found = _learned(layout)
  if not found:
    raise ExportError(f'{layout.codec} has no autoencoder, and nothing else is computed in int8: leave int8 out, or '
                      'choose a codec such as autoencoder:32,length=1024,weights=… | uniform:bits=8 | rans.')
  for part, net in found:
    longest = max(layer.weights.shape[0] for layer in net.encoder)
    if longest > MOST_INPUTS:
      raise ExportError(f'a layer of {_first(part)[0]} adds up {longest:,} products, and in int8 the sum of more than '
                        f'{MOST_INPUTS:,} may overflow: learn one for shorter pieces (length=1024).')
  rows = _rows(layout, [part for part, _ in found], examples)
  coders = [_Coder(part, net, values) for (part, net), values in zip(found, rows)]
  data = flatbuffer.compact(conversion.convert(tf.Module(), {SIGNATURE: _function(coders)}, _configured(coders)))
  with interpreters.quiet():
    interpreter = interpreters.Interpreter(data)
    inputs, outputs = interpreter.details(SIGNATURE)
  made = Network(data, {coder.index: _tensor(inputs, coder.input, np.ones(1, np.float32)) for coder in coders},
                 {coder.index: _tensor(outputs, coder.output, coder.ranges) for coder in coders},
                 flatbuffer.operators(data).counts, ())
  return dataclasses.replace(made, errors=_errors(made, interpreter, coders))


class _Coder:
  """One network and what its examples say about it.

  Args:
    part: `Part`.
    net: its `network.Autoencoder`.
    rows: float32[n, size] examples of the segment's values.

  Attributes:
    tried: [(x, pieces)] of the examples that ranges are tried with.
    top: largest magnitude that its input distinguishes.
    ranges: float32[m]: largest magnitude of each output of the last layer.
  """

  def __init__(self, part, net, rows):
    self.index, self.net, self._part = part.index, net, part
    self.input, self.output = f'pieces_{part.index}', f'latent_{part.index}'
    self._pieces = [pieces(numpy_ops, part, row) for row in rows]
    self.tried = list(zip(rows, self._pieces))[:max(1, _MOST_TRIED // rows.shape[1])]
    self.top = self._best_top()
    last = net.encoder[-1].weights.shape[1]
    ranges = np.max([np.abs(self.latents(x)).reshape(-1, last).max(axis=0) for x in self.clipped()], axis=0)
    self.ranges = np.where(ranges > 0, ranges, 1).astype(np.float32)

  @property
  def shape(self):
    """Of the network's input: 1, pieces, positions, values of a position."""
    first = self.net.encoder[0]
    return 1, self.net.chunks(self._part.segment.size), first.positions, first.weights.shape[0]

  def _best_top(self):
    """The largest magnitude with which decoded examples are nearest to what they should be.

    With too large a one small values become zero, with too small a one large values are cut off.
    """
    largest = max(np.max(np.abs(x)) for x in self._pieces) or np.float32(1)
    if not np.isfinite(largest):
      raise ExportError('representative_data is far larger than what the autoencoder was learned from: give updates of '
                        'the same model and training.')
    tops = [largest * np.float32(2.0**-i) for i in range(5)]
    return min(tops, key=lambda top: sum(self.error(x, self.latents(_eight_bits(found, top)))
                                         for x, found in self.tried))

  def clipped(self):
    """Yields float32[chunks, length] of each example: its pieces as int8 holds them."""
    return (_eight_bits(x, self.top) for x in self._pieces)

  def latents(self, x):
    """float32[chunks, length] -> float32[chunks * latent]: those of the autoencoder."""
    return self.net.latents(numpy_ops, x).reshape(-1)

  def error(self, x, latents):
    """||decoded - x||² of an example and latent values."""
    stage, signal = _first(self._part)
    return float(np.sum((stage.decode(numpy_ops, latents, {}, None, signal).astype(np.float64) - x)**2))

  def build(self, x):
    """The encoder's layers as convolutions: float32 of `shape` -> float32 [1, chunks, positions, m]."""
    for layer in self.net.encoder:
      inputs, outputs = layer.weights.shape
      weights, bias = layer.weights.astype(np.float32) * layer.scale, layer.bias
      if layer is self.net.encoder[-1]:
        # Each output gets a range of its own: that of its weights' scale, which costs nothing.
        weights, bias = weights / self.ranges, bias / self.ranges
      if x.shape[2] % layer.positions:
        x = tf.reshape(x, [1, x.shape[1], layer.positions, inputs])
      window = x.shape[2] // layer.positions
      y = tf.nn.conv2d(x, weights.reshape(1, window, x.shape[3], outputs), [1, 1, window, 1], 'VALID') + bias
      if layer.activation == network_lib.RESIDUAL:
        y += tf.reshape(x, y.shape)
      x = tf.nn.relu(y) if layer.activation != network_lib.NONE else y
    return x


def _eight_bits(x, top):
  """float32 of any shape -> the nearest of the values -top … top in steps of top / 127."""
  tensor = Tensor('', (), np.asarray([top / np.float32(127)], np.float32), 0)
  return tensor.values(numpy_ops, tensor.rounded(numpy_ops, x)).reshape(x.shape)


def _first(part):
  """(first stage, `Real` that it is given) of a segment."""
  return part.segment.pipeline.stages[0], part.segment.pipeline.signals(part.segment.size)[0]


def _learned(layout):
  """[(`Part`, `network.Autoencoder`)] of the segments that begin with an autoencoder."""
  found = [(part, *_first(part)) for part in layout.parts]
  return [(part, stage.network(signal)) for part, stage, signal in found if isinstance(stage, autoencoder.Autoencoder)]


def _rows(layout, parts, examples):
  """float32[n, size] for each part: its values of evenly chosen examples."""
  examples = examples_lib.numbers(examples, 'representative_data')
  sizes = [array.size for array in layout.variables.values()]
  if examples.ndim != 2 or examples.shape[1] != sum(sizes):
    raise ExportError(f'representative_data has the shape {examples.shape}: give one update per row, with the '
                      f"{sum(sizes):,} values of the model's float variables one after the other.")
  count = min(len(examples), max(1, _MOST_VALUES // sum(sizes)))
  with np.errstate(over='ignore'):
    chosen = examples[np.linspace(0, len(examples) - 1, count).astype(int)].astype(np.float32)
  if not np.all(np.isfinite(chosen)):
    raise ExportError('representative_data holds magnitudes beyond float32: remove those examples.')
  columns = dict(zip(layout.variables, np.split(chosen, np.cumsum(sizes)[:-1], axis=1)))
  return [np.concatenate([columns[i] for i in part.variables], axis=1) for part in parts]


def _function(coders):
  """Concrete function of all networks."""
  def function(**inputs):
    return {coder.output: coder.build(inputs[coder.input]) for coder in coders}

  return tf.function(function, autograph=False).get_concrete_function(
      **{coder.input: tf.TensorSpec(coder.shape, tf.float32, name=coder.input) for coder in coders})


def _configured(coders):
  """What sets the converter to integers alone."""
  def examples():
    for found in zip(*(coder.clipped() for coder in coders)):
      yield SIGNATURE, {coder.input: x.reshape(coder.shape) for coder, x in zip(coders, found)}

  def configure(converter):
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = tf.lite.RepresentativeDataset(examples)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8

  return configure


def _tensor(details, name, factors):
  found = details[name]
  scale, zero_point = found['quantization']
  return Tensor(name, tuple(map(int, found['shape'])), np.float32(scale) * factors, int(zero_point))


def _errors(made, interpreter, coders):
  """(float, float): `Network.errors`."""
  total, exact, rounded = 1e-30, 0.0, 0.0
  for examples in zip(*(coder.tried for coder in coders)):
    given = {'valid': 1}
    for coder, (_, found) in zip(coders, examples):
      tensor = made.inputs[coder.index]
      given[tensor.name] = tensor.rounded(numpy_ops, found).astype(np.int8)
    latents = made.run(interpreter, given)
    for coder, (x, found) in zip(coders, examples):
      tensor = made.outputs[coder.index]
      total += float(np.sum(x.astype(np.float64)**2))
      exact += coder.error(x, coder.latents(found))
      rounded += coder.error(x, tensor.values(numpy_ops, latents[tensor.name]))
  return exact / total, rounded / total
