"""A model's history while a graph is built."""

import collections
from typing import Any

import tensorflow as tf

from tff_compress.tensorflow.ops import of_any_size
from tff_compress.tensorflow.ops import TensorFlowOps
from tff_compress.timeline import history


def begin(base: tf.Tensor, digest: tf.Tensor) -> collections.OrderedDict[str, Any]:
  """As `timeline.history.begin`, in a state of which the types are those of every later one."""
  past = history.begin(TensorFlowOps(), base, digest)
  growing = {name: of_any_size(past[name]) for name in ('log', 'ends', 'base', 'placement')}
  return collections.OrderedDict(past, **growing)
