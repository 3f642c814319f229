"""What clients send with their autoencoders, in rounds and in a pre-pass, and what the server makes of it."""

import collections
import functools

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_compress.aggregators import accounting
from tff_compress.autoencoders import architectures
from tff_compress.autoencoders import learning
from tff_compress.autoencoders import training as training_lib
from tff_compress.processes.autoencoder import decoders as decoders_lib
from tff_compress.processes.autoencoder import drift
from tff_compress.processes.autoencoder.book import Book
from tff_compress.processes.autoencoder.book import growing
from tff_compress.processes.autoencoder.messages import LearnedMessages
from tff_compress.processes.autoencoder.networks import Networks
from tff_compress.processes.process import client_round
from tff_compress.processes.process import number_of
from tff_compress.tensorflow.ops import TensorFlowOps

LEARNED = collections.OrderedDict(learned=tff.TensorType(np.int64), decoder=tff.TensorType(np.int32))
"""Small fields of a client's state: its number + 1 where the server has its decoder, and 0 elsewhere; the checksum of
the decoder's frame."""


class UplinkFunctions:
  """What is computed on a client and on the server, in functions to be called while a graph is built.

  Args:
    options: `Options`.
    types: `ModelTypes`.

  Attributes:
    rule: `LearnedRule` of the uplink.
    networks: `Networks`.
    decoders: `OwnDecoders` or `SharedDecoders`.
    book: `Book`.
  """

  def __init__(self, options, types):
    self._options, self._types = options, types
    self.rule = rule = options.rule(types.update_spec)
    made = architectures.ARCHITECTURES[options.architecture](rule.length, rule.stage.latent)
    self.networks = Networks(made, rule.sizes, options.seed)
    self._messages = LearnedMessages(rule, options.target, options.fallback, options.tolerance, options.seed)
    learner = learning.Learner(made, rule.size, rule.sizes, options.learning_rate, options.seed & 0x7FFFFFFF)
    if options.decoders == 'client':
      self.decoders = decoders_lib.OwnDecoders(learner, self.networks, options.learning_epochs)
    else:
      groups = 1 if options.decoders == 'shared' else options.decoders
      self.decoders = decoders_lib.SharedDecoders(learner, self.networks, options.learning_epochs, rule,
                                                  options.snapshots, groups, options.seed)
    self.book = Book(self.decoders)

  # -- on a client

  def upload(self, update, received, vector, kept, memory, round_number):
    """(message, slots of updates that changed) of a client after training.

    Args:
      update: list of tensors, weights before training less those after.
      received: trainable weights before training.
      vector: what the client remembers of its autoencoder.
      kept: {slot: list of tensors}, what it remembers of its updates.
      memory: the small fields of its state when the round began.
      round_number: int32 scalar.
    """
    xp, net, feedback = TensorFlowOps(), self.networks.of_vector(vector), self._options.feedback
    # The server has the decoder under the number that the client had when it learned.
    usable = tf.equal(memory['learned'], memory['client'] + 1)
    turn = client_round(memory, round_number, tf.zeros([0], tf.uint8), self._options.seed)
    filled = feedback.accumulate(xp, kept, update, turn) if kept else {}
    signal = feedback.signal(xp, filled, update, turn) if kept else update
    message = self._messages.encode(signal, received, net, usable, memory, round_number)
    if not kept:
      return message, {}
    decoded = self._messages.decode(message, lambda: net, received, round_number, number_of(memory))
    return message, feedback.settle(xp, filled, update, decoded, turn)

  def learn(self, trainings, weight, offered, memory, round_number):
    """(message, vector of the client's own autoencoder) of a client in a pre-pass; the message is empty where it cannot
    learn.

    Args:
      trainings: list of (trainable weights before, after) that it saw.
      weight: scalar, 0 where it has no examples.
      offered: frames of autoencoders that it may choose from.
      memory: the small fields of its state.
      round_number: int32 scalar.
    """
    snapshots = tf.stack([self._messages.snapshot(before, after) for before, after in trainings])
    usable = tf.reduce_all(tf.math.is_finite(snapshots)) & (tf.cast(weight, tf.float32) > 0)
    nothing = lambda: (tf.zeros([0], tf.uint8), tf.zeros([self.networks.size]))
    return tf.cond(usable, lambda: self.decoders.learn(snapshots, offered, memory, round_number), nothing)

  # -- on the server

  def initial(self):
    """OrderedDict of `round`, int32, `book` as `Book` has it, and what `drift` remembers."""
    return collections.OrderedDict(round=tf.constant(0, tf.int32), book=self.book.initial(), **drift.initial())

  def finish(self, state, added, weights):
    """(what the model moves by as list of tensors, measurements, state) after a round.

    Args:
      state: as `initial` gives it.
      added: the clients' messages, as `Messages.zero` has them.
      weights: trainable weights that clients received.
    """
    ends = tf.cumsum(added['lengths'])
    zeros = [tf.zeros(tensor.shape) for tensor in self._types.update_spec.tensors]

    def step(i, total, sums, fallbacks):
      message = added['messages'][ends[i] - added['lengths'][i]:ends[i]]

      def add():
        frame = self.book.frame_of(state['book'], added['clients'][i])
        client = number_of({'client': added['clients'][i]})
        update = self._decoded(message, frame, weights, state['round'], client)
        return (total + added['weights'][i], [s + added['weights'][i] * u for s, u in zip(sums, update)],
                fallbacks + tf.cast(self._messages.fell_back(message), tf.int64))

      total, sums, fallbacks = tf.cond(tf.size(message) > 0, add, lambda: (total, list(sums), fallbacks))
      return i + 1, total, sums, fallbacks

    _, total, sums, fallbacks = tf.while_loop(lambda i, *_: i < tf.size(ends), step,
                                              (tf.constant(0), tf.zeros([]), zeros, tf.zeros([], tf.int64)))
    mean = [tf.math.divide_no_nan(s, total) for s in sums]
    following = collections.OrderedDict(
        state, round=state['round'] + 1,
        **drift.after_round(state, fallbacks, tf.math.count_nonzero(added['lengths'])))
    return mean, self._measured(added, fallbacks, drift.drifts(following)), following

  def finish_prepass(self, state, added):
    """(state, measurements, bytes that clients receive of it) after a pre-pass; arguments as for `finish`."""
    book, received = self.book.after(state['book'], added, state['round'])
    following = collections.OrderedDict(round=state['round'], book=book, **drift.after_prepass(state))
    return following, self._measured(added, tf.zeros([], tf.int64), tf.constant(False)), received

  def _decoded(self, message, frame, weights, round_number, client):
    """The update in a client's message, list of tensors; `frame` is what the server has of its decoder."""

    def net():
      same = tf.equal(self._messages.checksum(message), tf.bitcast(frame[-4:], tf.int32))
      problem = ('a client encoded with an autoencoder of which the server has no decoder: run the pre-pass for it '
                 'again.')
      with tf.control_dependencies([tf.debugging.Assert(same, [problem])]):
        return self.decoders.network(tf.identity(frame))

    return self._messages.decode(message, net, weights, round_number, client)

  def _measured(self, added, fallbacks, drift_found):
    """What the uplink of a round cost."""
    size, clients = tf.size(added['messages'], out_type=tf.int64), tf.size(added['lengths'], out_type=tf.int64)
    measured = accounting.measurements('uplink', size, clients, self._types.update_spec)
    return collections.OrderedDict(measured, uplink_fallbacks=fallbacks, uplink_drift=drift_found)


