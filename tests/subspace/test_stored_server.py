"""A server that was stored and read goes on as if it had not stopped; other bytes are refused."""

import tracemalloc

import numpy as np
import pytest

from tests.subspace.runs import session_of
from tests.subspace.runs import vector
from tff_compress.codec.errors import PayloadError
from tff_compress.codec.ops import numpy_ops as xp
from tff_compress.subspace.block_form import BlockForm
from tff_compress.subspace.fixed_form import FixedForm
from tff_compress.subspace.round_form import RoundForm
from tff_compress.subspace.server import MAGIC
from tff_compress.subspace.server import Server
from tff_compress.subspace.server import VERSION
from tff_compress.timeline import stored
from tff_compress.timeline.copy import Copy

FORMS = {'round': RoundForm(), 'round-key-frames': RoundForm(600), 'block': BlockForm(3, key_frame_bytes=600),
         'block-chosen': BlockForm(placement_bits=6), 'fixed': FixedForm(), 'fixed-momentum': FixedForm(0.5, 6)}


def run_of(name, sums):
  """(session, its first server) of a form of `FORMS`."""
  momentum = 0.5 if name == 'round-key-frames' else 0.0
  session = session_of(momentum=momentum, sums=sums, noise=3.0, rounds=30, first=0.5, most=1.0)
  return session, Server.begin(session, vector(session, 2, 0.1), bits=2, form=FORMS[name])


def round_of(server, clients, number):
  """(what was sent, the server after a round with these clients)."""
  session, copy = server.session, server.copy
  uploads = {client: bytes(session.upload(xp, copy, vector(session, 50 * number + client, 0.01), client))
             for client in clients}
  weight, bits = np.float32(len(uploads)), 2 + number % 3
  total = sum(server.read(message, client) for client, message in uploads.items())
  after = server.after(
      session.sums.mean(xp, copy, total, weight) if uploads else None, bits=1 + number % 4, next_bits=bits,
      gap=number / 2, next_scale=session.next_scale(xp, copy, total, weight, bits))
  return [*uploads.values(), *(after.timeline.way(version) for version in range(-1, after.timeline.version + 1))], after


@pytest.mark.parametrize('sums', ['private', 'integers'])
@pytest.mark.parametrize('name', FORMS)
def test_a_server_goes_on_from_bytes_with_the_same_bytes_in_every_later_message(name, sums):
  """Stored before each round, so within blocks and at their ends, before and after key frames and empty rounds."""
  session, whole = run_of(name, sums)
  agreement, again = run_of(name, sums)
  placed = set()
  for number in range(24):
    data = whole.to_bytes()
    again = Server.from_bytes(agreement, data, form=FORMS[name])
    assert (again.to_bytes(), again.round, again.timeline.digests) == (data, whole.round, whole.timeline.digests)
    placed.add(whole.timeline.state['placement'].size > 0)
    clients = [] if number % 7 == 3 else range(1 + number % 3)
    expected, whole = round_of(whole, clients, number)
    found, again = round_of(again, clients, number)
    assert found == expected
  # Not only one that is stored anew, but one that was stored once.
  once = Server.from_bytes(agreement, whole.to_bytes(), form=FORMS[name])
  for number in range(24, 34):
    expected, whole = round_of(whole, [0, 1], number)
    found, once = round_of(once, [0, 1], number)
    assert found == expected and once.to_bytes() == whole.to_bytes()
  assert placed == ({False} if name.startswith('round') else {False, True})
  assert name not in ('round-key-frames', 'block') or whole.timeline.state['base_version'] > 0
  assert Copy(session).follow(once.timeline.way()).present['round'] == whole.round


@pytest.fixture(params=['round-key-frames', 'block', 'fixed-momentum'])
def server(request):
  """One that is within a block, if its form has such."""
  _, server = run_of(request.param, 'integers')
  for number in range(8):
    _, server = round_of(server, [0, 1], number)
  return server


def refused(server, data, match=None):
  with pytest.raises(PayloadError, match=match):
    Server.from_bytes(server.session, data, form=server.form)


def test_damaged_bytes_are_refused(server):
  data = server.to_bytes()
  places = [*range(20), *np.random.default_rng(1).integers(20, len(data), 100), *range(len(data) - 9, len(data))]
  for place in places:
    refused(server, data[:place])
    refused(server, data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1:])
  refused(server, data + b'\0', 'damaged')
  refused(server, server.timeline.to_bytes(), '"TFS"')
  refused(server, data[:3] + b'\2' + data[4:], 'version 2')


def test_bytes_that_somebody_made_with_a_right_checksum_are_refused_or_are_a_server(server):
  """What the digest in the timeline does not cover may be other numbers, but never of another size."""
  body = server.to_bytes()[4:-4]
  remembered = sum(values.nbytes for values in server.memory.values())
  rng, seal = np.random.default_rng(3), lambda body: stored.sealed(MAGIC, VERSION, body)
  for place in [*range(100), *rng.integers(100, len(body) - remembered, 60)]:
    refused(server, seal(body[:place]))
    refused(server, seal(body[:place] + bytes([body[place] ^ 1 << place % 8]) + body[place + 1:]))
  if remembered:
    refused(server, seal(body[:-1]), 'cut short')
    refused(server, seal(body[:-remembered]), 'cut short')
    again = Server.from_bytes(server.session, seal(body[:-5] + bytes([body[-5] ^ 1]) + body[-4:]), form=server.form)
    assert again.copy.keys() == server.copy.keys() and again.memory.keys() == server.memory.keys()
  refused(server, seal(body + b'\0'), 'behind the end')


def test_lengths_that_bytes_only_claim_take_no_memory(server):
  body, huge = server.to_bytes()[4:-4], b'\xff\xff\xff\xff\x07'  # 2^31 - 1.
  form = 5 + len(repr(server.form))
  tracemalloc.start()
  for place in (4, form):
    refused(server, stored.sealed(MAGIC, VERSION, body[:place] + huge + bytes(100)))
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < 1 << 18


def test_a_server_of_another_run_form_or_history_is_told_apart(server):
  data, (other, _) = server.to_bytes(), run_of('round', 'private')
  with pytest.raises(PayloadError, match='another run'):
    Server.from_bytes(other, data, form=server.form)
  with pytest.raises(PayloadError, match='another form'):
    Server.from_bytes(server.session, data)
  _, later = round_of(server, [0], 9)
  timeline, of_later = server.timeline.to_bytes(), later.timeline.to_bytes()
  mixed = data[4:-4].replace(length(timeline) + timeline, length(of_later) + of_later)
  refused(server, stored.sealed(MAGIC, VERSION, mixed), 'history')


def length(data):
  """A count of some thousand bytes."""
  assert 128 <= len(data) < 1 << 14
  return bytes([len(data) % 128 + 128, len(data) // 128])
