"""Rounds of a process whose clients remember, without their states showing."""

import collections
from collections.abc import Callable
from collections.abc import Iterable
import hashlib
import os
from typing import Any

import grpc
import numpy as np
import tensorflow as tf

from tff_compress.codec import checks
from tff_compress.codec import files
from tff_compress.processes import needs
from tff_compress.processes.errors import ClientError
from tff_compress.processes.errors import ProcessError
from tff_compress.processes.errors import StateError
from tff_compress.processes.process import ClientStateProcess
from tff_compress.processes.process import MAX_CLIENT
from tff_compress.processes.state.store import ClientStore
from tff_compress.processes.state.store import Layout
from tff_compress.runtime import compat


class Runner:
  """Runs a `ClientStateProcess`, and keeps the states of its clients by their ids.

      runner = Runner(tff_compress.build_fed_avg(model_fn, uplink='topk:1/100 | float32', error_feedback=True))
      for ids in …:
        metrics = runner.next(ids, [data[i] for i in ids])

  Whatever goes wrong in a round, the server's state and those of the clients are as before, and the next round can run.

  Args:
    process: `ClientStateProcess`.
    folder, max_clients, max_bytes: as for `ClientStore`.

  Attributes:
    state: the server's state; may be replaced by one that was saved. A client whose state is newer is then refused.
    store: `ClientStore`.

  Raises:
    ProcessError: a limit cannot be used.
    StateError: the folder cannot be used.
  """

  def __init__(self, process: ClientStateProcess, *, folder: str | None = None, max_clients: int | None = None,
               max_bytes: int | None = None) -> None:
    self.process = process
    # Workers read and write what is large themselves.
    self._process, self._files = process.on_files
    specs = compat.tensor_specs(self._process.client_state_type)
    self._fields = collections.OrderedDict((name, np.dtype(spec.dtype.as_numpy_dtype)) for name, spec in specs.items()
                                           if spec.dtype != tf.string)
    layout = Layout(process.fingerprint, self._files.bytes, sum(dtype.itemsize for dtype in self._fields.values()))
    self.store = ClientStore(layout, folder, max_clients=max_clients, max_bytes=max_bytes)
    self.state = self._process.initialize()

  @property
  def round(self) -> int:
    """Number of rounds that are done."""
    return int(self.state.aggregator['round'])

  def next(self, client_ids: Iterable[str | int], datasets: Iterable[tf.data.Dataset],
           check: Callable[[Any, Any], None] | None = None) -> collections.OrderedDict[str, Any]:
    """Runs one round.

    Args:
      client_ids: whose turn it is: texts or whole numbers, each once. 3 and '3' are the same client.
      datasets: list of `tf.data.Dataset`, one for each.
      check: called with (server state, metrics) before anything is kept; what it raises leaves all as it was. None: no
        check.

    Returns:
      The round's metrics, an OrderedDict; `metrics['client_states']` has `clients` and `bytes` that are stored,
      `dropped`, the number of clients whose states were dropped so far, and `bytes_per_client` of one state.

    Raises:
      ClientError: the ids cannot be used.
      StateError: a client's state cannot be used, or the new one not be written.
    """
    return self._run(self._process.next, client_ids, datasets, check, rounds=1)

  def prepass(self, client_ids: Iterable[str | int], datasets: Iterable[tf.data.Dataset],
              check: Callable[[Any, Any], None] | None = None) -> collections.OrderedDict[str, Any]:
    """Lets clients learn their autoencoders, or learn them again, where the process is an `AutoencoderProcess`;
    arguments and results as of `next`.

    Raises:
      ProcessError: the process has no pre-pass.
    """
    if self._process.prepass is None:
      raise ProcessError('this process has no pre-pass: build it with build_autoencoder_fed_avg.')
    return self._run(self._process.prepass, client_ids, datasets, check, rounds=0)

  def _run(self, computation, client_ids, datasets, check, rounds):
    names = _names(client_ids)
    datasets = list(datasets)
    if len(datasets) != len(names):
      raise ClientError(f'there are {len(names)} client ids and {len(datasets)} datasets: give one for each.')
    numbers = _numbers(names)
    done = self.round
    if rounds and done:
      known = sum(name in self.store for name in names)
      needs.check(self.process.needs, needs.Facts(clients=len(self.store) + len(names) - known,
                                                  clients_per_round=known), 'this process', ClientError)
    memories = [self._memory(name, number, done) for name, number in zip(names, numbers)]
    if rounds:
      for name, memory in zip(names, memories):
        if not self._process.knows(self.state, memory):
          raise StateError(
              f'the server does not have the decoder of client {name!r}: run the pre-pass for it again, or '
              'load the state that the server had after the last one.')
    try:
      try:
        state, metrics, following = computation(self.state, datasets, memories)
      except grpc.RpcError as error:
        details = str(error.details())
        if '{{node WriteFile' not in details and '{{node ReadFile' not in details:
          raise
        done_to = 'read' if 'ReadFile' in details else 'written'
        raise StateError(f'the states of clients in {self.store.folder} cannot be {done_to}: '
                         f'{files.reason(details)}.') from error
      if check is not None:
        check(state, metrics)
      # Not by position: with several workers, results may come in another order.
      following = {int(memory['client']): memory for memory in following}
      if sorted(following) != sorted(numbers):
        raise ClientError('the round returned the states of other clients than took part.')
      self.store.commit(done + rounds, {name: self._packed(following[number]) for name, number in zip(names, numbers)})
    finally:
      self.store.discard()
    self.state = state
    return collections.OrderedDict(metrics, client_states=self.measurements())

  def measurements(self) -> collections.OrderedDict[str, int]:
    """What is stored: `clients`, `bytes`, `dropped` and `bytes_per_client`."""
    return collections.OrderedDict(clients=len(self.store), bytes=self.store.bytes, dropped=self.store.dropped,
                                   bytes_per_client=self.process.client_state_bytes)

  def client_state(self, client_id: str | int) -> collections.OrderedDict[str, Any]:
    """What is stored of a client: an OrderedDict as the process has it.

    Raises:
      ClientError: nothing is.
      StateError: it cannot be read.
    """
    name, = _names([client_id])
    record = self.store.get(name)
    if record is None:
      raise ClientError(f'nothing is stored of client {client_id!r}.')
    with open(record.path, 'rb') as file:
      slots = self._files.read(file.read(self._files.bytes))
    return collections.OrderedDict(**self._unpacked(record.fields), **slots)

  def forget(self, client_id: str | int) -> None:
    """Lets a client start anew, whatever is stored of it. Raises ClientError if nothing is."""
    name, = _names([client_id])
    if name not in self.store:
      raise ClientError(f'nothing is stored of client {client_id!r}.')
    self.store.forget(name)

  def _memory(self, name, number, done):
    """What a client's state is for the next round."""
    memory = self._process.initialize_client(number)
    record = self.store.get(name)
    if record is not None:
      if record.round > done:
        raise StateError(f'the state of client {name!r} is of round {record.round}, and the server is at round {done}: '
                         "load the server's state of that round, or forget the client.")
      memory.update(self._unpacked(record.fields), client=np.int64(number))
    paths = {'target': os.fsencode(self.store.target(name))}
    if record is not None:
      paths['source'] = os.fsencode(record.path)
    return collections.OrderedDict(memory, **(paths if self._files.bytes else {}))

  def _packed(self, memory):
    return b''.join(np.asarray(memory[name], dtype.newbyteorder('<')).tobytes() for name, dtype in self._fields.items())

  def _unpacked(self, fields):
    found, start = collections.OrderedDict(), 0
    for name, dtype in self._fields.items():
      found[name] = np.frombuffer(fields, dtype.newbyteorder('<'), 1, start)[0].astype(dtype)
      start += dtype.itemsize
    return found


def _names(client_ids):
  names = []
  for client in client_ids:
    if not isinstance(client, str) and not checks.is_whole_number(client):
      raise ClientError(f'a client id is a text or a whole number, not {checks.shown(client)}.')
    names.append(client if isinstance(client, str) else str(int(client)))
  if not names:
    raise ClientError('a round needs at least one client.')
  for name, count in collections.Counter(names).items():
    if count > 1:
      raise ClientError(f'client {name!r} is {count} times in one round: give it one dataset with all its data.')
  return names


def _numbers(names):
  """The number that each client has for this round: of its id alone, but for the rare case that two have the same."""
  numbers = {}
  for name in names:
    number = int.from_bytes(hashlib.sha256(name.encode('utf-8', 'surrogatepass')).digest()[-4:], 'little')
    while number > MAX_CLIENT or number in numbers:
      number = (number + 1) % (MAX_CLIENT + 1)
    numbers[number] = name
  return list(numbers)
