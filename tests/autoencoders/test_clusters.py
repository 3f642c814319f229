"""Clients that train in the same direction are one group, however far they move and in whatever units."""

import numpy as np
import pytest

SIZES = (30, 6)


def snapshots(directions, clients, noise=0.3):
  """float32[clients, 4, 36]: client i moves in direction i mod n, over different distances."""
  rng = np.random.default_rng(0)
  base = rng.standard_normal((directions, 36)) * np.repeat((100.0, 0.01), SIZES)
  moved = np.stack([base[i % directions] * (1 + i) for i in range(clients)])[:, None]
  return (moved * (1 + noise * rng.standard_normal((clients, 4, 36)))).astype(np.float32)


def groups(data, count):
  from tff_compress.autoencoders import clusters
  return clusters.of_snapshots(data, SIZES, count).numpy()


@pytest.mark.parametrize('directions', [1, 2, 3])
def test_directions_are_groups(directions):
  found = groups(snapshots(directions, 9), directions)
  assert len(set(found)) == directions
  assert all((found[i] == found[j]) == (i % directions == j % directions) for i in range(9) for j in range(9))


def test_small_variables_count_too():
  """Two directions that differ in the small variable alone."""
  data = snapshots(2, 8) / np.arange(1, 9, dtype=np.float32)[:, None, None]
  data[:, :, :30] = data[:1, :, :30]
  found = groups(data, 2)
  assert all((found[i] == found[j]) == (i % 2 == j % 2) for i in range(8) for j in range(8))


def test_fewer_clients_than_groups_and_clients_that_do_not_move():
  assert sorted(set(groups(snapshots(2, 2), 5))) == sorted(groups(snapshots(2, 2), 5))
  assert groups(snapshots(1, 1), 3).shape == (1,)
  assert set(groups(np.zeros((3, 4, 36), np.float32), 2)) == {0}
