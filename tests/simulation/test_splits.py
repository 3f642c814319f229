"""Splits: every example goes to exactly one client, and each kind of split has the shape its source describes."""

import hashlib

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from tff_compress.codec.errors import CompressionError
from tff_compress.simulation import splits
from tff_compress.simulation.splits import SplitError

MNIST_CLASS_COUNTS = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
MNIST_LABELS = np.repeat(np.arange(10), MNIST_CLASS_COUNTS)
RPN_CLIENT_SIZES = [5832, 5230, 6190, 6832, 5903, 5598, 6239, 6166, 5298, 6712]

SETTINGS = hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
LABELS = st.lists(st.integers(0, 11), min_size=1, max_size=300).map(lambda values: np.array(values, np.int32))


def assert_deals_out_everything_once(parts, total):
  assert all(part.dtype == np.int64 and part.ndim == 1 for part in parts)
  assert all((np.diff(part) > 0).all() for part in parts)
  np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(total))


def label_counts(parts, labels, columns):
  return np.array([np.bincount(labels[part], minlength=columns) for part in parts])


def distance_to_global(parts, labels, columns=10):
  """Total variation distance between each client's label distribution and the one of all examples."""
  counts = label_counts(parts, labels, columns)
  share = counts / counts.sum(axis=1, keepdims=True)
  return np.abs(share - counts.sum(axis=0) / counts.sum()).sum(axis=1) / 2


def same(first, second):
  return len(first) == len(second) and all(np.array_equal(a, b) for a, b in zip(first, second))


# ---- every kind
# --------------------------------------------------------------------------------------------------------


@SETTINGS
@hypothesis.given(LABELS, st.integers(1, 40), st.integers(0, 2**70), st.data())
def test_every_split_deals_out_every_example_once_and_nobody_is_empty(labels, clients, seed, data):
  text = data.draw(st.sampled_from(['iid', 'dirichlet:0.001', 'dirichlet:0.3', 'dirichlet:1e6', 'shards:1',
                                    'shards:3']))
  try:
    parts = splits.split(text, labels, clients, seed)
  except SplitError:
    needed = clients * (int(text[-1]) if text.startswith('shards') else 1)
    assert needed > len(labels)
    return
  assert len(parts) == clients
  assert min(map(len, parts)) >= 1
  assert_deals_out_everything_once(parts, len(labels))
  assert same(parts, splits.split(text, labels, clients, seed))


@SETTINGS
@hypothesis.given(LABELS, st.integers(1, 40), st.floats(1e-3, 1e6), st.integers(0, 9), st.integers(0, 5))
def test_dirichlet_keeps_any_promised_minimum(labels, clients, alpha, min_examples, seed):
  hypothesis.assume(clients * min_examples <= len(labels))
  parts = splits.dirichlet(labels, clients, alpha, seed, min_examples=min_examples)
  assert len(parts) == clients
  assert min(map(len, parts)) >= min_examples
  assert_deals_out_everything_once(parts, len(labels))


@SETTINGS
@hypothesis.given(LABELS, st.lists(st.lists(st.integers(0, 10**6), min_size=12, max_size=12), min_size=1, max_size=20))
def test_a_rescaled_table_deals_out_every_example_once(labels, table):
  table = np.array(table)
  hypothesis.assume(len(table) <= len(labels))
  hypothesis.assume((table.sum(axis=0) > 0).all())
  parts = splits.count_table(labels, table, 0, scale=True)
  assert len(parts) == len(table)
  assert min(map(len, parts)) >= 1
  assert_deals_out_everything_once(parts, len(labels))


@pytest.mark.parametrize('text', ['iid', 'dirichlet:0.5', 'shards:2', 'table'])
def test_another_seed_gives_another_split(text):
  labels = np.arange(600) % 10
  first = splits.split(text, labels, 10, 1)
  assert same(first, splits.split(text, labels, 10, 1))
  assert not same(first, splits.split(text, labels, 10, 2))


@pytest.mark.parametrize(
    'text,digest',
    [
        ('iid', 'c34dc2e0d6e08b49'),
        ('dirichlet:0.5', '41a2bfa87368f823'),
        ('shards:2', '04e80290e38dd9cb'),
        ('table', 'bc841398d0b513b2'),
    ],
)
def test_splits_stay_what_they_were_in_earlier_results(text, digest):
  parts = splits.split(text, MNIST_LABELS, 10, 7)
  found = hashlib.sha256(b''.join(len(part).to_bytes(8, 'little') + part.astype('<i8').tobytes() for part in parts))
  assert found.hexdigest()[:16] == digest


