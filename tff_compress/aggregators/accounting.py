"""What a round cost: the measurements that uplinks and downlinks report, and how to find them in a round's metrics."""

import collections
from typing import Any

import numpy as np
import tensorflow as tf

from tff_compress.codec.spec import Spec

FIELDS = ('bytes', 'bytes_per_client', 'bits_per_parameter', 'ratio', 'clients')


def measurements(direction: str, total_bytes: tf.Tensor, clients: tf.Tensor,
                 spec: Spec) -> collections.OrderedDict[str, tf.Tensor]:
  """The measurements of one direction of one round, inside a graph.

  Args:
    direction: 'uplink' or 'downlink'.
    total_bytes: int64 scalar, the lengths of all frames that were sent, summed over clients.
    clients: int64 scalar, how many clients they were sent by or to.
    spec: `Spec` of what was encoded.

  Returns:
    OrderedDict of scalars, each name with the direction in front:
      bytes: int64, all clients.
      bytes_per_client: float32, mean over clients; NaN where there was none.
      bits_per_parameter: float32, 8 bytes_per_client / number of values; NaN where one of the two is nothing.
      ratio: float32, size of the values in their own dtype / bytes_per_client; NaN where nothing was sent.
      clients: int64.
  """
  divided = lambda a, b: tf.where(tf.equal(b, 0), np.float32(np.nan), tf.math.divide_no_nan(a, b))
  mean = divided(tf.cast(total_bytes, tf.float32), tf.cast(clients, tf.float32))
  values, uncompressed = tf.constant(spec.parameters, tf.float32), tf.constant(spec.uncompressed_bytes, tf.float32)
  figures = [total_bytes, mean, divided(8 * mean, values), divided(uncompressed, mean), clients]
  return collections.OrderedDict((f'{direction}_{field}', figure) for field, figure in zip(FIELDS, figures))


def communication(metrics: Any, state: Any = None) -> dict[str, int | float | None]:
  """Finds the measurements of uplinks and downlinks anywhere in a round's metrics.

  Args:
    metrics: nested mappings, as the `metrics` of a learning process's output.
    state: of the same output. TFF's Mime keeps what its aggregator of full gradients measures from the metrics; it is
      found in the state.

  Returns:
    Flat dict of Python numbers with the names above, None in place of NaN. If a direction is reported more than once,
    by the two uplinks of Mime or by aggregators of parts of the update, bytes are their sum, and the other figures
    those of all that one client sends.
  """
  places = [metrics] if state is None else [metrics, getattr(state, 'client_work', ())]
  found = [reported for place in places for reported in _reports(place)]
  result: dict[str, int | float | None] = {}
  for direction in ('uplink', 'downlink'):
    names = [f'{direction}_{field}' for field in FIELDS]
    reports = [report for report in found if names[0] in report]
    if reports:
      figures = _combined([[report[name] for name in names] for report in reports])
      result.update((name, None if np.isnan(figure) else figure) for name, figure in zip(names, figures))
  return result


def _reports(place: Any) -> list[dict[str, Any]]:
  """The measurements of one direction, as mappings with all their names, in the order in which they are met."""
  queue, found = collections.deque([place]), []
  while queue:
    current = queue.popleft()
    if isinstance(current, collections.abc.Mapping):
      for direction in ('uplink', 'downlink'):
        names = [f'{direction}_{field}' for field in FIELDS]
        if all(np.ndim(current.get(name, [0])) == 0 for name in names):
          found.append({name: np.asarray(current[name]).item() for name in names})
      queue.extend(current.values())
    elif isinstance(current, (list, tuple)):
      queue.extend(current)
  return found


def _combined(reports: list[list[Any]]) -> list[Any]:
  """The figures, in the order of `FIELDS`, of all reports of one direction together."""
  if len(reports) == 1:
    return reports[0]
  total, clients = sum(report[0] for report in reports), max(report[4] for report in reports)
  mean = total / clients if clients else np.nan
  # What one client's messages hold: values, and their bytes as they are.
  values = sum(8 * each / bits if bits else np.nan for _, each, bits, _, _ in reports)
  uncompressed = sum(each * ratio for _, each, _, ratio, _ in reports)
  return [total, mean, 8 * mean / values, uncompressed / mean if mean else np.nan, clients]
