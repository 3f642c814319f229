"""Federated averaging in a shared subspace, as a process of TFF."""

import collections
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tensorflow_federated as tff

from tff_compress.codec.codec import Codec
from tff_compress.codec.spec import SpecSource
from tff_compress.processes import assembly
from tff_compress.processes.down.downlinks import measure
from tff_compress.processes.errors import ProcessError
from tff_compress.processes.process import ClientStateProcess
from tff_compress.processes.process import number_of
from tff_compress.processes.subspace.functions import SubspaceFunctions
from tff_compress.processes.subspace.options import Options
from tff_compress.processes.subspace.options import SEED
from tff_compress.subspace.rate import Rate
from tff_compress.timeline.start import Start


def build_subspace_fed_avg(model_fn: Callable[[], tff.learning.models.VariableModel], *, rate: Rate | None = None,
                           uplink_bits: int | None = None, downlink_bits: int | None = None, form: str = 'block',
                           hold: int | None = None, placement_bits: int | None = None, sums: str = 'private',
                           start: Start | Codec | str = 'float32',
                           key_frames: Codec | str | None = 'int8',
                           client_optimizer_fn: tff.learning.optimizers.Optimizer | None = None,
                           server_optimizer_fn: tff.learning.optimizers.Optimizer | None = None,
                           client_weighting: tff.learning.ClientWeighting = tff.learning.ClientWeighting.NUM_EXAMPLES,
                           metrics_aggregator: Callable[..., Any] | None = None, seed: int | None = None,
                           spec: SpecSource | None = None, needs: Sequence[Any] = ()) -> ClientStateProcess:
  """Builds federated averaging whose messages, both ways, hold a few coordinates of a subspace that all share.

  One round:
    1. Clients receive the changes since they last took part; the first time, the start and all changes, or a key
       frame and those behind it, whichever is shorter.
    2. Each trains the model on its data, and sends k coordinates of its update at 1 to 4 bits: two rotations and a
       choice of k places follow from the round's key, k from a rule that everybody computes (`Rate`).
    3. The server sends the mean of these, again coded, in the same coordinates, and everybody moves the model by what
       was sent. So nothing is lost between server and clients, and a change is as small as an update.

  Args:
    model_fn: function that makes a `tff.learning.models.VariableModel` of float32 variables.
    rate: the rule for k; None for `Rate()`.
    uplink_bits, downlink_bits: bits per coordinate, 1 … 4; for uplink_bits, see `sums`. None: 1 while clients miss
      fewer than 4 rounds on average, then 2.
    form: 'block' for coordinates that are held for several rounds, `hold`, so that a client receives one change for as
      many rounds that it missed (`tff_compress.subspace.block_form`); 'round' for those that change each round, and a
      change for each; 'fixed' for those of the first round throughout, where a client receives one record for any gap.
    hold: rounds of a block; None: as many as clients miss on average, at most 25; with momentum, which all copies then
      keep, 1.
    placement_bits: bits per coordinate, 1 … 8, of what says the model within a block; None: 1, or 8 for 'fixed'.
    sums: 'private' for a scale of each client's own; 'integers' for whole numbers of 2 to 8 bits at one public scale,
      which integer secure aggregation could add. The process itself adds them in the clear. Clients count alike then.
    start: what the first model is sent as: a codec, of which the server takes what arrives; 'seed' for weights of the
      same distribution that are drawn from the seed, so that a few bytes say them; or a `Start`.
    key_frames: codec of whole models for clients that were away for long; None for none, so that a client that comes
      first receives all changes, which must not grow to more than 256 MiB.
    server_optimizer_fn: `tff.learning.optimizers.build_sgdm`, by default with learning rate 1.
    client_optimizer_fn, client_weighting, metrics_aggregator, seed, spec, needs: as for `build_fed_avg`.

  Returns:
    `ClientStateProcess`; see `build_fed_avg`. `metrics['aggregator']` has, besides `uplink_skipped`, `kept` (k), `gap`
    (moving average of the rounds that clients missed), `noise` (energy of the noise so far, in units of that of the
    first weights), `growth` (energy of the weights in those units), and `alarm` (1 where training is about to diverge).

  Raises:
    ProcessError: an argument cannot be used.
    CodecError: a codec is not valid, or not for this model.
  """
  options = Options(
      model_fn=model_fn, rate=Rate() if rate is None else rate, uplink_bits=uplink_bits, downlink_bits=downlink_bits,
      form=form, hold=hold, placement_bits=placement_bits, sums=sums, start=start, key_frames=key_frames,
      client_optimizer_fn=client_optimizer_fn,
      server_optimizer_fn=server_optimizer_fn, client_weighting=client_weighting,
      metrics_aggregator=metrics_aggregator, seed=seed, spec=spec, needs=needs)
  types = assembly.ModelTypes(model_fn, spec, 'clients that share a subspace')
  if not types.update_spec.parameters:
    raise ProcessError('the model has no trainable variables, so there is nothing to send.')
  functions = SubspaceFunctions(options, types.update_spec, _start(options, types))
  training = assembly.LocalTraining(options, types)
  fingerprint = assembly.fingerprint(
      'subspace', options.rate, options.uplink_bits, options.downlink_bits, options.form, options.hold,
      options.placement_bits, options.sums, options.momentum, options.start, options.key_frames, types.spec)

  def build(remembered, on_files=None):
    return _process(options, types, functions, training, remembered, fingerprint, on_files)

  return assembly.on_values_and_files(build, assembly.FIELDS, collections.OrderedDict())