class Messages:
  """Messages of clients one behind the other, as each must be decoded in its own way.

  Attributes:
    zero: computation of no messages: OrderedDict of `messages`, uint8[n]; `lengths`, int32[m]; `clients`, int64[m];
      `weights`, float32[m].
  """

  def __init__(self):
    message_type = tff.TensorType(np.uint8, [None])

    @tff.tensorflow.computation
    def zero():
      return collections.OrderedDict(messages=growing(tf.uint8, [None]), lengths=growing(tf.int32, [None]),
                                     clients=growing(tf.int64, [None]), weights=growing(tf.float32, [None]))

    self.zero, self.type = zero, zero.type_signature.result

    def joined(a, b):
      return collections.OrderedDict((name, tf.concat([a[name], b[name]], 0)) for name in a)

    @tff.tensorflow.computation(self.type, tff.to_type((message_type, np.int64, np.float32)))
    def accumulate(accumulator, value):
      message, client, weight = value
      return joined(accumulator, collections.OrderedDict(messages=message, lengths=[tf.size(message)],
                                                         clients=[client], weights=[weight]))

    @tff.tensorflow.computation(self.type, self.type)
    def merge(a, b):
      return joined(a, b)

    @tff.tensorflow.computation(self.type)
    def report(accumulator):
      return accumulator

    self._accumulate, self._merge, self._report = accumulate, merge, report

  def collect(self, messages, clients, weights):
    """All of them at the server, from federated values at the clients."""
    return tff.federated_aggregate(tff.federated_zip((messages, clients, weights)), self.zero(), self._accumulate,
                                   self._merge, self._report)


