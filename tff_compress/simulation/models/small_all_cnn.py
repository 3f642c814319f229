"""A small model of nothing but convolutions."""

import functools

from tff_compress.simulation.models.base import Architecture


class SmallAllCNN(Architecture):
  name = 'small_all_cnn'
  layers = ('conv 3x3x16/2, 3x3x32/2, 3x3x32, 1x1 conv to the classes, mean over the positions; padding keeps '
            'the size')
  source = 'ours: nothing but convolutions, for residual pooling'
  input_shape = (28, 28, 1)
  parameters = 14_378

  @classmethod
  def build(cls, make, shape, classes):
    # He et al.: the variance that keeps a deep stack of ReLUs from fading.
    conv = functools.partial(make.conv, padding='same', initializer='HeNormal')
    return make.sequential(
        shape,
        conv('conv1', 16, strides=2),
        conv('conv2', 32, strides=2),
        conv('conv3', 32),
        conv('conv4', classes, 1, activation=None),
        make.keras.layers.GlobalAveragePooling2D(name='logits'),
    )
