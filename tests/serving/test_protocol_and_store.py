"""Messages in any order, twice, late or lost, and restarts between them: what must hold at every moment."""

import contextlib
import shutil
import tempfile

import hypothesis
from hypothesis import stateful
from hypothesis import strategies as st
import pytest

from tff_compress.serving import protocol
from tff_compress.serving.blobs import BlobError
from tff_compress.serving.blobs import Blobs
from tff_compress.serving.settings import Settings
from tff_compress.serving.store import Store

DIGEST = '0' * 64
SETTINGS = Settings(rounds=3, goal=3, minimum=2, deadline=100.0, lease=30.0, spare=1.4, keep_frames=True)


class Killed(BaseException):
  pass


class ServerOfDevices(stateful.RuleBasedStateMachine):
  """Devices that do what they like, and an aggregator, on a store that may be killed at any of its writes."""

  def __init__(self):
    super().__init__()
    self.folder, self.now, self.left = tempfile.mkdtemp(), 1000.0, 0
    self.store = self.open()
    self.task = self.store.begin_task(DIGEST, SETTINGS, seed='0' * 16, model=DIGEST, optimizer=DIGEST,
                                      timeline=DIGEST)
    self.devices, self.leases, self.receipts, self.final, self.states = [], {}, {}, {}, {}

  def at(self, point):
    if self.left:
      self.left -= 1
      if not self.left:
        raise Killed

  def open(self):
    return Store(f'sqlite:///{self.folder}/server.sqlite', Blobs(f'{self.folder}/private'),
                 Blobs(f'{self.folder}/public'), lambda: self.now, self.at)

  @contextlib.contextmanager
  def restarted_if_killed(self):
    try:
      yield
    except Killed:
      self.store.close()
      self.store = self.open()
    self.left = 0

  def teardown(self):
    self.store.close()
    shutil.rmtree(self.folder)

  @stateful.rule()
  def enrol(self):
    with self.restarted_if_killed():
      self.devices.append(self.store.enrol().device)

  @stateful.rule(points=st.integers(1, 12))
  def be_killed_soon(self, points):
    self.left = points

  @stateful.rule(seconds=st.sampled_from([1.0, 31.0, 101.0]))
  def wait(self, seconds):
    self.now += seconds

  @stateful.precondition(lambda self: self.devices)
  @stateful.rule(data=st.data())
  def check_in(self, data):
    device = data.draw(st.sampled_from(self.devices))
    with self.restarted_if_killed():
      lease = self.store.assign(self.task, device, -1)
      if lease is not None:
        known = self.leases.setdefault(lease.lease, (lease.round, lease.client, device))
        assert known == (lease.round, lease.client, device)
        assert lease.lease not in self.receipts

  @stateful.precondition(lambda self: self.leases)
  @stateful.rule(data=st.data(), good=st.booleans(), in_parts=st.booleans(), lost=st.booleans())
  def send(self, data, good, in_parts, lost):
    """Once more, too, and with other bytes; and the answer may be lost."""
    lease = data.draw(st.sampled_from(sorted(self.leases)))
    frame = f'{lease} {data.draw(st.integers(0, 1))}'.encode()
    with self.restarted_if_killed():
      if in_parts and lease not in self.receipts:
        offset = self.store.lease(lease, self.leases[lease][2]).sent
        found = self.store.append(lease, offset, frame[offset:offset + 20], offset + 20 >= len(frame))
        if found.upload != 'complete':
          return
        frame = self.store.sent(lease)
      receipt = self.store.decide(lease, frame, None if good else protocol.Rejection.UNREADABLE)
      if not lost:
        assert self.receipts.setdefault(lease, receipt) == receipt

  @stateful.precondition(lambda self: self.leases)
  @stateful.rule(data=st.data(), event=st.sampled_from(protocol.Event))
  def report(self, data, event):
    lease = data.draw(st.sampled_from(sorted(self.leases)))
    with self.restarted_if_killed():
      self.store.report(self.leases[lease][2], protocol.Report(event=event, lease=lease))

  @stateful.rule()
  def aggregate(self):
    with self.restarted_if_killed():
      number = self.store.task(self.task)['round']
      if self.store.close_due(self.task, number) == 'closed':
        self.store.commit_round(self.task, number, result=DIGEST, optimizer=DIGEST, timeline=DIGEST, figures={})

  @stateful.invariant()
  def what_is_accepted_is_counted_once_and_kept(self):
    left, self.left = self.left, 0
    counted = {}
    rounds = self.store.rounds(self.task)
    for row in rounds:
      accepted = self.store.accepted(self.task, row['round'])
      assert [number for number, *_ in accepted] == list(range(1, row['accepted'] + 1))
      assert row['accepted'] <= SETTINGS.goal
      for number, client, digest, _ in accepted:
        assert (row['round'], client) not in counted
        counted[row['round'], client] = (number, digest)
        try:
          self.store.blobs.get(digest)
        except BlobError:
          pytest.fail('an accepted frame is gone')
      # A list that is final stays as it is, and no round goes back.
      if row['state'] != 'collecting':
        assert self.final.setdefault(row['round'], accepted) == accepted
        assert row['accepted'] >= SETTINGS.minimum
      order = list(protocol.ROUND.states)
      assert order.index(row['state']) >= order.index(self.states.get(row['round'], order[0]))
      self.states[row['round']] = row['state']
    assert [row['round'] for row in rounds] == list(range(1, len(rounds) + 1))
    assert all(row['state'] == 'committed' for row in rounds[:-1])
    for lease, receipt in self.receipts.items():
      assert self.store.receipt(lease) == receipt
      if receipt.outcome == 'accepted':
        assert counted[receipt.round, receipt.client] == (receipt.number, receipt.sha256)
      else:
        assert (receipt.round, receipt.client) not in counted
    clients = [(number, client) for number, client, _ in self.leases.values()]
    assert len(set(clients)) == len(clients)
    self.left = left


ServerOfDevices.TestCase.settings = hypothesis.settings(max_examples=12, stateful_step_count=40, deadline=None,
                                                        derandomize=True)
TestServerOfDevices = ServerOfDevices.TestCase
