"""What a round cost: the measurements that uplinks and downlinks report, and how to find them in a round's metrics."""

import collections

import numpy as np
import tensorflow as tf

FIELDS = ('bytes', 'bytes_per_client', 'bits_per_parameter', 'ratio', 'clients')


def measurements(direction, total_bytes, clients, spec):
  """The measurements of one direction of one round, inside a graph.

  Args:
    direction: 'uplink' or 'downlink'.
    total_bytes: int64 scalar, the lengths of all frames that were sent, summed over clients.
    clients: int64 scalar, how many clients they were sent by or to.
    spec: `Spec` of what was encoded.

  Returns:
    OrderedDict of scalars, each name with the direction in front:
      bytes: int64, all clients.
      bytes_per_client: float32, mean over clients.
      bits_per_parameter: float32, 8 bytes_per_client / number of values.
      ratio: float32, size of the values in their own dtype / bytes_per_client.
      clients: int64.
  """
  mean = tf.cast(total_bytes, tf.float32) / tf.cast(tf.maximum(clients, 1), tf.float32)
  sent = tf.maximum(mean, 1.0)
  values = [total_bytes, mean, mean * (8.0 / max(spec.parameters, 1)), float(spec.uncompressed_bytes) / sent, clients]
  return collections.OrderedDict((f'{direction}_{field}', value) for field, value in zip(FIELDS, values))


def communication(metrics):
  """Finds the measurements of uplinks and downlinks anywhere in a round's metrics.

  Args:
    metrics: nested mappings, as the `metrics` of a learning process's output.

  Returns:
    Flat dict of Python numbers with the names above. If a direction is reported more than once (an uplink inside a
    concatenation of aggregators, say), bytes and bits per parameter are those of the first one found.
  """
  names = [f'{direction}_{field}' for direction in ('uplink', 'downlink') for field in FIELDS]
  found = {}
  queue = collections.deque([metrics])
  while queue:
    current = queue.popleft()
    if isinstance(current, collections.abc.Mapping):
      for name, value in current.items():
        if name in names and np.ndim(value) == 0:
          found.setdefault(name, np.asarray(value).item())
        else:
          queue.append(value)
  return {name: found[name] for name in names if name in found}
