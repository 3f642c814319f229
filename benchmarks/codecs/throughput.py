"""MB/s of float32 that each codec encodes and decodes in NumPy on one core, beside memcpy, zstd of int8 and tfmot.

The update is that of the 1,199,882-parameter CNN, with normally distributed values; everything is timed side by side in
one process. A MB is 10^6 bytes of float32, so a codec's encode and decode figures are of the uncompressed update, and
payload sizes do not enter. The figure is the fastest of many calls. Everything has one thread: TensorFlow too.

`int8 + zstd` divides each tensor by its largest magnitude, rounds to int8 and compresses with zstd level 1. `tfmot` is
the tensor_encoding library behind `tff.learning.compression_aggregator`, called per variable inside one tf.function.
"""

import numpy as np

from benchmarks.lib import fedavg
from benchmarks.lib import harness
from tff_compress import codec as codec_lib

CODECS = (
    'hadamard | uniform:bits=2 | pack',
    'uniform:bits=1 | pack', 'uniform:bits=2 | pack', 'uniform:bits=3 | pack', 'uniform:bits=4 | pack', 'int8',
    'hadamard | float32', 'hadamard | uniform:bits=8 | pack', 'hadamard | uniform:bits=4 | rans', 'sketch',
    'shared-mask',
    'drive', 'drive:bits=2', 'drive:bits=4', 'rotated-ternary', 'topk:1/100 | float32', 'float16', 'float32',
)


def run(quick):
  import tensorflow as tf
  tf.config.threading.set_intra_op_parallelism_threads(1)
  rng = np.random.default_rng(0)
  update = {name: (0.01 * rng.standard_normal(shape)).astype(np.float32) for name, shape in fedavg.SHAPES.items()}
  pairs = {'memcpy': _memcpy(update), 'int8 + zstd': _zstd(update)}
  for codec in CODECS:
    pairs[codec] = _ours(codec_lib(codec), update)
  pairs['tfmot uniform 8 bit'] = _tfmot(tf, 'uniform_quantization', 8, update)
  pairs['tfmot hadamard + uniform 2 bit'] = _tfmot(tf, 'hadamard_quantization', 2, update)

  functions = {}
  for name, (encode, decode, _) in pairs.items():
    functions[name, 'encode'], functions[name, 'decode'] = encode, decode
  seconds = harness.fastest(functions, 5 if quick else 180)
  size = sum(value.nbytes for value in update.values())
  memcpy = seconds['memcpy', 'encode']
  return [{
      'codec': name,
      'bits per parameter': round(32 * pairs[name][2] / size, 4),
      'encode MB/s': round(size / seconds[name, 'encode'] / 1e6),
      'decode MB/s': round(size / seconds[name, 'decode'] / 1e6),
      'encode / memcpy': round(memcpy / seconds[name, 'encode'], 4),
      'decode / memcpy': round(memcpy / seconds[name, 'decode'], 4),
  } for name in pairs]


def _ours(codec, update):
  """(encode, decode, payload bytes)"""
  keys = {'seed': 1, 'round': 2, 'client': 3}
  payload = codec.encode(update, **keys)
  spec = codec_lib.Spec.of(update)
  return (lambda: codec.encode(update, **keys)), (lambda: codec.decode(payload, spec, **keys)), len(payload)


def _memcpy(update):
  source = np.concatenate([value.ravel() for value in update.values()])
  target = np.empty_like(source)
  return (lambda: np.copyto(target, source)), (lambda: np.copyto(source, target)), source.nbytes


def _zstd(update):
  import zstandard
  compressor, decompressor = zstandard.ZstdCompressor(level=1), zstandard.ZstdDecompressor()

  def encode():
    parts, scales = [], []
    for value in update.values():
      scales.append(np.abs(value).max() / np.float32(127))
      parts.append(np.rint(value.ravel() / scales[-1]).astype(np.int8))
    return compressor.compress(np.concatenate(parts)), scales

  data, scales = encode()

  def decode():
    symbols, start, result = np.frombuffer(decompressor.decompress(data), np.int8), 0, {}
    for (name, value), scale in zip(update.items(), scales):
      result[name] = (symbols[start:start + value.size] * scale).reshape(value.shape)
      start += value.size
    return result

  return encode, decode, len(data) + 4 * len(scales)


def _tfmot(tf, kind, bits, update):
  from tensorflow_model_optimization.python.core.internal import tensor_encoding
  values = [tf.constant(value) for value in update.values()]
  encoders = [tensor_encoding.encoders.as_simple_encoder(getattr(tensor_encoding.encoders, kind)(bits),
                                                         tf.TensorSpec.from_tensor(value)) for value in values]

  @tf.function
  def encode(values):
    return [encoder.encode(value, encoder.initial_state())[0] for encoder, value in zip(encoders, values)]

  @tf.function
  def decode(encoded):
    return [encoder.decode(value) for encoder, value in zip(encoders, encoded)]

  encoded = encode(values)
  sent = sum(part.numpy().nbytes for part in tf.nest.flatten(encoded))
  return (lambda: encode(values)), (lambda: decode(encoded)), sent
