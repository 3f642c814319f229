"""How a centralised data set is dealt out to clients.

Every function here takes the training labels and returns one array of example indices per client: int64, ascending,
disjoint, and together covering every example exactly once. The same arguments give the same split; nothing is read from
or written to a global random generator.

No client is silently left without data. `min_examples` (1 unless you ask for 0) is a promise about every client: a
split that is random by nature (`dirichlet`, a rescaled `count_table`) is repaired by moving as few examples as needed,
and a split that is fixed by its arguments raises `SplitError` when it cannot keep the promise.

This module needs NumPy only.
"""

from __future__ import annotations

from collections.abc import Sequence
import hashlib
import heapq

import numpy as np
import numpy.typing as npt

from tff_compress.codec import checks
from tff_compress.codec.errors import CompressionError

__all__ = [
    'MNIST_RPN_COUNTS',
    'SplitError',
    'count_table',
    'dirichlet',
    'generator',
    'iid',
    'natural',
    'shards',
    'split',
]

Seed = int | Sequence[int]

MAX_CLIENTS = 2**20
MAX_CELLS = 2**27  # clients x labels of the count matrix: 1 GiB of int64

# Concentrations outside this range are refused: far below it NumPy's Dirichlet sampler does not terminate, and above it
# nothing differs from `iid` any more.
MIN_ALPHA, MAX_ALPHA = 1e-3, 1e6

# How the 60,000 MNIST training images were dealt to ten clients (rows; columns are the digits 0-9) in Huang et al.,
# "RPN: A Residual Pooling Network for Efficient Federated Learning". The paper prints 425 in the last row for the digit
# 8; with 415 every row has its printed total and every column has MNIST's number of training images of that digit.
MNIST_RPN_COUNTS = np.array(
    [
        [763, 586, 423, 533, 582, 607, 690, 568, 539, 541],
        [649, 798, 518, 330, 429, 380, 320, 731, 626, 449],
        [363, 724, 722, 421, 611, 612, 531, 669, 708, 829],
        [518, 831, 605, 1082, 637, 607, 996, 586, 701, 269],
        [420, 570, 588, 763, 288, 688, 611, 641, 600, 734],
        [518, 763, 563, 597, 591, 531, 328, 608, 421, 678],
        [611, 524, 855, 628, 789, 664, 511, 709, 790, 158],
        [417, 449, 511, 666, 737, 508, 1080, 563, 563, 672],
        [523, 960, 739, 707, 432, 498, 285, 420, 488, 246],
        [1141, 537, 434, 404, 746, 326, 566, 770, 415, 1373],
    ],
    dtype=np.int64,
)
MNIST_RPN_COUNTS.flags.writeable = False


class SplitError(CompressionError):
  """A split that cannot be made; the message is one sentence that says what to change."""


def generator(purpose: str, seed: Seed) -> np.random.Generator:
  """A NumPy generator of its own for one purpose and one seed.

  Args:
    purpose: what the numbers are for; different purposes give independent streams for the same seed.
    seed: a whole number >= 0, or a sequence of them such as (session seed, round, client).

  Raises:
    ValueError: the seed is negative, empty or not made of whole numbers.
  """
  parts = list(seed) if isinstance(seed, (tuple, list)) else [seed]
  if not parts:
    raise ValueError('A seed is a whole number of at least 0, or a tuple of one or more such numbers, not ().')
  numbers = [checks.whole_number('seed', part, ValueError, least=0) for part in parts]
  # Hashed here because NumPy's own seeding gives 1, (1, 0) and (1, 0, 0) the same stream, as it does 2**32 and (0, 1).
  digest = hashlib.sha256(':'.join([purpose, *map(str, numbers)]).encode()).digest()
  return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], 'little')))


def iid(labels: npt.ArrayLike, clients: int, seed: Seed, *, min_examples: int = 1) -> list[np.ndarray]:
  """A random permutation cut into equal parts (sizes differ by at most one).

  Args:
    labels: integer labels, shape [n].
    clients: how many clients, 1 to 2**20.
    seed: see `generator`.
    min_examples: the least number of examples per client.

  Returns:
    One int64 index array per client.

  Raises:
    SplitError: bad arguments, or fewer than clients * min_examples examples.
  """
  labels, clients, min_examples = _checked(labels, clients, min_examples)
  rng = _rng('split/iid', seed)
  owner = np.empty(len(labels), np.int64)
  owner[rng.permutation(len(labels))] = np.repeat(np.arange(clients), _even(len(labels), clients))
  return _group(owner, clients)


