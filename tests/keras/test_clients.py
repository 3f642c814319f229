"""How clients' data are laid out for a round. No TFF worker takes part."""

import collections

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tff_compress.keras import FederateError
from tff_compress.keras.clients import Clients

pytestmark = pytest.mark.xdist_group('tff')

keras = tf.keras


@pytest.fixture(scope='module')
def model():
  return keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])


def numbered(rows, first=0):
  """Rows that say who they are, and their labels."""
  x = np.stack([np.arange(first, first + rows), np.zeros(rows)], axis=1)
  return x, np.arange(first, first + rows) % 3


def clients(data, model, **changes):
  return Clients(data, model, **{**dict(batch_size=4, local_epochs=1, shuffle=True, seed=1), **changes})


def spec(found, key=False):
  x, y, _ = found.element_spec
  parts = dict(x=(x,), y=(y,))
  return collections.OrderedDict([*([('key', tf.TensorSpec([None, 2], tf.int32))] if key else []), *parts.items()])


def batches(found, index, round_number=0):
  [dataset] = found.datasets([index], round_number, spec(found))
  return [(batch['x'][0].numpy(), batch['y'][0].numpy()) for batch in dataset]


def rows(found_batches):
  return [int(x[0]) for batch, _ in found_batches for x in batch]


def test_every_pass_is_a_new_order_of_all_examples_in_batches_of_its_own(model):
  found = clients([numbered(10)], model, local_epochs=3)
  result = batches(found, 0)
  assert [len(x) for x, _ in result] == [4, 4, 2] * 3
  order = rows(result)
  passes = [order[i:i + 10] for i in (0, 10, 20)]
  assert all(sorted(one) == list(range(10)) for one in passes)
  assert passes[0] != passes[1] != passes[2]
  assert all((y == x[:, 0] % 3).all() for x, y in result)


def test_orders_depend_on_seed_round_and_client_alone(model):
  data = [numbered(12), numbered(12)]
  first = rows(batches(clients(data, model), 0, 5))
  assert first == rows(batches(clients(data, model), 0, 5))
  assert first != rows(batches(clients(data, model), 0, 6))
  assert first != rows(batches(clients(data, model), 1, 5))
  assert first != rows(batches(clients(data, model, seed=2), 0, 5))
  assert list(range(12)) == rows(batches(clients(data, model, shuffle=False), 0, 5))


def test_draws_depend_on_seed_and_round_alone_and_have_no_one_twice(model):
  found = clients([numbered(1)] * 20, model)
  draws = [found.draw(number, 8) for number in range(30)]
  assert draws == [clients([numbered(1)] * 20, model).draw(number, 8) for number in range(30)]
  assert all(len(set(draw)) == 8 for draw in draws) and len({tuple(draw) for draw in draws}) == 30
  assert set().union(*draws) == set(range(20))
  assert found.draw(3, None) == found.draw(3, 20) == list(range(20))
  assert clients([numbered(1)] * 20, model, seed=2).draw(0, 8) != draws[0]


def test_keys_differ_between_batches_rounds_and_clients(model):
  found = clients([numbered(8), numbered(8)], model)
  keys = set()
  for index in (0, 1):
    for number in (0, 1):
      [dataset] = found.datasets([index], number, spec(found, key=True))
      for batch in dataset:
        assert batch['key'].shape == (len(batch['y'][0]), 2)
        keys.add(tuple(batch['key'][0].numpy()))
  assert len(keys) == 8


@pytest.mark.parametrize('dataset, sizes', [
    (lambda d: d, [4, 4, 2]),
    (lambda d: d.batch(3), [3, 3, 3, 1]),
    (lambda d: d.batch(5), [5, 5]),
    (lambda d: d.batch(3).concatenate(d.batch(6)), [3, 3, 3, 1, 6, 4]),
    (lambda d: d.map(lambda x, y: tf.py_function(lambda a, b: (a, b), (x, y), (tf.float64, tf.int64)))
     .map(lambda x, y: (tf.ensure_shape(x, [2]), tf.ensure_shape(y, []))), [4, 4, 2]),
    (lambda d: d.map(lambda x, y: {'x': x, 'y': y}), [4, 4, 2]),
], ids=['examples', 'batches', 'even', 'uneven', 'python', 'named'])
def test_data_sets_keep_their_order_and_their_batches(model, dataset, sizes):
  source = dataset(tf.data.Dataset.from_tensor_slices(numbered(10)))
  result = batches(clients([source], model), 0)
  assert [len(x) for x, _ in result] == sizes
  assert rows(result) == (list(range(10)) * 2)[:sum(sizes)]
  assert result[0][0].dtype == np.float32


def test_a_data_set_is_gone_through_anew_for_each_pass_and_round(model):
  source = tf.data.Dataset.range(6).shuffle(6, seed=3).map(lambda i: (tf.cast([i, 0], tf.float32), i)).batch(4)
  found = clients([source], model, local_epochs=2)
  order = rows(batches(found, 0)) + rows(batches(found, 0, 1))
  passes = [tuple(order[i:i + 6]) for i in range(0, 24, 6)]
  assert all(sorted(one) == list(range(6)) for one in passes) and len(set(passes)) > 1


