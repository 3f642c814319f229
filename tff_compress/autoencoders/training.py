"""Snapshots of a model that is trained alone: what autoencoders are learned from."""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_compress.autoencoders.errors import SnapshotError
from tff_compress.autoencoders.rule import LearnedRule
from tff_compress.codec import checks
from tff_compress.codec.ops import numpy_ops
from tff_compress.codec.table import Array
from tff_compress.runtime import compat

TARGETS = ('delta', 'weights')
_LOOP = tff.learning.LoopImplementation.DATASET_ITERATOR


def alone(model_fn: Callable[[], tff.learning.models.VariableModel], weighting: tff.learning.ClientWeighting,
          optimizer: tff.learning.optimizers.Optimizer, weights: tff.learning.models.ModelWeights,
          data: tf.data.Dataset, count: int,
          steps: int | None = None) -> tuple[list[tuple[list[tf.Tensor], list[tf.Tensor]]], tf.Tensor, Any]:
  """Trains as a client does in a round, again and again from where it was, inside a graph or eagerly.

  Args:
    model_fn, weighting, optimizer: as for `build_fed_avg`; the optimizer starts anew each time, as it does in rounds.
    weights: `ModelWeights` to begin with.
    data: `tf.data.Dataset` of batches.
    count: how many times.
    steps: batches each time, going on where the last time ended and over the data again as needed; None: all of them.

  Returns:
    ([(trainable weights before, after, as lists)], weight of the last, metrics of the last, not finalized yet).
  """
  train, taken = compat.client_update(model_fn, weighting, _LOOP), []
  for i in range(count):
    part = data if steps is None else data.repeat().skip(i * steps).take(steps)
    result, outputs = train(optimizer, weights, part)
    following = tf.nest.map_structure(tf.subtract, weights.trainable, result.update)
    taken.append((tf.nest.flatten(weights.trainable), tf.nest.flatten(following)))
    weights = tff.learning.models.ModelWeights(following, weights.non_trainable)
  return taken, result.update_weight, outputs


def of_target(target: str, before: Sequence[Array], after: Sequence[Array]) -> Sequence[Array]:
  """What is encoded of a training, list of arrays: the weights after it, or before less after, as uplinks have it."""
  return after if target == 'weights' else [a - b for a, b in zip(before, after)]


def snapshots(model_fn: Callable[[], tff.learning.models.VariableModel], dataset: tf.data.Dataset,
              rule: LearnedRule | None = None, *, count: int = 8, steps: int | None = None, target: str = 'delta',
              weights: tff.learning.models.ModelWeights | None = None,
              client_optimizer_fn: tff.learning.optimizers.Optimizer | None = None) -> np.ndarray:
  """Snapshots of a training with data of one's own, no clients involved, for `fit`.

  Args:
    model_fn: function that makes a `tff.learning.models.VariableModel`.
    dataset: `tf.data.Dataset` of batches.
    rule: `LearnedRule` of the model's trainable variables, whose values are taken in its order; None: all of them, as
      they lie in memory.
    count: number of snapshots, at least 2.
    steps: batches between them; None: all of the data.
    target: 'delta': what training changed, before less after, as uplinks encode it; 'weights': the weights after it.
    weights: `ModelWeights` to begin with; None: those of a new model.
    client_optimizer_fn: `tff.learning.optimizers.Optimizer`; None: SGD with learning rate 0.1.

  Returns:
    float32[count, d].

  Raises:
    SnapshotError: an argument cannot be used, there is no data, or training does not stay finite.
  """
  checks.one_of('target', target, TARGETS, SnapshotError)
  count = checks.whole_number('count', count, SnapshotError, least=2)
  steps = checks.whole_number('steps', steps, SnapshotError, least=1, optional=True)
  weights = tff.learning.models.ModelWeights.from_model(model_fn()) if weights is None else weights
  weights = tf.nest.map_structure(tf.convert_to_tensor, weights)
  optimizer = client_optimizer_fn or tff.learning.optimizers.build_sgdm(0.1)
  weighting = tff.learning.ClientWeighting.NUM_EXAMPLES
  taken, weight, _ = alone(model_fn, weighting, optimizer, weights, dataset, count, steps)
  if not float(weight) > 0:
    raise SnapshotError('training alone used no examples, or did not stay finite: give it data, or lower its learning '
                        'rate.')
  found = []
  for before, after in taken:
    arrays = [np.asarray(x) for x in of_target(target, before, after)]
    found.append(rule.take(numpy_ops, arrays) if rule else np.concatenate([x.reshape(-1) for x in arrays]))
  return np.asarray(found, np.float32)
