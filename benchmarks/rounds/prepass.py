"""What a pre-pass costs: seconds against a round, encode time against other codecs, and memory, by architecture.

The task is that of `round_time`: 10 clients with 100 images each train the 1,199,882-parameter CNN for one local epoch
in one TFF worker; in the pre-pass they do so eight times, learn, and send decoders. A round of float32 on the same
clients is what it is compared with. Encoding is that of one update in NumPy. Memory is the most that the
worker held; the network of the published form, one piece, is what it would take for its weights alone, and its
gradients and Adam's two moments would be three times as much again.
"""

import statistics
import time

import numpy as np

from benchmarks.lib import harness
from benchmarks.lib import memory
from benchmarks.lib import progress
from benchmarks.lib import round_task

THREADS = 2

PIECES = 'concat | autoencoder:32,length=1024 | uniform:bits=8 | rans'
UNITS = ('dense1/kernel => autoencoder:8,length=1152,order=columns | uniform:bits=8 | rans; '
         '* => concat | hadamard:rotations=2,key=client | eden:bits=1 | pack')
CASES = {
    'linear, pieces of 1024': {'uplink': PIECES},
    'dense, pieces of 1024': {'uplink': PIECES, 'architecture': 'dense'},
    'linear, pieces of columns': {'uplink': UNITS},
    'linear, pieces of columns, shared': {'uplink': UNITS, 'decoders': 'shared'},
    'convolutional, pieces of 1024': {'uplink': PIECES, 'architecture': 'convolutional'},
}
CODECS = ('float32', 'shared-mask', 'drive', 'stc')
"""Whose encoding is timed beside it."""
PUBLISHED_LATENT = 32


def run(quick):
  """Measures; `quick` does so for one architecture.

  Returns:
    List of rows. Processes: `prepass_s`, `round_s` (median), `float32_round_s`, `prepass_rounds`, the first over the
    last; `worker_MB`, the most memory of the worker; `MB_up`, what the pre-pass sent. Encoding: `ms` of an update,
    `ratio` to float32. Networks: `MB` of the weights.
  """
  import tff_compress
  from tff_compress import processes
  from tff_compress import runtime
  data, rows = round_task.datasets(), []
  cases = dict(list(CASES.items())[:1]) if quick else CASES
  common = dict(client_optimizer_fn=round_task.optimizer(), seed=0, spec=round_task.model())
  for label, arguments in progress.bar([('float32', None), *cases.items()], 'prepass'):
    # A worker of its own for each: its memory is what is measured.
    with runtime.local_context():
      build = processes.build_fed_avg if arguments is None else processes.build_autoencoder_fed_avg
      runner = processes.Runner(build(round_task.model_fn, **(arguments or {}), **common))
      row = {'table': 'processes', 'case': label}
      if arguments is not None:
        row['prepass_s'], metrics = _timed(lambda runner=runner: runner.prepass(range(len(data)), data))
        row['MB_up'] = tff_compress.aggregators.communication(metrics)['uplink_bytes'] / 1e6
      times = [_timed(lambda runner=runner: runner.next(range(len(data)), data))[0] for _ in range(2 if quick else 4)]
      row['round_s'], row['worker_MB'] = statistics.median(times[1:]), memory.peak_of_children() / 1e6
      rows.append(row)
    progress.say(', '.join(f'{key} {value}' for key, value in row.items()))
  for row in rows:
    row['float32_round_s'] = rows[0]['round_s']
    row['prepass_rounds'] = row['prepass_s'] / row['float32_round_s'] if 'prepass_s' in row else None
  return rows + encoding(quick) + networks()


def encoding(quick):
  """Milliseconds to encode one update in NumPy."""
  from tff_compress import autoencoders
  from tff_compress import codec as codec_lib
  rng = np.random.default_rng(0)
  update = {name: rng.standard_normal(tensor.shape).astype(np.float32) for name, tensor in _variables().items()}
  codecs = {text: codec_lib(text) for text in CODECS}
  for label, arguments in list(CASES.items())[:1] if quick else CASES.items():
    if arguments.get('decoders') == 'shared':  # It encodes as one of its own does.
      continue
    rule = autoencoders.LearnedRule(arguments['uplink'], update)
    architecture = autoencoders.ARCHITECTURES[arguments.get('architecture', 'linear')](rule.length, rule.stage.latent)
    snapshots = np.stack([rule.take(codec_lib.ops.numpy_ops, list(update.values()))] * 2)
    codecs[label] = rule.learned(autoencoders.fit(architecture, snapshots, rule.sizes, epochs=1))
  best = harness.fastest({name: lambda c=c: c.encode(update, seed=0, round=0, client=0) for name, c in codecs.items()},
                         seconds=5 if quick else 60)
  return [{'table': 'encoding', 'codec': name, 'ms': 1000 * seconds, 'ratio': seconds / best['float32']}
          for name, seconds in best.items()]


def networks():
  """Weights of networks for one piece and for pieces, in float32."""
  from tff_compress import autoencoders
  from tff_compress.autoencoders import savings
  size = sum(tensor.size for tensor in _variables().values())
  whole = {f'one piece of {size:,}': savings.dense_parameters(size, PUBLISHED_LATENT),
           'one piece of 550,570, as published': savings.dense_parameters(550_570, 320)}
  pieces = {f'pieces of 1024, {kind}': make(1024, PUBLISHED_LATENT).parameters
            for kind, make in autoencoders.ARCHITECTURES.items()}
  return [{'table': 'networks', 'network': name, 'parameters': count, 'MB': 4 * count / 1e6}
          for name, count in {**whole, **pieces}.items()]


def _variables():
  from tff_compress import codec as codec_lib
  return {tensor.name: tensor for tensor in codec_lib.Spec.of(round_task.model()).tensors}


def _timed(function):
  start = time.perf_counter()
  result = function()
  return time.perf_counter() - start, result
