"""Federated averaging whose clients remember: error feedback, changes of the model, uploads that are skipped."""

import collections
import functools
import hashlib

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_compress.aggregators import accounting
from tff_compress.aggregators.codec_sum import checked_seed
from tff_compress.aggregators.frame_sum import FrameSum
from tff_compress.codec import meaning
from tff_compress.distributors import downlink as downlink_lib
from tff_compress.processes import coins
from tff_compress.processes import needs as needs_lib
from tff_compress.processes.down import changes as changes_lib
from tff_compress.processes.down import downlinks
from tff_compress.processes.errors import ProcessError
from tff_compress.processes.memories.error_feedback import ErrorFeedback
from tff_compress.processes.process import ClientStateProcess
from tff_compress.processes.process import missed_rounds
from tff_compress.processes.process import ModelTypes
from tff_compress.processes.process import number_of
from tff_compress.processes.protocols import ClientRound
from tff_compress.processes.protocols import Confinement
from tff_compress.processes.protocols import ServerMemory
from tff_compress.processes.protocols import UploadRule
from tff_compress.processes.state import slots as slots_lib
from tff_compress.processes.up import messages as messages_lib
from tff_compress.processes.up import steps as steps_lib
from tff_compress.runtime import compat
from tff_compress.tensorflow.ops import TensorFlowOps

_LOOP = tff.learning.LoopImplementation.DATASET_ITERATOR
"""Gives bit for bit what DATASET_REDUCE gives, in two thirds of the time."""


def build_fed_avg(model_fn, *, uplink='float32', downlink=None, error_feedback=None, relevance=None, structured=None,
                  server=None, client_optimizer_fn=None, server_optimizer_fn=None,
                  client_weighting=tff.learning.ClientWeighting.NUM_EXAMPLES, metrics_aggregator=None, seed=None,
                  spec=None, needs=()):
  """Builds federated averaging whose clients remember.

  One round:
    1. Clients receive the model: encoded as a whole, or what changed in it since they last took part.
    2. Each trains it on its data. With error feedback, it adds to its update what its codec has lost before.
    3. It encodes that and sends a frame, and remembers what this one loses.
    4. The server decodes the frames, and moves its model by their mean, weighted as TFF does.

  A client without examples, or whose update is not finite, sends nothing, and its memory of updates stays as it was.

  Args:
    model_fn: function that makes a `tff.learning.models.VariableModel`.
    uplink: codec of the updates: `Codec` or text; or a mapping of round to such, each used from that round on, or its
      text, 'topk:1/4 | float32 @5 topk:1/100 | float32'.
    downlink: codec of the model, sent as a whole; `Changes`, or a preset that is meant for them, to send what changed;
      None for float32 as a whole.
    error_feedback: what clients remember of their updates: True, False, an `ErrorFeedback` or another
      `protocols.ClientMemory`; None: True where the uplink is a preset that is meant for it, or has one in its
      schedule.
    relevance: `Relevance` or another `protocols.UploadRule`, for clients that skip uploads; None: all upload.
    structured: `Structured`, for clients that train only what they will send; `FederatedDropout`, for clients that
      receive, train and send a smaller model, in which case downlink is the codec of its variables; or another
      `protocols.Confinement`; None: they train everything.
    server: what the server remembers of the updates: `FetchSgd`, `PowerSgd` or another `protocols.ServerMemory`; None:
      nothing, it applies what arrives.
    client_optimizer_fn, server_optimizer_fn: `tff.learning.optimizers.Optimizer`; by default SGD with learning rates
      0.1 and 1.
    client_weighting: `tff.learning.ClientWeighting`.
    metrics_aggregator: as for `tff.learning.algorithms.build_weighted_fed_avg`.
    seed: whole number for reproducible runs; None draws one.
    spec: what to take the variables' names from, for codecs with rules on names: a `Spec`, a Keras model, or a mapping
      of name to array, of all weights: the trainable ones first.
    needs: what a run must fulfil, `needs.Need`s of a method; a `Runner` sees to it in every round.

  Returns:
    `ClientStateProcess`. Its server state is a `tff.learning.templates.LearningAlgorithmState`. The metrics are those
    of TFF's learning algorithms, with the bytes of both directions as `tff_compress.aggregators.communication` finds
    them; `metrics['aggregator']` also has `uplink_skipped`, the number of clients that sent nothing.

  Raises:
    ProcessError: an argument cannot be used.
    CodecError: a codec is not valid, or not for this model.
  """
  parts = _Parts(model_fn, uplink, downlink, error_feedback, relevance, structured, server, client_weighting,
                 checked_seed(seed), spec, needs)
  optimizers = tff.learning.optimizers
  client_optimizer = client_optimizer_fn or optimizers.build_sgdm(0.1)
  client_work = tff.learning.templates.build_model_delta_client_work(
      model_fn, client_optimizer, client_weighting, metrics_aggregator, loop_implementation=_LOOP)
  confine = structured and functools.partial(_confined_work, parts, client_work, model_fn, client_optimizer,
                                             client_weighting, metrics_aggregator)
  finalizer = tff.learning.templates.build_apply_optimizer_finalizer(
      server_optimizer_fn or optimizers.build_sgdm(1.0), parts.weights_type)

  def compose(memory, **kwargs):
    work = confine(memory) if confine else lambda state, weights, data, memories, number: client_work.next(
        state, weights, data)
    return _compose(parts, client_work, work, finalizer, memory, **kwargs)

  def on_files():
    files = parts.memory(slots_lib.Files)
    return compose(files), files

  return compose(parts.memory(slots_lib.Values), on_files=on_files)


