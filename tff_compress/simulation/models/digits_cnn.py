"""A small model for the digits of scikit-learn."""

from tff_compress.simulation.models.base import Architecture


class DigitsCNN(Architecture):
  name = 'digits_cnn'
  layers = 'conv 3x3x16, conv 3x3x32, max-pool 2, dense 64, dense; padding keeps the size'
  source = 'ours: small enough to train in seconds, one tensor above 20,000'
  input_shape = (8, 8, 1)
  parameters = 38_282
  smallest = 2

  @classmethod
  def build(cls, make, shape, classes):
    layers = make.keras.layers
    return make.sequential(
        shape,
        make.conv('conv1', 16, padding='same'),
        make.conv('conv2', 32, padding='same'),
        layers.MaxPooling2D(2, name='pool'),
        layers.Flatten(name='flatten'),
        make.dense('dense1', 64, 'relu'),
        make.dense('logits', classes),
    )
