"""The store of clients' states at 1,000 clients: memory, space, and how long it takes to write and to read a state.

A state is one residual, as large as the model. States are written in rounds of 10 clients. The process that reads them
is another one, as after a restart: it checks the checksum of a file before it reads it for the first time. Memory is
how much larger a process is in the end than it was before it opened the store. Files may still be in the system's
cache.
"""

import pathlib
import tempfile
import time

import numpy as np

from benchmarks.lib import harness
from benchmarks.lib import memory
from benchmarks.lib import progress
from tff_compress.processes.state import store as store_lib

PARAMETERS, CLIENTS, ROUND = (130_414, 1_199_882), 1000, 10
FIELDS = 16


def run(quick):
  rows = []
  for parameters in PARAMETERS[:1] if quick else PARAMETERS:
    clients = 20 if quick else CLIENTS
    harness.CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=harness.CACHE) as folder:
      row = {'parameters': parameters, 'clients': clients}
      for step in ('write', 'read', 'read again'):
        progress.say(f'{clients} states of {parameters} parameters: {step}')
        row.update(harness.in_new_process(measure, step, folder, parameters, clients))
      rows.append(row)
  progress.say('')
  return rows


def measure(step, folder, parameters, clients):
  """One step in a process of its own: a dict of columns."""
  layout = store_lib.Layout(b'client_store....', 4 * parameters, FIELDS)
  body = np.random.default_rng(0).bytes(layout.body_bytes)
  before = memory.resident()
  start = time.perf_counter()
  store = store_lib.ClientStore(layout, folder)
  opened = time.perf_counter() - start
  start = time.perf_counter()
  names = [str(client) for client in range(clients)]
  if step == 'write':
    for first in range(0, clients, ROUND):
      chosen = names[first:first + ROUND]
      for name in chosen:
        pathlib.Path(store.target(name)).write_bytes(body)
      store.commit(first // ROUND + 1, dict.fromkeys(chosen, bytes(FIELDS)))
    columns = {'MB stored': store.bytes / 1e6}
  else:
    for _ in range(1 if step == 'read' else 2):
      start = time.perf_counter()
      for name in names:
        with open(store.get(name).path, 'rb') as file:
          file.read(layout.body_bytes)
    columns = {'seconds to open': opened}
  seconds = time.perf_counter() - start
  return {**columns, f'ms to {step}': 1000 * seconds / clients,
          f'MB of memory, {step}': (memory.resident() - before) / 1e6}