def dirichlet(labels: npt.ArrayLike, clients: int, alpha: float, seed: Seed, *,
              min_examples: int = 1) -> list[np.ndarray]:
  """Each label is dealt out in proportions drawn from a symmetric Dirichlet distribution over the clients.

  This is the per-label form (Yurochkin et al. 2019; Li et al. 2022), in which both the label mix and the size of the
  clients vary. Small `alpha`: few labels per client and very unequal sizes; large `alpha`: close to `iid`.

  Drawn as it is, a small `alpha` leaves clients with nothing. Repair rule: as long as a client has fewer than
  `min_examples`, it receives one example from the client that has the most, out of that client's most frequent label
  (ties: the lowest index). `min_examples=0` switches the repair off.

  Args:
    labels: integer labels, shape [n].
    clients: how many clients, 1 to 2**20.
    alpha: the concentration, 0.001 to 1,000,000.
    seed: see `generator`.
    min_examples: the least number of examples per client.

  Returns:
    One int64 index array per client.

  Raises:
    SplitError: bad arguments, or fewer than clients * min_examples examples.
  """
  labels, clients, min_examples = _checked(labels, clients, min_examples)
  alpha = checks.number('The Dirichlet concentration', alpha, SplitError, least=MIN_ALPHA, most=MAX_ALPHA)
  classes, available = np.unique(labels, return_counts=True)
  _check_cells(clients, len(classes))
  rng = _rng('split/dirichlet', seed)
  counts = np.empty((clients, len(classes)), np.int64)
  for column, total in enumerate(available):
    shares = rng.dirichlet(np.full(clients, alpha))
    # Rounding the running sum, not the shares, makes the counts add up to the total.
    cuts = np.rint(np.cumsum(shares) * total).astype(np.int64)
    cuts[-1] = total
    counts[:, column] = np.diff(np.minimum(cuts, total), prepend=0)
  _repair(counts, min_examples)
  return _deal(labels, classes, counts, rng)


def shards(labels: npt.ArrayLike, clients: int, shards_per_client: int, seed: Seed, *,
           min_examples: int = 1) -> list[np.ndarray]:
  """Sort by label, cut into clients * shards_per_client even shards, and give each client that many at random.

  McMahan et al. 2017 (MNIST: 100 clients, 2 shards each). Examples are shuffled within a label first, so that another
  seed changes the shards and not only who gets them.

  Args:
    labels: integer labels, shape [n].
    clients: how many clients, 1 to 2**20.
    shards_per_client: how many shards a client gets, at least 1.
    seed: see `generator`.
    min_examples: the least number of examples per client.

  Returns:
    One int64 index array per client.

  Raises:
    SplitError: bad arguments, or fewer examples than shards.
  """
  labels, clients, min_examples = _checked(labels, clients, min_examples)
  per_client = checks.whole_number('shards_per_client', shards_per_client, SplitError, least=1)
  total = clients * per_client
  if total > len(labels):
    raise SplitError(
        f'{len(labels)} examples cannot be cut into {clients} x {per_client} = {total} shards: '
        'use fewer clients or fewer shards per client.'
    )
  rng = _rng('split/shards', seed)
  order = rng.permutation(len(labels))
  order = order[np.argsort(labels[order], kind='stable')]
  client_of_shard = np.empty(total, np.int64)
  client_of_shard[rng.permutation(total)] = np.repeat(np.arange(clients), per_client)
  owner = np.empty(len(labels), np.int64)
  owner[order] = np.repeat(client_of_shard, _even(len(labels), total))
  parts = _group(owner, clients)
  _check_sizes(parts, min_examples)
  return parts


def count_table(labels: npt.ArrayLike, counts: npt.ArrayLike, seed: Seed, *, scale: bool = False,
                min_examples: int = 1) -> list[np.ndarray]:
  """Deal the examples out by a table of counts; which example goes where within a label is random.

  Args:
    labels: integer labels, shape [n]; label k uses column k.
    counts: integers >= 0, shape [clients, labels]: how many examples of each label each client gets, for example
      `MNIST_RPN_COUNTS`.
    seed: see `generator`.
    scale: False: every column must add up to the number of examples with that label. True: every column is first
      rescaled to it in proportion (largest remainder, ties to the lowest client), which leaves a table that fits
      unchanged; clients that drop below `min_examples` are then repaired as in `dirichlet`.
    min_examples: the least number of examples per client.

  Returns:
    One int64 index array per row of the table.

  Raises:
    SplitError: bad arguments, a table that does not fit the labels, or a client below `min_examples`.
  """
  counts = np.asarray(counts)
  if counts.ndim != 2 or counts.dtype.kind not in 'iu' or counts.size == 0:
    raise SplitError(
        'A count table is a non-empty array of whole numbers with one row per client and one column per label.')
  if counts.min() < 0 or counts.max() > 2**40:
    raise SplitError('The numbers in a count table must lie between 0 and 2**40.')
  labels, clients, min_examples = _checked(labels, counts.shape[0], min_examples)
  _check_cells(*counts.shape)
  counts = counts.astype(np.int64)
  columns = counts.shape[1]
  if labels.max() >= columns:
    raise SplitError(
        f'The data has a label {labels.max()} and the table has {columns} columns: use a table with a column for it.')
  available = np.bincount(labels, minlength=columns)
  for column in range(columns):
    wanted = int(counts[:, column].sum())
    if scale:
      if wanted == 0 and available[column]:
        raise SplitError(
            f'The table gives label {column} to nobody, but the data has {available[column]} examples of it.')
      counts[:, column] = _rescale(counts[:, column], wanted, int(available[column]))
    elif wanted != available[column]:
      raise SplitError(
          f'The table deals out {wanted} examples of label {column} and the data has {available[column]}: '
          'pass scale=True to fit the table to the data.'
      )
  if scale:
    _repair(counts, min_examples)
  parts = _deal(labels, np.arange(columns), counts, _rng('split/table', seed))
  _check_sizes(parts, min_examples)
  return parts


