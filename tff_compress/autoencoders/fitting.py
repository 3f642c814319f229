"""Learning an autoencoder from snapshots."""

from collections.abc import Callable
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from tff_compress.autoencoders.architectures import Architecture
from tff_compress.autoencoders.errors import SnapshotError
from tff_compress.codec.network import Autoencoder


def fit(architecture: Architecture, snapshots: npt.ArrayLike, sizes: Iterable[int] = (), *, epochs: int = 30,
        learning_rate: float = 1e-3, center: bool = True, seed: int = 0,
        progress: Callable[[int, int, float], None] | None = None) -> Autoencoder:
  """Learns an autoencoder.

  Every variable is normalised by the mean and standard deviation of all its values in all snapshots; or, without a
  center, by their root mean square alone. Then what is linear decodes a sum of messages to the sum of what they decode
  to, so that a server needs no more than their sum, as with secure aggregation. Weights are
  rounded to int8 when they are learned.

  Args:
    architecture: `Architecture`.
    snapshots: float[n, d]: n snapshots of d values, of weights or of their changes; at least 2.
    sizes: numbers of values of the variables that lie in a snapshot one after the other; () to normalise nothing.
    epochs: passes over all pieces, where layers are learned by gradients (Adam).
    learning_rate: of Adam.
    center: whether means are taken out.
    seed: for weights and order.
    progress: called with (epochs done, epochs, mean squared error of the last one) after each epoch; None: nobody is
      told.

  Returns:
    `tff_compress.codec.network.Autoencoder`.

  Raises:
    SnapshotError: the snapshots cannot be used.
  """
  snapshots = np.asarray(snapshots, np.float32)
  if snapshots.ndim != 2 or len(snapshots) < 2 or not snapshots.shape[1]:
    raise SnapshotError('snapshots must be an array of at least 2 of the same size, not one of shape '
                        f'{snapshots.shape}: train longer '
                        'in the pre-pass, or take one per batch.')
  if not np.all(np.isfinite(snapshots)):
    raise SnapshotError('a snapshot holds NaN or infinite values: lower the learning rate of the pre-pass.')
  sizes = tuple(int(size) for size in sizes)
  if sizes and sum(sizes) != snapshots.shape[1]:
    raise SnapshotError(f'the variables have {sum(sizes)} values and a snapshot {snapshots.shape[1]}: give the sizes '
                        'of all variables.')
  import tensorflow as tf

  from tff_compress.autoencoders import learning
  learner = learning.Learner(architecture, snapshots.shape[1], sizes, learning_rate, seed, center)
  if architecture.kind == 'linear':
    return learning.numbers_of(learner.learn(tf.constant(snapshots), epochs))
  pieces, means, deviations = learner.prepared(tf.constant(snapshots))
  pieces, mean, scale = learner.standardised(pieces)
  layers, state, epoch = learner.initial(), None, tf.function(learner.steps)
  steps = learner.steps_per_epoch(pieces)
  for done in range(epochs):
    layers, state, loss = epoch(pieces, layers, done * steps, (done + 1) * steps, state)
    if progress is not None:
      progress(done + 1, epochs, float(loss))
  return learning.numbers_of(learner.made(learner.restored(layers, mean, scale), means, deviations))


def relative_error(autoencoder: Autoencoder, snapshots: npt.ArrayLike) -> np.ndarray:
  """||decoded - x||^2 / ||x||^2 of each snapshot, float[n]: 1 is what sending nothing has."""
  from tff_compress.codec.ops import numpy_ops as xp
  errors = []
  for x in np.asarray(snapshots, np.float32):
    decoded = autoencoder.decode(xp, autoencoder.encode(xp, x, x.size), x.size)
    errors.append(np.sum((decoded - x.astype(np.float64))**2) / max(np.sum(x.astype(np.float64)**2), 1e-30))
  return np.asarray(errors)
