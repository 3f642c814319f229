"""Client work that trains a part of the model."""

import collections

import numpy as np
import tensorflow_federated as tff

from tff_compress.processes.assembly import LOOP
from tff_compress.processes.process import number_of
from tff_compress.runtime import compat


def confined_work(options, confined, training, client_type):
  """The client work's `next` with an optimizer for each client: function of (state, weights, data, the clients' states,
  round number) that gives a `tff.templates.MeasuredProcessOutput`.

  Args:
    options: `Options`.
    confined: `ConfinedTraining`.
    training: `LocalTraining`.
    client_type: TFF type of a client's state.
  """
  _, weights_type, data_type = training.client_work.next.type_signature.parameter

  @tff.tensorflow.computation(weights_type.member, data_type.member, client_type, np.int32)
  def train(weights, data, memory, round_number):
    optimizer = confined.optimizer(training.optimizer, round_number, number_of(memory))
    return compat.client_update(options.model_fn, options.client_weighting, LOOP)(optimizer, weights, data)

  def work(state, weights, data, memories, round_number):
    result, outputs = tff.federated_map(train, (weights, data, memories, tff.federated_broadcast(round_number)))
    measurements = tff.federated_zip(collections.OrderedDict(train=training.aggregate_metrics(outputs)))
    return tff.templates.MeasuredProcessOutput(state, result, measurements)

  return work
