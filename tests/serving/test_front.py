"""The front over real sockets: what docs/protocol.md promises, and what hostile requests get."""

import base64
import contextlib
import hashlib
import http.client
import json
import socket
import time

import hypothesis
from hypothesis import strategies as st
import pytest

from tests.serving import tasks
from tff_compress.serving import front
from tff_compress.serving import protocol
from tff_compress.serving.aggregator import open_store

CODE = 'ABCD-EFGH'
TYPE = f'{protocol.FRAME_TYPE}; fingerprint='


class Client:
  """Requests to a server of this process."""

  def __init__(self, port):
    self.port, self.token = port, None

  def __call__(self, method, path, body=None, headers=None, plainly=False, **message):
    connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=20)
    headers = dict(headers or {})
    if self.token:
      headers.setdefault('Authorization', f'Bearer {self.token}')
    try:
      connection.request(method, path, json.dumps(message).encode() if message else body, headers)
      response = connection.getresponse()
      data = response.read()
      found = response.status, {name.lower(): value for name, value in response.getheaders()}, data
    finally:
      connection.close()
    if found[0] >= 400 and method != 'HEAD' and not plainly:
      assert found[1]['content-type'] == 'application/problem+json'
      problem = protocol.Problem.read(data)
      assert problem.status == found[0]
    return found

  def enrol(self):
    tokens = protocol.Tokens.read(self('POST', '/v1/devices', code=CODE)[2])
    self.token = tokens.access
    return tokens

  def assignment(self):
    answer = protocol.answer(self('POST', '/v1/checkin', runtime='2.14.0')[2])
    assert isinstance(answer, protocol.Assignment)
    return answer

  def send(self, assignment, data, method='POST', complete='?1', **headers):
    headers = {'Content-Digest': digest(data), 'Upload-Complete': complete,
               'Content-Type': (f'{TYPE}{assignment.fingerprint}; examples=5' if method == 'POST'
                                else 'application/partial-upload'),
               **{name.replace('_', '-'): value for name, value in headers.items()}}
    return self(method, assignment.upload, data, {k: v for k, v in headers.items() if v is not None})


def digest(data):
  return f'sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:'


@pytest.fixture
def world(tmp_path):
  """(the task, a function that gives a new client)"""
  store = open_store(str(tmp_path))
  task = tasks.begin(store, spare=2.0, norm=20.0)
  with tasks.serving(front.application(task, CODE)) as port:
    yield task, lambda: Client(port)
  store.close()


def test_a_whole_round_of_a_device(world):
  task, client = world
  device = client()
  device.enrol()
  assignment = device.assignment()
  assert (assignment.round, assignment.client, assignment.version) == (1, 0, 0)
  assert int(assignment.seed, 16) == tasks.SEED and [item.role for item in assignment.fetch] == [
      'plan', 'training', 'model']
  for item in assignment.fetch:
    status, headers, data = device('GET', f'/v1/blobs/{item.sha256}')
    assert status == 200 and tasks.sha256(data) == item.sha256 and len(data) == item.bytes
    assert headers['etag'] == f'"{item.sha256}"' and 'immutable' in headers['cache-control']
  status, headers, data = device.send(assignment, tasks.frame())
  receipt = protocol.Receipt.read(data)
  assert status == 200 and (receipt.outcome, receipt.number) == ('accepted', 1)
  assert receipt.sha256 == tasks.sha256(tasks.frame())
  assert device.send(assignment, b'another')[2] == data and device('GET', assignment.upload)[2] == data
  answer = protocol.answer(device('POST', '/v1/checkin', runtime='2.14.0')[2])
  assert isinstance(answer, protocol.ComeBack) and answer.not_before < answer.not_after
  assert device('POST', '/v1/reports', event='measured', lease=assignment.lease, loss=1.5)[0] == 204
  assert task.store.round(task.task, 1)['accepted'] == 1


