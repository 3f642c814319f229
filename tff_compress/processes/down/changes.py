"""Downlinks of changes: clients keep a model, and receive what changed in it, as a history of the model says it.

Messages are those of `timeline.history`. The digest's fingerprint is that of the codec and the model's variables, and a
copy is all of their values, floats as the float32 that frames of them hold. Records are frames:

    changes since the last message (`SinceLast`): a change is a frame of the codec, of its round; a base is a frame of
    float32 values of all variables, of its version.

    changes since the start (`SinceStart`): the placement is a frame of the codec, of round 0; the base, one of float32
    values, is the start.

Sources: Sattler et al. 2019, "Robust and communication-efficient federated learning from non-iid data", sections V, VI;
for changes since the start, Huang et al. 2020, "RPN: a residual pooling network for efficient federated learning",
lemma 2.
"""

import collections
import dataclasses
from typing import Any
from typing import cast

import numpy as np
import tensorflow as tf

from tff_compress import codec as codec_lib
from tff_compress.codec import checks
from tff_compress.codec import counts
from tff_compress.codec import floats
from tff_compress.codec import meaning
from tff_compress.codec import random
from tff_compress.codec.codec import Codec
from tff_compress.codec.ops import numpy_ops
from tff_compress.processes.errors import ProcessError
from tff_compress.tensorflow import history as history_lib
from tff_compress.tensorflow import MessageFunctions
from tff_compress.tensorflow.ops import TensorFlowOps
from tff_compress.timeline import history
from tff_compress.wire import FRAME_OVERHEAD

_SINCE = ('last', 'start')

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
  M. Its state is an OrderedDict of `history`, as `timeline.history.begin` describes it, which is all that messages are
  taken from, of `target`, M as a list of tensors, and of what else a kind has.

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
    # The codec float32 has frames of one length.
    frame = FRAME_OVERHEAD + cast(int, self._model.plan.payload_size)
    self.model_bytes = history.HEADER_BYTES + counts.encode(numpy_ops, np.asarray([frame], np.int32)).size + frame

  @property
  def _rules(self):
    """What a client does with the records of a message beside a base, as arguments of `history.follow`."""
    raise NotImplementedError

  def initial(self, model):
    """The server's state for a model, a list of tensors."""
    xp = TensorFlowOps()
    past = history_lib.begin(self._whole(model, tf.constant(0)), self._digest(xp, model))
    return collections.OrderedDict(history=past, target=[tf.identity(w) for w in model])

  def restart(self, state, model):
    """The server's state after the model was replaced: what clients keep is of no use any more."""
    xp, past = TensorFlowOps(), state['history']
    base = self._whole(model, past['version'] + 1)
    renewed = history.renewed(xp, past, base, self._digest(xp, model))
    return collections.OrderedDict(self.initial(model), history=renewed)

  def send(self, past, version):
    """uint8[n]: the message for one client.

    Args:
      past: the history.
      version: int32 scalar, that of what the client keeps; `history.UNKNOWN` if it keeps nothing.
    """
    return history.way(TensorFlowOps(), past, version)

  def receive(self, message, kept):
    """A client after a message.

    Args:
      message: uint8[n].
      kept: what it keeps in `slot`, list of tensors.

    Returns:
      (W, what to keep): lists of tensors.
    """
    xp = TensorFlowOps()
    kept, model = history.follow(xp, message, [tf.identity(w) for w in kept], on_base=self._whole_of, **self._rules)
    # In a loop, the size of a vector of bytes is not known.
    kept, model = ([tf.ensure_shape(w, tensor.shape) for w, tensor in zip(tensors, self._spec.tensors)]
                   for tensors in (kept, model))
    xp.require(xp.equal(self._digest(xp, model), history.digest_in(message)),
               'a client came to another model than the server has: it computes differently, or what it kept is of '
               'another run. Let it start anew.')
    return xp.checked(([tf.identity(w) for w in model], kept))

  def _digest(self, xp, model):
    fingerprint = xp.constant(np.frombuffer(self._changes.codec.fingerprint(self._spec), np.uint8), np.uint8)
    return history.digest_of(xp, fingerprint, xp.concat([xp.raw_bytes(_as_sent(w)) for w in model]))

  def _whole(self, model, version):
    """The frame of a whole model."""
    return self._model.encode(model, version, tf.constant(_SHARED, tf.int32))

  def _whole_of(self, frame):
    """The model in such a frame."""
    return self._model.decode(frame, client=tf.constant(_SHARED, tf.int32))

  def _change(self, before, target, round_number):
    """The frame that moves a model towards a target."""
    change = self._scaled([m - w for m, w in zip(target, before)], 1 / self._step)
    return self._changes.encode(change, round_number, tf.constant(_SHARED, tf.int32))

  def _moved(self, model, frame):
    """The model after the change that a frame holds."""
    change = self._changes.decode(frame, client=tf.constant(_SHARED, tf.int32))
    return [_rounded(_rounded(w) + c) for w, c in zip(model, self._scaled(change, self._step))]

  def _scaled(self, tensors, factor):
    if factor == 1:
      return tensors
    return [t * tf.cast(factor, t.dtype) if spec.is_float else t for t, spec in zip(tensors, self._spec.tensors)]

  def _following(self, state, past, model, target):
    """The state of the next version, whose model is W."""
    return collections.OrderedDict(state, history=past,
                                   target=target if self._residual else [tf.identity(w) for w in model])


