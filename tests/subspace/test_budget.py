"""Budgets of bytes: what is expected of a run is what its messages have."""

import numpy as np
import pytest

from tests.subspace import runs
from tff_compress.codec.ops import numpy_ops as xp
from tff_compress.subspace import absence
from tff_compress.subspace import budget
from tff_compress.subspace.block_form import BlockForm
from tff_compress.subspace.server import Server

KEPT = 480


def played(who, seed):
  """The bytes of a run's messages."""
  session = runs.session_of()
  server = Server.begin(session, runs.vector(session), bits=absence.FEW_BITS, form=BlockForm())
  first = server.timeline.way(-1)
  rng, versions, seen, gap, total = np.random.default_rng(seed), {}, {}, np.float32(0), 0
  for number in range(who.rounds):
    chosen = [int(client) for client in rng.choice(who.clients, who.per_round, replace=False)]
    coordinates = []
    for client in chosen:
      total += len(server.timeline.way(versions.get(client, -1)))
      message = session.upload(xp, server.copy, runs.vector(session, number, 1e-3), np.int32(client))
      total += message.size
      coordinates.append(server.read(message.tobytes(), client))
      versions[client] = server.timeline.version
    missed = np.float32(np.mean([number - seen.get(client, 0) for client in chosen]))
    seen.update((client, number) for client in chosen)
    gap = absence.after(xp, gap, missed, np.int32(number))
    bits = int(absence.bits(xp, gap))
    server = server.after(np.mean(coordinates, axis=0, dtype=np.float32), bits=bits, next_bits=bits, gap=gap)
  return total, len(first)


@pytest.mark.parametrize('rounds, clients, per_round', [(40, 4, 4), (60, 6, 3), (60, 30, 3), (60, 9, 2)])
def test_expected_bytes_are_those_of_runs(rounds, clients, per_round):
  who = budget.Participation(rounds, clients, per_round)
  measured = [played(who, seed) for seed in range(4)]
  fixed, each = budget.expected_bytes(who, measured[0][1] - 7)  # Without the message's head and the base's count.
  expected = fixed + each * runs.session_of().kept(xp, Server.begin(runs.session_of(), np.zeros(1000, np.float32)).copy)
  assert np.mean([total for total, _ in measured]) == pytest.approx(expected, rel=0.03)
  if clients == per_round:
    # Nothing is left to chance.
    assert measured[0][0] == pytest.approx(expected, rel=0.005)


def test_a_budget_is_kept_and_used():
  who = budget.Participation(300, 100, 10)
  for total in (10**6, 2 * 10**6, 10**9):
    kept = budget.coordinates(total, who, 100)
    fixed, each = budget.expected_bytes(who, 100)
    assert 0 <= (1 - budget.SPARED) * total - fixed - each * kept < each
  assert budget.coordinates(100, who, 100) <= 0


def test_more_bits_leave_fewer_coordinates():
  who = budget.Participation(100, 20, 10)
  found = [budget.coordinates(10**6, who, 50, bits) for bits in (1, 2, 4)]
  assert found[0] > found[1] > found[2]
