"""A device against a real front: whole rounds, and being killed at every point. What computes is a stand-in."""

import numpy as np
import pytest

from tests.serving import tasks
from tff_compress import codec as codec_lib
from tff_compress import wire
from tff_compress.device import client as client_lib
from tff_compress.device.errors import DeviceError
from tff_compress.device.http import Session
from tff_compress.device.keeping import Keeping
from tff_compress.device.runtime import Trained
from tff_compress.serving import front
from tff_compress.serving import protocol
from tff_compress.serving.aggregator import open_store
from tff_compress.timeline.whole import WholeRules

CODE = 'ABCD-EFGH'
X, Y = np.zeros((4, 2), np.float32), np.zeros(4, np.int32)


class Killed(BaseException):
  pass


class StandIn:
  """In the place of `Runtime`: every update is the same but for its residual, which counts the updates before it."""

  def __init__(self, manifest, files):
    assert files == {'training': tasks.FILE}
    self.history = WholeRules(codec_lib(tasks.DOWNLINK).fingerprint(tasks.SPEC))
    self.fingerprint = codec_lib(tasks.UPLINK).fingerprint(tasks.SPEC).hex()

  def model(self, frame, seed):
    return wire.unpack(tasks.DOWNLINK, frame, tasks.SPEC, seed=seed)[0]

  def train(self, weights, x, y, *, epochs, learning_rate, order):
    return Trained({name: array + tasks.update(1)[name] for name, array in weights.items()}, 0.5)

  def encode(self, update, residuals, *, seed, round, client):
    before = residuals.get('residual_0', np.zeros(1, np.float32))
    return frame_of(before[0], round, client), {'residual_0': before + 1}


def frame_of(residual, round, client):
  update = {name: array + np.float32(residual) for name, array in tasks.update(1).items()}
  return wire.pack(tasks.UPLINK, update, seed=tasks.SEED, round=round, client=client)


@pytest.fixture
def serve(tmp_path, monkeypatch):
  """A function of a folder's name that starts a task there: (the task, its address)."""
  monkeypatch.setattr(client_lib, 'Runtime', StandIn)
  monkeypatch.setattr(client_lib.plans, 'check_form', lambda manifest: None)
  open_ones = []

  def start(name='state', **settings):
    store = open_store(str(tmp_path / name))
    task = tasks.begin(store, **{'goal': 1, 'rounds': 2, 'keep_frames': True, **settings})
    running = tasks.serving(front.application(task, CODE, lambda: tasks.advance(task)))
    open_ones.append((store, running))
    return task, f'http://127.0.0.1:{running.__enter__()}'
  yield start
  for store, running in open_ones:
    running.__exit__(None, None, None)
    store.close()


def device(url, folder, code=CODE, at=lambda point: None, said=None, patience=20.0):
  session = Session(url, patience, sleep=lambda seconds: None)
  return client_lib.Device(session, Keeping(str(folder)), X, Y, code, (said if said is not None else []).append, at)


def accepted_frames(task):
  return [(row['round'], client, task.store.blobs.get(digest)) for row in task.store.rounds(task.task)
          for _, client, digest, _ in task.store.accepted(task.task, row['round'])]


def test_a_device_takes_part_until_the_task_is_finished(serve, tmp_path):
  task, url = serve()
  said = []
  assert device(url, tmp_path / 'device', said=said).run() == 2
  assert accepted_frames(task) == [(1, 0, frame_of(0, 1, 0)), (2, 0, frame_of(1, 2, 0))]
  assert len([text for text in said if 'accepted' in text]) == 2 and said[-1] == 'The task is finished.'
  assert [row['state'] for row in task.store.rounds(task.task)] == ['committed', 'committed']
  assert device(url, tmp_path / 'device', code=None).run() == 0  # Enrolled it is.


@pytest.mark.thorough
def test_a_device_that_is_killed_at_any_point_goes_on_and_is_counted_once(serve, tmp_path, monkeypatch):
  monkeypatch.setattr(client_lib, 'PART', 11)  # A frame is sent in several parts.
  points, place = [], 0
  while True:
    task, url = serve(f'state-{place}')
    folder, seen = tmp_path / f'device-{place}', []

    def at(point, seen=seen, place=place):
      seen.append(point)
      if len(seen) == place + 1:
        raise Killed

    killed = False
    try:
      device(url, folder, at=at).run()
    except Killed:
      killed = True
    device(url, folder).run()
    assert accepted_frames(task) == [(1, 0, frame_of(0, 1, 0)), (2, 0, frame_of(1, 2, 0))]
    assert Keeping(str(folder)).residuals(StandIn({}, {'training': tasks.FILE}).fingerprint)['residual_0'] == 2
    if not killed:
      break
    points.append(seen[-1])
    place += 1 if place < 8 else 7  # Parts are alike.
  assert {'before training', 'before keeping', 'before sending', 'before part', 'after part'} <= set(points)


def test_an_update_that_is_not_counted_leaves_the_residual_as_it_was(serve, tmp_path):
  task, url = serve(norm=1e-3, deadline=1000.0)
  one = device(url, tmp_path / 'device')
  answer = one._check_in()
  assert one._take_part(answer) == 0
  assert one._keeping.residuals(answer.fingerprint) == {} and one._keeping.update() is None
  assert task.store.outcomes(task.task) == {(1, 'rejected: norm-too-large'): 1}


def test_tokens_are_renewed_and_a_revoked_device_enrols_again(serve, tmp_path, monkeypatch):
  task, url = serve()
  one = device(url, tmp_path / 'device')
  first = one._check_in()
  now = task.store.clock()
  monkeypatch.setattr(task.store, 'clock', lambda: now + 4000)
  assert one._check_in().lease == first.lease  # The same device, with other tokens.
  one._keeping.tokens = protocol.Tokens(device='0' * 16, access='a' * 32, refresh='b' * 32, seconds=1.0)
  assert isinstance(one._check_in(), protocol.Assignment)
  with pytest.raises(DeviceError, match='not enrolled'):
    device(url, tmp_path / 'other', code=None).run()
  with pytest.raises(DeviceError, match='not the one that the server printed'):
    device(url, tmp_path / 'other', code='WRONG').run()


def test_a_file_that_is_not_what_its_name_says_is_refused(serve, tmp_path):
  task, url = serve()
  path = next(path for path in (tmp_path / 'state' / 'public').rglob(tasks.sha256(tasks.FILE)))
  path.write_bytes(b'another file' * 100)
  with pytest.raises(DeviceError):
    device(url, tmp_path / 'device', patience=0.0).run()
  assert accepted_frames(task) == []
