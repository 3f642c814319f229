"""Seconds per round of every method whose clients or server remember, against plain TFF in the same run.

The task is that of `round_time`: 10 clients with 100 images each train the 1,199,882-parameter CNN for one local epoch
in one TFF worker. A method's process and plain TFF's, with its default loop over batches and with the one that ours use
(DATASET_ITERATOR, which gives the same weights), take turns round by round. A model of clients' state is 4.8 MB each.
"""

import statistics
import time

from benchmarks.lib import progress
from benchmarks.lib import round_task

THREADS = 2
PLAIN, PLAIN_ITERATED = 'plain TFF', 'plain TFF, DATASET_ITERATOR'


def cases():
  """{label: arguments of `build_fed_avg`}: float32 without and with memory, and every method."""
  from tff_compress import processes
  from tff_compress.codec import presets
  from tff_compress.processes import methods
  found = {'float32': {'uplink': 'float32'},
           'float32, one residual per client': {'uplink': 'float32', 'error_feedback': True}}
  for name, preset in sorted(presets.registry().items()):
    if preset.feedback:
      found[name] = processes.method(name).arguments()
    if preset.changes:
      found[f'{name} in both directions'] = {**processes.method(name).arguments(), 'downlink': name}
  model = round_task.model()
  return {**found, **{name: processes.method(name).arguments(model) for name in sorted(methods.registry())}}


def run(quick):
  """Measures.

  Args:
    quick: whether to measure only a few rounds of two cases.

  Returns:
    List of rows: method, seconds (median per round), ratio and ratio_same_loop (to plain TFF with its default loop and
    with ours, medians of the same turns), state_MB (of one client), uplink_bytes and downlink_bytes of the last round.
  """
  import tensorflow_federated as tff

  import tff_compress
  from tff_compress import processes
  from tff_compress import runtime
  rounds = 2 if quick else 4
  settings = dict(list(cases().items())[:2]) if quick else cases()
  data = round_task.datasets()
  rows = []
  with runtime.local_context():
    plain = {PLAIN: tff.learning.LoopImplementation.DATASET_REDUCE,
             PLAIN_ITERATED: tff.learning.LoopImplementation.DATASET_ITERATOR}
    plain = {name: round_task.fed_avg(None, loop) for name, loop in plain.items()}
    states = {name: process.initialize() for name, process in plain.items()}
    for label, arguments in progress.bar(list(settings.items()), 'methods_round_time'):
      runner = processes.Runner(processes.build_fed_avg(
          round_task.model_fn, client_optimizer_fn=round_task.optimizer(), seed=0, spec=round_task.model(),
          **arguments))
      seconds = {PLAIN: [], PLAIN_ITERATED: [], label: []}
      for _ in range(rounds + 1):
        for name, process in plain.items():
          start = time.perf_counter()
          states[name] = process.next(states[name], data).state
          seconds[name].append(time.perf_counter() - start)
        start = time.perf_counter()
        metrics = runner.next(range(len(data)), data)
        seconds[label].append(time.perf_counter() - start)
      medians = {name: statistics.median(times[1:]) for name, times in seconds.items()}
      sent = tff_compress.aggregators.communication(metrics)
      rows.append(dict(
          method=label, seconds=medians[label], ratio=medians[label] / medians[PLAIN],
          ratio_same_loop=medians[label] / medians[PLAIN_ITERATED], first_round_seconds=seconds[label][0],
          state_MB=metrics['client_states']['bytes_per_client'] / 1e6, uplink_bytes=sent['uplink_bytes'],
          downlink_bytes=sent['downlink_bytes']))
      del runner
  return rows
