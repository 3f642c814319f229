"""Federated averaging with autoencoders that clients learn before the first round.

Source: Chandar et al. 2021, "Communication optimization in large scale federated learning using autoencoder compressed
weight updates", section 3.
"""

import collections
import functools
import hashlib

from absl import logging
import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_compress import codec as codec_lib
from tff_compress.aggregators import accounting
from tff_compress.aggregators.codec_sum import checked_seed
from tff_compress.autoencoders import architectures
from tff_compress.autoencoders import learning
from tff_compress.autoencoders import savings
from tff_compress.autoencoders import training
from tff_compress.autoencoders.rule import LearnedRule
from tff_compress.codec import meaning
from tff_compress.distributors import downlink as downlink_lib
from tff_compress.processes import coins
from tff_compress.processes import needs as needs_lib
from tff_compress.processes.autoencoder import decoders as decoders_lib
from tff_compress.processes.autoencoder.messages import LearnedMessages
from tff_compress.processes.autoencoder.messages import Networks
from tff_compress.processes.down.downlinks import WholeModel
from tff_compress.processes.down.downlinks import with_more
from tff_compress.processes.errors import ProcessError
from tff_compress.processes.memories.error_feedback import ErrorFeedback
from tff_compress.processes.process import ClientStateProcess
from tff_compress.processes.process import missed_rounds
from tff_compress.processes.process import ModelTypes
from tff_compress.processes.process import number_of
from tff_compress.processes.protocols import ClientRound
from tff_compress.processes.state import slots as slots_lib
from tff_compress.tensorflow.ops import TensorFlowOps

LATENT = 32
"""Latent values of a piece by default."""
MAX_GROUPS = 100
DRIFT_ROUNDS, DRIFT_PERCENT = 5, 30
"""After so many rounds with more than this share of fallbacks, clients should learn again."""
_LOOP = tff.learning.LoopImplementation.DATASET_ITERATOR


class AutoencoderProcess(ClientStateProcess):
  """A `ClientStateProcess` with a pre-pass.

  Attributes:
    prepass: computation with the arguments and results of `next`. Clients train alone, learn from what they saw, and
      send their decoders; the model stays as it is. May be run again later, for all clients or some: their new decoders
      replace the old ones.
    decoder_bytes: length of the frame with a client's decoder.
  """

  def __init__(self, *args, prepass, decoder_bytes, **kwargs):
    super().__init__(*args, **kwargs)
    self.prepass, self.decoder_bytes = prepass, decoder_bytes

  def knows(self, state, memory):
    """Whether the server has the decoder of the autoencoder in a client's state, or that has none."""
    if memory['learned'] != memory['client'] + 1:
      return True
    book = state.aggregator['book']
    rows = np.asarray(book['rows'])[np.asarray(book['clients']) == memory['client']]
    return any(np.asarray(book['frames'])[row, -4:].tobytes() == np.int32(memory['decoder']).tobytes() for row in rows)


