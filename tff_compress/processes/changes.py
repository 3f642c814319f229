"""A downlink of changes: clients keep a copy of the model, and receive what they missed.

Messages, all integers little endian:

    offset  bytes  field
         0      1  0: changes, 1: the whole model
         1      n  changes: for each round that was missed, oldest first, the length of a frame (4 bytes) and the frame
                   model: one frame with the float32 values of all variables

Source: Sattler et al. 2019, "Robust and communication-efficient federated learning from non-iid data", sections V and VI.
"""

import collections
import dataclasses

import tensorflow as tf

from tff_compress import codec as codec_lib
from tff_compress.codec import random
from tff_compress.processes.errors import ProcessError
from tff_compress.tensorflow import MessageFunctions
from tff_compress.wire import FRAME_OVERHEAD

_CHANGES, _MODEL = 0, 1
_LENGTH_BYTES = 4

UNKNOWN = -1
"""The version of a client that has no model."""


@dataclasses.dataclass(frozen=True)
class Changes:
  """A downlink of changes, for `build_fed_avg(downlink=…)`.

  Attributes:
    codec: `Codec` or its text; of one message a round that all clients apply.
    residual: whether the server sends later what a message lost. Without, it is forgotten.
    step: changes are divided by this before they are encoded, and multiplied by it after they are decoded: how far a
      codec that sends signs alone goes.
  """
  codec: object
  residual: bool = True
  step: float = 1.0

  def __post_init__(self):
    object.__setattr__(self, 'codec', codec_lib(self.codec))
    if not isinstance(self.residual, bool):
      raise ProcessError(f'changes: residual must be True or False, not {self.residual!r}.')
    if isinstance(self.step, bool) or not isinstance(self.step, (int, float)) or not 0 < self.step < float('inf'):
      raise ProcessError(f'changes: step must be a finite number above 0, not {self.step!r}.')


class ChangeMessages:
  """The functions of this downlink, to be called while a graph is built.

  The server has the model W that clients have, at a version that counts up, and the model M that it would have if nothing
  were lost. A round moves M; the server encodes M - W into the frame C, and everyone adds decode(C) to W. M - W is then the
  residual. The log is the last messages, as many as together are smaller than the whole model.

  Args:
    changes: `Changes`.
    spec: `Spec` of all variables of the model.
    seed: session seed.

  Raises:
    SpecError: a variable has no differences.
    CodecError: no rule of the codec matches a variable.
  """

  def __init__(self, changes, spec, seed):
    for tensor in spec.tensors:
      if tensor.dtype == 'bool':
        raise codec_lib.SpecError(f'variable {tensor.name!r} is boolean, which has no differences: cast it to an integer '
                                  'first.')
    self._residual, self._step, self._spec = changes.residual, changes.step, spec
    self._changes = MessageFunctions(changes.codec, spec, seed)
    self._model = MessageFunctions('float32', spec, seed)
    self.model_bytes = 1 + FRAME_OVERHEAD + self._model.plan.payload_size

  def initial(self, model):
    """The server's state: OrderedDict of

      version: int32.
      target: M, list of tensors.
      log: uint8[n], records (length and frame) of the last messages, oldest first.
      ends: int32[m], where each record ends in the log.
    """
    return collections.OrderedDict(version=tf.constant(0, tf.int32), target=[tf.identity(w) for w in model],
                                   log=_nothing(tf.uint8), ends=_nothing(tf.int32))

  def restart(self, state, model):
    """The state after the model was replaced: no client's copy is of use any more."""
    return collections.OrderedDict(self.initial(model), version=state['version'] + 1)

  def advance(self, state, model, target, round_number):
    """Ends a round.

    Args:
      state: as `initial` gives it.
      model: W, list of tensors.
      target: M after the round.
      round_number: int32 scalar.

    Returns:
      (state, W) of the next version.
    """
    change = self._scaled([m - w for m, w in zip(target, model)], 1 / self._step)
    frame = self._changes.encode(change, round_number, tf.constant(random.signed(random.SHARED_CLIENT), tf.int32))
    model = self._moved(model, frame)
    log = tf.concat([state['log'], _bytes_of(tf.size(frame)), frame], 0)
    ends = tf.concat([state['ends'], [tf.size(log)]], 0)
    starts = tf.concat([[0], ends[:-1]], 0)
    # What would be more than the whole model is never sent.
    dropped = tf.reduce_sum(tf.cast(1 + tf.size(log) - starts > self.model_bytes, tf.int32))
    first = tf.concat([starts, [tf.size(log)]], 0)[dropped]
    return collections.OrderedDict(
        version=state['version'] + 1, target=target if self._residual else [tf.identity(w) for w in model],
        log=log[first:], ends=ends[dropped:] - first), model

  def _moved(self, model, frame):
    """The model after the change that a frame holds."""
    return [w + c for w, c in zip(model, self._scaled(self._changes.decode(frame), self._step))]

  def _scaled(self, tensors, factor):
    if factor == 1:
      return tensors
    return [t * tf.cast(factor, t.dtype) if spec.is_float else t for t, spec in zip(tensors, self._spec.tensors)]

  def whole(self, model, round_number):
    """uint8[n]: the message with the whole model."""
    frame = self._model.encode(model, round_number, tf.constant(random.signed(random.SHARED_CLIENT), tf.int32))
    return tf.concat([tf.constant([_MODEL], tf.uint8), frame], 0)

  def send(self, state, whole, version):
    """The message for one client.

    Args:
      state: the server's.
      whole: as `whole` gives it.
      version: int32 scalar, that of the client's copy; `UNKNOWN` if it has none.

    Returns:
      uint8[n]: the changes since that version, or the whole model if they are not at hand.
    """
    kept = tf.size(state['ends'])
    behind = state['version'] - version
    at_hand = (version >= 0) & (behind >= 0) & (behind <= kept)
    starts = tf.concat([[0], state['ends']], 0)
    start = starts[tf.clip_by_value(kept - behind, 0, kept)]
    return tf.cond(at_hand, lambda: tf.concat([tf.constant([_CHANGES], tf.uint8), state['log'][start:]], 0), lambda: whole)

  def receive(self, message, model):
    """A client's copy of the model after a message: list of tensors."""
    body = message[1:]

    def apply(start, model):
      length = tf.bitcast(body[start:start + _LENGTH_BYTES], tf.int32)
      start += _LENGTH_BYTES
      return start + length, self._moved(model, body[start:start + length])

    def changed():
      return tf.while_loop(lambda start, _: start < tf.size(body), apply, (tf.constant(0), list(model)))[1]

    return tf.cond(tf.equal(message[0], _MODEL), lambda: self._model.decode(body), changed)


def _bytes_of(number):
  return tf.bitcast(tf.cast(number, tf.int32), tf.uint8)


def _nothing(dtype):
  """An empty vector whose length is not part of its type."""
  return tf.raw_ops.PlaceholderWithDefault(input=tf.zeros([0], dtype), shape=[None])