class Uplink:
  """`UplinkFunctions` as computations. Its methods take federated values and give such, to be called while `next` or
  the pre-pass of a process is traced.

  Args:
    functions: `UplinkFunctions`.
    options: `Options`.
    types: `ModelTypes`.
    training: `LocalTraining`.
    remembered: `Values` or `Files`.

  Attributes:
    initial: computation of the first state.
  """

  def __init__(self, functions, options, types, training, remembered):
    messages, client_type = Messages(), remembered.type
    _, weights_type, data_type = training.client_work.next.type_signature.parameter
    book_type = tff.tensorflow.computation(functions.book.initial).type_signature.result

    @tff.tensorflow.computation
    def initial():
      return functions.initial()

    state_type = initial.type_signature.result

    @tff.tensorflow.computation(state_type)
    def round_of(state):
      return state['round']

    @tff.tensorflow.computation(training.result_type, client_type, weights_type.member, np.int32)
    def encode(result, memory, received, round_number):
      weight = tf.cast(result.update_weight, tf.float32)
      vector, = remembered.load(memory, 'autoencoder')
      kept = {slot: types.update_vectors.split(remembered.load(memory, slot)) for slot in options.slots}
      upload = lambda: functions.upload(tf.nest.flatten(result.update), types.trainable_of(received), vector, kept,
                                        memory, round_number)
      message, changed = tf.cond(weight > 0, upload, lambda: (tf.zeros([0], tf.uint8), kept))
      fields = collections.OrderedDict(memory, seen=tf.where(weight > 0, round_number, memory['seen']))
      following = remembered.save(fields, {slot: types.update_vectors.join(tensors)
                                           for slot, tensors in changed.items()})
      return message, memory['client'], weight, following

    @tff.tensorflow.computation(state_type, messages.type, types.weights_type)
    def finish(state, added, weights):
      mean, measured, following = functions.finish(state, added, types.trainable_of(weights))
      return tf.nest.pack_sequence_as(types.structure.trainable, mean), measured, following

    # -- the pre-pass

    @tff.tensorflow.computation(state_type)
    def offered(state):
      return functions.book.offered(state['book'])

    @tff.tensorflow.computation(state_type)
    def book_of(state):
      return state['book']

    def with_autoencoder(memory, learned, frame, vector):
      """The client's state with a new autoencoder, where it learned one, of which the server keeps the frame."""
      checksum = tf.bitcast(tf.concat([tf.zeros([4], tf.uint8), frame], 0)[-4:], tf.int32)
      vector = tf.where(learned, vector, remembered.load(memory, 'autoencoder')[0])
      fields = collections.OrderedDict(memory, learned=tf.where(learned, memory['client'] + 1, memory['learned']),
                                       decoder=tf.where(learned, checksum, memory['decoder']))
      return remembered.save(fields, {'autoencoder': [vector]})

    alone = functools.partial(training_lib.alone, options.model_fn, options.client_weighting, training.optimizer)

    @tff.tensorflow.computation(weights_type.member, data_type.member, client_type, offered.type_signature.result,
                                np.int32)
    def learn(weights, data, memory, frames, round_number):
      trainings, weight, outputs = alone(weights, data, options.snapshots, options.snapshot_steps)
      message, vector = functions.learn(trainings, weight, frames, memory, round_number)
      following = memory
      if not functions.decoders.shared:
        following = with_autoencoder(memory, tf.size(message) > 0, message, vector)
      return message, memory['client'], tf.ones([]), outputs, following

    @tff.tensorflow.computation(state_type, messages.type)
    def finish_prepass(state, added):
      return functions.finish_prepass(state, added)

    @tff.tensorflow.computation(client_type, book_type)
    def receive(memory, book):
      frame = functions.book.frame_of(book, memory['client'])
      has = tf.reduce_any(tf.equal(book['clients'], memory['client']))
      vector = tf.cond(has, lambda: functions.networks.vector(functions.decoders.network(frame)),
                       lambda: tf.zeros([functions.networks.size]))
      return with_autoencoder(memory, has, frame, vector)

    self.initial, self._messages = initial, messages
    self.round_of = functools.partial(tff.federated_map, round_of)
    self._encode, self._finish = encode, finish
    self._offered, self._learn, self._finish_prepass = offered, learn, finish_prepass
    self._book_of, self._receive = book_of, receive

  def send(self, results, memories, weights, round_number):
    """(messages at the server, the clients' states) after training."""
    message, client, weight, following = tff.federated_map(
        self._encode, (results, memories, weights, tff.federated_broadcast(round_number)))
    return self._messages.collect(message, client, weight), following

  def finish(self, state, messages, weights):
    """(what the model moves by, measurements, state) after clients sent these messages."""
    return tff.federated_map(self._finish, (state, messages, weights))

  def learn(self, state, weights, data, memories, round_number):
    """(messages at the server, the clients' states, outputs of their metrics) after clients learned."""
    frames = tff.federated_broadcast(tff.federated_map(self._offered, state))
    message, client, weight, outputs, following = tff.federated_map(
        self._learn, (weights, data, memories, frames, tff.federated_broadcast(round_number)))
    return self._messages.collect(message, client, weight), following, outputs

  def finish_prepass(self, state, messages):
    """(state, measurements, bytes that clients receive of it) after clients learned."""
    return tff.federated_map(self._finish_prepass, (state, messages))

  def receive(self, state, memories):
    """The clients' states with the autoencoders that the server has for them."""
    book = tff.federated_broadcast(tff.federated_map(self._book_of, state))
    return tff.federated_map(self._receive, (memories, book))
