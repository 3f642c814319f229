"""Groups of clients whose updates resemble each other."""

from collections.abc import Sequence

import tensorflow as tf

_ITERATIONS = 20


def of_snapshots(snapshots: tf.Tensor, sizes: Sequence[int], count: int) -> tf.Tensor:
  """Groups clients by the direction in which they train.

  A client's point is the mean of its snapshots, with every variable in units of its root mean square over all clients,
  so that large variables do not decide alone, and brought to length 1, so that a client that moves far in the same
  direction is no different. Points are grouped by k-means that starts from the point farthest from the mean, then from
  the one farthest from those that there are: the same clients in the same order give the same groups.

  Args:
    snapshots: float32[clients, n, d].
    sizes: numbers of values of the variables.
    count: largest number of groups.

  Returns:
    int32[clients], 0 … count - 1.
  """
  means = tf.reduce_mean(snapshots, 1)
  units = [tf.sqrt(tf.reduce_mean(part**2)) for part in tf.split(means, sizes, axis=1)]
  points = tf.math.l2_normalize(tf.math.divide_no_nan(means, tf.repeat(tf.stack(units), sizes)), axis=1)

  def distances(centers: tf.Tensor) -> tf.Tensor:
    return (tf.reduce_sum(points**2, 1)[:, None] + tf.reduce_sum(centers**2, 1)
            - 2 * tf.matmul(points, centers, transpose_b=True))

  centers = tf.reduce_mean(points, 0)[None]
  for i in range(count):
    farthest = tf.gather(points, tf.argmax(tf.reduce_min(distances(centers), 1)))[None]
    centers = tf.concat([centers, farthest], 0) if i else farthest

  def step(centers: tf.Tensor) -> tf.Tensor:
    nearest = tf.argmin(distances(centers), 1, tf.int32)
    members = tf.math.bincount(nearest, minlength=count, maxlength=count)
    moved = tf.math.unsorted_segment_mean(points, nearest, count)
    return tf.where((members > 0)[:, None], moved, centers)

  for _ in range(_ITERATIONS):
    centers = step(centers)
  return tf.argmin(distances(centers), 1, tf.int32)
