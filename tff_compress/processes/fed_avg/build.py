"""Federated averaging whose clients remember: error feedback, changes of the model, uploads that are skipped."""

import collections
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import tensorflow_federated as tff

from tff_compress.codec.codec import Codec
from tff_compress.codec.spec import SpecSource
from tff_compress.distributors import downlink as downlink_lib
from tff_compress.processes import assembly
from tff_compress.processes import protocols
from tff_compress.processes.down import downlinks
from tff_compress.processes.down.changes import change_messages
from tff_compress.processes.down.changes import Changes
from tff_compress.processes.fed_avg.confined_work import confined_work
from tff_compress.processes.fed_avg.options import Options
from tff_compress.processes.fed_avg.uplink import Uplink
from tff_compress.processes.fed_avg.uplink import UplinkFunctions
from tff_compress.processes.process import ClientStateProcess
from tff_compress.processes.state.slots import Values


def build_fed_avg(model_fn: Callable[[], tff.learning.models.VariableModel], *,
                  uplink: Codec | str | Mapping[int, Codec | str] = 'float32',
                  downlink: Changes | Codec | str | None = None,
                  error_feedback: protocols.ClientMemory | bool | None = None,
                  relevance: protocols.UploadRule | None = None,
                  structured: protocols.Confinement | None = None, server: protocols.ServerMemory | None = None,
                  client_optimizer_fn: tff.learning.optimizers.Optimizer | None = None,
                  server_optimizer_fn: tff.learning.optimizers.Optimizer | None = None,
                  client_weighting: tff.learning.ClientWeighting = tff.learning.ClientWeighting.NUM_EXAMPLES,
                  metrics_aggregator: Callable[..., Any] | None = None, seed: int | None = None,
                  spec: SpecSource | None = None, needs: Sequence[Any] = ()) -> ClientStateProcess:
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
  options = Options(
      model_fn=model_fn, uplink=uplink, downlink=downlink, error_feedback=error_feedback, relevance=relevance,
      structured=structured, server=server, client_optimizer_fn=client_optimizer_fn,
      server_optimizer_fn=server_optimizer_fn, client_weighting=client_weighting,
      metrics_aggregator=metrics_aggregator, seed=seed, spec=spec, needs=needs)
  steps = options.steps
  types = assembly.ModelTypes(model_fn, spec, 'clients that remember')
  functions = UplinkFunctions(options, types)
  downlink_for = _downlink_for(options, functions, types)
  training = assembly.LocalTraining(options, types)
  slots = collections.OrderedDict((slot, types.update_vectors.types) for slot in options.slots)
  if options.keeps_model:
    slots['model'] = types.vectors.types
  if options.keeps_start:
    slots['start'] = types.vectors.types
  fingerprint = assembly.fingerprint(
      steps, options.feedback, relevance, structured, options.changes, types.spec,
      Values(assembly.FIELDS, slots).type)

  def build(remembered, on_files=None):
    return _process(options, types, functions, downlink_for(remembered), training, remembered, fingerprint, on_files)

  return assembly.on_values_and_files(build, assembly.FIELDS, slots)


def _downlink_for(options, functions, types):
  """Function of the clients' states, `Values` or `Files`, that makes the downlink, as in `down.downlinks`."""
  if options.changes:
    changes = change_messages(options.changes, types.spec, options.seed)
    return lambda remembered: downlinks.ChangesOfModel(changes, types, remembered)
  if options.sends_parts:
    return lambda remembered: downlinks.PartOfModel(functions.confined.download, types, remembered.type)
  distributor = downlink_lib(options.down, types.weights_type, seed=options.seed, spec=types.names)
  return lambda remembered: downlinks.WholeModel(distributor)


def _process(options, types, functions, downlink, training, remembered, fingerprint, on_files):
  """The `ClientStateProcess`: uplink and downlink around TFF's client work and finalizer.

  Args:
    options: `Options`.
    types: `ModelTypes`.
    functions: `UplinkFunctions`.
    downlink: as in `down.downlinks`.
    training: `LocalTraining`.
    remembered: `Values` or `Files`.
    fingerprint, on_files: as for `ClientStateProcess`.
  """
  uplink = Uplink(functions, options, types, remembered, training.result_type, downlink.held_type)
  init = assembly.initialize(types, downlink, training, uplink.initial)
  state_type = init.type_signature.result
  if functions.confined:
    work_with = confined_work(options, functions.confined, training, remembered.type)
  else:
    work_with = lambda state, weights, data, memories, round_number: training.client_work.next(state, weights, data)

  @tff.federated_computation(state_type, training.data_type, tff.FederatedType(remembered.type, tff.CLIENTS))
  def next_fn(state, client_data, memories):
    weights, round_number = state.global_model_weights, uplink.round_of(state.aggregator)
    got = downlink.next(state.distributor, weights, memories, round_number)
    published, downloaded = uplink.publish(state.aggregator), got.measurements
    if functions.publishes:
      downloaded = downlinks.with_published(downloaded, published, types.spec)
    work = work_with(state.client_work, got.weights, client_data, got.memories, round_number)
    messages, following = uplink.send(work.result, got, published, round_number)
    mean, uploaded, aggregator = uplink.finish(state.aggregator, messages)
    final = training.finalizer.next(state.finalizer, downlink.target(state.distributor, weights), mean)
    distributor, model = downlink.advance(got.state, weights, final.result, round_number)
    server = tff.federated_zip(tff.learning.templates.LearningAlgorithmState(
        model, distributor, work.state, aggregator, final.state))
    metrics = tff.federated_zip(collections.OrderedDict(
        distributor=downloaded, client_work=work.measurements, aggregator=uploaded, finalizer=final.measurements))
    return server, metrics, following

  get_model_weights, set_model_weights = assembly.access_to_weights(state_type.member, downlink)
  return ClientStateProcess(
      init, next_fn, client_state_type=remembered.type, fingerprint=fingerprint, get_model_weights=get_model_weights,
      set_model_weights=set_model_weights, needs=options.needs, on_files=on_files)
