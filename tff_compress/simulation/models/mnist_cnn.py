"""The MNIST example of Keras."""

from tff_compress.simulation.models.base import Architecture


class MnistCNN(Architecture):
  name = 'mnist_cnn'
  layers = 'conv 3x3x32, conv 3x3x64, max-pool 2, (dropout .25), dense 128, (dropout .5), dense; no padding'
  source = 'the MNIST example of Keras; Huang et al., "RPN", table 1'
  input_shape = (28, 28, 1)
  parameters = 1_199_882
  smallest = 6
  dropout = True

  @classmethod
  def build(cls, make, shape, classes):
    layers = make.keras.layers
    return make.sequential(
        shape,
        make.conv('conv1', 32),
        make.conv('conv2', 64),
        layers.MaxPooling2D(2, name='pool'),
        *make.dropout('dropout1', 0.25),
        layers.Flatten(name='flatten'),
        make.dense('dense1', 128, 'relu'),
        *make.dropout('dropout2', 0.5),
        make.dense('logits', classes),
    )