def build_autoencoder_fed_avg(model_fn, *, uplink=None, architecture='linear', target='delta', snapshots=8,
                              snapshot_steps=None, decoders='client', learning_epochs=30, learning_rate=1e-3,
                              fallback='drive', tolerance=0.3, error_feedback=None, downlink='float32',
                              client_optimizer_fn=None, server_optimizer_fn=None,
                              client_weighting=tff.learning.ClientWeighting.NUM_EXAMPLES, metrics_aggregator=None,
                              seed=None, spec=None, needs=()):
  """Builds federated averaging in which clients encode with an autoencoder that was learned from their own training.

  In the pre-pass each client trains alone from the server's model, keeps what its training changed, learns an
  autoencoder from that, and sends the decoder. In the rounds it sends latent values, which the server decodes with the
  decoder of that client. A client that has none, or that finds what would be decoded too far from what it is, sends its
  update with the fallback; one byte says which it is.

  Args:
    model_fn: function that makes a `tff.learning.models.VariableModel`.
    uplink: codec in which one rule begins with an autoencoder without weights, for all variables
      ('concat | autoencoder:LATENT,length=L | …') or some of them; what is behind it encodes the latent values, and
      other rules other variables. length=0 is one piece of all values. None: one piece, as published, while the
      autoencoder has at most 2^20 parameters, and pieces of 1024 values for larger models.
    architecture: 'linear', 'dense' or 'convolutional', see `tff_compress.autoencoders`.
    target: 'delta': what training changed is encoded; 'weights', as published: the trained weights are.
    snapshots: how often a client trains in the pre-pass; at least 2.
    snapshot_steps: batches of each of these trainings; None: all of the client's data.
    decoders: 'client': each client has its own. 'shared', or a number of groups of clients that resemble each other:
      clients also send latent values of their snapshots, the server learns one autoencoder for each group from them,
      and sends it to the clients in it.
    learning_epochs, learning_rate: of the autoencoder's own training; not used for 'linear'.
    fallback: codec of updates.
    tolerance: largest ||decoded - x|| / ||x|| that is sent, x being what is encoded. None: the learned message is sent
      unless it is no better than sending nothing, or the fallback has the smaller error with no more bytes.
    error_feedback: for the target 'delta', True or an `ErrorFeedback`: what was lost is added to the next update. None:
      True where the fallback is a preset that is meant for it.
    downlink: codec of the model as a whole.
    client_optimizer_fn, server_optimizer_fn, client_weighting, metrics_aggregator, seed, spec, needs: as for
      `build_fed_avg`.

  Returns:
    `AutoencoderProcess`. `metrics['aggregator']` has the bytes of the uplink, `uplink_fallbacks`, the number of clients
    that sent with the fallback, and `uplink_drift`: whether more than 30 % of the messages of the last 5 rounds since a
    pre-pass were such, so that clients should learn again; said half as often each time that this did not help. Those
    of the pre-pass have the bytes of the decoders, and `metrics['distributor']` those of shared autoencoders.

  Raises:
    ProcessError: an argument cannot be used.
    CodecError: a codec is not valid, or not for this model.
  """
  parts = _Parts(model_fn, uplink, architecture, target, snapshots, snapshot_steps, decoders, learning_epochs,
                 learning_rate, fallback, tolerance, error_feedback, checked_seed(seed), spec, needs)
  optimizer = client_optimizer_fn or tff.learning.optimizers.build_sgdm(0.1)
  client_work = tff.learning.templates.build_model_delta_client_work(
      model_fn, optimizer, client_weighting, metrics_aggregator, loop_implementation=_LOOP)
  finalizer = tff.learning.templates.build_apply_optimizer_finalizer(
      server_optimizer_fn or tff.learning.optimizers.build_sgdm(1.0), parts.weights_type)
  downlink = meaning.of_whole_models(downlink, 'choose another downlink')
  down = WholeModel(downlink_lib(downlink, parts.weights_type, seed=parts.seed, spec=spec))
  needs_lib.check(parts.needs, needs_lib.Facts(
      sends_changes=False, equal_weights=client_weighting is tff.learning.ClientWeighting.UNIFORM), 'this process',
                  ProcessError)
  alone = functools.partial(training.alone, model_fn, client_weighting, optimizer)
  with tf.Graph().as_default():
    finalizers = model_fn().metric_finalizers()
  aggregate_metrics = (metrics_aggregator or tff.learning.metrics.sum_then_finalize)(finalizers)

  def compose(remembered, **kwargs):
    return _compose(parts, client_work, finalizer, down, alone, aggregate_metrics, remembered, **kwargs)

  def on_files():
    files = parts.memory(slots_lib.Files)
    return compose(files), files

  return compose(parts.memory(slots_lib.Values), on_files=on_files)


