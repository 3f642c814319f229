"""The multilayer perceptron of Chandar et al. for MNIST."""

from tff_compress.simulation.models.base import Architecture


class MLP(Architecture):
  name = 'mlp'
  layers = 'flatten, dense 20, dense'
  source = 'Chandar et al., autoencoder-compressed updates: 784-20-10'
  input_shape = (28, 28, 1)
  parameters = 15_910

  @classmethod
  def build(cls, make, shape, classes):
    return make.sequential(
        shape,
        make.keras.layers.Flatten(name='flatten'),
        make.dense('dense1', 20, 'relu'),
        make.dense('logits', classes),
    )
