"""The store of client states: what is put is got, limits hold, a restart finds everything, damage is a typed error."""

import errno
import os
import random
import shutil

import pytest

from tff_compress.processes import ClientStore
from tff_compress.processes import ProcessError
from tff_compress.processes import StateError
from tff_compress.processes.state import store as store_lib
from tff_compress.processes.state.store import Layout

LAYOUT = Layout(b'0123456789abcdef', body_bytes=24, fields_bytes=4)


def put(store, round_number, values):
  """What a round does: a worker writes the bodies, and the store keeps them with the small fields."""
  for client, number in values.items():
    with open(store.target(client), 'wb') as file:
      file.write(bytes([number]) * LAYOUT.body_bytes)
  store.commit(round_number, {client: number.to_bytes(4, 'little') for client, number in values.items()})


def value(store, client):
  found = store.get(client)
  if found is None:
    return None
  with open(found.path, 'rb') as file:
    assert file.read(LAYOUT.body_bytes) == found.fields[:1] * LAYOUT.body_bytes
  return found.round, int.from_bytes(found.fields, 'little')


@pytest.fixture(params=['temporary', 'folder'])
def folder(request, tmp_path):
  return None if request.param == 'temporary' else str(tmp_path / 'clients')


def test_the_newest_state_of_each_client_is_kept(folder):
  store = ClientStore(LAYOUT, folder)
  put(store, 1, {'a': 1, 'ü/\0 ' * 20: 2})
  put(store, 2, {'a': 3})
  assert value(store, 'a') == (2, 3) and value(store, 'ü/\0 ' * 20) == (1, 2) and value(store, 'b') is None
  assert len(store) == 2 and 'a' in store and 'b' not in store and store.bytes >= 2 * 28
  store.forget('a')
  assert len(store) == 1 and value(store, 'a') is None
  with pytest.raises(StateError, match='nothing is stored'):
    store.forget('a')


def test_limits_drop_those_that_took_part_least_recently(folder):
  store = ClientStore(LAYOUT, folder, max_clients=3)
  for number, client in enumerate('abcad'):
    put(store, number + 1, {client: number})
  assert [client in store for client in 'abcd'] == [True, False, True, True] and store.dropped == 1
  size = store.bytes // 3
  smaller = ClientStore(LAYOUT, folder and folder + '2', max_bytes=2 * size)
  for number in range(1, 6):
    put(smaller, number, {str(number): number})
    assert smaller.bytes <= 2 * size
  assert [str(n) in smaller for n in range(1, 6)] == [False, False, False, True, True] and smaller.dropped == 3


def test_states_newer_than_a_round_can_be_taken_back(folder):
  store = ClientStore(LAYOUT, folder)
  store.kept_rounds = (0, 2)
  for number in (1, 2, 3, 4):
    put(store, number, {'a': number, **({'b': 10 + number} if number % 2 else {})})
  put(store, 5, {'c': 7})
  assert value(store, 'a') == (4, 4)
  store.rewind(2)
  assert value(store, 'a') == (2, 2) and value(store, 'b') == (1, 11) and value(store, 'c') is None
  store.rewind(0)
  assert len(store) == 0 and store.bytes == 0


def recent(history, now, limit):
  """{client: (round, number)} of the clients that took part most recently: what a limit leaves, by definition."""
  last = {client: (number, number) for number in range(1, now + 1) for client in history[number]}
  order = sorted(last, key=lambda client: (last[client], store_lib._name(client)))
  return {client: last[client] for client in order[-limit:]}


