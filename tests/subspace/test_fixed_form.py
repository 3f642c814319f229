"""A model in fixed coordinates: one record for any gap, and everybody's model the same bit for bit."""

import numpy as np
import pytest

from tff_compress import codec
from tff_compress.codec.keys import MessageKeys
from tff_compress.codec.ops import numpy_ops as xp
from tff_compress.codec.spec import Spec
from tff_compress.subspace.fixed_form import FixedForm
from tff_compress.subspace.forms import form_of
from tff_compress.subspace.rate import Rate
from tff_compress.subspace.runtime import NumpyRuntime
from tff_compress.subspace.server import Server
from tff_compress.subspace.session import Session
from tff_compress.timeline import history
from tff_compress.timeline.copy import Copy
from tff_compress.timeline.timeline import Timeline

SIZE, SEED = 3072, 11


def vector(seed=0):
  return np.random.default_rng(seed).normal(size=SIZE).astype(np.float32)


def server_of(form, momentum=0.0):
  """A server; in the fixed form it alone has momentum."""
  spec, float32 = Spec.of({'w': np.zeros([48, 64], np.float32)}), codec('float32')
  session = Session(SIZE, SEED, Rate(noise=None, first=0.2, floor=256), momentum if form != 'fixed' else 0.0,
                    NumpyRuntime(spec, SEED, float32, float32))
  return Server.begin(session, vector(), form=form_of(form, momentum=momentum))


def after_round(server, clients, goal, gap=0.0, learning_rate=1.0):
  """The server after a round in which clients move towards a goal."""
  noise, session = np.random.default_rng(server.round), server.session
  found = []
  for client in clients:
    update = (0.05 * (server.copy['model'] - goal) + 0.01 * noise.normal(size=SIZE)).astype(np.float32)
    found.append(server.read(bytes(session.upload(xp, server.copy, update, np.int32(client))), client))
  return server.after(np.mean(found, 0, np.float32) if found else None, learning_rate=learning_rate, gap=gap)


@pytest.mark.parametrize('momentum', [0.0, 0.5])
@pytest.mark.parametrize('form', ['fixed'])
def test_after_any_gap_one_record_gives_the_servers_model_bit_for_bit(form, momentum):
  server, goal = server_of(form, momentum), vector(1)
  often, never, rarely = (Copy(server.session) for _ in range(3))
  for number in range(12):
    message = server.timeline.way(often.version, often.digest)
    often = often.follow(message)
    np.testing.assert_array_equal(often.present['model'], server.copy['model'])
    assert int(often.present['round']) == server.round == number
    if number in (3, 11):
      last = server.timeline.way(rarely.version, rarely.digest)
      rarely = rarely.follow(last)
      np.testing.assert_array_equal(rarely.present['model'], server.copy['model'])
    server = after_round(server, [1, 2, 3] if number != 7 else [], goal, gap=number if number < 3 else 31)
  never = never.follow(server.timeline.way())
  np.testing.assert_array_equal(never.present['model'], server.copy['model'])
  kept = server.session.kept(xp, server.copy)
  assert len(message) == len(last) == history.HEADER_BYTES + 2 + 4 + kept
  assert rarely.version == often.version == never.version == server.timeline.version == 0


def test_a_history_with_a_placement_can_be_kept():
  server = after_round(after_round(server_of('fixed'), [1], vector(1)), [1], vector(1))
  kept = Timeline.from_bytes(server.timeline.to_bytes())
  copy = Copy(server.session).follow(kept.way())
  np.testing.assert_array_equal(copy.present['model'], server.copy['model'])
  # What is held, without the placement, is what the server knows it by.
  assert kept.way(copy.version, copy.digest) == server.timeline.way(0)


def test_the_fixed_form_learns_what_lies_in_its_coordinates():
  server, goal = server_of('fixed'), vector(1)
  first = server.copy['model'] - goal
  for _ in range(30):
    server = after_round(server, range(5), goal)
  keys, kept, space = MessageKeys(SEED, 0, 0), server.session.kept(xp, server.copy), server.session.space
  before, after = (space.project(xp, keys, x, kept) for x in (first, server.copy['model'] - goal))
  assert np.linalg.norm(after) < 0.1 * np.linalg.norm(before)
  # What lies outside stays as it was.
  outside = lambda x, inside: np.sum(np.square(x, dtype=np.float64)) - np.sum(np.square(inside, dtype=np.float64))
  assert outside(server.copy['model'] - goal, after) == pytest.approx(outside(first, before), rel=1e-3)


def test_noise_is_what_the_model_has_moved_beside_the_mean():
  server = server_of('fixed')
  kept, space = server.session.kept(xp, server.copy), server.session.space
  mean = np.random.default_rng(0).normal(size=kept).astype(np.float32)
  after = server.after(mean)
  # Of what the coordinates stand for, mean P / k, the part k / P is signal.
  moved = np.sum(np.square(mean * (space.padded / kept), dtype=np.float64))
  noise = server.form.noise(xp, server.session, after.copy, after.memory)
  assert noise == pytest.approx(moved * (1 - kept / space.padded), rel=1e-5)


def test_momentum_moves_as_a_sum_of_falling_powers():
  form, model = FixedForm(momentum=0.5), vector()
  _, memory = form.begin(xp, {'round': np.int32(0)})
  changes, total = np.random.default_rng(0).normal(size=[6, 256]).astype(np.float32), 0.0
  for change in changes:
    memory = form.moved(xp, memory, model, change)
  for i, change in enumerate(changes):
    total = total + change * (1 - 0.5**(6 - i)) / 0.5
  np.testing.assert_allclose(memory['target'], total, rtol=1e-5, atol=1e-5)
  np.testing.assert_array_equal(memory['anchor'], model)
