"""What a session of the shared subspace takes keys and models from while a graph is built."""

import numpy as np
import tensorflow as tf

from tff_compress.codec import random
from tff_compress.codec.codec import Codec
from tff_compress.codec.spec import Spec
from tff_compress.subspace.coordinates import Coordinates
from tff_compress.subspace.session import FIRST
from tff_compress.subspace.session import KEY_FRAME
from tff_compress.tensorflow.keys import GraphKeys
from tff_compress.tensorflow.messages import MessageFunctions
from tff_compress.tensorflow.ops import TensorFlowOps
from tff_compress.timeline.start import Start

_SHARED = random.signed(random.SHARED_CLIENT)


class GraphRuntime:
  """`subspace.session.Runtime` in graphs.

  Args:
    spec: `Spec` of the model's variables, of float32.
    seed: session seed, 0 … 2^64-1.
    key_frames, first: `Codec` of key frames, and of a first model.
    start: `Start`, or None where the first model is sent.
  """

  def __init__(self, spec: Spec, seed: int, key_frames: Codec, first: Codec, start: Start | None = None) -> None:
    self._spec, self._seed, self.start = spec, seed, start
    self._requests = Coordinates(spec.parameters).requests()
    self._messages = {KEY_FRAME: MessageFunctions(key_frames, spec, seed), FIRST: MessageFunctions(first, spec, seed)}

  def keys(self, round: tf.Tensor, client: tf.Tensor) -> GraphKeys:
    return GraphKeys(self._requests, self._seed, round, client)

  def keys_of_words(self, words: tf.Tensor) -> GraphKeys:
    """The keys of which these are the `GraphKeys.words`."""
    return GraphKeys.of_words(self._requests, words)

  def draw(self, start: tf.Tensor) -> tf.Tensor:
    known = tf.constant(np.frombuffer(self.start.to_bytes() if self.start else b'', np.uint8))
    size = tf.minimum(tf.size(start), tf.size(known))
    is_known = tf.equal(tf.size(start), tf.size(known)) & tf.reduce_all(tf.equal(start[:size], known[:size]))
    with tf.control_dependencies([tf.debugging.Assert(is_known, ['a start is of another run.'])]):
      return self.drawn() if self.start else tf.zeros([self._spec.parameters])

  def drawn(self) -> tf.Tensor:
    """float32[d], the weights that the run's start says."""
    assert self.start is not None
    keys = GraphKeys(Start.requests(self._spec), self.start.seed, tf.constant(0), tf.constant(_SHARED, tf.int32))
    return self.start.draw(TensorFlowOps(), keys, self._spec)

  def encode_model(self, model: tf.Tensor, round: tf.Tensor, kind: int) -> tf.Tensor:
    return self._messages[kind].encode(self._spec.split(TensorFlowOps(), model), round, tf.constant(_SHARED, tf.int32))

  def decode_model(self, frame: tf.Tensor, kind: int) -> tf.Tensor:
    return self._spec.join(TensorFlowOps(), self._messages[kind].decode(frame, client=tf.constant(_SHARED, tf.int32)))
