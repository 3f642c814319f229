"""Clustering: the weights of a layer share few values."""

import dataclasses
from typing import Any

from tflite_export.inference.part import Change
from tflite_export.inference.part import LOSS
from tflite_export.inference.part import parameter
from tflite_export.inference.part import SHARED_VALUES
from tflite_export.inference.part import TRAINING_DATA
from tflite_export.inference.part import ZEROS


@dataclasses.dataclass(frozen=True)
class Cluster(Change):
  """Gives each layer's weights few values; zeros of a pruned model stay zeros.

  Attributes:
    values: how many per layer.
  """
  name = 'cluster'
  summary = 'lets the weights of a layer share N values; zeros of a pruned model stay zeros'
  position = 30
  needs = (TRAINING_DATA, LOSS)
  leaves = (SHARED_VALUES,)
  examples = ('cluster:8+int8', 'prune:0.7+cluster:8+qat')

  values: int = parameter(16, low=2, high=256, written='N')

  def change(self, model: Any, trainer: Any, student: Any, keep: frozenset[str]) -> Any:
    import numpy as np
    from tensorflow_model_optimization.clustering import keras as clustering
    from tensorflow_model_optimization.python.core.clustering.keras.experimental import cluster as experimental

    from tflite_export.inference import finetuning
    few = []

    def wrap(layer):
      kernels = [weight for weight in layer.trainable_weights if weight.shape.rank > 1]
      if any(np.count_nonzero(kernel) <= self.values for kernel in kernels):
        few.append(layer.name)
        layer.trainable = False  # It has that few values already; what is zero stays zero.
        return layer
      return experimental.cluster_weights(layer, number_of_clusters=self.values, preserve_sparsity=ZEROS in keep,
                                          cluster_centroids_init=clustering.CentroidInitialization.KMEANS_PLUS_PLUS)
    wrapped = finetuning.wrap(model, wrap, 'clustered', few)
    if wrapped.trainable_weights:
      trainer.fit(wrapped, 'clustering', later=True)
    return finetuning.copy(clustering.strip_clustering(wrapped))
