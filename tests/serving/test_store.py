"""The store: what is counted is counted once, receipts never change, and a process may die at every point."""

import concurrent.futures
import sqlite3

import pytest

from tff_compress.serving import protocol
from tff_compress.serving import store as store_lib
from tff_compress.serving.blobs import BlobError
from tff_compress.serving.blobs import Blobs
from tff_compress.serving.settings import Settings
from tff_compress.serving.settings import SettingsError
from tff_compress.serving.store import Denied
from tff_compress.serving.store import Store
from tff_compress.serving.store import StoreError

DIGEST = '0' * 64


class Clock:
  def __init__(self):
    self.now = 1000.0

  def __call__(self):
    return self.now


class Killed(BaseException):
  pass


class World:
  """A store in a folder, which can be opened again, and a task in it."""

  def __init__(self, folder, **settings):
    self.folder, self.clock, self.stores = folder, Clock(), []
    self.store = self.open()
    self.settings = Settings(**{'rounds': 2, 'goal': 2, 'deadline': 100.0, 'lease': 50.0, **settings})
    self.task = self.store.begin_task(DIGEST, self.settings, seed='0' * 16, model=DIGEST, optimizer=DIGEST,
                                      timeline=DIGEST)

  def open(self, at=lambda point: None):
    blobs = Blobs(f'{self.folder}/private'), Blobs(f'{self.folder}/public')
    self.stores.append(Store(f'sqlite:///{self.folder}/server.sqlite', *blobs, self.clock, at))
    return self.stores[-1]

  def lease(self, store=None):
    store = store or self.store
    device = store.enrol().device
    return store.assign(self.task, device, -1), device

  def commit(self, store=None):
    (store or self.store).commit_round(self.task, 1, result=DIGEST, optimizer=DIGEST, timeline=DIGEST, figures={})


@pytest.fixture
def make(tmp_path):
  worlds = []

  def made(**settings):
    worlds.append(World(tmp_path, **settings))
    return worlds[-1]
  yield made
  for world in worlds:
    for store in world.stores:
      store.close()


def test_accepted_uploads_are_numbered_in_order_and_the_goal_closes_the_round(make):
  world = make(goal=2, spare=2)
  leases = [world.lease()[0] for _ in range(4)]
  assert [lease.client for lease in leases] == [0, 1, 2, 3]
  receipts = [world.store.decide(lease.lease, b'frame %d' % place, None) for place, lease in enumerate(leases)]
  assert [receipt.outcome for receipt in receipts] == ['accepted', 'accepted', 'goal-reached', 'goal-reached']
  assert [receipt.number for receipt in receipts] == [1, 2, None, None]
  assert world.store.round(world.task, 1)['state'] == 'closed'
  accepted = world.store.accepted(world.task, 1)
  assert [(number, client, world.store.blobs.get(digest)) for number, client, digest, _ in accepted] == [
      (1, 0, b'frame 0'), (2, 1, b'frame 1')]
  with pytest.raises(BlobError):
    world.store.blobs.get(receipts[2].sha256)  # What is not counted is not kept.


def test_a_receipt_never_changes(make):
  world = make(goal=1, spare=3)
  (first, _), (second, _), (third, _) = world.lease(), world.lease(), world.lease()
  rejected = world.store.decide(first.lease, b'bad', protocol.Rejection.UNREADABLE)
  accepted = world.store.decide(second.lease, b'good', None)
  late = world.store.decide(third.lease, b'late', None)
  world.commit()
  for lease, receipt in ((first, rejected), (second, accepted), (third, late)):
    assert world.store.decide(lease.lease, b'other', None) == receipt
    assert world.open().decide(lease.lease, b'other', protocol.Rejection.NOT_A_FRAME) == receipt
  assert len(world.store.accepted(world.task, 1)) == 1


def test_a_device_has_one_lease_a_round_and_gets_it_again(make):
  world = make()
  lease, device = world.lease()
  assert world.store.assign(world.task, device, -1) == lease
  world.clock.now += 60
  again = world.store.assign(world.task, device, -1)
  assert (again.lease, again.client) == (lease.lease, lease.client) and again.expires > lease.expires
  world.store.decide(lease.lease, b'x', None)
  assert world.store.assign(world.task, device, -1) is None
  with pytest.raises(Denied):
    world.store.lease(lease.lease, 'another')


