"""All-CNN-C (Springenberg et al. 2015)."""

import functools

from tff_compress.simulation.models.base import Architecture


class AllCNNC(Architecture):
  name = 'all_cnn_c'
  layers = ('(dropout .2), 3x3 conv 96, 96, 96/2, (dropout .5), 192, 192, 192/2, (dropout .5), 192, 1x1 conv '
            '192, 1x1 conv to the classes, mean over the positions; padding keeps the size')
  source = 'Springenberg et al. 2015, model C; Konecny et al. 2016, section 4'
  input_shape = (32, 32, 3)
  parameters = 1_369_738
  dropout = True

  @classmethod
  def build(cls, make, shape, classes):
    # He et al.: the variance that keeps a deep stack of ReLUs from fading.
    conv = functools.partial(make.conv, padding='same', initializer='HeNormal')
    return make.sequential(
        shape,
        *make.dropout('dropout1', 0.2),
        conv('conv1', 96),
        conv('conv2', 96),
        conv('conv3', 96, strides=2),
        *make.dropout('dropout2', 0.5),
        conv('conv4', 192),
        conv('conv5', 192),
        conv('conv6', 192, strides=2),
        *make.dropout('dropout3', 0.5),
        conv('conv7', 192),
        conv('conv8', 192, 1),
        # No ReLU here: logits that cannot be negative train badly.
        conv('conv9', classes, 1, activation=None),
        make.keras.layers.GlobalAveragePooling2D(name='logits'),
    )
