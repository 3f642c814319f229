"""What clients send and keep of their updates, and what the server makes of it."""

import collections
import functools

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_compress.aggregators import accounting
from tff_compress.aggregators.frame_sum import FrameSum
from tff_compress.processes.process import client_round
from tff_compress.processes.process import number_of
from tff_compress.processes.up import messages as messages_lib
from tff_compress.tensorflow.ops import TensorFlowOps


class UplinkFunctions:
  """What is computed on a client and on the server, in functions to be called while a graph is built.

  Args:
    options: `Options`.
    types: `ModelTypes`.

  Attributes:
    confined: `ConfinedTraining`, or None.
    publishes: whether the server sends clients something beside the model.
    total: `FrameSum`.
  """

  def __init__(self, options, types):
    self._options, self._spec = options, types.update_spec
    self.confined = options.structured and options.structured.confine(
        types.spec, types.trainable, options.steps, options.down, options.seed)
    self._server = options.server and options.server.build(options.steps, self._spec, options.seed)
    self.publishes = self._server is not None
    with_messages = self.confined or self._server
    self._messages = with_messages.messages if with_messages else messages_lib.messages(
        options.steps, self._spec, options.seed)
    self.total = FrameSum(self._messages, self.confined and self.confined.coverage)

  # -- on a client

  def upload(self, update, weight, kept, memory, before, now, published, round_number):
    """(frame, slots of updates that changed, round in which it took part last) of a client after training.

    Args:
      update: list of tensors, the weights before training less those after.
      weight: float32 scalar.
      kept: {slot: list of tensors}, what it remembers of its updates.
      memory: OrderedDict, the small fields of its state when the round began.
      before, now: trainable weights of the model that it had, and that it received; before is None where it is not
        kept.
      published: what the server sent beside the model.
      round_number: int32 scalar.
    """
    xp, feedback, relevance = TensorFlowOps(), self._options.feedback, self._options.relevance
    number = number_of(memory)
    turn = client_round(memory, round_number, published, self._options.seed)
    usable = weight > 0
    uploads = usable
    if relevance:
      uploads &= (memory['seen'] < 0) | relevance.holds(xp, [-x for x in update], before, now, round_number)
    filled = feedback.accumulate(xp, kept, update, turn) if kept else {}
    signal = feedback.signal(xp, filled, update, turn) if kept else update
    if self.confined:
      signal = self.confined.signal(signal)

    def send():
      if self._server:
        frame = self._server.encode(signal, published, round_number, number)
        decode = lambda: self._server.decode(frame, published)
      else:
        frame = self._messages.encode(signal, round_number, number)
        decode = lambda: self._messages.decode(frame)
      return frame, feedback.settle(xp, filled, update, decode(), turn) if kept else {}

    def keep():
      if not kept:
        return tf.zeros([0], tf.uint8), {}
      # Not sent for lack of relevance: what was not sent is remembered. Not usable: nothing happened.
      chosen = tf.nest.map_structure(lambda new, old: tf.where(usable, new, old), filled, kept)
      return tf.zeros([0], tf.uint8), chosen

    frame, changed = tf.cond(uploads, send, keep)
    # Only those who took part have not missed this round.
    return frame, changed, tf.where(usable, round_number, memory['seen'])

  # -- on the server

  def initial(self):
    """OrderedDict of `round`, int32, and `server`, what the server remembers where it does."""
    state = collections.OrderedDict(round=tf.constant(0, tf.int32))
    if self._server:
      state['server'] = self._server.initial()
    return state

  def publish(self, state):
    """uint8[n], what the server sends beside the model."""
    return self._server.publish(state['server'], state['round']) if self._server else tf.zeros([0], tf.uint8)

  def finish(self, state, accumulator):
    """(what the model moves by as list of tensors, measurements, state) after a round."""
    round_number = state['round']
    following = collections.OrderedDict(round=round_number + 1)
    if self._server:
      mean = self._server.mean(self.total, accumulator, round_number)
      following['server'], mean = self._server.step(state['server'], mean, round_number)
    else:
      mean = self.total.mean(accumulator, round_number)
    measured = accounting.measurements('uplink', accumulator['bytes'], accumulator['clients'], self._spec)
    measured['uplink_skipped'] = accumulator['clients'] - accumulator['sent']
    return mean, measured, following


