"""Seconds per round in a simulation: plain TFF, TFF's own compression, and this project's uplinks, in one run.

10 clients with 100 images each train the 1,199,882-parameter CNN for one local epoch in one TFF worker. All processes
take turns round by round, so that whatever else the machine does falls on all of them alike; the ratios are of medians.
TFF's loop over batches is its default, DATASET_REDUCE, but in the last rows: `tff_compress.keras.federate` and
`tff-compress run` use DATASET_ITERATOR, which gives the same weights.
"""

import collections
import statistics
import time

from benchmarks.lib import progress
from benchmarks.lib import round_task

THREADS = 2
UPLINKS = ('hadamard | uniform:bits=2 | pack', 'shared-mask', 'float32', 'int8', 'drive', 'rotated-ternary')
ITERATED = ', DATASET_ITERATOR'


def run(quick):
  """Measures.

  Args:
    quick: whether to measure only a few rounds and uplinks.

  Returns:
    List of rows: uplink, seconds (median per round), ratio (to plain TFF in the same run), fastest_seconds and
    fastest_ratio (the same of the fastest round: rounds of one process fall into a fast and a slow group),
    first_round_seconds, bytes_per_client (of the uplink; None where they are not measured).
  """
  import tensorflow_federated as tff

  import tff_compress
  from tff_compress import runtime
  rounds, uplinks = (4, UPLINKS[:2]) if quick else (12, UPLINKS)
  data = round_task.datasets()
  aggregators = collections.OrderedDict()
  aggregators['plain TFF'] = None
  aggregators['tff.learning.compression_aggregator'] = tff.learning.compression_aggregator()
  for text in uplinks:
    aggregators[text] = tff_compress.uplink(text)
  loops = tff.learning.LoopImplementation
  settings = {name: (aggregator, loops.DATASET_REDUCE) for name, aggregator in aggregators.items()}
  for name in ('plain TFF', uplinks[0]):
    settings[name + ITERATED] = (aggregators[name], loops.DATASET_ITERATOR)
  with runtime.local_context():
    processes, states = {}, {}
    for name, (aggregator, loop) in settings.items():
      processes[name] = round_task.fed_avg(aggregator, loop)
      states[name] = processes[name].initialize()
    seconds, sent = collections.defaultdict(list), {}
    for _ in progress.bar(range(rounds + 1), 'round_time'):
      for name, process in processes.items():
        start = time.perf_counter()
        output = process.next(states[name], data)
        seconds[name].append(time.perf_counter() - start)
        states[name] = output.state
        sent[name] = tff_compress.aggregators.communication(output.metrics).get('uplink_bytes_per_client')
  plain = statistics.median(seconds['plain TFF'][1:])
  return [dict(uplink=name, seconds=statistics.median(times[1:]), ratio=statistics.median(times[1:]) / plain,
               fastest_seconds=min(times[1:]), fastest_ratio=min(times[1:]) / min(seconds['plain TFF'][1:]),
               first_round_seconds=times[0], bytes_per_client=sent[name]) for name, times in seconds.items()]
