"""What server and clients compute in a shared subspace, in functions to be called while a graph is built."""

import collections

import numpy as np
import tensorflow as tf

from tff_compress.aggregators import accounting
from tff_compress.processes.process import number_of
from tff_compress.subspace import absence
from tff_compress.subspace import levels
from tff_compress.subspace import session as session_lib
from tff_compress.subspace.forms import form_of
from tff_compress.subspace.rate import ALARM
from tff_compress.subspace.rate import LARGEST_ROUNDS
from tff_compress.subspace.sums import SUMS
from tff_compress.tensorflow import history as history_lib
from tff_compress.tensorflow.ops import of_any_size
from tff_compress.tensorflow.ops import TensorFlowOps
from tff_compress.tensorflow.subspace import GraphRuntime
from tff_compress.timeline import history


class SubspaceFunctions:
  """The server's state is in two parts: of the downlink, `history.State` as `history`, as `copy` the copy without its
  model, and as `memory` what the form remembers; of the uplink, `round` (int32), `gap` (float32, moving average of the
  rounds that clients missed).

  Args:
    options: `Options`.
    spec: `Spec` of the trainable variables, all float32.
    start: `Start`, or None where the first model is sent.
  """

  def __init__(self, options, spec, start):
    self._options, self._spec = options, spec
    self.runtime = GraphRuntime(spec, options.seed, options.key_frames or options.first, options.first, start)
    # Where one subspace is held for good, the server alone has momentum.
    momentum = 0.0 if options.form == 'fixed' else options.momentum
    self.session = session_lib.Session(spec.parameters, options.seed, options.rate, momentum, self.runtime,
                                       SUMS[options.sums])
    self._form = form_of(options.form, key_frame_bytes=self._key_frame_bytes, momentum=options.momentum,
                         hold=options.hold, placement_bits=options.placement_bits)

  # -- the server, before a round

  def begin(self, model, version=0):
    """(float32[d], the state of the downlink) for a first model, which is what arrives of it.

    Args:
      model: float32[d].
      version: int32 scalar that the model gets where it replaces another one.
    """
    xp = TensorFlowOps()
    bits = self._options.uplink_bits or (levels.MOST_BITS if self._is_small else absence.FEW_BITS)
    number = tf.convert_to_tensor(version)
    sent = lambda: self.session.first(xp, model, bits, number)

    def started():
      assert self.runtime.start is not None
      copy = self.session.begin(xp, model, bits, number)
      start = xp.constant(np.frombuffer(self.runtime.start.to_bytes(), np.uint8), np.uint8)
      return copy, self.session.base(xp, copy, session_lib.START, start)

    if self.runtime.start is None:
      copy, base = sent()
    else:
      copy, base = tf.cond(tf.reduce_all(tf.equal(model, self.runtime.drawn())), started, sent)
    past = collections.OrderedDict(history_lib.begin(base, self.session.digest(xp, copy)), version=number,
                                   base_version=number)
    model = copy['model']
    copy, memory = self._form.begin(xp, copy)
    return model, collections.OrderedDict(history=past, copy=_without_model(copy),
                                          memory=tf.nest.map_structure(of_any_size, memory))

  def initial_uplink(self):
    return collections.OrderedDict(round=tf.constant(0, tf.int32), gap=tf.constant(0.0))

  def agreed(self, state):
    """What all clients know of a round: the server's copy without model and velocity; `kept`, k; and `shared`, what
    they draw alike, once for all clients of a simulation.

    Args:
      state: of the downlink.
    """
    xp = TensorFlowOps()
    copy = collections.OrderedDict((k, v) for k, v in state['copy'].items() if k not in self.session.vectors)
    shared = self.session.shared(xp, copy)
    shared['cells'] = of_any_size(shared['cells'])
    return collections.OrderedDict(copy, kept=tf.identity(self.session.kept(xp, copy)), shared=shared)

  def filled(self, update):
    """A list of float32 tensors, the trainable variables of an update, as `upload` takes them."""
    return self.session.space.filled(TensorFlowOps(), [tf.reshape(x, [-1]) for x in update])

  # -- a client

  def receive(self, past, agreed, memory):
    """(the client's state with its new version, bytes that it received, rounds that it missed).

    A client that takes part has the server's model, bit for bit: the messages that lead there are made and measured,
    and applied by `timeline.copy` wherever somebody has no server beside. Who comes first has missed all rounds.
    """
    message = history.way(TensorFlowOps(), past, memory['version'])
    missed = tf.cast(agreed['round'] - tf.maximum(memory['seen'], 0), tf.float32)
    return collections.OrderedDict(memory, version=past['version']), tf.size(message, out_type=tf.int64), missed

  def upload(self, update, weight, memory, agreed):
    """(message, round in which the client took part last, words of the client's keys): a message of no bytes where it
    has nothing to send.

    Args:
      update: weights before training less those after, as `filled` gives them.
      weight: float32 scalar.
      memory: the small fields of the client's state.
      agreed: as `agreed` gives it.
    """
    usable, client = weight > 0, number_of(memory)
    own = self.runtime.keys(agreed['round'], client)
    send = lambda: self.session.upload(TensorFlowOps(), agreed, update, client, own)
    message = tf.cond(usable, send, lambda: tf.zeros([0], tf.uint8))
    return message, tf.where(usable, agreed['round'], memory['seen']), own.words

  # -- the server, after a round

  def zero(self):
    """An accumulator of nothing: OrderedDict of the sum of what clients sent, as `Session.read` gives it, weighted; the
    sum of weights; `bytes`, `clients`, `sent`."""
    nothing = lambda: tf.zeros([], tf.int64)
    return collections.OrderedDict(
        sum=of_any_size(tf.zeros([0], self.session.sums.dtype)), weight=tf.zeros([]), bytes=nothing(),
        clients=nothing(), sent=nothing(), missed=tf.zeros([]))

  def accumulate(self, total, message, weight, client, number, kept, missed, words):
    """Adds a client's message (uint8[n]) of round `number`, with a weight (float32 scalar).

    `words` are those of the keys of this client and round. A server derives them itself; in a simulation, deriving them
    a second time would take longer than reading the message.
    """
    arrived = tf.size(message) > 0

    def add():
      xp = TensorFlowOps()
      own = self.runtime.keys_of_words(words)
      found = xp.checked(self.session.read(xp, number, client, kept, message, own))
      return _added(total['sum'], self.session.sums.weighted(xp, found, weight))

    one = tf.constant(1, tf.int64)
    return collections.OrderedDict(
        sum=tf.cond(arrived, add, lambda: tf.identity(total['sum'])),
        weight=total['weight'] + tf.where(arrived, weight, 0.0),
        bytes=total['bytes'] + tf.size(message, out_type=tf.int64), clients=total['clients'] + one,
        sent=total['sent'] + tf.cast(arrived, tf.int64), missed=total['missed'] + missed)

  def merge(self, a, b):
    """The accumulator of both."""
    return collections.OrderedDict((name, _added(a[name], b[name]) if name == 'sum' else a[name] + b[name])
                                   for name in a)

  def finish(self, uplink, downlink, model, total):
    """Ends a round.

    Args:
      uplink, downlink: the two parts of the server's state.
      model: float32[d].
      total: as `zero` describes it.

    Returns:
      (uplink, downlink, model, measurements).
    """
    xp, session, options = TensorFlowOps(), self.session, self._options
    copy = collections.OrderedDict(downlink['copy'], model=model)
    kept = session.kept(xp, copy)
    any_sent = tf.size(total['sum']) > 0
    missed = tf.math.divide_no_nan(total['missed'], tf.cast(total['clients'], tf.float32))
    gap = absence.after(xp, uplink['gap'], missed, uplink['round'])
    mean = session.sums.mean(xp, copy, total['sum'], total['weight'])
    by_gap = tf.constant(levels.MOST_BITS) if self._is_small else absence.bits(xp, gap)
    chosen = lambda bits: by_gap if bits is None else tf.constant(bits)
    next_bits, learning_rate = chosen(options.uplink_bits), tf.constant(options.learning_rate, tf.float32)
    past, moved, memory = self._form.end(
        xp, session, downlink['history'], copy, downlink['memory'], mean, arrived=any_sent, gap=gap,
        learning_rate=learning_rate, bits=chosen(options.downlink_bits),
        next_bits=next_bits, next_scale=session.next_scale(xp, copy, total['sum'], total['weight'], next_bits))
    measured = accounting.measurements('uplink', total['bytes'], total['clients'], self._spec)
    measured['uplink_skipped'] = total['clients'] - total['sent']
    of_first = moved['rule']['energy']
    noise = self._form.noise(xp, session, moved, memory)
    energy = tf.cast(tf.reduce_sum(moved['model'] * moved['model']), tf.float64)
    moved_by = tf.cast(tf.reduce_sum(session.gained(xp, mean, learning_rate)**2), tf.float64)
    too_much = energy > ALARM * of_first
    for begins, most in LARGEST_ROUNDS.items():
      too_much |= any_sent & (uplink['round'] >= begins) & (moved_by > most * of_first)
    ratio = lambda amount: tf.cast(tf.math.divide_no_nan(amount, of_first), tf.float32)
    measured.update(collections.OrderedDict(
        kept=kept, gap=gap, noise=ratio(noise), growth=ratio(energy),
        # Weights that begin as zeros have nothing to be compared with.
        alarm=tf.cast((of_first > 0) & too_much, tf.int32)))
    following = collections.OrderedDict(history=past, copy=_without_model(moved), memory=memory)
    return collections.OrderedDict(round=uplink['round'] + 1, gap=gap), following, moved['model'], measured

  @property
  def _is_small(self):
    """Whether all coordinates are sent: then more bits of each are what can be had."""
    return self.session.space.padded <= self._options.rate.floor

  @property
  def _key_frame_bytes(self):
    """About how long a key frame is; None where there are none."""
    if self._options.key_frames is None:
      return None
    size = self._options.key_frames.plan(self._spec).payload_size or 4 * self._spec.parameters
    return len(self.session.vectors) * size


def _without_model(copy):
  return collections.OrderedDict((name, value) for name, value in copy.items() if name != 'model')


def _added(a, b):
  """The sum of vectors of one size, of which either may still be empty."""
  return tf.cond(tf.size(a) > 0, lambda: tf.cond(tf.size(b) > 0, lambda: a + b, lambda: tf.identity(a)),
                 lambda: tf.identity(b))