class _Parts(ModelTypes):
  """What a process is put together from: types, specs and message functions."""

  def __init__(self, model_fn, uplink, downlink, error_feedback, relevance, structured, server, client_weighting, seed,
               names, needs):
    if not callable(model_fn) or isinstance(model_fn, tff.learning.models.FunctionalModel):
      raise ProcessError('model_fn must be a function that makes a tff.learning.models.VariableModel.')
    for name, value, protocol, example in (('relevance', relevance, UploadRule, 'Relevance(…)'),
                                           ('structured', structured, Confinement, 'Structured(…)'),
                                           ('server', server, ServerMemory, 'FetchSgd(…)')):
      if value is not None and not isinstance(value, protocol):
        raise ProcessError(f'{name} must be a {protocol.__name__} such as {example}, or None, not {value!r}.')
    if not isinstance(client_weighting, tff.learning.ClientWeighting):
      raise ProcessError(f'client_weighting must be a tff.learning.ClientWeighting, not {client_weighting!r}.')
    if structured and error_feedback is None:
      for codec in steps_lib.parts(uplink):
        meaning.without_feedback(codec, 'leave structured out')
    if structured and structured.own_downlink:
      downlink = downlink if isinstance(downlink, changes_lib.Changes) else meaning.of_whole_models(
          'float32' if downlink is None else downlink, 'leave structured out')
    else:
      downlink = changes_lib.Changes.of('float32' if downlink is None else downlink)
    self.feedback, self.relevance = ErrorFeedback.of(error_feedback, *steps_lib.parts(uplink)), relevance
    changes = downlink if isinstance(downlink, changes_lib.Changes) else None
    given = {'error_feedback': self.feedback, 'relevance': relevance, 'structured': structured, 'server': server,
             'changes': changes}
    for option in (structured, self.feedback, relevance, server):
      for name, sentence in option.conflicts.items() if option else ():
        if given[name]:
          raise ProcessError(sentence)
    self.needs = tuple(needs)
    needs_lib.check(self.needs, needs_lib.Facts(
        sends_changes=changes is not None,
        equal_weights=client_weighting is tff.learning.ClientWeighting.UNIFORM), 'this process', ProcessError)
    steps = steps_lib.schedule(uplink)

    super().__init__(model_fn, names, 'clients that remember')
    count = len(self.update_spec.tensors)
    self.seed = seed
    self.confined = structured.confine(self.spec, count, steps, downlink, seed) if structured else None
    self.server = server.build(steps, self.update_spec, seed) if server else None
    self.uplink = (self.confined or self.server).messages if structured or server else messages_lib.messages(
        steps, self.update_spec, seed)
    self.changes = changes_lib.change_messages(changes, self.spec, seed) if changes else None
    if not changes and not (structured and structured.own_downlink):
      self.distributor = downlink_lib(downlink, self.weights_type, seed=seed, spec=self.names)
    self.update_vectors, self.model_vectors = slots_lib.Vectors(self.update_spec), slots_lib.Vectors(self.spec)
    description = [steps, self.feedback, relevance, structured, changes, self.spec,
                   str(self.memory(slots_lib.Values).type)]
    self.fingerprint = hashlib.sha256('\n'.join(map(str, description)).encode('utf-8')).digest()[:16]

  @property
  def keeps_model(self):
    """Whether clients keep the model that they received."""
    return self.relevance is not None or self.changes is not None and self.changes.slot == 'model'

  @property
  def keeps_start(self):
    """Whether clients keep the model that changes of the downlink start from."""
    return self.changes is not None and self.changes.slot == 'start'

  @property
  def slots(self):
    """Names of what the feedback remembers."""
    return self.feedback.slots if self.feedback else ()

  def memory(self, kind):
    """`memory.Values` or `memory.Files` of this process."""
    fields = collections.OrderedDict(client=tff.TensorType(np.int64), seen=tff.TensorType(np.int32),
                                     version=tff.TensorType(np.int32))
    slots = collections.OrderedDict((slot, self.update_vectors.types) for slot in self.slots)
    if self.keeps_model:
      slots['model'] = self.model_vectors.types
    if self.keeps_start:
      slots['start'] = self.model_vectors.types
    return kind(fields, slots)

  def downlink(self, remembered):
    """What brings the model to clients whose states are as `memory.Values` or `memory.Files` say."""
    if self.changes:
      return downlinks.ChangesOfModel(self.changes, self, remembered)
    if self.confined and self.confined.download:
      return downlinks.PartOfModel(self.confined.download, self, remembered.type)
    return downlinks.WholeModel(self.distributor)

  # -- in graphs, on a client

  def upload(self, update, weight, kept, memory, before, now, published,
             round_number):
    """(frame, slots of the feedback that changed, round in which it took part last) of a client after training.

    Args:
      update: list of tensors, the weights before training less those after.
      weight: float32 scalar.
      kept: {slot of the feedback: list of tensors} when the round began.
      memory: OrderedDict, the small fields of the client's state when the round began.
      before, now: trainable weights of the model that it had, and that it received; None where they are not kept.
      published: what the server sent beside the model.
      round_number: int32 scalar.
    """
    xp = TensorFlowOps()
    number = number_of(memory)
    is_new = memory['seen'] < 0
    turn = ClientRound(missed_rounds(memory, round_number), round_number, published,
                       functools.partial(coins.coin_in_graph, self.seed, round_number))
    slots = self.slots
    usable = weight > 0
    uploads = usable
    if self.relevance:
      uploads &= is_new | self.relevance.holds(xp, [-x for x in update], before, now, round_number)
    filled = self.feedback.accumulate(xp, kept, update, turn) if slots else {}
    signal = self.feedback.signal(xp, filled, update, turn) if slots else update
    if self.confined:
      signal = self.confined.signal(signal)

    def send():
      if self.server:
        frame = self.server.encode(signal, published, round_number, number)
        decode = lambda: self.server.decode(frame, published)
      else:
        frame = self.uplink.encode(signal, round_number, number)
        decode = lambda: self.uplink.decode(frame)
      return frame, self.feedback.settle(xp, filled, update, decode(), turn) if slots else {}

    def keep():
      if not slots:
        return tf.zeros([0], tf.uint8), {}
      # Not sent for lack of relevance: what was not sent is in the residual. Not usable: nothing happened.
      chosen = tf.nest.map_structure(lambda new, old: tf.where(usable, new, old), filled, kept)
      return tf.zeros([0], tf.uint8), chosen

    frame, memorized = tf.cond(uploads, send, keep)
    # Only those who took part have not missed this round.
    return frame, memorized, tf.where(usable, round_number, memory['seen'])


