"""A subspace that is held for blocks of rounds: the same model for all, bit for bit, and messages as short as said."""

import numpy as np
import pytest

from tff_compress import codec
from tff_compress.codec.errors import PayloadError
from tff_compress.codec.keys import MessageKeys
from tff_compress.codec.ops import numpy_ops as xp
from tff_compress.codec.spec import Spec
from tff_compress.subspace import levels
from tff_compress.subspace import placement
from tff_compress.subspace.block_form import BlockForm
from tff_compress.subspace.block_form import MOST
from tff_compress.subspace.coordinates import Coordinates
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


def server_of(form):
  spec = Spec.of({'w': np.zeros([48, 64], np.float32)})
  session = Session(SIZE, SEED, Rate(noise=None, first=0.2, floor=256), 0.0,
                    NumpyRuntime(spec, SEED, codec('uniform | pack'), codec('float32')))
  return Server.begin(session, vector(), form=form)


def after_round(server, clients, goal=None, gap=0.0, bits=2):
  """The server after a round in which clients move towards a goal."""
  session = server.session
  update = (0.02 * (server.copy['model'] - vector(1) if goal is None else goal)).astype(np.float32)
  found = [server.read(bytes(session.upload(xp, server.copy, update, np.int32(client))), client) for client in clients]
  return server.after(np.mean(found, 0, np.float32) if found else None, gap=gap, bits=bits)


@pytest.mark.parametrize('hold, bits, key_frame_bytes', [
    (1, 1, None), (4, 1, None), (5, 2, None), (3, 3, 700), (None, 1, 700), (6, 8, None)])
def test_clients_of_any_absence_hold_the_servers_model_bit_for_bit(hold, bits, key_frame_bytes):
  server = server_of(BlockForm(hold, bits, key_frame_bytes))
  rng, copies = np.random.default_rng(0), {client: Copy(server.session) for client in range(12)}
  for number in range(30):
    chosen = [int(client) for client in rng.choice(12, 2, replace=False)]
    for client in chosen:
      message = server.timeline.way(copies[client].version, copies[client].digest)
      assert len(message) == server.timeline.cost(copies[client].version)
      copies[client] = copies[client].follow(message)
      np.testing.assert_array_equal(copies[client].present['model'], server.copy['model'])
      assert int(copies[client].present['round']) == server.round == number
    server = after_round(server, chosen if number % 7 else [], gap=5.0)
  # Also one that comes first, and a server that goes on later.
  kept = Timeline.from_bytes(server.timeline.to_bytes())
  np.testing.assert_array_equal(Copy(server.session).follow(kept.way()).present['model'], server.copy['model'])
  assert (int(server.timeline.state['base_version']) > 0) == (key_frame_bytes is not None)


def test_a_block_costs_one_change_and_a_placement():
  server = server_of(BlockForm(hold=4))
  copy = Copy(server.session).follow(server.timeline.way())
  sizes = []
  for _ in range(13):
    server = after_round(server, [1])
    sizes.append(server.timeline.cost(copy.version))
  k = int(server.session.kept(xp, server.copy))
  placed, change, empty = 1 + 3 + 1 + k // 8, 2 + 3 + k * 2 // 8, 1
  # Blocks are of 1, 1, 2 and then 4 rounds; rounds since the first one's end.
  expected = [1 * change, 2 * change, 2 * change + placed, 3 * change + empty]
  expected += [expected[-1] + placed] * 3 + [4 * change + 4 * empty]
  expected += [expected[-1] + placed] * 3 + [5 * change + 7 * empty, 5 * change + 7 * empty + placed]
  assert [size - history.HEADER_BYTES - (placed > 127 and 0) for size in sizes] == expected


@pytest.mark.parametrize('hold, gap, lengths', [
    (1, 9.0, [1, 1, 1, 1, 1]), (3, 9.0, [1, 1, 2, 3, 3]), (None, 0.0, [1] * 12), (None, 2.4, [1] * 8 + [2, 2, 2]),
    (None, 9.0, [1] * 8 + [2, 2, 3, 3, 4, 5, 6, 8, 9, 9])])
def test_blocks_are_as_long_as_clients_are_away_and_shorter_at_first(hold, gap, lengths):
  server, versions = server_of(BlockForm(hold)), [0]
  while len(versions) <= len(lengths):
    server = after_round(server, [], gap=gap)
    if server.timeline.version > versions[-1]:
      versions.append(server.timeline.version)
  np.testing.assert_array_equal(np.diff(versions), lengths)


def test_blocks_that_are_chosen_have_a_limit():
  form = BlockForm()
  assert form.length(xp, np.float32(1000), np.int32(90)) == [22]
  assert form.length(xp, np.float32(1000), np.int32(900)) == [MOST]


def test_all_that_a_block_moves_is_that_of_its_rounds():
  """With as many bits as there are, blocks of four rounds lead where single rounds of one subspace would."""
  server = server_of(BlockForm(hold=4, placement_bits=8))
  for _ in range(4):
    server = after_round(server, [1])
  assert server.timeline.version == server.round == 4
  form, memory, moved = server.form, server.memory, []
  for number in range(4):
    mean = np.random.default_rng(number).normal(size=server.session.kept(xp, server.copy)).astype(np.float32)
    moved.append(mean * np.float32(server.session.space.padded / mean.size))
    memory = form.moved(xp, memory, server.copy['model'], moved[-1])
  np.testing.assert_allclose(memory['target'], np.sum(moved, 0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('bits', [1, 2, 3])
def test_placements_of_few_bits_are_right_on_average_over_rounds(bits):
  """Each round has a rotation of its own, so errors of rounds are independent."""
  space, y = Coordinates(1 << 14), np.random.default_rng(1).normal(size=2048).astype(np.float32) + np.float32(0.5)
  total, errors = np.zeros(y.size), []
  for number in range(64):
    keys = MessageKeys(SEED, number, 0xFFFFFFFF)
    record = placement.encode(xp, y, space.rotated(xp, keys, y), 1, bits, 1)
    numbers, scale, rotated, _, _ = placement.decode(xp, record, y.size)
    assert rotated and record.size == 4 + -(-y.size * bits // 8)
    found = space.rotated_back(xp, keys, numbers.astype(np.float32)) * scale
    total += found
    errors.append(np.sum((found - y)**2) / np.sum(y**2))
  expected = levels.DISTORTION[bits] / (1 - levels.DISTORTION[bits])
  assert np.mean(errors) == pytest.approx(expected, rel=0.1)
  # One scale for blocks of 256, whose norms differ by 1 / sqrt(512) of themselves, is off by that for each.
  assert expected / 80 < np.sum((total / 64 - y)**2) / np.sum(y**2) < expected / 64 + 2 / 512


def test_so_many_coordinates_that_levels_would_not_be_exact_have_others():
  limit = placement.MOST_SQUARES_ROTATED
  for bits, kept, found in ((1, limit, 1), (1, limit + 1, 4), (2, limit // 100, 2), (2, limit // 100 + 1, 1),
                            (3, limit // 64 + 1, 1), (8, limit + 1, 8)):
    assert placement.exact_bits(xp, np.int32(bits), kept) == found
  record = np.concatenate([np.array([2 + 16, 0, 0x3F, 1], np.uint8), np.zeros(4096, np.uint8)])
  with pytest.raises(PayloadError, match='exact'):
    placement.decode(xp, record, 1 << 14)
