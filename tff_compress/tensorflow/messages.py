"""Frames made and read inside a graph, the same bytes as `tff_compress.wire.pack`."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tff_compress import wire
from tff_compress.codec import keys as keys_lib
from tff_compress.codec import random
from tff_compress.codec.codec import Codec
from tff_compress.codec.codec import LARGEST
from tff_compress.codec.grammar import as_codec
from tff_compress.codec.spec import Spec
from tff_compress.codec.subspace import Maps
from tff_compress.codec.subspace import Subspace
from tff_compress.tensorflow import ops
from tff_compress.tensorflow.keys import GraphKeys
from tff_compress.wire import frame as frame_lib


class MessageFunctions:
  """Functions from tensors to frames and back, to be called while a graph is built.

  Args:
    codec: `Codec` or its text.
    spec: `Spec` of the tensors.
    seed: session seed, 0 … 2^64-1.
  """

  def __init__(self, codec: Codec | str, spec: Spec, seed: int) -> None:
    self.codec, self.spec, self.seed = as_codec(codec), spec, seed
    self.plan = self.codec.plan(spec)
    self._header = frame_lib.header(self.codec.fingerprint(spec))

  def _keys(self, method: str, round: tf.Tensor, client: tf.Tensor) -> GraphKeys:
    """The keys that this method of all segments asks for."""
    needed = [(scope, segment.name, purpose, chunk) for segment in self.plan.segments if segment.pipeline
              for scope, purpose, chunk in ops.requests_of(segment, method)]
    return GraphKeys(needed, self.seed, round, client)

  @property
  def prefix_types(self) -> list[tuple[int, str]]:
    """[(size, dtype name)] of what `decode_to_prefixes` gives: one vector per segment."""
    types = []
    for segment in self.plan.segments:
      if segment.pipeline is None:
        types.append((segment.size, self.spec.tensors[segment.tensors[0]].dtype))
      else:
        types.append((segment.pipeline.real(segment.size, segment.pipeline.prefix).size, 'float32'))
    return types

  @tf.autograph.experimental.do_not_convert
  def encode(self, arrays: Sequence[tf.Tensor], round: tf.Tensor, client: tf.Tensor) -> tf.Tensor:
    """Frames one message.

    Args:
      arrays: tensors in the order of the spec.
      round, client: int32 scalars holding the 32 bits of the numbers.

    Returns:
      uint8[n]. Evaluating it fails (InvalidArgumentError) if a value is NaN, infinite or above 2^64 in magnitude.
    """
    xp = ops.TensorFlowOps()
    for array, tensor in zip(arrays, self.spec.tensors):
      if tensor.is_float and tensor.size:
        xp.require(_is_encodable(tf.cast(array, tf.float32)),
                   f'variable {tensor.name!r} of an update holds a NaN, an infinity or a magnitude above 2^64: put '
                   'zeroing or clipping around the uplink.')
    keys = self._keys('encode', round, client)
    payload = self.plan.encode(xp, arrays, keys)
    numbers = tf.reshape(tf.bitcast(tf.stack([round, client]), tf.uint8), [-1])
    body = tf.concat([tf.constant(np.frombuffer(self._header, np.uint8)), numbers, payload], 0)
    checksum = tf.bitcast(xp.crc32(body), tf.uint8)
    return xp.checked(tf.concat([body, checksum], 0))

  @tf.autograph.experimental.do_not_convert
  def decode_to_prefixes(self, frame: tf.Tensor, round: tf.Tensor | None = None,
                         client: tf.Tensor | None = None) -> list[tf.Tensor]:
    """Reads one frame up to the point where the frames of a round may be summed.

    Args:
      frame: uint8[n].
      round, client: int32 scalars: where given, the frame must be of this round or client.

    Returns:
      List of vectors, one per segment; see `prefix_types`. Evaluating them fails (InvalidArgumentError) where
      `tff_compress.wire.unpack` refuses the frame.
    """
    frame = self._checked(frame, round, client)
    xp = ops.TensorFlowOps()
    keys = self._keys('decode_to_prefix', *numbers_of(frame))
    values = self.plan.decode_to_prefixes(xp, frame[frame_lib.HEADER_BYTES:-frame_lib.CHECKSUM_BYTES], keys)
    return xp.checked([tf.ensure_shape(v, [n]) for v, (n, _) in zip(values, self.prefix_types)])

  def _checked(self, frame: tf.Tensor, round: tf.Tensor | None, client: tf.Tensor | None) -> tf.Tensor:
    """The same frame, which fails to evaluate unless all but its payload is right. It is looked at only then."""
    xp = ops.TensorFlowOps()
    xp.require(tf.size(frame) >= wire.FRAME_OVERHEAD, 'a frame is cut short.')
    frame = xp.checked(frame)
    xp = ops.TensorFlowOps()
    header = tf.constant(np.frombuffer(self._header, np.uint8))
    same = tf.equal(frame[:len(self._header)], header)
    xp.require(same[:len(frame_lib.MAGIC)], 'this is not a frame: it does not start with "TFC".')
    xp.require(same[len(frame_lib.MAGIC)], f'a frame has another version than {frame_lib.VERSION}.')
    checksum = tf.bitcast(frame[-frame_lib.CHECKSUM_BYTES:], tf.int32)
    xp.require(tf.equal(checksum, xp.crc32(frame[:-frame_lib.CHECKSUM_BYTES])),
               'a frame was damaged on the way: its checksum does not match.')
    xp.require(same, 'a frame was made with another codec or for another model.')
    for name, expected, number in zip(('round', 'client'), (round, client), numbers_of(frame)):
      if expected is not None:
        xp.require(tf.equal(number, expected), f'a frame is of another {name} than the one expected.')
    return xp.checked(frame)

  @tf.autograph.experimental.do_not_convert
  def decode_prefixes(self, values: Sequence[tf.Tensor], round: tf.Tensor) -> list[tf.Tensor]:
    """Undoes the linear prefixes of one message or of a sum of messages of one round.

    Args:
      values: what `decode_to_prefixes` gave, or sums of it over clients.
      round: int32 scalar.

    Returns:
      List of tensors in the order, shapes and dtypes of the spec. Evaluating them fails (InvalidArgumentError) where
      one holds a value that is not finite.
    """
    keys = self._keys('decode_prefix', round, tf.constant(-1, tf.int32))
    xp = ops.TensorFlowOps()
    arrays = self.plan.decode_prefixes(xp, values, keys)
    for array, tensor in zip(arrays, self.spec.tensors):
      if tensor.is_float:
        xp.require(tf.math.is_finite(array), f'the payload decodes to infinite values in variable {tensor.name!r}.')
    return xp.checked(arrays)

  @tf.autograph.experimental.do_not_convert
  def subspaces(self, round: tf.Tensor, client: tf.Tensor) -> list[Maps | None]:
    """The subspaces on which a client's message of a round projects.

    Args:
      round, client: as for `encode`.

    Returns:
      List with one entry per segment: (project, lift) as `Subspace.maps` gives them, where the segment's first stage
      is a `Subspace`, and None elsewhere.
    """
    keys = self._keys('encode', round, client)
    found = []
    for segment in self.plan.segments:
      maps = None
      if segment.pipeline and isinstance(segment.pipeline.stages[0], Subspace):
        xp = ops.TensorFlowOps()
        draws = keys_lib.Draws(xp, keys, segment.name, 0)
        maps = segment.pipeline.stages[0].maps(xp, draws, segment.pipeline.real(segment.size, 0))
      found.append(maps)
    return found

  def decode(self, frame: tf.Tensor, round: tf.Tensor | None = None,
             client: tf.Tensor | None = None) -> list[tf.Tensor]:
    """uint8[n] -> list of tensors in the order, shapes and dtypes of the spec; arguments as for
    `decode_to_prefixes`."""
    return self.decode_prefixes(self.decode_to_prefixes(frame, round, client), numbers_of(frame)[0])


def numbers_of(frame: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
  """(round, client) of a frame: int32 scalars holding the 32 bits of the numbers; of any where it is cut short."""
  header = tf.concat([frame[:frame_lib.HEADER_BYTES], tf.zeros([frame_lib.HEADER_BYTES], tf.uint8)], 0)
  numbers = tf.bitcast(tf.reshape(header[8:frame_lib.HEADER_BYTES], [2, 4]), tf.int32)
  return numbers[0], numbers[1]


def _is_encodable(x: tf.Tensor) -> tf.Tensor:
  """Which values are; a NaN is not below anything."""
  return tf.abs(x) <= LARGEST


def signed(number: int) -> int:
  """A number of 32 bits as the int32 with the same bits."""
  return random.signed(int(number))
