"""Whole runs in the shared subspace, in NumPy: whatever clients miss, every copy is the server's, bit for bit."""

import dataclasses

import numpy as np
import pytest

from tests.subspace.runs import same
from tests.subspace.runs import session_of
from tests.subspace.runs import vector
from tff_compress.codec.errors import PayloadError
from tff_compress.codec.errors import SpecError
from tff_compress.codec.ops import numpy_ops as xp
from tff_compress.subspace.block_form import BlockForm
from tff_compress.subspace.fixed_form import FixedForm
from tff_compress.subspace.round_form import RoundForm
from tff_compress.subspace.server import Server
from tff_compress.timeline import history
from tff_compress.timeline.copy import Copy
from tff_compress.timeline.start import Start


def _started(session, key_frame_bytes=None, form=None):
  """A server whose first model a start draws."""
  start = Start.like(np.split(vector(session, 4, 0.1), [960]), 3)
  drawn = start.vector(session.runtime.spec)
  return Server.begin(session, drawn, start=start.to_bytes(), form=form, key_frame_bytes=key_frame_bytes)


def _trained(server, clients, rng, **kwargs):
  """The server after a round with these clients, who have the model that it has."""
  if not clients:
    return server.after(None, **kwargs)
  goal = np.float32(0.1) * np.sin(np.arange(server.session.size, dtype=np.float32))
  read = []
  for client in clients:
    update = (0.1 * (server.copy['model'] - goal) + rng.normal(0, 0.003, goal.size)).astype(np.float32)
    read.append(server.read(bytes(server.session.upload(xp, server.copy, update, client)), client))
  return server.after(np.mean(read, 0, np.float32), **kwargs)


@pytest.mark.parametrize('rounds', [80, pytest.param(1000, marks=pytest.mark.thorough)])
@pytest.mark.parametrize('momentum, key_frame_bytes, hold', [(0.0, 1100, 0), (0.5, 2200, 0), (0.9, None, 0),
                                                             (0.5, 1100, 6), (0.0, None, None)])
def test_after_many_rounds_of_any_history_all_copies_are_the_servers(momentum, key_frame_bytes, hold, rounds):
  """Clients that come often, rarely, once, and go on from bytes; empty rounds, other bits, key frames, blocks, restarts
  of the server from its bytes. Hold 0 has no blocks; None is as many rounds as clients miss."""
  rng = np.random.default_rng(5)
  form = None if hold == 0 else BlockForm(hold, key_frame_bytes=key_frame_bytes)
  session = session_of(momentum=0.0 if form else momentum, noise=3.0, rounds=rounds, first=0.5, most=1.0)
  server = _started(session, key_frame_bytes, form)
  copies = {client: Copy(session) for client in range(12)}
  presence = 1 / (1 + np.arange(12)**2)  # From every round to every 122nd.
  bits, bases, kept = 1, set(), set()
  for number in range(rounds):
    present = [client for client in copies if rng.random() < presence[client]]
    for client in present:
      copy = Copy.from_bytes(session, copies[client].to_bytes()) if copies[client].version >= 0 else copies[client]
      way = server.timeline.way(copy.version, copy.digest)
      assert len(way) == server.timeline.cost(copy.version)
      copies[client] = copy.follow(way)
      assert same(session, copies[client].present, server.copy)
    kept.add(int(session.kept(xp, server.copy)))
    takes_part = [] if rng.random() < 0.1 else present
    bits = int(rng.integers(1, 5)) if number % 20 == 0 else bits
    server = _trained(server, takes_part, rng, bits=bits, next_bits=int(rng.integers(1, 5)), gap=number % 9)
    bases.add(int(server.timeline.state['base_version']))
    if number % 50 == 10:
      server = Server.from_bytes(session, server.to_bytes(), form=form, key_frame_bytes=key_frame_bytes)
  assert same(session, Copy(session).follow(server.timeline.way()).present, server.copy)
  assert server.round == rounds and rounds - 9 < server.timeline.version <= rounds
  assert len(kept) > 1  # The rule was at work.
  if key_frame_bytes is None:
    assert bases == {0}
  else:
    assert rounds / 60 < len(bases) < rounds / 2 and server.timeline.size < 4 * key_frame_bytes
    assert server.timeline.cost() < 2.2 * key_frame_bytes


def test_a_run_in_the_subspace_learns():
  rng = np.random.default_rng(1)
  session = session_of(first=0.5)
  server = _started(session)
  goal = np.float32(0.1) * np.sin(np.arange(session.size, dtype=np.float32))
  distance = lambda: np.linalg.norm(server.copy['model'] - goal)
  before = distance()
  for _ in range(60):
    server = _trained(server, range(5), rng)
  assert distance() < 0.3 * before


def test_a_key_frame_never_loses_what_is_nobodys_to_lose():
  """The server goes on with what a key frame gives: a client that follows changes and one that starts from it agree."""
  rng = np.random.default_rng(2)
  session = session_of(key_frames='uniform:bits=4 | pack')
  server = _started(session, 300)
  copy = Copy(session).follow(server.timeline.way())
  for _ in range(12):
    server = _trained(server, range(3), rng)
    copy = copy.follow(server.timeline.way(copy.version, copy.digest))
    assert same(session, copy.held, Copy(session).follow(server.timeline.way()).held)
  assert server.timeline.state['base_version'] > 0


