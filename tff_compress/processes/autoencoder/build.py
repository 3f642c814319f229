"""Federated averaging with autoencoders that clients learn before the first round.

Source: Chandar et al. 2021, "Communication optimization in large scale federated learning using autoencoder compressed
weight updates", section 3.
"""

import collections
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_federated as tff

from tff_compress import codec as codec_lib
from tff_compress.codec.codec import Codec
from tff_compress.codec.spec import SpecSource
from tff_compress.distributors import downlink as downlink_lib
from tff_compress.processes import assembly
from tff_compress.processes import protocols
from tff_compress.processes.autoencoder.options import Options
from tff_compress.processes.autoencoder.process import AutoencoderProcess
from tff_compress.processes.autoencoder.uplink import LEARNED
from tff_compress.processes.autoencoder.uplink import Uplink
from tff_compress.processes.autoencoder.uplink import UplinkFunctions
from tff_compress.processes.down.downlinks import WholeModel
from tff_compress.processes.down.downlinks import with_bytes

_BY_EXAMPLES = tff.learning.ClientWeighting.NUM_EXAMPLES


def build_autoencoder_fed_avg(model_fn: Callable[[], tff.learning.models.VariableModel], *,
                              uplink: Codec | str | None = None, architecture: str = 'linear', target: str = 'delta',
                              snapshots: int = 8, snapshot_steps: int | None = None, decoders: str | int = 'client',
                              learning_epochs: int = 30, learning_rate: float = 1e-3, fallback: Codec | str = 'drive',
                              tolerance: float | None = 0.3,
                              error_feedback: protocols.ClientMemory | bool | None = None,
                              downlink: Codec | str = 'float32',
                              client_optimizer_fn: tff.learning.optimizers.Optimizer | None = None,
                              server_optimizer_fn: tff.learning.optimizers.Optimizer | None = None,
                              client_weighting: tff.learning.ClientWeighting = _BY_EXAMPLES,
                              metrics_aggregator: Callable[..., Any] | None = None, seed: int | None = None,
                              spec: SpecSource | None = None, needs: Sequence[Any] = ()) -> AutoencoderProcess:
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
  options = Options(
      model_fn=model_fn, uplink=uplink, architecture=architecture, target=target, snapshots=snapshots,
      snapshot_steps=snapshot_steps, decoders=decoders, learning_epochs=learning_epochs, learning_rate=learning_rate,
      fallback=fallback, tolerance=tolerance, error_feedback=error_feedback, downlink=downlink,
      client_optimizer_fn=client_optimizer_fn, server_optimizer_fn=server_optimizer_fn,
      client_weighting=client_weighting, metrics_aggregator=metrics_aggregator, seed=seed, spec=spec, needs=needs)
  types = assembly.ModelTypes(model_fn, spec, 'autoencoders')
  functions = UplinkFunctions(options, types)
  training = assembly.LocalTraining(options, types)
  down = WholeModel(downlink_lib(options.down, types.weights_type, seed=options.seed, spec=spec))
  fields = collections.OrderedDict(assembly.FIELDS, **LEARNED)
  slots = collections.OrderedDict(autoencoder=[tff.TensorType(np.float32, [functions.networks.size])])
  slots.update((slot, types.update_vectors.types) for slot in options.slots)
  fingerprint = assembly.fingerprint(functions.rule.codec, architecture, target, codec_lib(fallback), options.feedback,
                                     decoders, types.spec)

  def build(remembered, on_files=None):
    return _process(options, types, functions, down, training, remembered, fingerprint, on_files)

  return assembly.on_values_and_files(build, fields, slots)


def _process(options, types, functions, down, training, remembered, fingerprint, on_files):
  """The `AutoencoderProcess`: uplink and downlink around TFF's client work and finalizer.

  Args:
    options: `Options`.
    types: `ModelTypes`.
    functions: `UplinkFunctions`.
    down: `WholeModel`.
    training: `LocalTraining`.
    remembered: `Values` or `Files`.
    fingerprint, on_files: as for `ClientStateProcess`.
  """
  uplink = Uplink(functions, options, types, training, remembered)
  init = assembly.initialize(types, down, training, uplink.initial)
  state_type, state_class = init.type_signature.result, tff.learning.templates.LearningAlgorithmState
  clients_type = tff.FederatedType(remembered.type, tff.CLIENTS)

  @tff.federated_computation(state_type, training.data_type, clients_type)
  def next_fn(state, client_data, memories):
    weights, round_number = state.global_model_weights, uplink.round_of(state.aggregator)
    got = down.next(state.distributor, weights, memories, round_number)
    work = training.client_work.next(state.client_work, got.weights, client_data)
    messages, following = uplink.send(work.result, memories, got.weights, round_number)
    mean, uploaded, aggregator = uplink.finish(state.aggregator, messages, weights)
    final = training.finalizer.next(state.finalizer, weights, mean)
    server = tff.federated_zip(state_class(final.result, got.state, work.state, aggregator, final.state))
    metrics = tff.federated_zip(collections.OrderedDict(
        distributor=got.measurements, client_work=work.measurements, aggregator=uploaded,
        finalizer=final.measurements))
    return server, metrics, following

  @tff.federated_computation(state_type, training.data_type, clients_type)
  def prepass(state, client_data, memories):
    weights, round_number = state.global_model_weights, uplink.round_of(state.aggregator)
    got = down.next(state.distributor, weights, memories, round_number)
    messages, following, outputs = uplink.learn(state.aggregator, got.weights, client_data, memories, round_number)
    aggregator, uploaded, size = uplink.finish_prepass(state.aggregator, messages)
    downloaded = got.measurements
    if functions.decoders.shared:
      following = uplink.receive(aggregator, following)
      downloaded = with_bytes(downloaded, size, types.spec)
    server = tff.federated_zip(state_class(weights, got.state, state.client_work, aggregator, state.finalizer))
    metrics = tff.federated_zip(collections.OrderedDict(
        distributor=downloaded, aggregator=uploaded,
        client_work=tff.federated_zip(collections.OrderedDict(train=training.aggregate_metrics(outputs)))))
    return server, metrics, following

  get_model_weights, set_model_weights = assembly.access_to_weights(state_type.member, down)
  return AutoencoderProcess(
      init, next_fn, prepass=prepass, decoder_bytes=functions.decoders.decoder_bytes,
      client_state_type=remembered.type, fingerprint=fingerprint, get_model_weights=get_model_weights,
      set_model_weights=set_model_weights, needs=options.needs, on_files=on_files)