def test_who_holds_the_plan_and_the_model_fetches_almost_nothing(world):
  task, client = world
  device = client()
  device.enrol()
  history = task.history
  from tff_compress.timeline.copy import Copy
  from tff_compress.timeline.timeline import Timeline
  timeline = Timeline.from_bytes(task.store.blobs.get(task.store.round(task.task, 1)['timeline']))
  copy = Copy(history).follow(timeline.way())
  answer = protocol.answer(device('POST', '/v1/checkin', runtime='2.14.0', plan=task.plan, version=0,
                                  digest=copy.digest.hex())[2])
  assert [item.role for item in answer.fetch] == ['model'] and answer.fetch[0].bytes == 5
  again = protocol.answer(device('POST', '/v1/checkin', runtime='2.14.0', plan=task.plan, version=0,
                                 digest='00000000')[2])
  assert again.fetch[0].bytes > 50 and again.lease == answer.lease  # A model of another run: all of it, once more.


def test_an_upload_in_parts_goes_on_where_it_stopped(world):
  _, client = world
  device, data = client(), tasks.frame()
  device.enrol()
  assignment = device.assignment()
  status, headers, _ = device.send(assignment, data[:10], complete='?0')
  assert (status, headers['location'], headers['upload-offset']) == (201, assignment.upload, '10')
  status, headers, _ = device('HEAD', assignment.upload)
  assert (status, headers['upload-offset'], headers['upload-complete']) == (204, '10', '?0')
  status, headers, body = device.send(assignment, data[5:], 'PATCH', Upload_Offset='5')
  assert status == 409 and json.loads(body)['expected-offset'] == 10 and headers['upload-offset'] == '10'
  assert json.loads(body)['type'] == protocol.OFFSET_PROBLEM
  assert device.send(assignment, data[10:15], 'PATCH', '?0', Upload_Offset='10')[0] == 204
  status, _, body = device.send(assignment, data[15:], 'PATCH', Upload_Offset='15')
  assert status == 200 and protocol.Receipt.read(body).outcome == 'accepted'
  assert device('HEAD', assignment.upload)[1]['upload-complete'] == '?1'


def test_a_server_that_died_before_it_judged_judges_when_asked(world):
  task, client = world
  device, data = client(), tasks.frame()
  device.enrol()
  assignment = device.assignment()
  task.store.append(assignment.lease, 0, data, True)
  assert protocol.Receipt.read(device('GET', assignment.upload)[2]).outcome == 'accepted'


@pytest.mark.parametrize('data, reason', [
    (b'not a frame', 'not-a-frame'), (tasks.frame()[:-1], 'not-a-frame'),
    (tasks.frame(codec='hadamard | uniform:bits=1 | pack'), 'other-model'),
    (tasks.frame(round=2), 'other-round'), (tasks.frame(client=3), 'other-client'),
    (tasks.frame(scale=100.0), 'norm-too-large')], ids=range(6))
def test_what_is_wrong_with_a_frame_is_said_and_it_is_never_counted(world, data, reason):
  task, client = world
  device = client()
  device.enrol()
  assignment = device.assignment()
  receipt = protocol.Receipt.read(device.send(assignment, data)[2])
  assert (receipt.outcome, receipt.reason, receipt.number) == ('rejected', reason, None)
  assert protocol.Receipt.read(device.send(assignment, tasks.frame())[2]) == receipt
  assert task.store.accepted(task.task, 1) == []