class Uplink:
  """`UplinkFunctions` as computations. Its methods take federated values and give such, to be called while `next` of a
  process is traced.

  Args:
    functions: `UplinkFunctions`.
    options: `Options`.
    types: `ModelTypes`.
    remembered: `Values` or `Files`.
    result_type: TFF type of what a client's work gives.
    held_type: that of what the downlink gives clients to keep.

  Attributes:
    initial: computation of the first state.
  """

  def __init__(self, functions, options, types, remembered, result_type, held_type):
    frame_type, client_type, total = tff.TensorType(np.uint8, [None]), remembered.type, functions.total
    flat = tf.nest.flatten

    @tff.tensorflow.computation
    def initial():
      return functions.initial()

    state_type = initial.type_signature.result

    @tff.tensorflow.computation(state_type)
    def round_of(state):
      return state['round']

    @tff.tensorflow.computation(state_type)
    def publish(state):
      return functions.publish(state)

    @tff.tensorflow.computation(result_type, client_type, types.weights_type, held_type, frame_type, np.int32)
    def encode(result, memory, received, held, published, round_number):
      before = None
      if options.keeps_model:
        before = types.vectors.split(remembered.load(memory, 'model'))[:types.trainable]
      kept = {slot: types.update_vectors.split(remembered.load(memory, slot)) for slot in options.slots}
      weight = tf.cast(result.update_weight, tf.float32)
      frame, changed, seen = functions.upload(flat(result.update), weight, kept, memory, before,
                                              types.trainable_of(received), published, round_number)
      vectors = {**{slot: types.update_vectors.join(tensors) for slot, tensors in changed.items()}, **held}
      if options.keeps_model:
        vectors['model'] = types.vectors.join(flat(received))
      return frame, remembered.save(collections.OrderedDict(memory, seen=seen), vectors)

    @tff.tensorflow.computation(result_type)
    def weight_of(result):
      return result.update_weight

    @tff.tensorflow.computation(client_type)
    def sender(memory):
      return number_of(memory)

    @tff.tensorflow.computation
    def zero():
      return total.zero()

    sum_type = zero.type_signature.result

    @tff.tensorflow.computation(sum_type, tff.to_type((frame_type, result_type.update_weight, np.int32)))
    def accumulate(accumulator, value):
      frame, weight, client = value
      return total.accumulate(accumulator, frame, tf.cast(weight, tf.float32), client)

    @tff.tensorflow.computation(sum_type, sum_type)
    def merge(a, b):
      return total.merge(a, b)

    @tff.tensorflow.computation(sum_type)
    def report(accumulator):
      return accumulator

    @tff.tensorflow.computation(state_type, sum_type)
    def finish(state, accumulator):
      mean, measured, following = functions.finish(state, accumulator)
      return tf.nest.pack_sequence_as(types.structure.trainable, mean), measured, following

    self.initial = initial
    self.round_of, self.publish = (functools.partial(tff.federated_map, of) for of in (round_of, publish))
    self._encode, self._weight_of, self._sender, self._finish = encode, weight_of, sender, finish
    self._add = lambda values: tff.federated_aggregate(values, zero(), accumulate, merge, report)

  def send(self, results, got, published, round_number):
    """(what the server is sent, the clients' states) after training.

    Args:
      results: of the client work.
      got: `downlinks.Received`.
      published, round_number: at the server, as `publish` and `round_of` give them.
    """
    frames, following = tff.federated_map(
        self._encode, (results, got.memories, got.weights, got.held, tff.federated_broadcast(published),
                       tff.federated_broadcast(round_number)))
    weights, senders = tff.federated_map(self._weight_of, results), tff.federated_map(self._sender, got.memories)
    return tff.federated_zip((frames, weights, senders)), following

  def finish(self, state, messages):
    """(what the model moves by, measurements, state) after clients sent these messages."""
    return tff.federated_map(self._finish, (state, self._add(messages)))