def _start(options, types):
  """The `Start`; None where the first model is sent."""
  if options.start != SEED:
    return options.start if isinstance(options.start, Start) else None
  with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    model = options.model_fn()
    session.run(tf.compat.v1.global_variables_initializer())
    weights = session.run([tf.convert_to_tensor(v) for v in model.trainable_variables])
  return Start.like(weights, options.seed)


def _process(options, types, functions, training, remembered, fingerprint, on_files):
  """The `ClientStateProcess`.

  Args:
    options: `Options`.
    types: `ModelTypes`.
    functions: `SubspaceFunctions`.
    training: `LocalTraining`.
    remembered: `Values` or `Files`.
    fingerprint, on_files: as for `ClientStateProcess`.
  """
  vector = lambda weights: types.update_vectors.join(types.trainable_of(weights))[0]
  client_type = remembered.type
  state_class = tff.learning.templates.LearningAlgorithmState

  def with_trainable(weights, trainable):
    parts = types.update_vectors.split([trainable])
    others = tf.nest.flatten(weights)[types.trainable:]
    return tf.nest.pack_sequence_as(types.structure, [*parts, *others])

  @tff.tensorflow.computation(types.weights_type)
  def begin(weights):
    model = functions.runtime.drawn() if functions.runtime.start else vector(weights)
    model, downlink = functions.begin(model)
    return with_trainable(weights, model), downlink

  @tff.tensorflow.computation
  def initial_uplink():
    return functions.initial_uplink()

  @tff.federated_computation
  def init():
    begun = tff.federated_map(begin, tff.federated_eval(types.initial_weights, tff.SERVER))
    return tff.federated_zip(state_class(
        begun[0], begun[1], training.client_work.initialize(),
        tff.federated_eval(initial_uplink, tff.SERVER), tff.federated_value((), tff.SERVER)))

  state_type = init.type_signature.result
  downlink_type, uplink_type = begin.type_signature.result[1], initial_uplink.type_signature.result

  @tff.tensorflow.computation(downlink_type)
  def agree(downlink):
    return functions.agreed(downlink)

  agreed_type = agree.type_signature.result

  @tff.tensorflow.computation(downlink_type)
  def past_of(downlink):
    return downlink['history']

  # Training needs not wait for what a client receives, which is measured only: one call does for both.
  @tff.tensorflow.computation(training.result_type, client_type, past_of.type_signature.result, agreed_type)
  def communicate(result, memory, past, agreed):
    memory, received, missed = functions.receive(past, agreed, memory)
    update = functions.filled(tf.nest.flatten(result.update))
    weight = tf.cast(result.update_weight, tf.float32)
    message, seen, words = functions.upload(update, weight, memory, agreed)
    sent = message, weight, number_of(memory), agreed['round'], agreed['kept'], missed, words
    return sent, received, remembered.save(collections.OrderedDict(memory, seen=seen), {})

  @tff.tensorflow.computation
  def zero():
    return functions.zero()

  sum_type = zero.type_signature.result

  @tff.tensorflow.computation(sum_type, communicate.type_signature.result[0])
  def accumulate(total, value):
    message, *rest = value
    return functions.accumulate(total, message, *rest)

  @tff.tensorflow.computation(sum_type, sum_type)
  def merge(a, b):
    return functions.merge(a, b)

  @tff.tensorflow.computation(sum_type)
  def report(total):
    return total

  @tff.tensorflow.computation(uplink_type, downlink_type, types.weights_type, sum_type)
  def finish(uplink, downlink, weights, total):
    uplink, downlink, model, measured = functions.finish(uplink, downlink, vector(weights), total)
    return uplink, downlink, with_trainable(weights, model), measured

  @tff.federated_computation(state_type, training.data_type, tff.FederatedType(client_type, tff.CLIENTS))
  def next_fn(state, client_data, memories):
    weights, downlink = state.global_model_weights, state.distributor
    past = tff.federated_broadcast(tff.federated_map(past_of, downlink))
    agreed = tff.federated_broadcast(tff.federated_map(agree, downlink))
    work = training.client_work.next(state.client_work, tff.federated_broadcast(weights), client_data)
    sent, sizes, following = tff.federated_map(communicate, (work.result, memories, past, agreed))
    total = tff.federated_aggregate(sent, zero(), accumulate, merge, report)
    uplink, downlink, weights, uploaded = tff.federated_map(finish, (state.aggregator, downlink, weights, total))
    server = tff.federated_zip(state_class(weights, downlink, work.state, uplink, state.finalizer))
    metrics = tff.federated_zip(collections.OrderedDict(
        distributor=measure(types.spec)(sizes), client_work=work.measurements, aggregator=uploaded,
        finalizer=tff.federated_value((), tff.SERVER)))
    return server, metrics, following

  @tff.tensorflow.computation(state_type.member)
  def get_model_weights(state):
    return state.global_model_weights

  @tff.tensorflow.computation(state_type.member, types.weights_type)
  def set_model_weights(state, weights):
    # Before the first round nobody holds anything yet.
    version = tf.where(state.aggregator['round'] > 0, state.distributor['copy']['round'] + 1, 0)
    model, downlink = functions.begin(vector(weights), version)
    return state_class(with_trainable(weights, model), downlink, state.client_work, state.aggregator, state.finalizer)

  return ClientStateProcess(
      init, next_fn, client_state_type=client_type, fingerprint=fingerprint, get_model_weights=get_model_weights,
      set_model_weights=set_model_weights, needs=options.needs, on_files=on_files)