class _Parts(ModelTypes):
  """What the process is put together from: types, specs and functions of tensors."""

  def __init__(self, model_fn, uplink, architecture, target, snapshots, snapshot_steps, decoders, epochs, rate,
               fallback, tolerance, error_feedback, seed, names, needs):
    if target not in training.TARGETS:
      raise ProcessError(f'target must be {" or ".join(training.TARGETS)}, not {target!r}.')
    if architecture not in architectures.ARCHITECTURES:
      raise ProcessError(f'architecture must be {", ".join(architectures.ARCHITECTURES)}, not {architecture!r}.')
    for name, value, least in (('snapshots', snapshots, 2), ('learning_epochs', epochs, 1),
                               ('snapshot_steps', 1 if snapshot_steps is None else snapshot_steps, 1)):
      if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ProcessError(f'{name} must be a whole number of at least {least}, not {value!r}.')
    if decoders not in ('client', 'shared') and (isinstance(decoders, bool) or not isinstance(decoders, int)
                                                 or not 1 <= decoders <= MAX_GROUPS):
      raise ProcessError(f'decoders must be client, shared or a number of groups from 1 to {MAX_GROUPS}, not '
                         f'{decoders!r}.')
    if tolerance is not None and (isinstance(tolerance, bool) or not isinstance(tolerance, (int, float))
                                  or not tolerance >= 0):
      raise ProcessError(f'tolerance must be a number of at least 0, or None, not {tolerance!r}.')
    if error_feedback is None and target != 'delta':
      meaning.without_feedback(fallback, "use target='delta'")
    self.feedback = ErrorFeedback.of(error_feedback, fallback)
    if self.feedback and target != 'delta':
      raise ProcessError("error feedback keeps what is lost of updates: use target='delta', or leave it out.")
    super().__init__(model_fn, names, 'autoencoders')
    self.seed, self.snapshots, self.snapshot_steps, self.needs = seed, snapshots, snapshot_steps, tuple(needs)

    rule = LearnedRule(default_uplink(self.update_spec.parameters) if uplink is None else uplink, self.update_spec)
    if rule.length > architectures.MAX_WHOLE:
      raise ProcessError(f'an autoencoder for pieces of {rule.length} values has about '
                         f'{2 * rule.length * rule.stage.latent:,} parameters: use one for shorter pieces, such as '
                         f'autoencoder:{rule.stage.latent},length={architectures.LENGTH}.')
    made = architectures.ARCHITECTURES[architecture](rule.length, rule.stage.latent)
    self.networks = Networks(made, rule.sizes, seed)
    self.messages = LearnedMessages(rule, target, fallback, tolerance, seed)
    learner = learning.Learner(made, rule.size, rule.sizes, rate, seed & 0x7FFFFFFF)
    if decoders == 'client':
      self.decoders = decoders_lib.OwnDecoders(learner, self.networks, epochs)
    else:
      groups = 1 if decoders == 'shared' else decoders
      self.decoders = decoders_lib.SharedDecoders(learner, self.networks, epochs, rule, snapshots, groups, seed)
    self.book = decoders_lib.Book(self.decoders)
    self.vectors = slots_lib.Vectors(self.update_spec)
    described = [rule.codec, architecture, target, codec_lib(fallback), self.feedback, decoders, self.spec]
    self.fingerprint = hashlib.sha256('\n'.join(map(str, described)).encode('utf-8')).digest()[:16]

  @property
  def slots(self):
    """Names of what error feedback remembers."""
    return self.feedback.slots if self.feedback else ()

  def memory(self, kind):
    """`memory.Values` or `memory.Files` of this process."""
    fields = collections.OrderedDict(client=tff.TensorType(np.int64), seen=tff.TensorType(np.int32),
                                     version=tff.TensorType(np.int32), learned=tff.TensorType(np.int64),
                                     decoder=tff.TensorType(np.int32))
    slots = collections.OrderedDict(autoencoder=[tff.TensorType(np.float32, [self.networks.size])])
    slots.update((slot, self.vectors.types) for slot in self.slots)
    return kind(fields, slots)

  # -- in graphs, on a client

  def upload(self, update, received, vector, kept, memory, round_number):
    """(message, slots of the feedback that changed) of a client after training.

    Args:
      update: list of tensors, weights before training less those after.
      received: trainable weights before training.
      vector: what the client remembers of its autoencoder.
      kept: {slot of the feedback: list of tensors} when the round began.
      memory: the small fields of its state.
      round_number: int32 scalar.
    """
    xp, net = TensorFlowOps(), self.networks.of_vector(vector)
    # The server has the decoder under the number that the client had when it learned.
    usable = tf.equal(memory['learned'], memory['client'] + 1)
    turn = ClientRound(missed_rounds(memory, round_number), round_number, tf.zeros([0], tf.uint8),
                       functools.partial(coins.coin_in_graph, self.seed, round_number))
    filled = self.feedback.accumulate(xp, kept, update, turn) if self.feedback else {}
    signal = self.feedback.signal(xp, filled, update, turn) if self.feedback else update
    message = self.messages.encode(signal, received, net, usable, memory, round_number)
    if not self.feedback:
      return message, {}
    decoded = self.messages.decode(message, lambda: net, received, round_number, number_of(memory))
    return message, self.feedback.settle(xp, filled, update, decoded, turn)