def natural(client_ids: npt.ArrayLike) -> list[np.ndarray]:
  """One client per distinct id, in the sorted order of the ids: the split the data came with.

  Args:
    client_ids: shape [n], integers or strings: who each example belongs to (`Dataset.client_ids`).

  Returns:
    One int64 index array per client.

  Raises:
    SplitError: not a non-empty one-dimensional array of integers or strings.
  """
  ids = np.asarray(client_ids)
  if ids.ndim != 1 or ids.size == 0 or ids.dtype.kind not in 'iuUS':
    raise SplitError(
        'Client ids must be a non-empty one-dimensional array of integers or strings, one per training example.')
  distinct, owner = np.unique(ids, return_inverse=True)
  return _group(owner.astype(np.int64), len(distinct))


def split(text: str, labels: npt.ArrayLike, clients: int | None, seed: Seed, *, client_ids: npt.ArrayLike | None = None,
          min_examples: int = 1) -> list[np.ndarray]:
  """The split that a short text names.

  | text            | meaning                                                                                   |
  |-----------------|-------------------------------------------------------------------------------------------|
  | `iid`           | `iid`                                                                                     |
  | `dirichlet:0.5` | `dirichlet` with alpha 0.5                                                                |
  | `shards:2`      | `shards` with two shards per client                                                       |
  | `table`         | `count_table` with `MNIST_RPN_COUNTS`, fitted to the data: ten clients, labels 0-9        |
  | `natural`       | `natural` by `client_ids`; `clients` is None or the number of clients the data has        |

  Args:
    text: one of the above.
    labels: integer labels, shape [n].
    clients: how many clients.
    seed: see `generator`.
    client_ids: shape [n], for `natural`.
    min_examples: the least number of examples per client.

  Returns:
    One int64 index array per client.

  Raises:
    SplitError: a text that names no split, or arguments it cannot be made with.
  """
  if not isinstance(text, str):
    raise SplitError(f"A split is named by a text such as 'dirichlet:0.5', not by {text!r}.")
  name, colon, argument = text.strip().partition(':')
  argument = argument.strip()
  if name in ('dirichlet', 'shards'):
    example = 'dirichlet:0.5' if name == 'dirichlet' else 'shards:2'
    if not argument:
      raise SplitError(f"The split '{name}' needs a number, for example '{example}'.")
    try:
      value = float(argument) if name == 'dirichlet' else int(argument)
    except ValueError:
      raise SplitError(
          f"'{argument[:40]}' is not a number that '{name}' can use: write for example '{example}'.") from None
  elif name in ('iid', 'table', 'natural'):
    if colon:
      raise SplitError(f"The split '{name}' takes no argument: write '{name}'.")
  else:
    raise SplitError(f"There is no split '{text[:40]}': use iid, dirichlet:ALPHA, shards:N, table or natural.")

  if name == 'natural':
    if client_ids is None:
      raise SplitError('This data has no natural clients: use iid, dirichlet:ALPHA, shards:N or table.')
    parts = natural(client_ids)
    ids, examples = len(np.asarray(client_ids)), len(np.asarray(labels))
    if ids != examples:
      raise SplitError(f'There are {ids} client ids for {examples} examples: give one id per example.')
    if clients is not None and clients != len(parts):
      raise SplitError(f'The data has {len(parts)} natural clients: ask for that many, not for {clients}.')
    _check_sizes(parts, checks.whole_number('min_examples', min_examples, SplitError, least=0))
    return parts
  if clients is None:
    raise SplitError(f"The split '{text}' needs a number of clients.")
  if name == 'iid':
    return iid(labels, clients, seed, min_examples=min_examples)
  if name == 'dirichlet':
    return dirichlet(labels, clients, value, seed, min_examples=min_examples)
  if name == 'shards':
    return shards(labels, clients, int(value), seed, min_examples=min_examples)
  if clients != len(MNIST_RPN_COUNTS):
    raise SplitError(f'The table has {len(MNIST_RPN_COUNTS)} clients: ask for that many, not for {clients}.')
  return count_table(labels, MNIST_RPN_COUNTS, seed, scale=True, min_examples=min_examples)


