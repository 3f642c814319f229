"""Seconds per round in a shared subspace against TFF's federated averaging with the same loop, in one run.

The task is that of `round_time`: 10 clients with 100 images each train the 1,199,882-parameter CNN for one local epoch
in one TFF worker. All processes take turns round by round, in another order in every turn, so that whatever else the
machine does falls on all of them alike. Plain TFF stands there with the loop that ours use (DATASET_ITERATOR, which
gives the same weights in less time than TFF's default), and twice: how far its two ratios are apart is chance. Beside
seconds of the clock there are those of the processors, of Python and worker together, which other programs on the
machine hardly touch.
"""

import os
import pathlib
import statistics
import time

from benchmarks.lib import progress
from benchmarks.lib import round_task

THREADS = 2
PLAIN, AGAIN, WITH_MOMENTUM = 'plain TFF', 'plain TFF, again', 'plain TFF, momentum'
CASES = {
    'subspace': {},
    'subspace, momentum': {'momentum': 0.9},
    'subspace, 4 bits': {'uplink_bits': 4, 'downlink_bits': 4},
    'subspace, 10 % of the coordinates': {'share': 0.1},
    'subspace, first model sent': {'start': 'float32'},
}


def run(quick):
  """Measures.

  Args:
    quick: whether to measure only a few rounds of one case.

  Returns:
    List of rows: process, seconds (median per round), ratio (median over turns of the quotient to plain TFF in the same
    turn), fastest_ratio (of the fastest rounds), cpu_seconds and cpu_ratio (the same of the processors' seconds),
    first_round_seconds, build_seconds, uplink_bytes and downlink_bytes of the last round, all clients together.
  """
  import tensorflow_federated as tff

  import tff_compress
  from tff_compress import runtime
  rounds, cases = (3, dict(list(CASES.items())[:1])) if quick else (12, CASES)
  data, loop = round_task.datasets(), tff.learning.LoopImplementation.DATASET_ITERATOR
  with runtime.local_context():
    steps, built = {}, {}
    for name in (PLAIN, AGAIN):
      steps[name] = _Plain(round_task.fed_avg(None, loop), data)
    if not quick:
      steps[WITH_MOMENTUM] = _Plain(tff.learning.algorithms.build_weighted_fed_avg(
          round_task.model_fn, client_optimizer_fn=round_task.optimizer(), loop_implementation=loop,
          server_optimizer_fn=tff.learning.optimizers.build_sgdm(1.0, 0.9)), data)
    for name, settings in cases.items():
      start = time.perf_counter()
      steps[name] = _Subspace(_build(**settings), data)
      built[name] = time.perf_counter() - start
    seconds, cpu = {name: [] for name in steps}, {name: [] for name in steps}
    for turn in progress.bar(range(rounds + 1), 'subspace_round_time'):
      names = list(steps)
      shift = turn % len(names)
      for name in names[shift:] + names[:shift]:
        start, used = time.perf_counter(), _processor_seconds()
        steps[name]()
        seconds[name].append(time.perf_counter() - start)
        cpu[name].append(_processor_seconds() - used)
    rows = []
    for name, times in seconds.items():
      sent = tff_compress.aggregators.communication(steps[name].metrics)
      rows.append(dict(process=name, seconds=statistics.median(times[1:]), ratio=_ratio(times, seconds[PLAIN]),
                       fastest_ratio=min(times[1:]) / min(seconds[PLAIN][1:]),
                       cpu_seconds=statistics.median(cpu[name][1:]), cpu_ratio=_ratio(cpu[name], cpu[PLAIN]),
                       first_round_seconds=times[0], build_seconds=built.get(name),
                       uplink_bytes=sent.get('uplink_bytes'), downlink_bytes=sent.get('downlink_bytes')))
  return rows


def _ratio(own, plain):
  """Median quotient of rounds of the same turn, but for the first."""
  return statistics.median(a / b for a, b in zip(own[1:], plain[1:]))


def _processor_seconds():
  """Of this process and its children that run now."""
  total = sum(os.times()[:2])
  for path in pathlib.Path('/proc').glob('[0-9]*/stat'):
    try:
      fields = path.read_text(encoding='ascii', errors='replace').rpartition(')')[2].split()
    except OSError:  # It has ended.
      continue
    if int(fields[1]) == os.getpid():
      total += (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')
  return total


def _build(momentum=0.0, share=0.02, start='seed', **settings):
  import tensorflow_federated as tff

  from tff_compress.processes.subspace.build import build_subspace_fed_avg
  from tff_compress.subspace.rate import Rate
  return build_subspace_fed_avg(
      round_task.model_fn, client_optimizer_fn=round_task.optimizer(), seed=0, spec=round_task.model(),
      server_optimizer_fn=tff.learning.optimizers.build_sgdm(1.0, momentum), rate=Rate(noise=None, first=share),
      start=start, **settings)


class _Plain:
  """Rounds of a process of TFF."""

  def __init__(self, process, data):
    self._process, self._data, self._state, self.metrics = process, data, process.initialize(), None

  def __call__(self):
    output = self._process.next(self._state, self._data)
    self._state, self.metrics = output.state, output.metrics


class _Subspace:
  """Rounds of a `Runner`."""

  def __init__(self, process, data):
    from tff_compress import processes
    self._runner, self._data, self.metrics = processes.Runner(process), data, None

  def __call__(self):
    self.metrics = self._runner.next(range(len(self._data)), self._data)