class SinceLast(_ChangeMessages):
  """Messages of what changed in one round.

  A round is a version. The server encodes M - W into the frame C, and everyone adds decode(C) to W; M - W is then the
  residual. W, whole, is the base of every version, so that the log is the changes that together are no longer. Clients
  keep W.
  """
  slot = 'model'

  @property
  def _rules(self):
    return {'on_change': self._moved}

  def advance(self, state, model, target, round_number):
    """Ends a round.

    Args:
      state: the server's.
      model: W, list of tensors.
      target: M after the round.
      round_number: int32 scalar.

    Returns:
      (state, W) of the next version.
    """
    xp = TensorFlowOps()
    frame = self._change(model, target, round_number)
    model = self._moved(model, frame)
    digest = self._digest(xp, model)
    past = history.with_change(xp, state['history'], frame, digest)
    past = history.with_base(xp, past, self._whole(model, past['version']), digest)
    return self._following(state, past, model, target), model


class SinceStart(_ChangeMessages):
  """Messages of all that changed since the start.

  With S the model at the start, the server encodes M - S, and W = S + decode(C). A message replaces those before it:
  whatever a client missed, one message makes it good, and the server keeps none. The version counts starts: a model
  that was replaced is a new one. Clients keep S; W they can do without between rounds. The server's state has S as
  `start`.

  The keys are those of round 0 in every round. So where a codec's random numbers choose a subspace, it is the same for
  as long as the start is, and a model that did not move gives the same message.
  """
  slot = 'start'

  @property
  def _rules(self):
    return {'on_placement': self._placed}

  def _placed(self, start, frame):
    return tf.cond(tf.size(frame) > 0, lambda: self._moved(start, frame), lambda: [tf.identity(w) for w in start])

  def initial(self, model):
    return collections.OrderedDict(super().initial(model), start=[tf.identity(w) for w in model])

  def advance(self, state, model, target, round_number):
    """As `SinceLast.advance`."""
    del model, round_number
    frame = self._change(state['start'], target, tf.constant(0, tf.int32))
    model = self._moved(state['start'], frame)
    xp = TensorFlowOps()
    past = history.with_placement(xp, state['history'], frame, self._digest(xp, model))
    return self._following(state, past, model, target), model


def _as_sent(tensor):
  """A tensor as float32 frames hold it: floats of 64 bits rounded, denormals and -0 as 0."""
  if not tensor.dtype.is_floating:
    return tensor
  return floats.without_denormals(TensorFlowOps(), tf.cast(tensor, tf.float32))


def _rounded(tensor):
  """What of a tensor is sent, in its own dtype."""
  return tf.cast(_as_sent(tensor), tensor.dtype)
