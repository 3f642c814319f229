"""The convolutional model of Chandar et al. for CIFAR-10."""

from tff_compress.simulation.models.base import Architecture


class CifarCNN(Architecture):
  name = 'cifar_cnn'
  layers = ('conv 3x3x32 twice, max-pool 2, conv 3x3x64 twice, max-pool 2, conv 3x3x128 twice, max-pool 2, dense'
            ' 128, dense; padding keeps the size')
  source = 'Chandar et al. 2021, section 4, for CIFAR-10'
  input_shape = (32, 32, 3)
  parameters = 550_570
  smallest = 8
  width = 32

  @classmethod
  def build(cls, make, shape, classes):
    layers = []
    for stage in range(3):
      for number in (2 * stage + 1, 2 * stage + 2):
        layers.append(make.conv(f'conv{number}', cls.width << stage, padding='same'))
      layers.append(make.keras.layers.MaxPooling2D(2, name=f'pool{stage + 1}'))
    return make.sequential(shape, *layers, make.keras.layers.Flatten(name='flatten'),
                           make.dense('dense1', 4 * cls.width, 'relu'), make.dense('logits', classes))
