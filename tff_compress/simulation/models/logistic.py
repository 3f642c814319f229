"""Logistic regression."""

from tff_compress.simulation.models.base import Architecture


class Logistic(Architecture):
  name = 'logistic'
  layers = 'flatten, dense'
  source = 'logistic regression; Sattler et al. 2020 (STC)'
  input_shape = (28, 28, 1)
  parameters = 7_850

  @classmethod
  def build(cls, make, shape, classes):
    return make.sequential(shape, make.keras.layers.Flatten(name='flatten'), make.dense('logits', classes))
