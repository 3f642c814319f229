"""A small model for images of 28x28."""

from tff_compress.simulation.models.base import Architecture


class SmallCNN(Architecture):
  name = 'small_cnn'
  layers = 'conv 3x3x16/2, conv 3x3x32/2, dense 108, dense; no padding'
  source = 'ours: the small model of the bytes-to-accuracy benchmark'
  input_shape = (28, 28, 1)
  parameters = 130_414
  smallest = 7

  @classmethod
  def build(cls, make, shape, classes):
    return make.sequential(
        shape,
        make.conv('conv1', 16, strides=2),
        make.conv('conv2', 32, strides=2),
        make.keras.layers.Flatten(name='flatten'),
        make.dense('dense1', 108, 'relu'),
        make.dense('logits', classes),
    )