def _confined_work(parts, client_work, model_fn, optimizer, weighting, metrics_aggregator, memory_kind):
  """TFF's client work with a confined optimizer: (state, weights, data, memories, round) -> measured output."""
  _, weights_type, data_type = client_work.next.type_signature.parameter
  with tf.Graph().as_default():
    finalizers = model_fn().metric_finalizers()
  aggregate_metrics = (metrics_aggregator or tff.learning.metrics.sum_then_finalize)(finalizers)

  @tff.tensorflow.computation(weights_type.member, data_type.member, memory_kind.type, np.int32)
  def train(weights, data, memory, round_number):
    confined = parts.confined.optimizer(optimizer, round_number, number_of(memory))
    return compat.client_update(model_fn, weighting, _LOOP)(confined, weights, data)

  def work(state, weights, data, memories, round_number):
    result, outputs = tff.federated_map(train, (weights, data, memories, tff.federated_broadcast(round_number)))
    measurements = tff.federated_zip(collections.OrderedDict(train=aggregate_metrics(outputs)))
    return tff.templates.MeasuredProcessOutput(state, result, measurements)

  return work


def _compose(parts, client_work, work_fn, finalizer, remembered, on_files=None):
  """The process: an uplink and a downlink around TFF's client work and finalizer.

  Args:
    parts: `_Parts`.
    client_work, finalizer: TFF's.
    work_fn: the client work's `next`, which is also given the clients' states and the round number.
    remembered: `memory.Values` or `memory.Files`.
    on_files: as for `ClientStateProcess`.
  """
  weights_type, client_type, structure = parts.weights_type, remembered.type, parts.structure
  downlink = parts.downlink(remembered)
  count = len(parts.update_spec.tensors)
  flat = lambda weights: tf.nest.flatten(weights)
  frame_type = tff.TensorType(np.uint8, [None])
  total = FrameSum(parts.uplink, parts.confined and parts.confined.coverage)
  data_type = client_work.next.type_signature.parameter[2]
  result_type = client_work.next.type_signature.result.result.member

  # -- uplink

  shared = parts.keeps_model

  @tff.tensorflow.computation(result_type, client_type, weights_type, downlink.held_type, frame_type, np.int32)
  def encode(result, memory, received, held, published, round_number):
    before = parts.model_vectors.split(remembered.load(memory, 'model'))[:count] if shared else None
    kept = {slot: parts.update_vectors.split(remembered.load(memory, slot)) for slot in parts.slots}
    weight = tf.cast(result.update_weight, tf.float32)
    frame, changed, seen = parts.upload(flat(result.update), weight, kept, memory, before, flat(received)[:count],
                                        published, round_number)
    vectors = {**{slot: parts.update_vectors.join(tensors) for slot, tensors in changed.items()}, **held}
    if shared:
      vectors['model'] = parts.model_vectors.join(flat(received))
    return frame, remembered.save(collections.OrderedDict(memory, seen=seen), vectors)

  @tff.tensorflow.computation
  def zero():
    return total.zero()

  sum_type = zero.type_signature.result

  @tff.tensorflow.computation(client_type)
  def sender(memory):
    return number_of(memory)

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

  @tff.tensorflow.computation
  def initial_uplink():
    state = collections.OrderedDict(round=tf.constant(0, tf.int32))
    if parts.server:
      state['server'] = parts.server.initial()
    return state

  uplink_type = initial_uplink.type_signature.result

  @tff.tensorflow.computation(uplink_type)
  def round_of(state):
    return state['round']

  @tff.tensorflow.computation(uplink_type)
  def publish(state):
    return parts.server.publish(state['server'], state['round']) if parts.server else tf.zeros([0], tf.uint8)

  @tff.tensorflow.computation(uplink_type, sum_type)
  def finish(state, accumulator):
    round_number = state['round']
    following = collections.OrderedDict(round=round_number + 1)
    if parts.server:
      mean = parts.server.mean(total, accumulator, round_number)
      following['server'], mean = parts.server.step(state['server'], mean, round_number)
    else:
      mean = total.mean(accumulator, round_number)
    measured = accounting.measurements('uplink', accumulator['bytes'], accumulator['clients'], parts.update_spec)
    measured['uplink_skipped'] = accumulator['clients'] - accumulator['sent']
    return tf.nest.pack_sequence_as(structure.trainable, mean), measured, following

  # -- the process

  state_class = tff.learning.templates.LearningAlgorithmState

  @tff.federated_computation
  def init():
    weights = tff.federated_eval(parts.initial_weights, tff.SERVER)
    return tff.federated_zip(state_class(weights, downlink.initialize(weights), client_work.initialize(),
                                         tff.federated_eval(initial_uplink, tff.SERVER), finalizer.initialize()))

  state_type = init.type_signature.result

  @tff.federated_computation(state_type, data_type, tff.FederatedType(client_type, tff.CLIENTS))
  def next_fn(state, client_data, memories):
    weights, round_number = state.global_model_weights, tff.federated_map(round_of, state.aggregator)
    got = downlink.next(state.distributor, weights, memories, round_number)
    sent_down = got.measurements
    beside = tff.federated_map(publish, state.aggregator)
    if parts.server:
      to_all = lambda frame, clients: tf.size(frame, out_type=tf.int64) * clients
      both = downlinks.with_more(sent_down.type_signature.member, frame_type, parts.spec, to_all)
      sent_down = tff.federated_map(both, (sent_down, beside))
    work = work_fn(state.client_work, got.weights, client_data, got.memories, round_number)
    frames, following = tff.federated_map(
        encode, (work.result, got.memories, got.weights, got.held, tff.federated_broadcast(beside),
                 tff.federated_broadcast(round_number)))
    weight = tff.federated_map(_weight_of(result_type), work.result)
    sent = tff.federated_zip((frames, weight, tff.federated_map(sender, got.memories)))
    added = tff.federated_aggregate(sent, zero(), accumulate, merge, report)
    mean, measured, aggregator = tff.federated_map(finish, (state.aggregator, added))
    final = finalizer.next(state.finalizer, downlink.target(state.distributor, weights), mean)
    distributor, model = downlink.advance(got.state, weights, final.result, round_number)
    server = tff.federated_zip(state_class(model, distributor, work.state, aggregator, final.state))
    metrics = tff.federated_zip(collections.OrderedDict(
        distributor=sent_down, client_work=work.measurements, aggregator=measured, finalizer=final.measurements))
    return server, metrics, following

  member = state_type.member

  @tff.tensorflow.computation(member)
  def get_model_weights(state):
    return state.global_model_weights

  @tff.tensorflow.computation(member, weights_type)
  def set_model_weights(state, weights):
    return state_class(weights, downlink.restarted(state.distributor, weights), state.client_work, state.aggregator,
                       state.finalizer)

  return ClientStateProcess(
      init, next_fn, client_state_type=client_type, fingerprint=parts.fingerprint, get_model_weights=get_model_weights,
      set_model_weights=set_model_weights, needs=parts.needs, on_files=on_files)


def _weight_of(result_type):

  @tff.tensorflow.computation(result_type)
  def weight_of(result):
    return result.update_weight

  return weight_of