def test_places_are_for_those_at_work_and_a_lease_that_ends_makes_room(make):
  world = make(goal=2, spare=1)
  (lost, _), (failed, device) = world.lease(), world.lease()
  assert world.lease()[0] is None
  world.store.report(device, protocol.Report(event=protocol.Event.FAILED, lease=failed.lease))
  third, _ = world.lease()
  assert third.client == 2 and world.store.assign(world.task, device, -1) is None
  world.clock.now += 60
  assert world.lease()[0].client == 3  # Both leases are over.
  assert world.store.decide(lost.lease, b'late, and still in time', None).outcome == 'accepted'
  world.clock.now += 60
  assert world.lease()[0] is not None and world.lease()[0] is None  # One is accepted, and one at work.


def test_the_deadline_closes_with_the_minimum_and_gives_more_time_without(make):
  world = make(minimum=1, goal=5)
  world.clock.now += 99
  assert world.store.close_due(world.task, 1) == 'collecting'
  world.clock.now += 1
  assert world.store.close_due(world.task, 1) == 'collecting'
  assert world.store.round(world.task, 1)['extended'] == 1
  (lease, _), (late, _) = world.lease(), world.lease()
  world.store.decide(lease.lease, b'x', None)
  world.clock.now += 100
  assert world.store.close_due(world.task, 1) == 'closed'
  assert world.store.decide(late.lease, b'y', None).outcome == 'too-late'


def test_rounds_follow_each_other_until_the_task_is_finished(make):
  world = make(rounds=1, goal=1)
  world.store.decide(world.lease()[0].lease, b'x', None)
  world.commit()
  world.commit()  # By a process that did not hear that it was done.
  assert world.store.task(world.task)['state'] == 'finished'
  assert [row['state'] for row in world.store.rounds(world.task)] == ['committed']
  assert world.lease()[0] is None


def test_parts_of_an_upload_go_where_the_last_one_ended(make):
  world = make()
  lease, _ = world.lease()
  assert world.store.append(lease.lease, 0, b'abc', False).sent == 3
  assert world.store.append(lease.lease, 0, b'abc', False).sent == 3  # Twice: nothing happens.
  assert world.store.append(lease.lease, 5, b'x', False).sent == 3
  done = world.open().append(lease.lease, 3, b'def', True)
  assert (done.sent, done.upload) == (6, 'complete') and world.store.sent(lease.lease) == b'abcdef'
  assert world.store.append(lease.lease, 6, b'g', True).sent == 6
  world.store.begin_upload(lease.lease)
  assert world.store.sent(lease.lease) == b'abcdef'
  world.store.decide(lease.lease, world.store.sent(lease.lease), None)
  other, _ = world.lease()
  world.store.append(other.lease, 0, b'abcdef', False)  # The bytes of an accepted frame, as a part.
  world.store.begin_upload(other.lease)
  assert world.store.sent(other.lease) == b''
  assert world.store.blobs.get(world.store.accepted(world.task, 1)[0][2]) == b'abcdef'


def test_a_refresh_token_that_is_used_twice_revokes_its_device(make):
  world = make()
  tokens = world.store.enrol()
  assert world.store.device_of(tokens.access) == tokens.device
  newer = world.store.renew(tokens.refresh)
  assert world.store.device_of(newer.access) == tokens.device
  with pytest.raises(Denied):
    world.store.renew(tokens.refresh)
  for use in (lambda: world.store.device_of(newer.access), lambda: world.store.renew(newer.refresh),
              lambda: world.store.device_of(newer.refresh), lambda: world.store.device_of('x' * 32)):
    with pytest.raises(Denied):
      use()
  other = world.store.enrol()
  world.clock.now += store_lib.ACCESS_SECONDS + 1
  with pytest.raises(Denied):
    world.store.device_of(other.access)
  data = b''.join(path.read_bytes() for path in world.folder.glob('server.sqlite*'))
  assert other.access.encode() not in data and other.refresh.encode() not in data


def test_who_sends_the_same_upload_many_times_at_once_is_counted_once(make):
  world = make(goal=50, spare=1)
  leases = [world.lease()[0].lease for _ in range(5)]
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    receipts = list(pool.map(lambda lease: world.store.decide(lease, lease.encode(), None), leases * 6))
  assert len({receipt.number for receipt in receipts}) == 5
  assert [number for number, *_ in world.store.accepted(world.task, 1)] == [1, 2, 3, 4, 5]


