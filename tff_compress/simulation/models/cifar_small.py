"""A small relative of cifar_cnn."""

from tff_compress.simulation.models.cifar_cnn import CifarCNN


class CifarSmall(CifarCNN):
  name = 'cifar_small'
  layers = 'cifar_cnn with 8, 16 and 32 filters and 32 units'
  source = 'ours: a quarter of the filters and units of cifar_cnn'
  parameters = 34_930
  width = 8