@pytest.mark.parametrize('limit, kind', [(2, 'max_clients'), (4, 'max_clients'), (4, 'max_bytes')])
@pytest.mark.parametrize('every', [1, 2, 3, 5, None])
def test_copies_for_checkpoints_change_neither_what_is_dropped_nor_what_is_counted(tmp_path, limit, kind, every):
  """Whenever checkpoints are made, stopped or not: the live states are those of the clients that took part last."""
  rng = random.Random(1)
  history = {number: rng.sample('abcdefg', 3) for number in range(1, 16)}
  size = LAYOUT.body_bytes + LAYOUT.fields_bytes + 1 + 40
  limits = {kind: limit if kind == 'max_clients' else limit * size + size // 2}

  def check(store, number):
    assert {client: value(store, client) for client in 'abcdefg' if client in store} == recent(history, number, limit)
    assert store.bytes == len(store) * size <= limit * size

  def play(store, kept, first):
    for number in range(first, 16):
      store.kept_rounds = tuple(kept)
      put(store, number, {client: number for client in history[number]})
      check(store, number)
      if every and number % every == 0:
        kept = [*kept[-1:], number]
      # Another process goes on from each checkpoint that it could find, however far this one has come.
      for checkpoint in kept:
        folder = tmp_path / f'{first}-{number}-{checkpoint}'
        shutil.copytree(store.folder, folder)
        again = ClientStore(LAYOUT, str(folder), **limits)
        again.rewind(checkpoint)
        check(again, checkpoint)
        if first == 1 and number == 12:
          play(again, [checkpoint], checkpoint + 1)

  store = ClientStore(LAYOUT, str(tmp_path / 'whole'), **limits)
  play(store, [], 1)
  store.kept_rounds = ()
  put(store, 16, {'a': 16})
  assert len(os.listdir(store.folder)) == limit  # No copy is left behind.


def test_a_pre_pass_that_cannot_be_written_leaves_the_states_of_its_round(tmp_path, monkeypatch):
  """It writes states of a round that has some already."""
  store = ClientStore(LAYOUT, str(tmp_path))
  put(store, 1, {'a': 1, 'b': 2})
  replace, done = os.replace, []

  def full(source, target):
    if done:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    done.append(target)
    replace(source, target)

  with open(store.target('a'), 'wb') as file:
    file.write(bytes(LAYOUT.body_bytes - 1))
  with pytest.raises(StateError, match='instead of'):
    store.commit(1, {'a': bytes(4)})
  assert value(store, 'a') == (1, 1) and value(store, 'b') == (1, 2)
  monkeypatch.setattr(os, 'replace', full)
  with pytest.raises(StateError, match='cannot be written: No space left'):
    put(store, 2, {'a': 3, 'b': 4})
  assert value(store, 'a') == (1, 1) and value(store, 'b') == (1, 2) and len(list(tmp_path.iterdir())) == 2


def test_a_restart_finds_what_was_there(tmp_path):
  folder = str(tmp_path)
  store = ClientStore(LAYOUT, folder)
  put(store, 7, {'a': 1, 'b': 2})
  put(store, 9, {'a': 3})
  (tmp_path / '.state-left').write_bytes(b'half')
  (tmp_path / 'notes.txt').write_bytes(b'of the user')
  again = ClientStore(LAYOUT, folder, max_clients=2)
  assert value(again, 'a') == (9, 3) and value(again, 'b') == (7, 2) and again.bytes == store.bytes
  put(again, 10, {'c': 4})
  assert 'b' not in again and value(again, 'a') == (9, 3)
  assert sorted(p.suffix for p in tmp_path.iterdir()) == ['.state', '.state', '.txt']


def test_damaged_and_foreign_files_are_refused_and_the_others_are_read(tmp_path):
  folder = str(tmp_path)
  store = ClientStore(LAYOUT, folder)
  put(store, 1, {'a': 1, 'b': 2})
  path, = [p for p in tmp_path.iterdir() if b'a' == p.read_bytes()[28:29]]
  whole = path.read_bytes()
  damaged = [whole[:n] for n in range(0, len(whole), 5)] + [whole + b'\0']
  damaged += [whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1:] for i in range(len(whole))]
  for data in damaged:
    path.write_bytes(data)
    with pytest.raises(StateError, match='damaged|of another model'):
      store.get('a')
    assert value(store, 'b') == (1, 2)
  path.write_bytes(whole)
  other = ClientStore(Layout(b'another model!!!', LAYOUT.body_bytes, LAYOUT.fields_bytes), folder)
  with pytest.raises(StateError, match='of another model'):
    other.get('a')
  os.remove(path)
  with pytest.raises(StateError, match='cannot be read'):
    store.get('a')
  store.forget('a')
  put(store, 2, {'a': 5})
  assert value(store, 'a') == (2, 5)


def test_a_round_that_was_not_written_as_a_whole_changes_nothing(tmp_path):
  store = ClientStore(LAYOUT, str(tmp_path))
  put(store, 1, {'a': 1, 'b': 2})
  for size, message in ((None, 'was not written'), (23, '23 bytes instead of 24'), (25, '25 bytes')):
    for client, length in (('a', 24), ('b', size)):
      target = store.target(client)
      if length is not None:
        with open(target, 'wb') as file:
          file.write(bytes(length))
    with pytest.raises(StateError, match=message):
      store.commit(2, {'a': bytes(4), 'b': bytes(4)})
    assert value(store, 'a') == (1, 1) and value(store, 'b') == (1, 2)
    assert len(list(tmp_path.iterdir())) == 2
  assert value(ClientStore(LAYOUT, str(tmp_path)), 'a') == (1, 1)


def test_a_temporary_folder_goes_with_its_store():
  store = ClientStore(LAYOUT)
  put(store, 1, {'a': 1})
  folder = store.folder
  assert os.listdir(folder)
  del store
  assert not os.path.exists(folder)


def test_bad_arguments_are_typed_errors(tmp_path):
  (tmp_path / 'file').write_bytes(b'')
  with pytest.raises(StateError, match='cannot hold'):
    ClientStore(LAYOUT, str(tmp_path / 'file'))
  for limit in (0, -1, 1.5, True):
    with pytest.raises(ProcessError):
      ClientStore(LAYOUT, max_clients=limit)
  with pytest.raises(StateError, match='at most'):
    ClientStore(LAYOUT, str(tmp_path)).target('x' * 5000)