def _round_of(world, store):
  """A round as a front and an aggregator go through it; each step may be done again."""
  if store.task(world.task)['round'] > 1:
    return
  leases = []
  for device in world.devices:
    lease = store.assign(world.task, device, -1)
    if lease is not None:
      leases.append(lease)
  for lease in leases:
    if store.receipt(lease.lease) is None and store.lease(lease.lease, lease.device).upload in ('none', 'partial'):
      store.append(lease.lease, store.lease(lease.lease, lease.device).sent, b'%d' % lease.client, True)
    store.decide(lease.lease, store.sent(lease.lease), None)
  if store.close_due(world.task, 1) == 'closed':
    world.commit(store)


@pytest.mark.thorough
def test_a_process_that_is_killed_at_any_point_loses_nothing_and_counts_nothing_twice(tmp_path):
  points, place = [], 0
  while True:
    folder = tmp_path / str(place)
    folder.mkdir()
    world = World(folder, goal=2, spare=1)
    world.devices = [world.store.enrol().device for _ in range(2)]
    seen = []

    def at(point, seen=seen, place=place):
      seen.append(point)
      if len(seen) == place + 1:
        raise Killed(point)

    killed = False
    try:
      _round_of(world, world.open(at))
    except Killed:
      killed = True
    again = world.open()
    _round_of(world, again)
    accepted = again.accepted(world.task, 1)
    assert [number for number, *_ in accepted] == [1, 2]
    assert sorted((client, again.blobs.get(digest)) for _, client, digest, _ in accepted) == [(0, b'0'), (1, b'1')]
    assert [row['state'] for row in again.rounds(world.task)] == ['committed', 'collecting']
    for store in world.stores:
      store.close()
    if not killed:
      break
    points.append(seen[-1])
    place += 1
  assert {'before receipt', 'within receipt', 'after receipt', 'after frame', 'within commit'} <= set(points)


def test_one_aggregator_leads_and_another_takes_over_when_it_is_gone(make):
  world = make()
  lead, other = world.store.lead, world.open().lead
  assert lead(world.task, 'a', 10.0) and not other(world.task, 'b', 10.0)
  world.clock.now += 9
  assert lead(world.task, 'a', 10.0)
  world.clock.now += 9
  assert not other(world.task, 'b', 10.0)
  world.clock.now += 1
  assert other(world.task, 'b', 10.0) and not lead(world.task, 'a', 10.0)
  assert other(world.task, 'b', 0.0) and lead(world.task, 'a', 10.0)


def test_a_database_of_a_later_release_is_refused(make, tmp_path):
  world = make()
  world.store.close()
  with sqlite3.connect(tmp_path / 'server.sqlite') as db:
    db.execute("UPDATE properties SET value = '99'")
  db.close()
  with pytest.raises(StoreError, match='too new'):
    world.open()
  with sqlite3.connect(tmp_path / 'other.sqlite') as db:
    db.execute('CREATE TABLE songs (name TEXT)')
  db.close()
  with pytest.raises(StoreError, match='not one of this server'):
    Store(f'sqlite:///{tmp_path}/other.sqlite', Blobs(str(tmp_path)), Blobs(str(tmp_path)))
  with pytest.raises(StoreError, match='cannot be used'):
    Store(f'sqlite:///{tmp_path}/no/such/folder.sqlite', Blobs(str(tmp_path)), Blobs(str(tmp_path)))


def test_a_blob_is_what_its_name_says(tmp_path):
  blobs = Blobs(str(tmp_path))
  digest = blobs.put(b'hello')
  assert blobs.put(b'hello') == digest and blobs.get(digest) == b'hello' and blobs.get(digest, 1, 3) == b'el'
  assert blobs.size(digest) == 5 and [path.name for path in tmp_path.rglob('*') if path.is_file()] == [digest]
  next(tmp_path.glob('blobs/*/*')).write_bytes(b'hellO')
  with pytest.raises(BlobError, match='damaged'):
    blobs.get(digest)
  for name in ('../../etc/passwd', digest.upper(), digest + '/', ''):
    with pytest.raises(BlobError, match='64 hexadecimal'):
      blobs.get(name)
  blobs.delete(digest)
  blobs.delete(digest)
  with pytest.raises(BlobError, match='there is no blob'):
    blobs.get(digest)


@pytest.mark.parametrize('wrong', [{'goal': 0}, {'goal': 2, 'minimum': 3}, {'deadline': 0.0}, {'rounds': 0},
                                   {'spare': 0.5}, {'learning_rate': float('nan')}])
def test_settings_that_cannot_be_are_one_sentence(wrong):
  with pytest.raises(SettingsError):
    Settings(**wrong)
