"""Federated averaging with autoencoders that clients learn before the first round.

Source: Chandar et al. 2021, "Communication optimization in large scale federated learning using autoencoder compressed
weight updates", section 3.
"""

import collections
import functools
import hashlib

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_compress import codec as codec_lib
from tff_compress.aggregators import accounting
from tff_compress.aggregators.codec_sum import checked_seed
from tff_compress.autoencoders import architectures
from tff_compress.autoencoders import learning
from tff_compress.codec import network
from tff_compress.codec.transforms.autoencoder import Autoencoder
from tff_compress.distributors import downlink as downlink_lib
from tff_compress.processes import memory as memory_lib
from tff_compress.processes.downlinks import WholeModel
from tff_compress.processes.errors import ProcessError
from tff_compress.processes.process import ClientStateProcess
from tff_compress.processes.process import ModelTypes
from tff_compress.processes.process import number_of
from tff_compress.runtime import compat
from tff_compress.tensorflow import MessageFunctions
from tff_compress.tensorflow.ops import TensorFlowOps
from tff_compress.wire import FRAME_OVERHEAD

TARGETS = ('delta', 'weights')
ARCHITECTURES = {'linear': architectures.linear, 'dense': architectures.dense,
                 'convolutional': architectures.convolutional}
UPLINK = 'concat | autoencoder:32,length=1024 | uniform:bits=8 | rans'
_FALLBACK, _LEARNED = 0, 1
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


def build_autoencoder_fed_avg(model_fn, *, uplink=UPLINK, architecture='linear',
                              target='delta', snapshots=8, learning_epochs=30, learning_rate=1e-3, fallback='drive',
                              tolerance=0.3, downlink='float32', client_optimizer_fn=None, server_optimizer_fn=None,
                              client_weighting=tff.learning.ClientWeighting.NUM_EXAMPLES, metrics_aggregator=None,
                              seed=None, spec=None):
  """Builds federated averaging in which every client encodes with an autoencoder of its own.

  In the pre-pass each client trains alone from the server's model, `snapshots` times over its data, keeps its weights
  after each, learns an autoencoder from them, and sends the decoder. In the rounds it sends latent values, which the
  server decodes with the decoder of that client. A client that has none, or that finds what would be decoded too far
  from what it is, sends its update with the fallback; one byte says which it is.

  Args:
    model_fn: function that makes a `tff.learning.models.VariableModel`.
    uplink: 'concat | autoencoder:LATENT,length=L | …' with the stages that encode the latent values. length=0 is one
      piece of all values.
    architecture: 'linear', 'dense' or 'convolutional', see `tff_compress.autoencoders`.
    target: 'delta': what training changed is encoded; 'weights', as published: the trained weights are.
    snapshots: how often a client goes over its data in the pre-pass; at least 2.
    learning_epochs, learning_rate: of the autoencoder's own training; not used for 'linear'.
    fallback: codec of updates.
    tolerance: largest ||decoded - x|| / ||x|| that is sent, x being the target.
    downlink: codec of the model.
    client_optimizer_fn, server_optimizer_fn, client_weighting, metrics_aggregator, seed, spec: as for `build_fed_avg`.

  Returns:
    `AutoencoderProcess`. `metrics['aggregator']` has the bytes of the uplink and `uplink_fallbacks`, the number of
    clients that sent with the fallback; those of the pre-pass are the bytes of the decoders.

  Raises:
    ProcessError: an argument cannot be used.
    CodecError: a codec is not valid, or not for this model.
  """
  parts = _Parts(model_fn, uplink, architecture, target, snapshots, learning_epochs, learning_rate, fallback, tolerance,
                 checked_seed(seed), spec)
  optimizer = client_optimizer_fn or tff.learning.optimizers.build_sgdm(0.1)
  client_work = tff.learning.templates.build_model_delta_client_work(
      model_fn, optimizer, client_weighting, metrics_aggregator, loop_implementation=_LOOP)
  finalizer = tff.learning.templates.build_apply_optimizer_finalizer(
      server_optimizer_fn or tff.learning.optimizers.build_sgdm(1.0), parts.weights_type)
  down = WholeModel(downlink_lib(downlink, parts.weights_type, seed=checked_seed(seed), spec=spec))
  compose = functools.partial(_compose, parts, client_work, finalizer, down, model_fn, optimizer, client_weighting,
                              metrics_aggregator)

  def on_files():
    files = parts.memory(memory_lib.Files)
    return compose(files), files

  return compose(parts.memory(memory_lib.Values), on_files=on_files)