def test_no_global_generator_is_read_or_set():
  np.random.seed(3)
  before = np.random.get_state()[1].copy()
  first = splits.split('dirichlet:0.5', MNIST_LABELS, 10, 1)
  np.testing.assert_array_equal(np.random.get_state()[1], before)
  np.random.seed(4)
  assert same(first, splits.split('dirichlet:0.5', MNIST_LABELS, 10, 1))


def test_labels_are_left_as_they_were():
  labels = np.arange(50) % 7
  before = labels.copy()
  for text in ('iid', 'dirichlet:0.5', 'shards:2'):
    splits.split(text, labels, 5, 0)
  np.testing.assert_array_equal(labels, before)


# ---- generator
# ---------------------------------------------------------------------------------------------------------


def test_different_seeds_and_purposes_give_different_streams():
  seeds = [0, 1, 2**32, 2**200, (0,) * 2, (1, 0), (1, 0, 0), (0, 1), (11,) * 2, (1, 11)]
  draws = [splits.generator(purpose, seed).bytes(8) for purpose in ('a', 'b') for seed in seeds]
  assert len(set(draws)) == len(draws)


def test_numpy_integers_and_one_element_tuples_name_the_same_seed():
  expected = splits.generator('a', 5).bytes(8)
  for seed in (np.int64(5), np.uint8(5), (5,), [5], (np.int32(5),)):
    assert splits.generator('a', seed).bytes(8) == expected


@pytest.mark.parametrize('seed', [-1, (0, -1), 1.0, '1', None, True, (), (1, None)])
def test_seeds_that_are_no_whole_numbers_are_refused(seed):
  with pytest.raises(ValueError, match='seed'):
    splits.generator('a', seed)
  with pytest.raises(SplitError, match='seed'):
    splits.iid([0, 1], 1, seed)


# ---- iid
# ---------------------------------------------------------------------------------------------------------------


def test_iid_sizes_differ_by_at_most_one():
  sizes = [len(part) for part in splits.iid(np.zeros(103, int), 10, 0)]
  assert sorted(set(sizes)) == [10, 11] and sum(sizes) == 103


def test_iid_clients_have_the_global_label_mix():
  assert distance_to_global(splits.iid(MNIST_LABELS, 10, 0), MNIST_LABELS).max() < 0.03


# ---- dirichlet
# ---------------------------------------------------------------------------------------------------------


def test_dirichlet_shares_have_the_variance_of_the_distribution():
  clients, alpha = 20, 0.5
  labels = np.repeat(np.arange(400), 2000)  # many labels: many independent draws
  counts = label_counts(splits.dirichlet(labels, clients, alpha, 0, min_examples=0), labels, 400) / 2000
  mean = 1 / clients
  variance = mean * (1 - mean) / (clients * alpha + 1)
  assert abs(counts.mean() - mean) < 1e-12
  # 8,000 values with heavy tails: 12 % is about three standard errors.
  assert abs(counts.var() / variance - 1) < 0.12


def test_dirichlet_approaches_iid_as_alpha_grows():
  distances = [distance_to_global(splits.dirichlet(MNIST_LABELS, 10, alpha, 0), MNIST_LABELS).mean()
               for alpha in (0.05, 0.5, 5, 1e6)]
  assert distances == sorted(distances, reverse=True)
  assert distances[0] > 0.5 and distances[-1] < 0.001


def test_small_alpha_leaves_clients_empty_only_when_asked():
  labels = np.arange(200) % 10
  assert min(map(len, splits.dirichlet(labels, 50, 0.01, 0, min_examples=0))) == 0
  assert min(map(len, splits.dirichlet(labels, 50, 0.01, 0))) == 1


def test_repair_moves_as_few_examples_as_needed():
  labels = np.arange(1000) % 10
  drawn = splits.dirichlet(labels, 50, 0.05, 3, min_examples=0)
  repaired = splits.dirichlet(labels, 50, 0.05, 3, min_examples=4)
  missing = sum(max(0, 4 - len(part)) for part in drawn)
  moved = np.abs(label_counts(drawn, labels, 10) - label_counts(repaired, labels, 10)).sum() / 2
  assert missing > 0 and moved == missing


def test_repair_takes_from_the_largest_client():
  labels = np.arange(1000) % 10
  drawn = [len(part) for part in splits.dirichlet(labels, 50, 0.05, 3, min_examples=0)]
  repaired = [len(part) for part in splits.dirichlet(labels, 50, 0.05, 3)]
  gave = [client for client in range(50) if repaired[client] < drawn[client]]
  kept = [client for client in range(50) if repaired[client] >= drawn[client]]
  assert gave and min(repaired[client] for client in gave) >= max(repaired[client] for client in kept) - 1


