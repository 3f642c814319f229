"""Downlinks of changes: clients keep a model, and receive what changed in it.

Messages, all integers little endian. Changes since the last message (`ChangesSinceLast`):

    offset  bytes  field
         0      1  0: changes, 1: the whole model
         1      n  changes: for each round that was missed, oldest first, the length of a frame (4 bytes) and the frame
                   model: one frame with the float32 values of all variables

Changes since the start (`ChangesSinceStart`):

    offset  bytes  field
         0      1  0: the change alone, 1: the start comes first
         1      m  only with the start: one frame with the float32 values of all variables
     1 + m      n  one frame, or nothing before the model's first change

Sources: Sattler et al. 2019, "Robust and communication-efficient federated learning from non-iid data", sections V, VI;
for changes since the start, Huang et al. 2020, "RPN: a residual pooling network for efficient federated learning",
lemma 2.
"""

import collections
import dataclasses
from typing import Any
from typing import cast

import tensorflow as tf

from tff_compress import codec as codec_lib
from tff_compress.codec import checks
from tff_compress.codec import meaning
from tff_compress.codec import random
from tff_compress.codec.codec import Codec
from tff_compress.processes.errors import ProcessError
from tff_compress.tensorflow import MessageFunctions
from tff_compress.wire import FRAME_OVERHEAD

_CHANGES, _MODEL = 0, 1
_LENGTH_BYTES = 4
_SINCE = ('last', 'start')

UNKNOWN = -1
"""The version of a client that has no model."""

_SHARED = random.signed(random.SHARED_CLIENT)


@dataclasses.dataclass(frozen=True)
class Changes:
  """A downlink of changes, for `build_fed_avg(downlink=…)`.

  Attributes:
    codec: `Codec` or its text; of one message a round that all clients apply.
    since: 'last': a message holds what changed in one round, and a client that missed some receives one for each.
      'start': a message holds all that changed since the start, so that it replaces those before it. For codecs
      whose error does not grow with the change that they encode, such as 'rpn'; not for those that send few values.
      None: as a preset is meant, otherwise 'last'.
    residual: whether the server sends later what a message lost. Without, it is forgotten.
    step: changes are divided by this before they are encoded, and multiplied by it after they are decoded: how far a
      codec that sends signs alone goes.
  """
  codec: Any
  residual: bool = True
  step: float = 1.0
  since: str | None = None

  def __post_init__(self):
    if self.since is None:
      meant = meaning.needing_changes(self.codec)
      object.__setattr__(self, 'since', 'last' if meant is None else meant.changes)
    object.__setattr__(self, 'codec', codec_lib(self.codec))
    checks.boolean('changes: residual', self.residual, ProcessError)
    checks.one_of('changes: since', self.since, _SINCE, ProcessError)
    checks.number('changes: step', self.step, ProcessError, above=0)

  @classmethod
  def of(cls, downlink: 'Changes | Codec | str') -> 'Changes | Codec':
    """`Changes` for a preset that is meant for them, otherwise a `Codec`; either of these as it is. Raises CodecError.
    """
    if isinstance(downlink, Changes):
      return downlink
    return codec_lib(downlink) if meaning.needing_changes(downlink) is None else cls(downlink)


def change_messages(changes, spec, seed):
  """The functions of a downlink of changes: `SinceLast` or `SinceStart`.

  Args:
    changes: `Changes`.
    spec: `Spec` of all variables of the model.
    seed: session seed.

  Raises:
    SpecError: a variable has no differences.
    CodecError: no rule of the codec matches a variable.
  """
  return (SinceLast if changes.since == 'last' else SinceStart)(changes, spec, seed)


class _ChangeMessages:
  """What both kinds have in common. Their methods are to be called while a graph is built.

  The server has the model W that clients have, and the model M that it would have if nothing were lost. A round moves
  M.

  Attributes:
    model_bytes: size of a message with the whole model alone.
  """

  def __init__(self, changes, spec, seed):
    for tensor in spec.tensors:
      if tensor.dtype == 'bool':
        raise codec_lib.SpecError(f'variable {tensor.name!r} is boolean, which has no differences: cast it to an '
                                  'integer first.')
    self._residual, self._step, self._spec = changes.residual, changes.step, spec
    self._changes = MessageFunctions(changes.codec, spec, seed)
    self._model = MessageFunctions('float32', spec, seed)
    # The codec float32 has messages of one length.
    self.model_bytes = 1 + FRAME_OVERHEAD + cast(int, self._model.plan.payload_size)

  def initial(self, model):
    """The server's state for a model, an OrderedDict of tensors, `version` first."""
    raise NotImplementedError

  def restart(self, state, model):
    """The server's state after the model was replaced: what clients keep is of no use any more."""
    return collections.OrderedDict(self.initial(model), version=state['version'] + 1)

  def _whole(self, model, round_number):
    """uint8[n]: a message with a whole model."""
    return tf.concat([_byte(_MODEL), self._model.encode(model, round_number, tf.constant(_SHARED, tf.int32))], 0)

  def _whole_of(self, frame):
    """The model in the frame of such a message."""
    return self._model.decode(frame, client=tf.constant(_SHARED, tf.int32))

  def _change(self, before, target, round_number):
    """The frame that moves a model towards a target."""
    change = self._scaled([m - w for m, w in zip(target, before)], 1 / self._step)
    return self._changes.encode(change, round_number, tf.constant(_SHARED, tf.int32))

  def _moved(self, model, frame):
    """The model after the change that a frame holds."""
    change = self._changes.decode(frame, client=tf.constant(_SHARED, tf.int32))
    return [w + c for w, c in zip(model, self._scaled(change, self._step))]

  def _scaled(self, tensors, factor):
    if factor == 1:
      return tensors
    return [t * tf.cast(factor, t.dtype) if spec.is_float else t for t, spec in zip(tensors, self._spec.tensors)]


