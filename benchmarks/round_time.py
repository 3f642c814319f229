"""Seconds per round in a simulation: plain TFF, TFF's own compression, and this project's uplinks, in one run.

10 clients with 100 images each train the 1,199,882-parameter CNN for one local epoch in one TFF worker. All processes
take turns round by round, so that whatever else the machine does falls on all of them alike; the ratios are of medians.
TFF's loop over batches is its default, DATASET_REDUCE, but in the last rows: `tff_compress.keras.federate` and
`tff-compress run` use DATASET_ITERATOR, which gives the same weights.
"""

import collections
import statistics
import time

import numpy as np

from benchmarks import progress

THREADS = 2
UPLINKS = ('hadamard | uniform:bits=2 | pack', 'shared-mask', 'float32', 'int8', 'drive', 'rotated-ternary')
ITERATED = ', DATASET_ITERATOR'


def model():
  """The Keras model."""
  from tff_compress.simulation import models
  return models.build('mnist_cnn', input_shape=(28, 28, 1), num_classes=10, seed=0)


def model_fn():
  """The model as TFF wants it."""
  import tensorflow as tf
  import tensorflow_federated as tff
  return tff.learning.models.from_keras_model(
      model(), loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
      input_spec=(tf.TensorSpec([None, 28, 28, 1]), tf.TensorSpec([None], tf.int32)))


def datasets():
  """Ten clients with 100 images of noise each."""
  import tensorflow as tf
  rng = np.random.Generator(np.random.Philox(0))
  return [tf.data.Dataset.from_tensor_slices((rng.random((100, 28, 28, 1), np.float32),
                                              rng.integers(0, 10, 100).astype(np.int32))).batch(20) for _ in range(10)]


def optimizer():
  """That of the clients."""
  import tensorflow_federated as tff
  return tff.learning.optimizers.build_sgdm(0.05)


def fed_avg(aggregator, loop):
  """TFF's process with an uplink; None for its own."""
  import tensorflow_federated as tff
  return tff.learning.algorithms.build_weighted_fed_avg(
      model_fn, client_optimizer_fn=optimizer(), model_aggregator=aggregator, loop_implementation=loop)


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
  data = datasets()
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
      processes[name] = fed_avg(aggregator, loop)
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