@pytest.mark.parametrize('steps', [1, 2, 3, 5, 7])
@pytest.mark.parametrize('count, batch_size', [(10, 4), (8, 4), (3, 4)])
def test_local_steps_are_so_many_batches_whatever_a_client_has(model, steps, count, batch_size):
  """Whole passes in orders of their own, the last cut short; a data set's batches likewise."""
  arrays = batches(clients([numbered(count)], model, batch_size=batch_size, local_steps=steps, local_epochs=9), 0)
  source = tf.data.Dataset.from_tensor_slices(numbered(count)).batch(batch_size)
  listed = batches(clients([source], model, local_steps=steps), 0)
  per_pass = [min(batch_size, count - i) for i in range(0, count, batch_size)]
  expected = (per_pass * steps)[:steps]
  assert [len(x) for x, _ in arrays] == [len(x) for x, _ in listed] == expected
  for order in (rows(arrays), rows(listed)):
    for start in range(0, len(order) - count + 1, count):
      assert sorted(order[start:start + count]) == list(range(count))
    assert len(set(order[len(order) // count * count:])) == len(order) % count


def test_a_data_set_that_ends_for_good_ends_the_steps(model):
  left = [3]
  def once():
    while left[0]:
      left[0] -= 1
      yield np.zeros(2, np.float32), 0
  source = tf.data.Dataset.from_generator(once, output_signature=(tf.TensorSpec([2]), tf.TensorSpec([], tf.int32)))
  assert [len(x) for x, _ in batches(clients([source], model, local_steps=9), 0)] == [3]


def test_number_types_of_all_clients_become_one(model):
  mixed = [(np.zeros((3, 2), np.float16), np.zeros(3, np.uint8)), (np.ones((3, 2), np.int32), np.ones(3, np.int64)),
           tf.data.Dataset.from_tensor_slices((np.ones((3, 2)), np.ones(3, np.int16)))]
  found = clients(mixed, model)
  x, y, weight = found.element_spec
  assert (x, y, weight) == (tf.TensorSpec([None, 2], tf.float32), tf.TensorSpec([None], tf.int64), ())
  for index in range(3):
    [(x, y)] = batches(found, index)
    assert x.dtype == np.float32 and y.dtype == np.int64


def test_shapes_may_differ_where_the_model_takes_any():
  model = keras.Sequential([keras.Input((None,), dtype='int32'), keras.layers.Embedding(5, 2)])
  found = clients([(np.zeros((3, width), np.int32), np.zeros((3, width), np.int32)) for width in (4, 7)], model)
  assert found.element_spec[0].shape.as_list() == [None, None]
  assert [x.shape for index in (0, 1) for x, _ in batches(found, index)] == [(3, 4), (3, 7)]


def test_federated_data_of_tff_is_opened_when_it_is_drawn(model):
  opened = []

  def make(name):
    opened.append(name)
    first = tf.strings.to_number(name, tf.int64) * 100
    return tf.data.Dataset.range(4).map(lambda i: (tf.cast([first + i, 0], tf.float32), first + i))

  source = tff.simulation.datasets.ClientData.from_clients_and_tf_fn(['1', '2'], make)
  opened.clear()  # TFF itself opens one.
  found = clients(source, model)
  assert len(opened) == 1 and found.names == ['1', '2']
  assert rows(batches(found, 1)) == [200, 201, 202, 203]


BAD = {
    'no clients': ([], 'at least one client'),
    'one array': (np.zeros((4, 2)), 'list or dict'),
    'not by client': (numbered(4), "the data of client 0 must be a tf.data.Dataset or a tuple"),
    'empty': ([numbered(4), numbered(0)], 'client 1 has no examples'),
    'empty of a dict': ({'ann': numbered(4), 'bob': numbered(0)}, "client 'bob' has no examples"),
    'empty data set': ([tf.data.Dataset.from_tensor_slices(numbered(0))], 'client 0 has no examples'),
    'endless': ([tf.data.Dataset.from_tensor_slices(numbered(4)).repeat()], 'never ends'),
    'rows': ([(np.zeros((4, 2)), np.zeros(3))], '3 and 4 rows'),
    'scalars': ([(1.0, 2.0)], 'one row per example'),
    'lists of lists': ([(np.array([[1], [1, 2]], object), np.zeros(2))], 'one row per example'),
    'width': ([numbered(4), (np.zeros((4, 3)), np.zeros(4, int))], 'client 1 has other data than client 0'),
    'weights of one': ([numbered(4), (*numbered(4), np.ones(4))], 'client 1 has other data than client 0'),
    'ragged': ([tf.data.Dataset.from_tensor_slices((tf.ragged.constant([[1.0], [1.0, 2.0]]), [0, 1]))], 'ragged'),
    'four parts': ([(*numbered(4), np.ones(4), np.ones(4))], 'tuple'),
    'unknown rank': ([tf.data.Dataset.from_generator(lambda: iter(()), output_types=(tf.float32, tf.int32))], 'rank'),
}


@pytest.mark.parametrize('data, words', BAD.values(), ids=BAD)
def test_data_that_cannot_be_used_are_named_in_one_sentence(model, data, words):
  with pytest.raises(FederateError, match=words) as caught:
    clients(data, model)
  assert str(caught.value).endswith('.') and '\n' not in str(caught.value)


def test_failures_while_reading_name_the_client(model):
  broken = tf.data.Dataset.from_tensor_slices(numbered(4)).map(
      lambda x, y: (tf.debugging.check_numerics(x / 0.0, 'too hot'), y))
  empty = tf.data.Dataset.from_tensor_slices(numbered(4)).filter(lambda x, y: False)
  found = clients({'good': numbered(4), 'broken': broken, 'empty': empty}, model)
  with pytest.raises(FederateError, match="client 'broken' cannot be read: too hot"):
    batches(found, 1)
  with pytest.raises(FederateError, match="client 'empty' has no examples"):
    batches(found, 2)


def test_more_than_tff_takes_is_refused(model):
  large = np.broadcast_to(np.float32(0), (7_000_000, 2)), np.broadcast_to(np.int64(0), (7_000_000,))
  found = clients([large], model, batch_size=100_000, shuffle=False)
  with pytest.raises(FederateError, match='client 0 has 112 MB of examples in a round'):
    batches(found, 0)