def test_what_is_refused_before_its_body_is_read(world):
  task, client = world
  device, other = client(), client()
  device.enrol()
  other.enrol()
  assignment, data = device.assignment(), tasks.frame()
  assert client().send(assignment, data)[0] == 401
  assert other.send(assignment, data)[0] == 404
  assert device.send(assignment, data, Content_Type='text/plain')[0] == 415
  assert device.send(assignment, data, Content_Type=TYPE + '00000000')[0] == 415
  assert device.send(assignment, data, Upload_Complete='yes')[0] == 400
  assert device.send(assignment, data, Content_Digest=None)[0] == 400
  assert device.send(assignment, data, Content_Digest=digest(b'other'))[0] == 400
  assert task.rules.largest == len(data)
  with socket.create_connection(('127.0.0.1', device.port), timeout=20) as sock:  # The body never comes.
    sock.sendall((f'POST {assignment.upload} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {device.token}\r\n'
                  f'Upload-Complete: ?1\r\nContent-Type: {TYPE}{assignment.fingerprint}; examples=5\r\n'
                  f'Content-Digest: {digest(data)}\r\nContent-Length: {len(data) + 1}\r\n\r\n').encode())
    assert sock.recv(100).startswith(b'HTTP/1.1 413')
  with socket.create_connection(('127.0.0.1', device.port), timeout=20) as sock:  # Nor does it say how long it is.
    sock.sendall((f'POST {assignment.upload} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {device.token}\r\n'
                  f'Upload-Complete: ?1\r\nContent-Type: {TYPE}{assignment.fingerprint}; examples=5\r\n'
                  f'Content-Digest: {digest(data)}\r\nTransfer-Encoding: chunked\r\n\r\n').encode())
    with contextlib.suppress(OSError):
      for _ in range(20):
        sock.sendall(b'400\r\n' + bytes(1024) + b'\r\n')
        time.sleep(0.01)
    assert sock.recv(100).startswith(b'HTTP/1.1 413')
  assert device('HEAD', assignment.upload)[1]['upload-offset'] == '0'
  assert protocol.Receipt.read(device.send(assignment, data)[2]).outcome == 'accepted'


def test_an_update_counts_by_its_examples_up_to_a_limit(world):
  task, client = world
  weights = []
  for place, (examples, parts) in enumerate([(7, False), (10**9, True)]):
    device, data = client(), tasks.frame(client=place)
    device.enrol()
    assignment = device.assignment()
    kind = f'{TYPE}{assignment.fingerprint}'
    for wrong in ('', '; examples=0', '; examples=-1', '; examples=x', '; examples=99999999999'):
      assert device.send(assignment, data, Content_Type=kind + wrong)[0] == 415
    kind += f'; examples={examples}'
    if parts:
      device.send(assignment, data[:9], complete='?0', Content_Type=kind)
      device.send(assignment, data[9:], 'PATCH', Upload_Offset='9')
    else:
      device.send(assignment, data, Content_Type=kind)
    weights.append(task.store.accepted(task.task, 1)[-1][3])
  assert weights == [7, task.settings.most_examples]


def test_codes_and_tokens(world):
  _, client = world
  device = client()
  assert device('POST', '/v1/devices', code='WRONG-CODE')[0] == 403
  tokens = device.enrol()
  status, _, body = device('POST', '/v1/tokens', refresh=tokens.refresh)
  newer = protocol.Tokens.read(body)
  assert status == 200 and newer.device == tokens.device
  assert device('POST', '/v1/tokens', refresh=tokens.refresh)[0] == 401
  device.token = newer.access
  status, headers, _ = device('POST', '/v1/checkin', runtime='2.14.0')
  assert status == 401 and headers['www-authenticate'] == 'Bearer'


def test_who_cannot_take_part_is_told_why(world):
  _, client = world
  device = client()
  device.enrol()
  for asked, reason in (({'runtime': '2.9.0'}, 'runtime-too-old'), ({'runtime': '2.14.0', 'memory': 10},
                                                                     'too-little-memory')):
    assert protocol.answer(device('POST', '/v1/checkin', **asked)[2]).reason == reason


