"""Rounds of federated training of a Keras model: what `federate` and simulations have in common."""

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import os
import time
from typing import Any

import grpc
import numpy as np
import tensorflow_federated as tff

from tff_compress import runtime
from tff_compress.aggregators import communication
from tff_compress.keras.blueprint import Blueprint
from tff_compress.keras.clients import Clients
from tff_compress.keras.errors import FederateError
from tff_compress.keras.errors import first_line
from tff_compress.processes import prepass as prepass_lib
from tff_compress.processes.figures import CLIENT_STATES
from tff_compress.processes.methods import Method


class Diverged(FederateError):
  """Training produced NaN or infinite values."""


class _StatelessRunner:
  """Runs a learning process whose clients remember nothing, as `tff_compress.processes.Runner` runs one whose clients
  do."""

  def __init__(self, process):
    self.process, self.state = process, process.initialize()

  def next(self, client_ids, datasets, check):
    del client_ids
    output = self.process.next(self.state, datasets)
    check(output.state, output.metrics)
    self.state = output.state
    return output.metrics


class Trainer:
  """A learning process, its state, and the clients it runs on.

  Args:
    blueprint: `Blueprint` of the model; training starts from the model's weights.
    clients: `Clients`.
    clients_per_round: how many are drawn for a round; None for all.
    process: learning process made by `learning.build`, or a `tff_compress.processes.Runner`.
    method: the uplink's `tff_compress.processes.methods.Method`, which says what it measures and whether there is a
      pre-pass; None for an aggregation factory of TFF.

  Attributes:
    state: the server's state; may be replaced by one that was saved.
    round: number of rounds that are done.
    learned: what the pre-pass before the coming round cost, the fields of `tff_compress.processes.prepass`; None where
      there was none.
  """

  def __init__(self, blueprint: Blueprint, clients: Clients, clients_per_round: int | None, process: Any,
               method: Method | None = None):
    self._blueprint, self._clients, self._clients_per_round = blueprint, clients, clients_per_round
    self._prepass, self._figures = (method.prepass, method.figures) if method is not None else ('', ())
    self._learns_again = False
    self.learned: dict | None = None
    self._runner = _StatelessRunner(process) if isinstance(process, tff.learning.templates.LearningProcess) else process
    self.state = self._runner.process.set_model_weights(self._runner.state, blueprint.weights())
    self.round = 0

  def restore(self, state: Any, rounds: list[dict], learned: dict | None) -> None:
    """Goes on where an earlier training stopped.

    Args:
      state: the server's, which was saved behind the last of the rounds.
      rounds: what `next` returned of those that are done.
      learned: what the pre-pass before round 1 cost; None where there was none.
    """
    self.state, self.round = state, len(rounds)
    if rounds:
      self._learns_again = self._asks(rounds[-1])
    else:
      self.learned = learned

  @property
  def state(self) -> Any:
    return self._runner.state

  @state.setter
  def state(self, state):
    self._runner.state = state

  @property
  def weights(self) -> tff.learning.models.ModelWeights:
    """The server's weights: `tff.learning.models.ModelWeights` of lists of arrays."""
    return self.state.global_model_weights

  def learn(self, report: Callable[[dict, int], None]) -> bool:
    """Runs the pre-pass where one is due: for all clients before the first round, and later for those of the coming
    round where the last one said so.

    Args:
      report: called with (`learned` so far, number of clients that learn) after each group of clients.

    Returns:
      Whether one was due.

    Raises:
      FederateError: a client's data cannot be used, or it failed.
    """
    if not self._prepass or self.learned is not None or self.round and not self._learns_again:
      return False
    start = time.perf_counter()
    chosen = self._clients.draw(self.round, self._clients_per_round if self.round else None)
    size = len(chosen) if self._prepass == 'together' else self._clients_per_round or len(chosen)
    costs = prepass_lib.nothing()
    for first in range(0, len(chosen), size):
      group = chosen[first:first + size]
      datasets = self._clients.datasets(group, self.round, self._blueprint.input_spec)
      try:
        metrics = self._runner.prepass([self._clients.names[index] for index in group], datasets)
      except grpc.RpcError as error:
        raise FederateError(f'the pre-pass failed on a client: {first_line(error)}.') from error
      found: dict[str, Any] = communication({name: metrics[name] for name in ('distributor', 'aggregator')})
      costs['prepass_clients'] += len(group)
      for direction in ('uplink', 'downlink'):
        costs[f'prepass_{direction}_bytes'] += found[f'{direction}_bytes']
      costs['prepass_seconds'] = time.perf_counter() - start
      report(dict(costs), len(chosen))
    self.learned = costs
    return True

  def next(self) -> dict[str, Any]:
    """Trains one round.

    Returns:
      dict: `round` from 1; the loss and metrics of the local training, over all clients and steps; `clients` drawn and
      `failed_clients` among them, whose updates were not finite and were left out; `examples` trained on; and of each
      direction `…_bytes` over all clients, `…_bits_per_parameter` and `…_ratio` to float32, None where nothing was sent
      (uplink figures only where the uplink measures them); `client_states_bytes`, what is stored of clients that
      remember; what the method measures beyond that, its `figures`; `seconds`.

    Raises:
      Diverged: no client had a finite update, or the loss or the server's weights are not finite. The state is left as
        it was before the round.
      FederateError: a client's data cannot be used.
    """
    start = time.perf_counter()
    chosen = self._clients.draw(self.round, self._clients_per_round)
    datasets = self._clients.datasets(chosen, self.round, self._blueprint.input_spec)
    record: dict[str, Any] = {'round': self.round + 1}
    try:
      metrics = self._runner.next([self._clients.names[index] for index in chosen], datasets,
                                  lambda state, metrics: self._check(state, metrics, record, len(chosen)))
    except grpc.RpcError as error:  # The computation itself failed; a lost worker raises errors of the runtime.
      if 'of an update holds a NaN, an infinity' in str(error.details()):
        raise Diverged(
            f'training diverged in round {self.round + 1}: an update or its sum is too large to be encoded; lower '
            'the learning rate.') from None
      raise FederateError(f'round {self.round + 1} failed on a client: {first_line(error)}.') from error
    record.update(self._costs(metrics, len(chosen)))
    if 'client_states' in metrics:
      record[CLIENT_STATES.name] = CLIENT_STATES.read(metrics)
    record.update({figure.name: figure.read(metrics) for figure in self._figures if figure.place})
    if self._prepass:
      record.update(self.learned or prepass_lib.nothing())
      self._learns_again, self.learned = self._asks(record), None
    self.round += 1
    record['seconds'] = time.perf_counter() - start
    return record

  def _asks(self, record):
    """Whether a round asks for a pre-pass before the next one."""
    return any(record.get(figure.name) for figure in self._figures if figure.asks)

  def _check(self, state, metrics, record, clients):
    """Raises Diverged unless a round went well; fills the record."""
    train = metrics['client_work']['train']
    examples, trained = int(train['num_examples']), int(train['num_clients'])
    for name, value in self._blueprint.named(train).items():
      record.update(_numbers(name, value))
    if not trained:
      raise Diverged(f'training diverged in round {self.round + 1}: no client has a finite update; lower the learning '
                     'rate, and look for NaN in the data.')
    if not np.isfinite(record.get('loss', 0.0)):
      raise Diverged(
          f'training diverged in round {self.round + 1}: the loss is {record["loss"]}; lower the learning rate.')
    weights = state.global_model_weights
    if not all(np.isfinite(w).all() for w in list(weights.trainable) + list(weights.non_trainable)):
      raise Diverged(
          f"training diverged in round {self.round + 1}: the server's weights are not finite; lower the learning "
          'rate.')
    for figure in self._figures:
      if figure.stops and figure.read(metrics):
        raise Diverged(f'training diverged in round {self.round + 1}: {figure.stops}.')
    record.update(clients=clients, failed_clients=clients - trained, examples=examples)

  def _costs(self, metrics, clients):
    found: dict[str, Any] = communication({name: metrics[name] for name in ('distributor', 'aggregator')})
    values = sum(t.size for t in self._blueprint.weights_spec.tensors)
    costs = {}
    for direction in ('uplink', 'downlink'):
      total = found.get(f'{direction}_bytes')
      if total is None:
        continue
      if direction == 'uplink' and 'moving_statistics' in metrics:
        total += int(metrics['moving_statistics']['bytes'])
      costs[f'{direction}_bytes'] = total
      costs[f'{direction}_bits_per_parameter'] = 8 * total / (clients * values)
      # All clients may have kept their updates: then nothing is how many times smaller.
      costs[f'{direction}_ratio'] = 4 * values * clients / total if total else None
    return costs


@contextlib.contextmanager
def running() -> Iterator[runtime.Runtime]:
  """Runs the block in this project's TFF runtime: the one that is installed, or one that lasts as long as the block."""
  current = tff.framework.get_context_stack().current
  if isinstance(current, runtime.Runtime) and not current.closed:
    yield current
  else:
    with runtime.local_context(max_concurrent_computation_calls=len(os.sched_getaffinity(0))) as context:
      yield context


def _numbers(name, value):
  """{name: number} of a metric's result, which may be a dict."""
  if isinstance(value, dict):
    return {key: float(v) for key, v in value.items()}
  value = np.asarray(value)
  return {name: float(value) if value.ndim == 0 else value.tolist()}
