"""How a process with memory brings the model to the clients: all of it, what changed in it, or a part of it.

All take federated values and give such, to be called while `next` of a process is traced.
"""

import collections
import dataclasses

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_compress.aggregators import accounting
from tff_compress.processes.process import number_of


@dataclasses.dataclass(frozen=True)
class Received:
  """What a round's download comes to.

  Attributes:
    weights: the clients' models.
    memories: the clients' states, with small fields brought up to date.
    held: at clients, {slot: vectors} of what they are to keep besides.
    measurements: at the server, as `accounting.measurements` gives them.
    state: the downlink's, at the server.
  """
  weights: object
  memories: object
  held: object
  measurements: object
  state: object


class WholeModel:
  """The model, encoded as a whole, to everyone.

  Args:
    distributor: `tff.learning.templates.DistributionProcess`.

  Attributes:
    held_type: TFF type of `Received.held` of one client.
  """
  held_type = tff.to_type(collections.OrderedDict())

  def __init__(self, distributor):
    self._distributor = distributor

  def initialize(self, weights):
    """The first state, for a model at the server."""
    del weights
    return self._distributor.initialize()

  def next(self, state, weights, memories, round_number):
    """`Received` of a round; `round_number` is at the server, as state and weights are."""
    del round_number
    output = self._distributor.next(state, weights)
    return Received(output.result, memories, _nothing_held(), output.measurements, output.state)

  def target(self, state, weights):
    """The model that the server's optimizer moves."""
    del state
    return weights

  def advance(self, state, weights, target, round_number):
    """(state, model) after the server's optimizer moved the target."""
    del weights, round_number
    return state, target

  def restarted(self, state, weights):
    """The state after the model was replaced, inside a graph."""
    del weights
    return state


class PartOfModel(WholeModel):
  """To each client the part of the model that it trains.

  Args:
    download: as `protocols.ConfinedTraining` has it.
    types: `ModelTypes`.
    client_type: TFF type of a client's state.
  """

  def __init__(self, download, types, client_type):
    super().__init__(None)

    @tff.tensorflow.computation(client_type, types.weights_type, np.int32)
    def take(memory, weights, round_number):
      tensors, size = download(tf.nest.flatten(weights), round_number, number_of(memory))
      return tf.nest.pack_sequence_as(types.structure, tensors), size

    self._take, self._measure = take, measure(types.spec)

  def initialize(self, weights):
    del weights
    return tff.federated_value((), tff.SERVER)

  def next(self, state, weights, memories, round_number):
    received, sizes = tff.federated_map(
        self._take, (memories, tff.federated_broadcast(weights), tff.federated_broadcast(round_number)))
    return Received(received, memories, _nothing_held(), self._measure(sizes), state)


class ChangesOfModel:
  """What changed in the model since a client last took part, or since the start. Has the methods of `WholeModel`.

  Args:
    changes: `changes.SinceLast` or `changes.SinceStart`.
    types: `ModelTypes`.
    remembered: `Values` or `Files`.
  """

  def __init__(self, changes, types, remembered):
    flat, pack = tf.nest.flatten, lambda tensors: tf.nest.pack_sequence_as(types.structure, list(tensors))
    vectors, client_type = types.vectors, remembered.type
    # A copy of the model is kept as it was received; a start has to be held until then.
    held = ['start'] if changes.slot == 'start' else []
    self.held_type = tff.to_type(collections.OrderedDict((slot, vectors.types) for slot in held))

    @tff.tensorflow.computation(types.weights_type)
    def initial(weights):
      return changes.initial(flat(weights))

    state_type = initial.type_signature.result

    @tff.tensorflow.computation(state_type)
    def published(state):
      return state['history']

    @tff.tensorflow.computation(client_type, published.type_signature.result)
    def receive(memory, past):
      sent = changes.send(past, memory['version'])
      model, kept = changes.receive(sent, vectors.split(remembered.load(memory, changes.slot)))
      following = collections.OrderedDict(memory, version=past['version'])
      return (pack(model), following, collections.OrderedDict((slot, vectors.join(kept)) for slot in held),
              tf.size(sent, out_type=tf.int64))

    @tff.tensorflow.computation(state_type)
    def target(state):
      return pack(state['target'])

    @tff.tensorflow.computation(state_type, types.weights_type, types.weights_type, np.int32)
    def advance(state, weights, target, round_number):
      following, model = changes.advance(state, flat(weights), flat(target), round_number)
      return following, pack(model)

    self._changes, self._measure = changes, measure(types.spec)
    self._initial, self._published, self._receive = initial, published, receive
    self._target, self._advance = target, advance

  def initialize(self, weights):
    return tff.federated_map(self._initial, weights)

  def next(self, state, weights, memories, round_number):
    del weights, round_number
    past = tff.federated_broadcast(tff.federated_map(self._published, state))
    received, memories, held, sizes = tff.federated_map(self._receive, (memories, past))
    return Received(received, memories, held, self._measure(sizes), state)

  def target(self, state, weights):
    del weights
    return tff.federated_map(self._target, state)

  def advance(self, state, weights, target, round_number):
    return tff.federated_map(self._advance, (state, weights, target, round_number))

  def restarted(self, state, weights):
    return self._changes.restart(state, tf.nest.flatten(weights))


def with_published(measured, message, spec):
  """The measurements of a downlink with a message that all clients receive beside the model; all at the server."""
  return _with_more(measured, message, spec, lambda message, clients: tf.size(message, out_type=tf.int64) * clients)


def with_bytes(measured, size, spec):
  """The measurements of a downlink with other bytes, an int64 for all clients together; all at the server."""
  return _with_more(measured, size, spec, lambda size, clients: size)


def _with_more(measured, beside, spec, bytes_of):

  @tff.tensorflow.computation(measured.type_signature.member, beside.type_signature.member)
  def both(measured, beside):
    clients = measured['downlink_clients']
    return accounting.measurements('downlink', measured['downlink_bytes'] + bytes_of(beside, clients), clients, spec)

  return tff.federated_map(both, (measured, beside))


def _nothing_held():
  return tff.federated_value(collections.OrderedDict(), tff.CLIENTS)


def measure(spec):
  """Function of the clients' numbers of bytes that gives the measurements at the server."""

  @tff.tensorflow.computation(np.int64, np.int64)
  def measure(sent, clients):
    return accounting.measurements('downlink', sent, clients, spec)

  def measured(sizes):
    clients = tff.federated_sum(tff.federated_value(np.int64(1), tff.CLIENTS))
    return tff.federated_map(measure, (tff.federated_sum(sizes), clients))

  return measured