@pytest.mark.parametrize('alpha', [0, -1, 1e-4, 1e7, 1e-300, float('nan'), float('inf'), 'x', None])
def test_concentrations_that_cannot_be_sampled_are_refused(alpha):
  with pytest.raises(SplitError):
    splits.dirichlet([0, 1, 2], 2, alpha, 0)


# ---- shards
# ------------------------------------------------------------------------------------------------------------


def test_shards_give_each_client_few_labels():
  labels = np.repeat(np.arange(10), 600)
  parts = splits.shards(labels, 100, 2, 0)  # 200 shards of 30, 20 shards to a label: no shard has two labels
  assert {len(part) for part in parts} == {60}
  counts = label_counts(parts, labels, 10)
  assert ((counts > 0).sum(axis=1) <= 2).all()
  assert set(np.unique(counts)) <= {0, 30, 60}


def test_shards_of_another_seed_hold_other_examples():
  labels = np.zeros(100, int)
  assert not same(splits.shards(labels, 1, 2, 0)[:1], [np.arange(50)])
  first, second = ({frozenset(part.tolist()) for part in splits.shards(labels, 10, 1, seed)} for seed in (0, 1))
  assert first != second


def test_more_shards_than_examples_are_refused():
  with pytest.raises(SplitError, match='fewer'):
    splits.shards(np.arange(10), 4, 3, 0)


# ---- table
# -------------------------------------------------------------------------------------------------------------


def test_the_mnist_table_has_the_totals_of_mnist_and_of_the_paper():
  np.testing.assert_array_equal(splits.MNIST_RPN_COUNTS.sum(axis=0), MNIST_CLASS_COUNTS)
  np.testing.assert_array_equal(splits.MNIST_RPN_COUNTS.sum(axis=1), RPN_CLIENT_SIZES)
  assert splits.MNIST_RPN_COUNTS[9, 8] == 415  # printed as 425


def test_the_mnist_table_cannot_be_changed_by_accident():
  with pytest.raises(ValueError):
    splits.MNIST_RPN_COUNTS[0, 0] = 1


def test_the_mnist_table_fits_mnist_exactly():
  rng = np.random.Generator(np.random.Philox(0))
  labels = rng.permutation(MNIST_LABELS)
  for parts in (splits.count_table(labels, splits.MNIST_RPN_COUNTS, 0), splits.split('table', labels, 10, 0)):
    assert_deals_out_everything_once(parts, 60_000)
    np.testing.assert_array_equal(label_counts(parts, labels, 10), splits.MNIST_RPN_COUNTS)
  distances = distance_to_global(parts, labels)
  assert 0.065 < distances.min() and distances.max() < 0.205


def test_a_rescaled_table_is_within_one_of_the_proportion():
  labels = np.repeat(np.arange(10), 143)
  parts = splits.count_table(labels, splits.MNIST_RPN_COUNTS, 0, scale=True)
  expected = splits.MNIST_RPN_COUNTS * (143 / splits.MNIST_RPN_COUNTS.sum(axis=0))
  assert np.abs(label_counts(parts, labels, 10) - expected).max() < 1


def test_rescaling_gives_the_rest_to_the_largest_remainders():
  table = np.array([[5], [3], [2]])
  parts = splits.count_table(np.zeros(8, int), table, 0, scale=True)  # 4.0, 2.4, 1.6
  assert [len(part) for part in parts] == [4, 2, 2]


def test_a_table_that_does_not_fit_is_refused_unless_rescaled():
  labels = np.repeat([0, 1], [4, 5])
  table = [[2, 2], [2, 2]]
  with pytest.raises(SplitError, match='scale=True'):
    splits.count_table(labels, table, 0)
  assert len(splits.count_table(labels, table, 0, scale=True)) == 2


def test_a_table_row_of_zeros_is_refused_unless_asked_for():
  table = [[2, 1], [0, 0]]
  with pytest.raises(SplitError, match='Client 1'):
    splits.count_table([0, 0, 1], table, 0)
  assert [len(part) for part in splits.count_table([0, 0, 1], table, 0, min_examples=0)] == [3, 0]
  assert [len(part) for part in splits.count_table([0, 0, 1], table, 0, scale=True)] == [2, 1]


@pytest.mark.parametrize(
    'table',
    [[], [[]], [1, 2], [[1.0, 2.0]], [[1, -1]], [[2**62, 1]], [['a', 'b']], [[1]], [[[1]]], [[3, 0]]],
)
def test_tables_that_make_no_sense_are_refused(table):
  with pytest.raises(SplitError):
    splits.count_table([0, 0, 1], table, 0, scale=True)


