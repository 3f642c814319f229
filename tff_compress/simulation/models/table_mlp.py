"""A small multilayer perceptron for the rows of tables."""

from tff_compress.simulation import kinds
from tff_compress.simulation.models.base import Architecture


class TableMLP(Architecture):
  name = 'table_mlp'
  layers = 'dense 32, dense 16, dense'
  source = 'ours: small enough to train in seconds'
  kinds = (kinds.TABLE, kinds.REGRESSION)
  input_shape = (13,)
  num_classes = 3
  parameters = 1_027

  @classmethod
  def build(cls, make, shape, classes):
    return make.sequential(
        shape,
        make.dense('dense1', 32, 'relu'),
        make.dense('dense2', 16, 'relu'),
        make.dense('logits', classes),
    )
