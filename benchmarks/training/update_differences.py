"""By how much clients' updates differ from their last ones, which is what EF21 and MARINA send."""

import numpy as np

from tff_compress.simulation import datasets
from tff_compress.simulation import models
from tff_compress.simulation import splits

CLIENTS, RATE, ROUNDS = 20, 0.05, (5, 15, 30, 45, 60)
CASES = {'an epoch, batches of 20': 20, 'one step, all examples': None}


def run(quick):
  """Measures federated averaging of the digits, without compression.

  Args:
    quick: whether to train few rounds.

  Returns:
    List of rows: local training, round, and ratio, the sum over clients of the energy of the difference between this
    round's update and the last one's, over that of the updates.
  """
  data, model = datasets.load('digits'), models.build('digits_cnn')
  parts, start, rows = splits.split('dirichlet:0.5', data.y_train, CLIENTS, 0), model.get_weights(), []
  step = _step(model)
  for training, batch in CASES.items():
    weights, rng, last = start, np.random.default_rng(0), None
    for number in range(1, (ROUNDS[0] if quick else ROUNDS[-1]) + 1):
      updates = []
      for part in parts:
        model.set_weights(weights)
        order = rng.permutation(part)
        for first in range(0, len(order), batch or len(order)):
          chosen = order[first:first + (batch or len(order))]
          step(data.x_train[chosen], data.y_train[chosen])
        updates.append([a - b for a, b in zip(weights, model.get_weights())])
      if number in ROUNDS:
        differences = [[a - b for a, b in zip(u, v)] for u, v in zip(updates, last)]
        rows.append({'local training': training, 'round': number, 'ratio': _energy(differences) / _energy(updates)})
      last = updates
      weights = [w - np.mean(arrays, axis=0) for w, *arrays in zip(weights, *updates)]
  return rows


def _energy(of_clients):
  return float(sum(np.sum(array.astype(np.float64)**2) for arrays in of_clients for array in arrays))


def _step(model):
  """Function of examples and labels that takes one step of SGD."""
  import tensorflow as tf
  loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)

  @tf.function(reduce_retracing=True)
  def step(x, y):
    with tf.GradientTape() as tape:
      value = loss(y, model(x, training=True))
    for variable, gradient in zip(model.trainable_variables, tape.gradient(value, model.trainable_variables)):
      variable.assign_sub(RATE * gradient)

  return lambda x, y: step(tf.constant(x), tf.constant(y))