def default_uplink(values):
  """The uplink for a model of so many values, where none is given. Says where the published form would be too large."""
  latent = min(LATENT, max(1, values // 2))
  parameters = savings.dense_parameters(values, latent)
  if parameters <= architectures.MAX_PARAMETERS:
    # So few values are less than the table of an entropy coder.
    return f'concat | autoencoder:{latent} | uniform:bits=8 | pack'
  logging.warning(
      'The published autoencoder for all %s values at once would have %s parameters (%.0f MB), so pieces of %d values '
      'share one of %s parameters (%.1f MB).', f'{values:,}', f'{parameters:,}', parameters * 4e-6,
      architectures.LENGTH, f'{savings.dense_parameters(architectures.LENGTH, latent):,}',
      savings.dense_parameters(architectures.LENGTH, latent) * 4e-6)
  return f'concat | autoencoder:{latent},length={architectures.LENGTH} | uniform:bits=8 | huffman'


def _compose(parts, client_work, finalizer, down, alone, aggregate_metrics, remembered, on_files=None):
  """The process around TFF's client work and finalizer.

  Args:
    parts: `_Parts`.
    client_work, finalizer: TFF's.
    down: `WholeModel`.
    alone: `training.alone` of (weights, data, count, steps).
    aggregate_metrics: as `tff.learning.metrics.sum_then_finalize` makes it.
    remembered: `memory.Values` or `memory.Files`.
    on_files: as for `ClientStateProcess`.
  """
  flat = tf.nest.flatten
  _, weights_type, data_type = client_work.next.type_signature.parameter
  result_type = client_work.next.type_signature.result.result.member
  client_type, bytes_type = remembered.type, tff.TensorType(np.uint8, [None])
  book_type = tff.tensorflow.computation(parts.book.initial).type_signature.result
  count = len(parts.update_spec.tensors)

  @tff.tensorflow.computation
  def initial():
    return collections.OrderedDict(round=tf.constant(0, tf.int32), book=parts.book.initial(),
                                   **_no_rounds(tf.constant(DRIFT_ROUNDS)))

  uplink_type = initial.type_signature.result

  @tff.tensorflow.computation(uplink_type)
  def round_of(state):
    return state['round']

  # What clients send, one behind the other: each must be decoded in its own way.
  @tff.tensorflow.computation
  def zero():
    nothing = decoders_lib.growing
    return collections.OrderedDict(messages=nothing(tf.uint8, [None]), lengths=nothing(tf.int32, [None]),
                                   clients=nothing(tf.int64, [None]), weights=nothing(tf.float32, [None]))

  sum_type = zero.type_signature.result

  def merged(a, b):
    return collections.OrderedDict((name, tf.concat([a[name], b[name]], 0)) for name in a)

  @tff.tensorflow.computation(sum_type, tff.to_type((bytes_type, np.int64, np.float32)))
  def accumulate(accumulator, value):
    message, client, weight = value
    return merged(accumulator, collections.OrderedDict(messages=message, lengths=[tf.size(message)], clients=[client],
                                                       weights=[weight]))

  @tff.tensorflow.computation(sum_type, sum_type)
  def merge(a, b):
    return merged(a, b)

  @tff.tensorflow.computation(sum_type)
  def report(accumulator):
    return accumulator

  # -- the pre-pass

  @tff.tensorflow.computation(uplink_type)
  def offered(state):
    return parts.book.offered(state['book'])

  def kept(memory, learned, frame, vector):
    """The client's state with a new autoencoder, where it learned one, of which the server keeps the frame."""
    checksum = tf.bitcast(tf.concat([tf.zeros([4], tf.uint8), frame], 0)[-4:], tf.int32)
    vector = tf.where(learned, vector, remembered.load(memory, 'autoencoder')[0])
    fields = collections.OrderedDict(memory, learned=tf.where(learned, memory['client'] + 1, memory['learned']),
                                     decoder=tf.where(learned, checksum, memory['decoder']))
    return remembered.save(fields, {'autoencoder': [vector]})

  frames_type = offered.type_signature.result

  @tff.tensorflow.computation(weights_type.member, data_type.member, client_type, frames_type, np.int32)
  def learn(weights, data, memory, frames, round_number):
    taken, weight, outputs = alone(weights, data, parts.snapshots, parts.snapshot_steps)
    snapshots = tf.stack([parts.messages.snapshot(before, after) for before, after in taken])
    usable = tf.reduce_all(tf.math.is_finite(snapshots)) & (tf.cast(weight, tf.float32) > 0)
    nothing = lambda: (tf.zeros([0], tf.uint8), tf.zeros([parts.networks.size]))
    message, vector = tf.cond(usable, lambda: parts.decoders.learn(snapshots, frames, memory, round_number), nothing)
    following = memory if parts.decoders.shared else kept(memory, tf.size(message) > 0, message, vector)
    return message, memory['client'], tf.ones([]), outputs, following

  @tff.tensorflow.computation(uplink_type, sum_type)
  def keep(state, added):
    book, received = parts.book.after(state['book'], added, state['round'])
    # Where learning again did not help, it is asked for half as often each time. Groups of one pre-pass follow each
    # other.
    patience = tf.where(_drifts(state), tf.minimum(2 * state['patience'], 1 << 20),
                        tf.where(state['since'] > 0, DRIFT_ROUNDS, state['patience']))
    following = collections.OrderedDict(round=state['round'], book=book, **_no_rounds(patience))
    return following, _measured(parts, added, tf.zeros([], tf.int64), tf.constant(False)), received

  @tff.tensorflow.computation(client_type, book_type)
  def receive(memory, book):
    frame = parts.book.frame_of(book, memory['client'])
    has = tf.reduce_any(tf.equal(book['clients'], memory['client']))
    vector = tf.cond(has, lambda: parts.networks.vector(parts.decoders.network(frame)),
                     lambda: tf.zeros([parts.networks.size]))
    return kept(memory, has, frame, vector)

  @tff.tensorflow.computation(uplink_type)
  def book_of(state):
    return state['book']

  # -- a round

  @tff.tensorflow.computation(result_type, client_type, weights_type.member, np.int32)
  def encode(result, memory, received, round_number):
    weight = tf.cast(result.update_weight, tf.float32)
    vector, = remembered.load(memory, 'autoencoder')
    slots = {slot: parts.vectors.split(remembered.load(memory, slot)) for slot in parts.slots}
    upload = lambda: parts.upload(flat(result.update), flat(received)[:count], vector, slots, memory, round_number)
    message, changed = tf.cond(weight > 0, upload, lambda: (tf.zeros([0], tf.uint8), slots))
    fields = collections.OrderedDict(memory, seen=tf.where(weight > 0, round_number, memory['seen']))
    following = remembered.save(fields, {slot: parts.vectors.join(tensors) for slot, tensors in changed.items()})
    return message, memory['client'], weight, following

  @tff.tensorflow.computation(uplink_type, sum_type, parts.weights_type)
  def finish(state, added, weights):
    ends = tf.cumsum(added['lengths'])
    zeros = [tf.zeros(tensor.shape) for tensor in parts.update_spec.tensors]

    def step(i, total, sums, fallbacks):
      message = added['messages'][ends[i] - added['lengths'][i]:ends[i]]

      def add():
        frame = parts.book.frame_of(state['book'], added['clients'][i])
        client = number_of({'client': added['clients'][i]})
        update = _decoded(parts, message, frame, flat(weights)[:count], state['round'], client)
        return (total + added['weights'][i], [s + added['weights'][i] * u for s, u in zip(sums, update)],
                fallbacks + tf.cast(parts.messages.fell_back(message), tf.int64))

      total, sums, fallbacks = tf.cond(tf.size(message) > 0, add, lambda: (total, list(sums), fallbacks))
      return i + 1, total, sums, fallbacks

    _, total, sums, fallbacks = tf.while_loop(lambda i, *_: i < tf.size(ends), step,
                                              (tf.constant(0), tf.zeros([]), zeros, tf.zeros([], tf.int64)))
    mean = tf.nest.pack_sequence_as(parts.structure.trainable, [tf.math.divide_no_nan(s, total) for s in sums])
    messages = tf.math.count_nonzero(added['lengths'])
    recent = tf.concat([state['recent'][1:], [[fallbacks, messages]]], 0)
    following = collections.OrderedDict(state, round=state['round'] + 1, recent=recent, since=state['since'] + 1)
    return mean, _measured(parts, added, fallbacks, _drifts(following)), following

  state_class = tff.learning.templates.LearningAlgorithmState

  @tff.federated_computation
  def init():
    weights = tff.federated_eval(parts.initial_weights, tff.SERVER)
    return tff.federated_zip(state_class(weights, down.initialize(weights), client_work.initialize(),
                                         tff.federated_eval(initial, tff.SERVER), finalizer.initialize()))

  state_type = init.type_signature.result

  def collected(messages, clients, weights):
    return tff.federated_aggregate(tff.federated_zip((messages, clients, weights)), zero(), accumulate, merge, report)

  @tff.federated_computation(state_type, data_type, tff.FederatedType(client_type, tff.CLIENTS))
  def next_fn(state, client_data, memories):
    round_number = tff.federated_map(round_of, state.aggregator)
    got = down.next(state.distributor, state.global_model_weights, memories, round_number)
    work = client_work.next(state.client_work, got.weights, client_data)
    sent = tff.federated_map(encode, (work.result, memories, got.weights, tff.federated_broadcast(round_number)))
    mean, measured, aggregator = tff.federated_map(
        finish, (state.aggregator, collected(sent[0], sent[1], sent[2]), state.global_model_weights))
    final = finalizer.next(state.finalizer, state.global_model_weights, mean)
    server = tff.federated_zip(state_class(final.result, got.state, work.state, aggregator, final.state))
    metrics = tff.federated_zip(collections.OrderedDict(
        distributor=got.measurements, client_work=work.measurements, aggregator=measured, finalizer=final.measurements))
    return server, metrics, sent[3]

  @tff.federated_computation(state_type, data_type, tff.FederatedType(client_type, tff.CLIENTS))
  def prepass(state, client_data, memories):
    round_number = tff.federated_map(round_of, state.aggregator)
    got = down.next(state.distributor, state.global_model_weights, memories, round_number)
    frames = tff.federated_broadcast(tff.federated_map(offered, state.aggregator))
    sent = tff.federated_map(learn, (got.weights, client_data, memories, frames, tff.federated_broadcast(round_number)))
    aggregator, measured, received = tff.federated_map(keep, (state.aggregator, collected(sent[0], sent[1], sent[2])))
    following, sent_down = sent[4], got.measurements
    if parts.decoders.shared:
      book = tff.federated_broadcast(tff.federated_map(book_of, aggregator))
      following = tff.federated_map(receive, (following, book))
      both = with_more(sent_down.type_signature.member, np.int64, parts.spec, lambda received, clients: received)
      sent_down = tff.federated_map(both, (sent_down, received))
    server = tff.federated_zip(state_class(state.global_model_weights, got.state, state.client_work, aggregator,
                                           state.finalizer))
    metrics = tff.federated_zip(collections.OrderedDict(
        distributor=sent_down, aggregator=measured,
        client_work=tff.federated_zip(collections.OrderedDict(train=aggregate_metrics(sent[3])))))
    return server, metrics, following

  @tff.tensorflow.computation(state_type.member)
  def get_model_weights(state):
    return state.global_model_weights

  @tff.tensorflow.computation(state_type.member, parts.weights_type)
  def set_model_weights(state, weights):
    return state_class(weights, state.distributor, state.client_work, state.aggregator, state.finalizer)

  return AutoencoderProcess(
      init, next_fn, prepass=prepass, decoder_bytes=parts.decoders.decoder_bytes, client_state_type=client_type,
      fingerprint=parts.fingerprint, get_model_weights=get_model_weights, set_model_weights=set_model_weights,
      needs=parts.needs, on_files=on_files)


def _decoded(parts, message, frame, weights, round_number, client):
  """The update in a client's message, list of tensors; `frame` is what the server has of its decoder."""

  def net():
    same = tf.equal(parts.messages.checksum(message), tf.bitcast(frame[-4:], tf.int32))
    problem = 'a client encoded with an autoencoder of which the server has no decoder: run the pre-pass for it again.'
    with tf.control_dependencies([tf.debugging.Assert(same, [problem])]):
      return parts.decoders.network(tf.identity(frame))

  return parts.messages.decode(message, net, weights, round_number, client)


def _no_rounds(patience):
  """What is remembered of the rounds since a pre-pass: fallbacks and messages of the last ones, their number, and after
  how many clients may be asked to learn again."""
  return collections.OrderedDict(recent=tf.zeros([DRIFT_ROUNDS, 2], tf.int64), since=tf.zeros([], tf.int32),
                                 patience=patience)


def _drifts(state):
  """Whether too many of the last messages were fallbacks."""
  fallbacks, messages = tf.unstack(tf.reduce_sum(state['recent'], 0))
  return (state['since'] >= state['patience']) & (100 * fallbacks > DRIFT_PERCENT * messages)


def _measured(parts, added, fallbacks, drift):
  """What the uplink of a round cost."""
  size, clients = tf.size(added['messages'], out_type=tf.int64), tf.size(added['lengths'], out_type=tf.int64)
  measured = accounting.measurements('uplink', size, clients, parts.update_spec)
  return collections.OrderedDict(measured, uplink_fallbacks=fallbacks, uplink_drift=drift)