def test_ranges_of_blobs_and_what_is_no_blob_for_devices(world):
  task, client = world
  device = client()
  device.enrol()
  path = f'/v1/blobs/{tasks.sha256(tasks.FILE)}'
  for asked, status, data in (('bytes=5-9', 206, tasks.FILE[5:10]), ('bytes=1090-', 206, tasks.FILE[1090:]),
                              ('bytes=-3', 206, tasks.FILE[-3:]), ('bytes=0-9999', 206, tasks.FILE),
                              ('bytes=0-1,4-5', 200, tasks.FILE), ('lines=1-2', 200, tasks.FILE)):
    found = device('GET', path, headers={'Range': asked})
    assert found[0] == status and found[2] == data
  assert device('GET', path, headers={'Range': 'bytes=5-9'})[1]['content-range'] == f'bytes 5-9/{len(tasks.FILE)}'
  assert device('GET', path, headers={'Range': 'bytes=2000-'})[0] == 416
  assert device('GET', path, headers={'If-None-Match': f'"x", "{tasks.sha256(tasks.FILE)}"'})[0] == 304
  exact = task.store.round(task.task, 1)['model']
  for name in (exact, 'x' * 64, '..%2f..%2fserver.sqlite', '0' * 64):
    assert device('GET', f'/v1/blobs/{name}')[0] == 404
  assert client()('GET', path)[0] == 401


@pytest.mark.parametrize('path', ['/v1/devices', '/v1/tokens', '/v1/checkin', '/v1/reports'])
@pytest.mark.parametrize('body', [b'', b'{', b'[]', b'{"code": 3}', b'\xff' * 10, b'[' * 1000, b'x' * 70000],
                         ids=range(7))
def test_messages_that_are_none_are_a_problem_of_the_sender(world, path, body):
  _, client = world
  device = client()
  device.enrol()
  assert device('POST', path, body)[0] in (400, 413)
  assert device('GET', path)[0] == 405 and device('POST', '/nothing')[0] == 404


_HEADERS = {
    'Upload-Complete': ['?0', '?1', '', '1'], 'Upload-Offset': ['0', '10', '-1', '9' * 30, 'x'],
    'Content-Type': [TYPE + 'ffffffff', 'application/partial-upload', 'application/json', ';;'],
    'Content-Digest': [digest(b''), 'sha-256=:x:', ''], 'Range': ['bytes=0-', 'bytes=-', 'bytes=9-1', 'x'],
    'Authorization': ['Bearer ' + 'x' * 32, 'Basic x', 'Bearer'], 'Content-Length': ['0', '99999999999999999999', '-1'],
    'If-None-Match': ['*', '"x"']}


def test_nothing_that_is_asked_is_a_fault_of_the_server(world):
  _, client = world
  device = client()
  device.enrol()
  assignment = device.assignment()
  paths = ['/', '/v1/devices', '/v1/tokens', '/v1/checkin', '/v1/reports', '/v1/rounds', assignment.upload,
           '/v1/uploads/' + 'x' * 32, f'/v1/blobs/{tasks.sha256(tasks.FILE)}', '/v1/blobs/%00', '/v1/uploads/%ff']

  @hypothesis.settings(max_examples=150)
  @hypothesis.given(
      st.sampled_from(['GET', 'HEAD', 'POST', 'PATCH', 'PUT', 'DELETE']), st.sampled_from(paths),
      st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in _HEADERS.items()}),
      st.sampled_from([b'', b'{}', b'{"runtime": "2.14.0"}', b'{"event": "failed"}', tasks.frame(), b'\xff' * 500]))
  def ask(method, path, headers, body):
    if len(headers.get('Content-Length', '')) > 5:
      body = b''
    with contextlib.suppress(http.client.HTTPException, ConnectionError):  # What is no HTTP gets no answer.
      status, found, data = device(method, path, body, headers, plainly=True)
      assert status < 500, (status, data)
  ask()
  assert device('GET', '/readyz')[0] == 200


def test_the_page_and_the_figures(world):
  _, client = world
  device = client()
  device.enrol()
  device.send(device.assignment(), b'nonsense')
  assert device('GET', '/healthz')[2] == b'ok\n' and device('GET', '/readyz')[2] == b'ready\n'
  status = json.loads(device('GET', '/v1/rounds')[2])
  assert status['rounds'][0]['outcomes'] == {'rejected: not-a-frame': 1} and status['state'] == 'running'
  page = device('GET', '/')[2].decode()
  assert 'rejected: not-a-frame' in page and tasks.UPLINK in page and '://' not in page
