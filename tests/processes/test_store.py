"""The store of client states: what is put is got, limits hold, a restart finds everything, damage is a typed error."""

import os

import numpy as np
import pytest

from tff_compress.processes import ClientStore
from tff_compress.processes import ProcessError
from tff_compress.processes import StateError
from tff_compress.processes.store import Layout

LAYOUT = Layout(b'0123456789abcdef', (((3, 2), 'float32'), ((), 'int64'), ((0,), 'float32')))


def state(value):
  return [np.full((3, 2), value, np.float32), np.int64(value), np.zeros(0, np.float32)]


def value(store, client):
  found = store.get(client)
  return None if found is None else (found[0], int(found[1][1]))


@pytest.fixture(params=['memory', 'disk'])
def folder(request, tmp_path):
  return None if request.param == 'memory' else str(tmp_path / 'clients')


def test_the_newest_state_of_each_client_is_kept(folder):
  store = ClientStore(LAYOUT, folder)
  store.put(1, {'a': state(1), 'ü/\0 ' * 20: state(2)})
  store.put(2, {'a': state(3)})
  assert value(store, 'a') == (2, 3) and value(store, 'ü/\0 ' * 20) == (1, 2) and value(store, 'b') is None
  np.testing.assert_array_equal(store.get('a')[1][0], state(3)[0])
  assert len(store) == 2 and 'a' in store and 'b' not in store and store.bytes >= 2 * LAYOUT.bytes
  store.forget('a')
  assert len(store) == 1 and value(store, 'a') is None
  with pytest.raises(StateError, match='nothing is stored'):
    store.forget('a')


def test_limits_drop_those_that_took_part_least_recently(folder):
  store = ClientStore(LAYOUT, folder, max_clients=3)
  for number, client in enumerate('abcad'):
    store.put(number + 1, {client: state(number)})
  assert [client in store for client in 'abcd'] == [True, False, True, True] and store.dropped == 1
  size = store.bytes // 3
  smaller = ClientStore(LAYOUT, folder and folder + '2', max_bytes=2 * size)
  for number in range(1, 6):
    smaller.put(number, {str(number): state(number)})
    assert smaller.bytes <= 2 * size
  assert [str(n) in smaller for n in range(1, 6)] == [False, False, False, True, True] and smaller.dropped == 3


def test_states_newer_than_a_round_can_be_taken_back(folder):
  store = ClientStore(LAYOUT, folder)
  store.kept_rounds = (0, 2)
  for number in (1, 2, 3, 4):
    store.put(number, {'a': state(number), **({'b': state(10 + number)} if number % 2 else {})})
  store.put(5, {'c': state(7)})
  assert value(store, 'a') == (4, 4)
  store.rewind(2)
  assert value(store, 'a') == (2, 2) and value(store, 'b') == (1, 11) and value(store, 'c') is None
  store.rewind(0)
  assert len(store) == 0 and store.bytes == 0


def test_a_restart_finds_what_was_there(tmp_path):
  folder = str(tmp_path)
  store = ClientStore(LAYOUT, folder)
  store.put(7, {'a': state(1), 'b': state(2)})
  store.put(9, {'a': state(3)})
  (tmp_path / '.state-left').write_bytes(b'half')
  (tmp_path / 'notes.txt').write_bytes(b'of the user')
  again = ClientStore(LAYOUT, folder, max_clients=2)
  assert value(again, 'a') == (9, 3) and value(again, 'b') == (7, 2) and again.bytes == store.bytes
  again.put(10, {'c': state(4)})
  assert 'b' not in again and value(again, 'a') == (9, 3)
  assert sorted(p.suffix for p in tmp_path.iterdir()) == ['.state', '.state', '.txt']


def test_damaged_and_foreign_files_are_refused_and_the_others_are_read(tmp_path):
  folder = str(tmp_path)
  store = ClientStore(LAYOUT, folder)
  store.put(1, {'a': state(1), 'b': state(2)})
  path, = [p for p in tmp_path.iterdir() if b'a' == p.read_bytes()[36:37]]
  whole = path.read_bytes()
  damaged = [whole[:n] for n in range(0, len(whole), 5)] + [whole + b'\0']
  damaged += [whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1:] for i in range(len(whole))]
  for data in damaged:
    path.write_bytes(data)
    with pytest.raises(StateError, match='damaged|of another model'):
      store.get('a')
    assert value(store, 'b') == (1, 2)
  path.write_bytes(whole)
  other = ClientStore(Layout(b'another model!!!', LAYOUT.arrays), folder)
  with pytest.raises(StateError, match='of another model'):
    other.get('a')
  os.remove(path)
  with pytest.raises(StateError, match='cannot be read'):
    store.get('a')
  store.forget('a')
  store.put(2, {'a': state(5)})
  assert value(store, 'a') == (2, 5)


def test_a_round_that_cannot_be_written_changes_nothing(tmp_path):
  store = ClientStore(LAYOUT, str(tmp_path))
  store.put(1, {'a': state(1), 'b': state(2)})
  write = store._records.write

  def failing(name, round_number, client, arrays):
    if client == 'b':
      raise StateError('no space')
    return write(name, round_number, client, arrays)
  store._records.write = failing
  with pytest.raises(StateError):
    store.put(2, {'a': state(3), 'b': state(4)})
  assert value(store, 'a') == (1, 1) and value(store, 'b') == (1, 2)
  assert len(list(tmp_path.iterdir())) == 2
  assert value(ClientStore(LAYOUT, str(tmp_path)), 'a') == (1, 1)


def test_bad_arguments_are_typed_errors(tmp_path):
  (tmp_path / 'file').write_bytes(b'')
  with pytest.raises(StateError, match='cannot hold'):
    ClientStore(LAYOUT, str(tmp_path / 'file'))
  for limit in (0, -1, 1.5, True):
    with pytest.raises(ProcessError):
      ClientStore(LAYOUT, max_clients=limit)
  with pytest.raises(StateError, match='at most'):
    ClientStore(LAYOUT, str(tmp_path)).put(1, {'x' * 5000: state(1)})
