"""The rotation inside a TFF worker: this project's `hadamard` stage against the one of tensorflow-model-optimization.

Both encode 2^20 float32 values: random signs and the transform, and here also the rounding that makes it exact. The
worker repeats the work on its own data and returns one number, so nothing is measured but the stage.
"""

import statistics
import time

from benchmarks.lib import progress

THREADS = 2
SIZE = 1 << 20
REPEATS = 16


def run(quick):
  """Measures.

  Returns:
    List of rows: rotation, milliseconds (per encoding of 2^20 values), ratio (tensorflow-model-optimization's / this).
  """
  import numpy as np
  import tensorflow as tf
  import tensorflow_federated as tff
  from tensorflow_model_optimization.python.core.internal import tensor_encoding

  from tff_compress import runtime
  from tff_compress.codec import keys as keys_lib
  from tff_compress.codec import stage as stage_lib
  from tff_compress.codec.transforms import hadamard
  from tff_compress.tensorflow import ops

  class Keys:
    """Constant keys, as their derivation is not what is measured."""

    def key(self, scope, name, purpose, chunk):
      return tf.constant([purpose, chunk], tf.int32)

  def ours(stage):
    def encode(x):
      xp = ops.TensorFlowOps()
      return stage.encode(xp, x, keys_lib.Draws(xp, Keys(), '', 0), stage_lib.Real(SIZE))[0]
    return encode

  peer = tensor_encoding.stages.HadamardEncodingStage()

  def theirs(x):
    params, _ = peer.get_params()
    return list(peer.encode(x, params).values())[0]

  def times(encode, repeats):
    @tff.tensorflow.computation(np.float32)
    def work(first):
      x = tf.sin(tf.range(SIZE, dtype=tf.float32)) + first
      for _ in range(repeats):
        x = tf.reshape(encode(x), [-1])
      return x[17]
    return work

  cases = {'tensorflow-model-optimization': theirs, 'hadamard': ours(hadamard.Hadamard()),
           'hadamard:rotations=2': ours(hadamard.Hadamard(rotations=2)),
           'hadamard:block=4096': ours(hadamard.Hadamard(block=4096))}
  measured = {name: [] for name in cases}
  with runtime.local_context():
    works = {name: (times(encode, 1), times(encode, 1 + REPEATS)) for name, encode in cases.items()}
    for turn in progress.bar(range(3 if quick else 9), 'hadamard'):
      for name, pair in works.items():
        spent = []
        for work in pair:
          if not turn:
            work(np.float32(turn))
          start = time.perf_counter()
          work(np.float32(turn))
          spent.append(time.perf_counter() - start)
        measured[name].append((spent[1] - spent[0]) / REPEATS)
  seconds = {name: statistics.median(values) for name, values in measured.items()}
  return [dict(rotation=name, milliseconds=1e3 * value, ratio=seconds['tensorflow-model-optimization'] / value)
          for name, value in seconds.items()]
