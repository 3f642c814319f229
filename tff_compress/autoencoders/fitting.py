"""Learning an autoencoder from snapshots."""

import numpy as np

from tff_compress.autoencoders.errors import SnapshotError
from tff_compress.codec import network

_BATCH = 256


def fit(architecture, snapshots, sizes=(), *, epochs=30, learning_rate=1e-3, seed=0, progress=None):
  """Learns an autoencoder.

  Every variable is normalised by the mean and standard deviation of all its values in all snapshots. Weights are rounded to int8 when
  they are learned.

  Args:
    architecture: `Architecture`.
    snapshots: float[n, d]: n snapshots of d values, of weights or of their changes; at least 2.
    sizes: numbers of values of the variables that lie in a snapshot one after the other; () to normalise nothing.
    epochs: passes over all pieces, where layers are learned by gradients (Adam).
    learning_rate: of Adam.
    seed: for weights and order.
    progress: called with (epochs done, epochs, mean squared error so far) after each epoch; None: nobody is told.

  Returns:
    `tff_compress.codec.network.Autoencoder`.

  Raises:
    SnapshotError: the snapshots cannot be used.
  """
  snapshots = np.asarray(snapshots, np.float32)
  if snapshots.ndim != 2 or len(snapshots) < 2 or not snapshots.shape[1]:
    raise SnapshotError(f'snapshots must be an array of at least 2 of the same size, not one of shape {snapshots.shape}: train longer '
                        'in the pre-pass, or take one per batch.')
  if not np.all(np.isfinite(snapshots)):
    raise SnapshotError('a snapshot holds NaN or infinite values: lower the learning rate of the pre-pass.')
  sizes = tuple(int(size) for size in sizes)
  if sizes and sum(sizes) != snapshots.shape[1]:
    raise SnapshotError(f'the variables have {sum(sizes)} values and a snapshot {snapshots.shape[1]}: give the sizes of all variables.')
  means, deviations = _normalisation(snapshots, sizes)
  if sizes:
    snapshots = (snapshots - np.repeat(means, sizes)) / np.repeat(deviations, sizes)
  pieces = _pieces(snapshots, architecture.length)
  learn = _components if architecture.kind == 'linear' else _gradients
  layers = learn(architecture, pieces, epochs, learning_rate, seed, progress)
  count = len(architecture.encoder)
  return network.Autoencoder(architecture.length, tuple(layers[:count]), tuple(layers[count:]), sizes, means, deviations)


def relative_error(autoencoder, snapshots):
  """||decoded - x||^2 / ||x||^2 of each snapshot, float[n]: 1 is what sending nothing has."""
  from tff_compress.codec.ops import numpy_ops as xp  # pylint: disable=g-import-not-at-top
  errors = []
  for x in np.asarray(snapshots, np.float32):
    decoded = autoencoder.decode(xp, autoencoder.encode(xp, x, x.size), x.size)
    errors.append(np.sum((decoded - x.astype(np.float64))**2) / max(np.sum(x.astype(np.float64)**2), 1e-30))
  return np.asarray(errors)


def _normalisation(snapshots, sizes):
  """(means, deviations) of each variable, float32; a variable that never differs has the deviation 1."""
  starts = np.cumsum((0, *sizes))
  parts = [snapshots[:, start:stop] for start, stop in zip(starts[:-1], starts[1:])]
  means = np.asarray([part.mean(dtype=np.float64) if part.size else 0 for part in parts], np.float32)
  deviations = np.asarray([part.std(dtype=np.float64) if part.size else 0 for part in parts], np.float32)
  return means, np.where(deviations > 1e-30, deviations, np.float32(1)).astype(np.float32)


def _pieces(snapshots, length):
  """float32[m, length]: all snapshots, cut into pieces of which the last of each is filled up with zeros."""
  count, size = snapshots.shape
  padded = np.pad(snapshots, ((0, 0), (0, -size % length)))
  return padded.reshape(-1, length).astype(np.float32)


def _components(architecture, pieces, epochs, learning_rate, seed, progress):
  """Layers of the principal components, by incremental singular value decomposition (Ross et al. 2008)."""
  del epochs, learning_rate, seed, progress
  from sklearn import decomposition  # pylint: disable=g-import-not-at-top
  # There are no more components than pieces; what is left of the latent values is always 0.
  found = min(architecture.latent, len(pieces))
  pca = decomposition.IncrementalPCA(found)
  step = max(found, _BATCH)
  starts = list(range(0, len(pieces), step))
  if len(starts) > 1 and len(pieces) - starts[-1] < found:  # A batch needs as many pieces as there are components.
    starts.pop()
  for start, stop in zip(starts, [*starts[1:], len(pieces)]):
    pca.partial_fit(pieces[start:stop])
  components = np.zeros((architecture.latent, architecture.length), np.float32)
  components[:found] = pca.components_
  mean = pca.mean_.astype(np.float32)
  return [network.Layer.of(components.T, -components @ mean), network.Layer.of(components, mean)]


def _gradients(architecture, pieces, epochs, learning_rate, seed, progress):
  """Layers that Adam found, with the mean squared error as loss."""
  import tensorflow as tf  # pylint: disable=g-import-not-at-top
  initializers = iter(tf.keras.initializers.HeUniform(seed + i) for i in range(1000))
  layers, x = [], tf.keras.Input((architecture.length,))
  inputs = x
  for shape in (*architecture.encoder, *architecture.decoder):
    rows = tf.keras.layers.Reshape((shape.positions, shape.inputs))(x)
    layers.append(tf.keras.layers.Dense(shape.outputs, kernel_initializer=next(initializers)))
    y = layers[-1](rows)
    if shape.activation == network.RESIDUAL:
      y = tf.keras.layers.Add()([y, rows])
    if shape.activation != network.NONE:
      y = tf.keras.layers.ReLU()(y)
    x = tf.keras.layers.Reshape((shape.positions * shape.outputs,))(y)
  model = tf.keras.Model(inputs, x)
  model.compile(tf.keras.optimizers.Adam(learning_rate), 'mse')
  batch = min(_BATCH, max(8, len(pieces) // 32))  # At least 32 steps in an epoch, where there are enough pieces.
  data = tf.data.Dataset.from_tensor_slices((pieces, pieces)).shuffle(len(pieces), seed=seed).batch(batch)
  for epoch in range(epochs):
    loss = model.fit(data, verbose=0).history['loss'][0]
    if progress is not None:
      progress(epoch + 1, epochs, loss)
  found = []
  for layer, shape in zip(layers, (*architecture.encoder, *architecture.decoder)):
    kernel, bias = layer.get_weights()
    found.append(network.Layer.of(kernel, bias, shape.positions, shape.activation))
  return found