# ---- natural
# -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('ids', [['b', 'a', 'b', 'c'], [7, -3, 7, 9]])
def test_natural_clients_come_in_the_order_of_their_ids(ids):
  parts = splits.natural(ids)
  assert [part.tolist() for part in parts] == [[1], [0, 2], [3]]
  assert_deals_out_everything_once(parts, 4)


def test_natural_split_needs_ids_and_the_right_number_of_clients():
  labels, ids = [0, 1, 0], ['a', 'a', 'b']
  assert [part.tolist() for part in splits.split('natural', labels, None, 0, client_ids=ids)] == [[0, 1], [2]]
  assert len(splits.split('natural', labels, 2, 0, client_ids=ids)) == 2
  with pytest.raises(SplitError, match='2 natural clients'):
    splits.split('natural', labels, 3, 0, client_ids=ids)
  with pytest.raises(SplitError, match='no natural clients'):
    splits.split('natural', labels, 2, 0)
  with pytest.raises(SplitError, match='one id per example'):
    splits.split('natural', labels, 2, 0, client_ids=ids[:2])
  with pytest.raises(SplitError, match='min_examples=2'):
    splits.split('natural', labels, 2, 0, client_ids=ids, min_examples=2)


@pytest.mark.parametrize('ids', [[], [[1]], [1.5], np.array([None, 'a'], object)])
def test_ids_that_are_no_ids_are_refused(ids):
  with pytest.raises(SplitError, match='Client ids'):
    splits.natural(ids)


# ---- texts and bad arguments
# -------------------------------------------------------------------------------------------


def test_texts_name_the_functions():
  labels = np.arange(300) % 10
  assert same(splits.split(' iid ', labels, 5, 3), splits.iid(labels, 5, 3))
  assert same(splits.split('dirichlet:0.25', labels, 5, 3), splits.dirichlet(labels, 5, 0.25, 3))
  assert same(splits.split('shards: 4', labels, 5, 3), splits.shards(labels, 5, 4, 3))
  assert same(splits.split('table', labels, 10, 3), splits.count_table(labels, splits.MNIST_RPN_COUNTS, 3, scale=True))


@pytest.mark.parametrize(
    'text',
    ['', 'idd', 'IID', 'iid:1', 'table:2', 'natural:1', 'dirichlet', 'dirichlet:', 'dirichlet:x', 'dirichlet:nan',
     'dirichlet:0',
     'dirichlet:-1', 'dirichlet:1e400', 'dirichlet:0.5:1', 'shards', 'shards:', 'shards:0', 'shards:-1', 'shards:1.5',
     'shards:' + '9' * 5000, 'x' * 10**6, ':', None, 3],
)
def test_bad_texts_are_refused_with_one_short_sentence(text):
  with pytest.raises(SplitError) as caught:
    splits.split(text, np.arange(30) % 10, 10, 0, client_ids=np.arange(30))
  assert_one_sentence(caught.value)


@pytest.mark.parametrize(
    'labels,clients,min_examples',
    [
        ([], 1, 1),
        ([[0]], 1, 1),
        ([0.5], 1, 1),
        ([-1], 1, 1),
        ([2**40], 1, 1),
        (['a'], 1, 1),
        ([0, 1], 0, 1),
        ([0, 1], -1, 1),
        ([0, 1], 1.0, 1),
        ([0, 1], True, 1),
        ([0, 1], None, 1),
        ([0, 1], 2**40, 0),
        ([0, 1], 3, 1),
        ([0, 1], 2, 2),
        ([0, 1], 1, -1),
        ([0, 1], 1, 0.5),
    ],
)
@pytest.mark.parametrize('text', ['iid', 'dirichlet:0.5', 'shards:1'])
def test_bad_arguments_are_refused_with_one_short_sentence(text, labels, clients, min_examples):
  with pytest.raises(SplitError) as caught:
    splits.split(text, labels, clients, 0, min_examples=min_examples)
  assert_one_sentence(caught.value)


def test_a_count_matrix_that_would_fill_the_memory_is_refused():
  with pytest.raises(SplitError, match='cells'):
    splits.dirichlet(np.arange(1000), 2**20, 0.5, 0, min_examples=0)


def test_errors_are_value_errors_of_this_package():
  assert issubclass(SplitError, CompressionError) and issubclass(SplitError, ValueError)


def assert_one_sentence(error):
  text = str(error)
  assert text.endswith('.') and '\n' not in text and len(text) < 200