class _Parts(ModelTypes):
  """What the process is put together from: types, specs and functions of tensors."""

  def __init__(self, model_fn, uplink, architecture, target, snapshots, epochs, rate, fallback, tolerance, seed, names):
    if target not in TARGETS:
      raise ProcessError(f'target must be {" or ".join(TARGETS)}, not {target!r}.')
    if architecture not in ARCHITECTURES:
      raise ProcessError(f'architecture must be {", ".join(ARCHITECTURES)}, not {architecture!r}.')
    for name, value, least in (('snapshots', snapshots, 2), ('learning_epochs', epochs, 1)):
      if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ProcessError(f'{name} must be a whole number of at least {least}, not {value!r}.')
    if isinstance(tolerance, bool) or not isinstance(tolerance, (int, float)) or not tolerance >= 0:
      raise ProcessError(f'tolerance must be a number of at least 0, not {tolerance!r}.')
    self.target, self.snapshots, self._epochs, self.tolerance = target, snapshots, epochs, float(tolerance)

    super().__init__(model_fn, names, 'autoencoders')
    self.size = self.update_spec.parameters
    stage, rest = _stages(codec_lib(uplink))
    length = stage.length or self.size
    if length > architectures.MAX_WHOLE:
      raise ProcessError(f'an autoencoder for pieces of {length} values has about {2 * length * stage.latent:,} '
                         'parameters: use one for '
                         f'shorter pieces, such as autoencoder:{stage.latent},length={architectures.LENGTH}.')
    self.architecture = ARCHITECTURES[architecture](length, stage.latent)
    sizes = tuple(tensor.size for tensor in self.update_spec.tensors)
    self._learner = learning.Learner(self.architecture, snapshots, self.size, sizes, rate, seed & 0x7FFFFFFF)
    self._sizes = sizes
    latents = -(-self.size // length) * stage.latent
    self.latents = MessageFunctions(rest, _spec([('latent', (latents,), 'float32')]), seed)
    self.fallback = MessageFunctions(fallback, self.update_spec, seed)
    self._encoder_shapes = _shapes(self.architecture.encoder, 'encoder')
    self._decoder_shapes = _shapes(self.architecture.decoder, 'decoder') + [
        ('means', (len(sizes),), 'float32'), ('deviations', (len(sizes),), 'float32')]
    self.decoders = MessageFunctions('float32', _spec(self._decoder_shapes), seed)
    self.decoder_bytes = FRAME_OVERHEAD + self.decoders.plan.payload_size
    described = [str(codec_lib(uplink)), architecture, target, str(codec_lib(fallback)), self.spec]
    self.fingerprint = hashlib.sha256('\n'.join(map(str, described)).encode('utf-8')).digest()[:16]

  def memory(self, kind):
    """`memory.Values` or `memory.Files` of this process."""
    fields = collections.OrderedDict(client=tff.TensorType(np.int64), seen=tff.TensorType(np.int32),
                                     version=tff.TensorType(np.int32), learned=tff.TensorType(np.int64),
                                     decoder=tff.TensorType(np.int32))
    size = sum(int(np.prod(shape)) for _, shape, _ in self._encoder_shapes + self._decoder_shapes)
    return kind(fields, collections.OrderedDict(autoencoder=[tff.TensorType(np.float32, [size])]))

  # -- in graphs

  def flat(self, tensors):
    """Tensors of the trainable variables -> float32[d]."""
    return tf.concat([tf.reshape(x, [-1]) for x in tensors], 0)

  def split(self, vector):
    """Inverse of `flat`."""
    return [tf.reshape(x, t.shape) for x, t in zip(tf.split(vector, self._sizes), self.update_spec.tensors)]

  def learn(self, snapshots):
    """float32[n, d] -> (vector for the client's memory, decoder's frame as a function of round and client)."""
    learned = self._learner.learn(snapshots, self._epochs)
    arrays = _arrays(learned.encoder), _arrays(learned.decoder) + [learned.means, learned.deviations]
    vector = tf.concat([tf.reshape(tf.cast(x, tf.float32), [-1]) for x in arrays[0] + arrays[1]], 0)
    sent = [tf.cast(x, dtype) for x, (_, _, dtype) in zip(arrays[1], self._decoder_shapes)]
    return vector, functools.partial(self.decoders.encode, sent)

  def network_of(self, vector):
    """The client's `network.Autoencoder`."""
    shapes = self._encoder_shapes + self._decoder_shapes
    arrays = [tf.reshape(x, shape) for x, (_, shape, _) in
              zip(tf.split(vector, [int(np.prod(shape)) for _, shape, _ in shapes]), shapes)]
    return self._network(arrays[:len(self._encoder_shapes)], arrays[len(self._encoder_shapes):])

  def decoder_of(self, frame):
    """The `network.Autoencoder` of a decoder's frame; its encoder is of zeros."""
    arrays = [tf.cast(x, tf.float32) for x in self.decoders.decode(frame)]
    return self._network([np.zeros(shape, np.float32) for _, shape, _ in self._encoder_shapes], arrays)

  def _network(self, encoder, decoder):
    layers = lambda shapes, arrays: tuple(
        network.Layer(*arrays[3 * i:3 * i + 3], shape.positions, shape.activation) for i, shape in enumerate(shapes))
    return network.Autoencoder(self.architecture.length, layers(self.architecture.encoder, encoder),
                               layers(self.architecture.decoder, decoder), self._sizes, *decoder[-2:])

  def upload(self, update, received, vector, memory, round_number):
    """A client's message.

    Args:
      update: list of tensors, weights before training less those after.
      received: trainable weights before training.
      vector: what the client remembers of its autoencoder.
      memory: the small fields of its state.
      round_number: int32 scalar.

    Returns:
      uint8[n]: 1, the CRC-32 of the decoder's frame (4 bytes), and the frame of the latent values; or 0 and the
      fallback's frame.
    """
    xp = TensorFlowOps()
    x = self.flat(received) - self.flat(update) if self.target == 'weights' else -self.flat(update)
    net, number = self.network_of(vector), number_of(memory)
    # The server has the decoder under the number that the client had when it learned.
    usable = tf.reduce_all(tf.math.is_finite(x)) & tf.equal(memory['learned'], memory['client'] + 1)

    def with_autoencoder():
      frame = self.latents.encode([net.encode(xp, x, self.size)], round_number, number)
      decoded = net.decode(xp, self.latents.decode(frame)[0], self.size)
      return frame, tf.norm(decoded - x) <= self.tolerance * tf.norm(x)

    frame, fits = tf.cond(usable, with_autoencoder, lambda: (tf.zeros([0], tf.uint8), False))
    flag = lambda value: tf.constant([value], tf.uint8)
    return tf.cond(fits, lambda: tf.concat([flag(_LEARNED), tf.bitcast(memory['decoder'], tf.uint8), frame], 0),
                   lambda: tf.concat([flag(_FALLBACK), self.fallback.encode(update, round_number, number)], 0))

  def decode(self, message, decoder, weights):
    """The update (before less after) in a client's message, list of tensors; `decoder` is its decoder's frame."""
    xp = TensorFlowOps()

    def learned():
      same = tf.reduce_all(tf.equal(message[1:5], decoder[-4:]))
      problem = 'a client encoded with an autoencoder of which the server has no decoder: run the pre-pass for it again.'
      with tf.control_dependencies([tf.debugging.Assert(same, [problem])]):
        latents = tf.identity(message[5:])
      decoded = self.decoder_of(decoder).decode(xp, self.latents.decode(latents)[0], self.size)
      return self.split(self.flat(weights) - decoded if self.target == 'weights' else -decoded)

    return tf.cond(tf.equal(message[0], _LEARNED), learned, lambda: self.fallback.decode(message[1:]))


def _stages(codec):
  """(autoencoder, codec of its latent values) of an uplink."""
  rule = codec.rules[0]
  first, rest = rule.pipeline.stages[0], rule.pipeline.stages[1:]
  if len(codec.rules) > 1 or not rule.pipeline.joined or not isinstance(first, Autoencoder) or not rest:
    raise ProcessError("the uplink must be like 'concat | autoencoder:32,length=1024 | uniform:bits=8 | rans'.")
  if first.weights or first.order != 'rows':
    raise ProcessError('the autoencoder of the uplink is learned in the pre-pass: leave weights and order out.')
  return first, ' | '.join(map(str, rest))


def _shapes(layers, name):
  """[(name, shape, dtype)] of the arrays of layers."""
  found = []
  for i, layer in enumerate(layers):
    found += [(f'{name}/{i}/weights', (layer.inputs, layer.outputs), 'int8'),
              (f'{name}/{i}/scale', (layer.outputs,), 'float32'),
              (f'{name}/{i}/bias', (layer.outputs,), 'float32')]
  return found


def _arrays(layers):
  return [x for layer in layers for x in (layer.weights, layer.scale, layer.bias)]


def _spec(shapes):
  return codec_lib.Spec(tuple(codec_lib.TensorSpec(*entry) for entry in shapes))


def _compose(parts, client_work, finalizer, down, model_fn, optimizer, weighting, metrics_aggregator, remembered,
             on_files=None):
  """The process around TFF's client work and finalizer; `remembered` is a `memory.Values` or `memory.Files`."""
  flat = tf.nest.flatten
  _, weights_type, data_type = client_work.next.type_signature.parameter
  result_type = client_work.next.type_signature.result.result.member
  client_type, bytes_type = remembered.type, tff.TensorType(np.uint8, [None])
  count = len(parts.update_spec.tensors)
  with tf.Graph().as_default():
    finalizers = model_fn().metric_finalizers()
  aggregate_metrics = (metrics_aggregator or tff.learning.metrics.sum_then_finalize)(finalizers)

  @tff.tensorflow.computation
  def initial():
    return collections.OrderedDict(round=tf.constant(0, tf.int32), clients=_nothing(tf.int64, [None]),
                                   decoders=_nothing(tf.uint8, [None, parts.decoder_bytes]))

  uplink_type = initial.type_signature.result

  @tff.tensorflow.computation(uplink_type)
  def round_of(state):
    return state['round']

  # What clients send, one behind the other: each must be decoded in its own way.
  @tff.tensorflow.computation
  def zero():
    return collections.OrderedDict(messages=_nothing(tf.uint8, [None]), lengths=_nothing(tf.int32, [None]),
                                   clients=_nothing(tf.int64, [None]), weights=_nothing(tf.float32, [None]))

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

  @tff.tensorflow.computation(weights_type.member, data_type.member, client_type, np.int32)
  def learn(weights, data, memory, round_number):
    train, seen = compat.client_update(model_fn, weighting, _LOOP), [parts.flat(flat(weights.trainable))]
    for _ in range(parts.snapshots):
      result, outputs = train(optimizer, weights, data)
      weights = tff.learning.models.ModelWeights(
          tf.nest.map_structure(tf.subtract, weights.trainable, result.update), weights.non_trainable)
      seen.append(parts.flat(flat(weights.trainable)))
    taken = seen[1:] if parts.target == 'weights' else [b - a for a, b in zip(seen, seen[1:])]
    snapshots = tf.stack(taken)
    usable = tf.reduce_all(tf.math.is_finite(snapshots)) & (tf.cast(result.update_weight, tf.float32) > 0)

    def learned():
      vector, encode = parts.learn(snapshots)
      frame = encode(round_number, number_of(memory))
      return vector, frame, memory['client'] + 1, tf.bitcast(frame[-4:], tf.int32)

    def unchanged():
      return remembered.load(memory, 'autoencoder')[0], tf.zeros([0], tf.uint8), memory['learned'], memory['decoder']

    vector, frame, has, checksum = tf.cond(usable, learned, unchanged)
    fields = collections.OrderedDict(memory, learned=has, decoder=checksum)
    following = remembered.save(fields, {'autoencoder': [vector]})
    return frame, memory['client'], tf.ones([]), outputs, following

  @tff.tensorflow.computation(uplink_type, sum_type)
  def keep(state, added):
    arrived = added['lengths'] > 0
    rows = tf.reshape(added['messages'], [-1, parts.decoder_bytes])
    new = tf.boolean_mask(added['clients'], arrived)
    stay = tf.logical_not(tf.reduce_any(tf.equal(state['clients'][:, None], new[None]), 1))
    measured = _measured(parts, added, tf.zeros([], tf.int64))
    return collections.OrderedDict(
        round=state['round'], clients=tf.concat([tf.boolean_mask(state['clients'], stay), new], 0),
        decoders=tf.concat([tf.boolean_mask(state['decoders'], stay), rows], 0)), measured

  # -- a round

  @tff.tensorflow.computation(result_type, client_type, weights_type.member, np.int32)
  def encode(result, memory, received, round_number):
    weight = tf.cast(result.update_weight, tf.float32)
    vector, = remembered.load(memory, 'autoencoder')
    upload = lambda: parts.upload(flat(result.update), flat(received)[:count], vector, memory, round_number)
    message = tf.cond(weight > 0, upload, lambda: tf.zeros([0], tf.uint8))
    seen = tf.where(weight > 0, round_number, memory['seen'])
    return message, memory['client'], weight, remembered.save(collections.OrderedDict(memory, seen=seen), {})

  @tff.tensorflow.computation(uplink_type, sum_type, parts.weights_type)
  def finish(state, added, weights):
    ends = tf.cumsum(added['lengths'])
    zeros = [tf.zeros(tensor.shape) for tensor in parts.update_spec.tensors]

    def step(i, total, sums, fallbacks):
      message = added['messages'][ends[i] - added['lengths'][i]:ends[i]]
      row = tf.argmax(tf.cast(tf.equal(state['clients'], added['clients'][i]), tf.int32))
      decoder = tf.cond(tf.size(state['clients']) > 0, lambda: state['decoders'][row],
                        lambda: tf.zeros([parts.decoder_bytes], tf.uint8))

      def add():
        update = parts.decode(message, decoder, flat(weights)[:count])
        return (total + added['weights'][i], [s + added['weights'][i] * u for s, u in zip(sums, update)],
                fallbacks + tf.cast(tf.equal(message[0], _FALLBACK), tf.int64))

      total, sums, fallbacks = tf.cond(tf.size(message) > 0, add, lambda: (total, list(sums), fallbacks))
      return i + 1, total, sums, fallbacks

    _, total, sums, fallbacks = tf.while_loop(lambda i, *_: i < tf.size(ends), step,
                                              (tf.constant(0), tf.zeros([]), zeros, tf.zeros([], tf.int64)))
    mean = tf.nest.pack_sequence_as(parts.structure.trainable, [tf.math.divide_no_nan(s, total) for s in sums])
    return mean, _measured(parts, added, fallbacks), collections.OrderedDict(state, round=state['round'] + 1)

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
    sent = tff.federated_map(learn, (got.weights, client_data, memories, tff.federated_broadcast(round_number)))
    aggregator, measured = tff.federated_map(keep, (state.aggregator, collected(sent[0], sent[1], sent[2])))
    server = tff.federated_zip(state_class(state.global_model_weights, got.state, state.client_work, aggregator,
                                           state.finalizer))
    metrics = tff.federated_zip(collections.OrderedDict(
        distributor=got.measurements, aggregator=measured,
        client_work=tff.federated_zip(collections.OrderedDict(train=aggregate_metrics(sent[3])))))
    return server, metrics, sent[4]

  @tff.tensorflow.computation(state_type.member)
  def get_model_weights(state):
    return state.global_model_weights

  @tff.tensorflow.computation(state_type.member, parts.weights_type)
  def set_model_weights(state, weights):
    return state_class(weights, state.distributor, state.client_work, state.aggregator, state.finalizer)

  return AutoencoderProcess(
      init, next_fn, prepass=prepass, decoder_bytes=parts.decoder_bytes, client_state_type=client_type,
      fingerprint=parts.fingerprint, get_model_weights=get_model_weights, set_model_weights=set_model_weights,
      on_files=on_files)


def _measured(parts, added, fallbacks):
  """What the uplink of a round cost."""
  size, clients = tf.size(added['messages'], out_type=tf.int64), tf.size(added['lengths'], out_type=tf.int64)
  measured = accounting.measurements('uplink', size, clients, parts.update_spec)
  return collections.OrderedDict(measured, uplink_fallbacks=fallbacks)


def _nothing(dtype, shape):
  """An empty tensor whose first dimension is not part of its type."""
  return tf.raw_ops.PlaceholderWithDefault(input=tf.zeros([0, *shape[1:]], dtype), shape=shape)
