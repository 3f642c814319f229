"""What is learned: principal components are the best linear layers, gradients come near them, bad snapshots are
refused."""

import numpy as np
import pytest

from tff_compress import autoencoders
from tff_compress import codec as codec_lib
from tff_compress.autoencoders import fitting
from tff_compress.codec import artefacts
from tff_compress.codec.ops import numpy_ops

RNG = np.random.default_rng(0)
SIZES = (600, 0, 36, 4)
SCALES = np.repeat((1.0, 1.0, 30.0, 1e-3), SIZES)
OFFSETS = np.repeat((0.0, 0.0, 100.0, -5.0), SIZES)


def snapshots(count, rank=5, noise=0.05, seed=0):
  """Points near a subspace, with variables of very different scales."""
  basis = np.random.default_rng(1).standard_normal((rank, 640))
  rng = np.random.default_rng(seed)
  return (rng.standard_normal((count, rank)) @ basis + noise * rng.standard_normal((count, 640))) * SCALES + OFFSETS


def normalised_error(net, x):
  """The mean squared error in units of each variable's deviation."""
  from tff_compress.codec.ops import numpy_ops as xp
  decoded = np.stack([net.decode(xp, net.encode(xp, v, v.size), v.size) for v in x.astype(np.float32)])
  return np.mean(((decoded - x) / SCALES)**2) / np.mean(((x - OFFSETS) / SCALES)**2)


@pytest.mark.tf
def test_principal_components_keep_what_lies_in_them():
  """A whole snapshot as one piece: five dimensions of signal, so 5 components lose the noise alone, and 3 lose
  signal."""
  train, later = snapshots(40), snapshots(20, seed=1)
  errors = [normalised_error(autoencoders.fit(autoencoders.linear(640, z), train, SIZES), later) for z in (3, 5, 12)]
  assert errors[1] < 0.004 < 0.05 < errors[0] and errors[2] < 0.004


@pytest.mark.tf
def test_more_components_than_snapshots_are_left_at_zero():
  net = autoencoders.fit(autoencoders.linear(640, 30), snapshots(8), SIZES)
  assert np.count_nonzero(np.any(net.encoder[0].weights, axis=0)) <= 8
  assert normalised_error(net, snapshots(8)) < 0.01


@pytest.mark.tf
def test_one_small_network_serves_all_pieces():
  """Pieces repeat what they consist of, as rows of a matrix do."""
  rng = np.random.default_rng(2)
  basis = rng.standard_normal((4, 64))
  data = (rng.standard_normal((200, 4)) @ basis).reshape(20, 640)
  for architecture, most in ((autoencoders.linear(64, 4), 1e-3), (autoencoders.dense(64, 12), 0.2)):
    net = autoencoders.fit(architecture, data[:15], (640,), epochs=60, learning_rate=1e-2)
    assert np.mean(fitting.relative_error(net, data[15:])) < most
    assert net.packed.__len__() < 64 * 13 * 3 + 2000


@pytest.mark.tf
def test_a_dense_network_learns_by_what_snapshots_of_one_training_differ():
  """They are nearly alike; a network that says their mean has an error of 1 here."""
  rng = np.random.default_rng(4)
  data = rng.standard_normal(640) + 0.1 * rng.standard_normal((40, 3)) @ rng.standard_normal((3, 640))
  net = autoencoders.fit(autoencoders.dense(640, 16), data, (640,), epochs=300)
  mean = np.mean(data, axis=0)
  alike = np.mean(np.sum((data - mean)**2, axis=1) / np.sum(data**2, axis=1))
  assert alike < 0.05 and np.mean(fitting.relative_error(net, data)) < 0.2 * alike
  latents = np.stack([net.encode(numpy_ops, x.astype(np.float32), 640) for x in data])
  assert np.sum(np.any(latents > 0, axis=0)) > 12


@pytest.mark.tf
def test_convolutions_learn_and_their_files_are_small():
  t = np.linspace(0, 1, 640)
  data = np.stack([np.sin(2 * np.pi * (5 * t + p)) for p in RNG.random(60)])
  seen = []
  net = autoencoders.fit(autoencoders.convolutional(64, 4), data, epochs=30, learning_rate=1e-2,
                         progress=lambda done, of, loss: seen.append((done, of, loss)))
  assert np.mean(fitting.relative_error(net, data)) < 0.1
  assert [s[:2] for s in seen] == [(i + 1, 30)
                                   for i in range(30)] and seen[-1][2] < seen[0][2] and len(net.packed) < 10_000


@pytest.mark.tf
def test_what_was_learned_is_a_codec():
  net = autoencoders.fit(autoencoders.linear(640, 5), snapshots(40), SIZES)
  shapes = ((20, 30), (0,), (36,), (4,))
  x = snapshots(1, seed=3)[0].astype(np.float32)
  update = {f'v{i}': part.reshape(shape) for i,
            (part, shape) in enumerate(zip(np.split(x, np.cumsum(SIZES)[:-1]), shapes))}
  codec = codec_lib(f'concat | autoencoder:5,length=640,weights={artefacts.add(net)} | uniform:bits=8 | pack')
  payload = codec.encode(update, seed=0, round=0, client=0)
  decoded = codec.decode(payload, update, seed=0, round=0, client=0)
  assert len(payload) < 20 and normalised_error(net, x[None]) < 0.01
  for name in ('v0', 'v2'):
    assert np.sum((decoded[name] - update[name])**2) < 0.02 * np.sum(update[name]**2)


def test_bad_snapshots_are_typed_errors():
  good = snapshots(3)
  for wrong, message in ((good[:1], 'at least 2'), (good[0], 'at least 2'), (np.where(good > 100, np.nan, good), 'NaN'),
                         (np.zeros((3, 0)), 'at least 2')):
    with pytest.raises(autoencoders.SnapshotError, match=message):
      autoencoders.fit(autoencoders.linear(640, 2), wrong, SIZES)
  with pytest.raises(autoencoders.SnapshotError, match='sizes of all'):
    autoencoders.fit(autoencoders.linear(640, 2), good, (3,))
  for make in (lambda: autoencoders.linear(8, 8), lambda: autoencoders.dense(8, 0),
               lambda: autoencoders.convolutional(100, 4),
               lambda: autoencoders.convolutional(64, 3, stride=2)):
    with pytest.raises(autoencoders.SnapshotError):
      make()


@pytest.mark.tf
def test_without_a_center_the_sum_of_messages_decodes_to_the_sum():
  """What secure aggregation needs: the server sees the sum of latent values alone."""
  train = snapshots(40) - OFFSETS
  net = autoencoders.fit(autoencoders.linear(640, 5), train, SIZES, center=False)
  centered = autoencoders.fit(autoencoders.linear(640, 5), snapshots(40), SIZES)
  dense = autoencoders.fit(autoencoders.dense(640, 5), train, SIZES, center=False, epochs=1)
  texts = [f'concat | autoencoder:5,length=640,weights={artefacts.add(n)} | float32' for n in (net, centered, dense)]
  assert [codec_lib(text).rules[0].pipeline.prefix for text in texts] == [1, 0, 0]
  from tff_compress.codec.ops import numpy_ops as xp
  latents = [net.encode(xp, x.astype(np.float32), 640) for x in train[:3]]
  total, each = net.decode(xp, sum(latents), 640), sum(net.decode(xp, z, 640) for z in latents)
  assert np.max(np.abs((total - each) / SCALES)) < 1e-4
  assert np.mean(fitting.relative_error(net, train)) < 0.01
