"""The clients' data, as users have it and as TFF takes it.

Every round, the examples of the clients that were drawn are laid out in the order in which they are trained on and
handed to TFF as plain tensors. A user's `tf.data` pipeline runs in this process, as in Keras: it may call Python,
shuffles anew for every pass, and reads files that workers on other machines do not have.
"""

import collections
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_compress.keras.errors import FederateError
from tff_compress.keras.errors import first_line

# What TFF 0.87 takes: of one client (tff...value_serialization), and of all in one message (protocol buffers).
_CLIENT_BYTES = 100 * 1024**2
_ROUND_BYTES = 1900 * 1000**2

# What random numbers are for: each purpose has its own.
_CLIENTS, _ORDER, _KEYS = range(3)


@dataclasses.dataclass(frozen=True)
class _Run:
  """Consecutive batches of the same size, but for a smaller last one.

  Attributes:
    arrays: one array per part of an example, [rows, ...].
    batch_size: rows per batch.
  """
  arrays: tuple
  batch_size: int

  @property
  def rows(self):
    return len(self.arrays[0])


class Clients:
  """Who there is and what they train on.

  Args:
    client_data: list or mapping of clients' data, or `tff.simulation.datasets.ClientData`. A client's data is a
      `tf.data.Dataset` of (x, y) or (x, y, sample_weight), in batches or of single examples, or such a tuple of arrays;
      x, y and sample_weight may be nested in tuples and dicts.
    model: Keras model, whose inputs tell batches from single examples.
    batch_size: rows per batch of arrays and of data sets of single examples.
    local_epochs: how often clients go through their examples in a round.
    local_steps: how many batches clients train on in a round, in place of whole passes: as many passes as it takes, the
      last of them cut short. None: `local_epochs`.
    shuffle: whether arrays are shuffled, anew for every pass. The order of a data set is its own.
    seed: whole number that orders and keys come from.

  Attributes:
    names: what to call the clients in messages.
    element_spec: (x, y, sample_weight) structures of `tf.TensorSpec` of a batch; None for what there is not.

  Raises:
    FederateError: the data cannot be used.
  """

  def __init__(self, client_data: Any, model: tf.keras.Model, *, batch_size: int, local_epochs: int, shuffle: bool,
               seed: int, local_steps: int | None = None):
    self._steps = local_steps
    self._batch_size, self._epochs, self._shuffle, self._seed = batch_size, local_epochs, shuffle, seed
    inputs = getattr(model, 'inputs', None)
    self._ranks = sorted(len(tensor.shape) for tensor in inputs) if inputs else None
    # Whether examples may differ in shape from client to client.
    self._flexible = not inputs or any(None in tensor.shape[1:] for tensor in inputs)
    if isinstance(client_data, tff.simulation.datasets.ClientData):
      self.names = [str(name) for name in client_data.client_ids]
      self._load = lambda index: client_data.create_tf_dataset_for_client(client_data.client_ids[index])
      checked = range(min(1, len(self.names)))  # Each takes a moment to open: the others are checked in their turn.
    elif isinstance(client_data, collections.abc.Mapping):
      self.names = [repr(name) for name in client_data]
      values = list(client_data.values())
      self._load, checked = values.__getitem__, range(len(values))
    elif isinstance(client_data, collections.abc.Sequence) and not isinstance(client_data, (str, bytes)):
      values = list(client_data)
      self.names = [str(index) for index in range(len(values))]
      self._load, checked = values.__getitem__, range(len(values))
    else:
      raise FederateError('client_data must be a list or dict with the data of each client, not '
                          f'{type(client_data).__name__}.')
    if not self.names:
      raise FederateError('client_data is empty: give the data of at least one client.')
    specs = [self._spec(index) for index in checked]
    self.element_spec = specs[0]
    for index, spec in zip(checked, specs):
      self.element_spec = self._unite(self.element_spec, spec, index)

  def __len__(self) -> int:
    return len(self.names)

  def draw(self, round_number: int, count: int | None) -> list[int]:
    """Which clients train in a round: all for None, else `count` without replacement, the same for the same seed."""
    if count is None or count == len(self):
      return list(range(len(self)))
    rng = _generator(_CLIENTS, self._seed, round_number)
    return [int(index) for index in rng.choice(len(self), count, replace=False)]

  def datasets(self, indices: Sequence[int], round_number: int, input_spec: Mapping[str, Any]) -> list:
    """Lays out a round.

    Args:
      indices: clients.
      round_number: from 0.
      input_spec: what `Blueprint.input_spec` says.

    Returns:
      list of `tf.data.Dataset`.

    Raises:
      FederateError: a client has no examples, too many, or such that do not fit.
    """
    result, total = [], 0
    for index in indices:
      runs = self._runs(index, round_number)
      if not runs:
        raise FederateError(f'client {self.names[index]} has no examples: leave it out.')
      if 'key' in input_spec:
        rng = _generator(_KEYS, self._seed, round_number, index)
        keys = [rng.integers(-2**31, 2**31, (run.rows, 2), np.int64).astype(np.int32) for run in runs]
        runs = [_Run((key, *run.arrays), run.batch_size) for key, run in zip(keys, runs)]
      size = sum(array.nbytes for run in runs for array in run.arrays)
      total += size
      if size > _CLIENT_BYTES or total > _ROUND_BYTES:
        whose = f'client {self.names[index]} has' if size > _CLIENT_BYTES else f'{len(indices)} clients have'
        most = _CLIENT_BYTES if size > _CLIENT_BYTES else _ROUND_BYTES
        raise FederateError(f'{whose} {max(size, total) / 1e6:.0f} MB of examples in a round and TFF takes '
                            f'{most / 1e6:.0f} MB: use more clients with fewer examples each, fewer local epochs, or '
                            'integers that the model rescales.')
      datasets = [tf.data.Dataset.from_tensor_slices(_element(run.arrays, input_spec)).batch(run.batch_size)
                  for run in runs]
      dataset = datasets[0]
      for other in datasets[1:]:
        dataset = dataset.concatenate(other)
      result.append(dataset)
    return result

  # -- one client

  def _spec(self, index):
    """(x, y, sample_weight) specs of one batch of a client."""
    data = self._load(index)
    name = self.names[index]
    if isinstance(data, tf.data.Dataset):
      parts = _parts(data.element_spec, name)
      if any(not isinstance(leaf, tf.TensorSpec) for leaf in tf.nest.flatten(parts)):
        raise FederateError(f'client {name} has ragged or sparse tensors: make them dense, with to_tensor or '
                            'padded_batch.')
      if any(leaf.shape.rank is None for leaf in tf.nest.flatten(parts)):
        raise FederateError(f'client {name} has tensors of unknown rank: set their shapes with tf.ensure_shape.')
      size = data.cardinality().numpy()
      if size == 0:
        raise FederateError(f'client {name} has no examples: leave it out.')
      if size == tf.data.INFINITE_CARDINALITY:
        raise FederateError(f'the data set of client {name} never ends: leave repeat() out, or add take(n) after it.')
      batched = self._is_batched(parts[0])
      if batched and any(leaf.shape.rank == 0 for leaf in tf.nest.flatten(parts)):
        raise FederateError(f'client {name} has examples where batches are expected: call batch(n) on its data set.')
      shape = (lambda leaf: leaf.shape[1:]) if batched else (lambda leaf: leaf.shape)
    else:
      parts = self._arrays(data, name)
      shape = lambda leaf: leaf.shape[1:]

    def batch_spec(leaf):
      return tf.TensorSpec([None, *shape(leaf)], _travel_dtype(tf.as_dtype(leaf.dtype)))
    return tuple(tf.nest.map_structure(batch_spec, part) for part in parts)

  def _arrays(self, data, name):
    """(x, y, sample_weight) as structures of arrays."""
    if not isinstance(data, (tuple, list)) or not 1 <= len(data) <= 3:
      raise FederateError(f'the data of client {name} must be a tf.data.Dataset or a tuple (x, y), not '
                          f'{type(data).__name__}.')
    parts = []
    for part in data:
      # A list is an array written down; structures are tuples and dicts.
      part = np.asarray(part) if isinstance(part, list) and not any(hasattr(p, 'shape') for p in part) else part
      parts.append(tf.nest.map_structure(np.asarray, part))
    parts = _parts(tuple(parts), name)
    leaves = tf.nest.flatten(parts)
    if any(leaf.ndim == 0 or leaf.dtype == object and not all(isinstance(v, (str, bytes)) for v in leaf.flat)
           for leaf in leaves):
      raise FederateError(f'the data of client {name} must be arrays with one row per example.')
    lengths = sorted({len(leaf) for leaf in leaves})
    if len(lengths) > 1:
      raise FederateError(
          f'the arrays of client {name} have {lengths[0]} and {lengths[-1]} rows: give one row per example '
          'in each.')
    if lengths == [0]:
      raise FederateError(f'client {name} has no examples: leave it out.')
    return parts

  def _is_batched(self, x):
    ranks = sorted(leaf.shape.rank for leaf in tf.nest.flatten(x))
    return self._ranks is None or ranks != [rank - 1 for rank in self._ranks]

  def _unite(self, ours, theirs, index):
    """One spec for two clients' batches: dimensions that differ are unknown, and number types the wider of two."""
    try:
      tf.nest.assert_same_structure(ours, theirs)
      return tf.nest.map_structure(functools.partial(_union, self._flexible), ours, theirs)
    except (ValueError, TypeError):
      raise FederateError(f'client {self.names[index]} has other data than client {self.names[0]}: '
                          f'{_spec_text(theirs)} and not {_spec_text(ours)}.') from None

  def _runs(self, index, round_number):
    """All passes over a client's examples in one round, as runs."""
    data = self._load(index)
    leaves = tf.nest.flatten(self.element_spec)
    if isinstance(data, tf.data.Dataset):
      if self._unite(self.element_spec, self._spec(index), index) != self.element_spec:
        raise FederateError(f'client {self.names[index]} has other shapes or number types than client {self.names[0]}.')
      if not self._is_batched(_parts(data.element_spec, self.names[index])[0]):
        data = data.batch(self._batch_size)
      batches: list[list[np.ndarray]] = []
      for _ in self._passes(lambda: len(batches)):
        try:
          for batch in data:
            batches.append(tf.nest.map_structure(lambda t: t.numpy(),
                                                 tf.nest.flatten(_parts(batch, self.names[index]))))
        except tf.errors.OpError as error:
          raise FederateError(
              f'the data set of client {self.names[index]} cannot be read: {first_line(error)}.') from error
      runs = _joined_batches(batches)
    else:
      arrays = tf.nest.flatten(self._arrays(data, self.names[index]))
      count = len(arrays[0])
      rng = _generator(_ORDER, self._seed, round_number, index)
      per_pass = -(-count // self._batch_size)
      orders: list[np.ndarray] = []
      for _ in self._passes(lambda: per_pass * len(orders)):
        orders.append(rng.permutation(count) if self._shuffle else np.arange(count))
      if count % self._batch_size == 0:
        orders = [np.concatenate(orders)]
      runs = [_Run(tuple(array[order] for array in arrays), self._batch_size) for order in orders]
    if self._steps is not None:
      runs = _first_batches(runs, self._steps)
    return [_Run(tuple(np.asarray(a, s.dtype.as_numpy_dtype) for a, s in zip(run.arrays, leaves)), run.batch_size)
            for run in runs]

  def _passes(self, batches):
    """Yields once for each pass over a client's examples; `batches` says how many batches there are so far."""
    done, before = 0, -1
    # A data set that gives nothing any more ends it too.
    while done < self._epochs if self._steps is None else before < batches() < self._steps:
      before = batches()
      yield
      done += 1


def _first_batches(runs, batches):
  """The first batches of runs."""
  kept = []
  for run in runs:
    if batches > 0:
      kept.append(_Run(tuple(array[:batches * run.batch_size] for array in run.arrays), run.batch_size))
      batches -= -(-run.rows // run.batch_size)
  return kept


def _element(arrays, input_spec):
  """Arrays in the order key, x, y, w as `input_spec` has them."""
  parts, taken = {}, 0
  for name in ('key', 'x', 'y', 'w'):
    if name in input_spec:
      count = 1 if name == 'key' else len(input_spec[name])
      parts[name] = arrays[0] if name == 'key' else tuple(arrays[taken:taken + count])
      taken += count
  return collections.OrderedDict((name, parts[name]) for name in input_spec)


def _generator(purpose, seed, round_number, index=0):
  """A NumPy generator of its own for each purpose, seed, round and client."""
  numbers = [purpose, seed & 0xFFFFFFFF, seed >> 32, round_number, index]
  return np.random.Generator(np.random.Philox(np.random.SeedSequence(numbers)))


def _parts(element, name):
  """(x, y, sample_weight) of an element, with () for what there is not."""
  if isinstance(element, collections.abc.Mapping) and set(element) == {'x', 'y'}:
    element = element['x'], element['y']
  if not isinstance(element, (tuple, list)) or not 1 <= len(element) <= 3:
    raise FederateError(f'the examples of client {name} must be (x, y) or (x, y, sample_weight).')
  return tuple(element) + ((),) * (3 - len(element))


def _joined_batches(batches):
  """Runs from batches, each a list of arrays."""
  runs: list[_Run] = []
  open_run: list[list[np.ndarray]] = []

  def close():
    if open_run:
      runs.append(_Run(tuple(np.concatenate(arrays) for arrays in zip(*open_run)), len(open_run[0][0])))
      open_run.clear()

  for batch in batches:
    if not len(batch[0]):
      continue
    same = open_run and all(a.shape[1:] == b.shape[1:] for a, b in zip(batch, open_run[0]))
    full = open_run and len(open_run[-1][0]) == len(open_run[0][0])
    if not (same and full and len(batch[0]) <= len(open_run[0][0])):
      close()
    open_run.append(batch)
  close()
  return runs


def _travel_dtype(dtype):
  """The dtype that values travel in: floats of any width become float32, which models take."""
  return tf.float32 if dtype.is_floating else dtype


def _union(flexible, ours, theirs):
  if ours.shape.rank != theirs.shape.rank or not flexible and ours.shape[1:] != theirs.shape[1:]:
    raise ValueError
  shape = [a if a == b else None for a, b in zip(ours.shape, theirs.shape)]
  if ours.dtype == theirs.dtype:
    return tf.TensorSpec(shape, ours.dtype)
  if tf.string in (ours.dtype, theirs.dtype):
    raise ValueError
  common = np.result_type(ours.dtype.as_numpy_dtype, theirs.dtype.as_numpy_dtype)
  return tf.TensorSpec(shape, _travel_dtype(tf.as_dtype(common)))


def _spec_text(spec):
  def leaf(s):
    return f'{s.dtype.name}{list(s.shape)}'
  text = str(tf.nest.map_structure(leaf, tuple(part for part in spec if part != ()))).replace("'", '')
  return text if len(text) <= 120 else text[:119] + '…'