def test_nobody_in_any_round_costs_a_byte_each():
  server = _started(session_of())
  copy = Copy(server.session).follow(server.timeline.way())
  for _ in range(50):
    server = server.after(None)
  way = server.timeline.way(copy.version)
  assert len(way) == history.HEADER_BYTES + 50
  assert copy.follow(way).version == 50


def test_a_first_model_is_what_arrives_of_it():
  for codec, exact in (('float32', True), ('float16', False), ('uniform:bits=3 | pack', False)):
    session = session_of(first_model=codec)
    model = vector(session)
    server = Server.begin(session, model, bits=2)
    assert np.array_equal(server.copy['model'], model) == exact
    assert same(session, Copy(session).follow(server.timeline.way()).held, server.copy)
  with pytest.raises(SpecError):
    Server.begin(session, model, start=Start.like(np.split(model, [960]), 3).to_bytes())


def test_a_client_of_another_run_is_told_so_on_both_sides():
  rng = np.random.default_rng(3)
  server, other = _started(session_of()), _started(session_of(seed=12))
  server, other = _trained(server, [1], rng), _trained(other, [1], rng)
  copy = Copy(other.session).follow(other.timeline.way())
  with pytest.raises(history.VersionError):
    server.timeline.way(copy.version, copy.digest)
  for version in (0, history.UNKNOWN):
    with pytest.raises(PayloadError):  # Other places, another digest.
      Copy(other.session, None if version < 0 else copy.held).follow(server.timeline.way(version))
  with pytest.raises(PayloadError):
    Copy.from_bytes(server.session, copy.to_bytes())
  with pytest.raises(PayloadError):
    server.read(bytes(other.session.upload(xp, copy.present, vector(other.session), 1)), 1)


def test_a_message_that_comes_a_round_late_is_refused():
  rng = np.random.default_rng(3)
  server = _started(session_of())
  late = bytes(server.session.upload(xp, server.copy, vector(server.session), 1))
  server.read(late, 1)
  with pytest.raises(PayloadError):
    _trained(server, [2], rng).read(late, 1)


def test_ways_of_a_real_run_that_were_changed_are_refused_or_lead_to_the_very_same():
  """What a later change says anew, such as the bits of messages, may be anything in one before it."""
  rng = np.random.default_rng(4)
  session = session_of(((16, 16),), momentum=0.5, first=1.0)
  server = Server.begin(session, vector(session))
  old = Copy(session).follow(server.timeline.way())
  for clients in ([1, 2], [], [3]):
    server = _trained(server, clients, rng) if clients else server.after(None)
  for copy in (Copy(session), old):
    way = server.timeline.way(copy.version)
    places = [*range(45), *rng.integers(0, len(way), 15)]
    for bad in [*(way[:n] for n in places if n < len(way)), way + b'\0', way + b'\1\1', way + way[5:]]:
      with pytest.raises(PayloadError):
        copy.follow(bad)
    refused = 0
    for place, bit in [(place, bit) for place in places if place < len(way) for bit in range(8)]:
      try:
        bad = copy.follow(way[:place] + bytes([way[place] ^ 1 << bit]) + way[place + 1:])
        assert same(session, bad.held, server.copy)
      except PayloadError:
        refused += 1
    assert refused > 300


@pytest.mark.parametrize('form', [RoundForm, lambda size=None: BlockForm(2, key_frame_bytes=size)])
def test_a_history_without_key_frames_ends_at_a_limit_and_goes_on_with_them(monkeypatch, form):
  monkeypatch.setattr(history, 'MOST_BYTES', 600)
  rng = np.random.default_rng(5)
  server = _started(session_of(), form=form())
  copy = Copy(server.session).follow(server.timeline.way())
  with pytest.raises(PayloadError, match='allow key frames'):
    for _ in range(30):
      server = _trained(server, [1, 2], rng)
  assert 450 < server.timeline.state['log'].size <= 600
  server = dataclasses.replace(server, form=form(10**6))
  for _ in range(4):
    server = _trained(server, [1, 2], rng)
    assert same(server.session, copy.follow(server.timeline.way(0)).present, server.copy)
  assert server.timeline.state['base_version'] > 0 and history.behind_base(xp, server.timeline.state) < 200


@pytest.mark.parametrize('form', [RoundForm(), RoundForm(300), BlockForm(2), FixedForm()])
def test_clients_ahead_of_a_server_that_was_set_back_are_refused_or_follow_it(form):
  """A server that goes on from older bytes, and clients that hold what it has forgotten."""
  rng, session = np.random.default_rng(6), session_of()
  servers = [_started(session, form=form)]
  for _ in range(8):
    servers.append(_trained(servers[-1], [1, 2], rng))
  held = [Copy(session).follow(server.timeline.way()) for server in servers]
  server = Server.from_bytes(session, servers[4].to_bytes(), form=form)
  for _ in range(3):  # Other clients than the first time.
    server = _trained(server, [3], rng)
  for copy in held:
    try:
      way = server.timeline.way(copy.version, copy.digest)
    except history.VersionError:
      assert copy.version > 4
      continue
    assert copy.version <= 4 or server.timeline.state['base_version'] > copy.version
    assert same(session, copy.follow(way).present, server.copy)