def _checked(labels: npt.ArrayLike, clients: int, min_examples: int) -> tuple[np.ndarray, int, int]:
  labels = np.asarray(labels)
  if labels.ndim != 1 or labels.dtype.kind not in 'iu' or labels.size == 0:
    raise SplitError('Labels must be a non-empty one-dimensional array of whole numbers.')
  if labels.min() < 0 or labels.max() > 2**31 - 1:
    raise SplitError('Labels must lie between 0 and 2**31 - 1.')
  clients = checks.whole_number('The number of clients', clients, SplitError, least=1, most=MAX_CLIENTS)
  min_examples = checks.whole_number('min_examples', min_examples, SplitError, least=0)
  if clients * min_examples > len(labels):
    raise SplitError(
        f'{len(labels)} examples are too few to give each of {clients} clients at least {min_examples}: use fewer '
        'clients.'
    )
  return labels.astype(np.int64), clients, min_examples


def _check_cells(clients: int, columns: int) -> None:
  if clients * columns > MAX_CELLS:
    raise SplitError(f'{clients} clients times {columns} labels is more than {MAX_CELLS} cells: use fewer clients.')


def _check_sizes(parts: list[np.ndarray], min_examples: int) -> None:
  smallest = min(range(len(parts)), key=lambda client: len(parts[client]))
  size = len(parts[smallest])
  if size < min_examples:
    least = '1' if min_examples == 1 else f'min_examples={min_examples}'
    raise SplitError(
        f'Client {smallest} would have {size} example{"s" * (size != 1)}, fewer than {least}: use fewer clients.'
    )


def _rng(purpose: str, seed: Seed) -> np.random.Generator:
  try:
    return generator(purpose, seed)
  except ValueError as error:
    raise SplitError(str(error)) from None


def _even(total: int, parts: int) -> np.ndarray:
  """Sizes that differ by at most one and add up to total."""
  sizes = np.full(parts, total // parts, np.int64)
  sizes[: total % parts] += 1
  return sizes


def _rescale(column: np.ndarray, wanted: int, available: int) -> np.ndarray:
  """column * available / wanted in whole numbers with the sum `available`: the largest remainders are rounded up."""
  if wanted == available:
    return column
  # Python integers: the products pass 2**63 for large tables.
  whole, remainder = zip(*(divmod(int(count) * available, wanted) for count in column))
  result = np.array(whole, np.int64)
  ranked = sorted(range(len(column)), key=lambda client: (-remainder[client], client))
  result[ranked[: available - int(result.sum())]] += 1
  return result


def _repair(counts: np.ndarray, min_examples: int) -> None:
  """Raises every row sum of counts [clients, labels] to min_examples, in place; the rule is stated in `dirichlet`."""
  sizes = counts.sum(axis=1)
  poor = np.flatnonzero(sizes < min_examples)
  rich = [(-int(sizes[client]), int(client)) for client in np.flatnonzero(sizes > min_examples)] if len(poor) else []
  heapq.heapify(rich)
  for client in poor:
    while sizes[client] < min_examples:
      _, donor = heapq.heappop(rich)
      label = np.argmax(counts[donor])
      counts[donor, label] -= 1
      counts[client, label] += 1
      sizes[donor] -= 1
      sizes[client] += 1
      if sizes[donor] > min_examples:
        heapq.heappush(rich, (-int(sizes[donor]), donor))


def _deal(labels: np.ndarray, classes: np.ndarray, counts: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
  """Gives counts[client, column] random examples of classes[column] to each client."""
  clients = np.arange(counts.shape[0])
  owner = np.empty(len(labels), np.int64)
  # All examples of a label together, labels ascending: one pass instead of one per label.
  by_label = np.argsort(labels, kind='stable')
  starts = np.searchsorted(labels[by_label], classes)
  ends = np.searchsorted(labels[by_label], classes, side='right')
  for column, (start, end) in enumerate(zip(starts, ends)):
    owner[rng.permutation(by_label[start:end])] = np.repeat(clients, counts[:, column])
  return _group(owner, counts.shape[0])


def _group(owner: np.ndarray, clients: int) -> list[np.ndarray]:
  """Ascending indices per client from the owner of each example."""
  order = np.argsort(owner, kind='stable').astype(np.int64)
  return np.split(order, np.cumsum(np.bincount(owner, minlength=clients))[:-1])