class SinceLast(_ChangeMessages):
  """Messages of what changed in one round.

  W has a version that counts up. The server encodes M - W into the frame C, and everyone adds decode(C) to W; M - W is
  then the residual. The log is the last messages, as many as together are smaller than the whole model. Clients keep W.
  """
  slot = 'model'

  def initial(self, model):
    """The server's state: OrderedDict of

      version: int32.
      target: M, list of tensors.
      log: uint8[n], records (length and frame) of the last messages, oldest first.
      ends: int32[m], where each record ends in the log.
    """
    return collections.OrderedDict(version=tf.constant(0, tf.int32), target=[tf.identity(w) for w in model],
                                   log=_nothing(tf.uint8), ends=_nothing(tf.int32))

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
    frame = self._change(model, target, round_number)
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

  def published(self, state, model, round_number):
    """What the messages of a round are taken from: OrderedDict of tensors."""
    return collections.OrderedDict(version=state['version'], log=state['log'], ends=state['ends'],
                                   whole=self._whole(model, round_number))

  def send(self, published, version):
    """The message for one client.

    Args:
      published: as `published` gives it.
      version: int32 scalar, that of the client's copy; `UNKNOWN` if it has none.

    Returns:
      uint8[n]: the changes since that version, or the whole model if they are not at hand.
    """
    kept = tf.size(published['ends'])
    behind = published['version'] - version
    at_hand = (version >= 0) & (behind >= 0) & (behind <= kept)
    starts = tf.concat([[0], published['ends']], 0)
    start = starts[tf.clip_by_value(kept - behind, 0, kept)]
    return tf.cond(at_hand, lambda: tf.concat([_byte(_CHANGES), published['log'][start:]], 0),
                   lambda: published['whole'])

  def receive(self, message, kept):
    """A client after a message.

    Args:
      message: uint8[n].
      kept: what it keeps in `slot`, list of tensors.

    Returns:
      (W, what to keep): lists of tensors.
    """
    body = message[1:]

    def apply(start, model):
      length = tf.bitcast(body[start:start + _LENGTH_BYTES], tf.int32)
      start += _LENGTH_BYTES
      return start + length, self._moved(model, body[start:start + length])

    def changed():
      return tf.while_loop(lambda start, _: start < tf.size(body), apply, (tf.constant(0), list(kept)))[1]

    model = tf.cond(tf.equal(message[0], _MODEL), lambda: self._whole_of(body), changed)
    return model, model


class SinceStart(_ChangeMessages):
  """Messages of all that changed since the start.

  With S the model at the start, the server encodes M - S, and W = S + decode(C). A message replaces those before it:
  whatever a client missed, one message makes it good, and the server keeps none. The version counts starts: a model
  that was replaced is a new one. Clients keep S; W they can do without between rounds.

  The keys are those of round 0 in every round. So where a codec's random numbers choose a subspace, it is the same for
  as long as the start is, and a model that did not move gives the same message.
  """
  slot = 'start'

  def initial(self, model):
    """The server's state: OrderedDict of

      version: int32.
      target: M, list of tensors.
      start: S, list of tensors.
      change: uint8[n], the last message's frame, empty before the first.
    """
    return collections.OrderedDict(version=tf.constant(0, tf.int32), target=[tf.identity(w) for w in model],
                                   start=[tf.identity(w) for w in model], change=_nothing(tf.uint8))

  def advance(self, state, model, target, round_number):
    """As `SinceLast.advance`."""
    del model, round_number
    frame = self._change(state['start'], target, tf.constant(0, tf.int32))
    model = self._moved(state['start'], frame)
    return collections.OrderedDict(state, target=target if self._residual else [tf.identity(w) for w in model],
                                   change=frame), model

  def published(self, state, model, round_number):
    """As `SinceLast.published`."""
    del model
    return collections.OrderedDict(version=state['version'], change=state['change'],
                                   whole=self._whole(state['start'], round_number))

  def send(self, published, version):
    """As `SinceLast.send`; the version is that of the client's start."""
    first = tf.cond(tf.equal(version, published['version']), lambda: _byte(_CHANGES), lambda: published['whole'])
    return tf.concat([first, published['change']], 0)

  def receive(self, message, kept):
    """As `SinceLast.receive`."""
    whole = tf.equal(message[0], _MODEL)
    copied = lambda model: [tf.identity(w) for w in model]
    start = tf.cond(whole, lambda: self._whole_of(message[1:self.model_bytes]), lambda: copied(kept))
    frame = message[tf.where(whole, self.model_bytes, 1):]
    return tf.cond(tf.size(frame) > 0, lambda: self._moved(start, frame), lambda: copied(start)), start


def _byte(number):
  return tf.constant([number], tf.uint8)


def _bytes_of(number):
  return tf.bitcast(tf.cast(number, tf.int32), tf.uint8)


def _nothing(dtype):
  """An empty vector whose length is not part of its type."""
  return tf.raw_ops.PlaceholderWithDefault(input=tf.zeros([0], dtype), shape=[None])
