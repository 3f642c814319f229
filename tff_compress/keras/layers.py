"""The layers of a Keras model and what is in them."""


def all_layers(model):
  """The model and all layers in it, at any depth. (`submodules` fails on recurrent layers with dropout.)"""
  return list(model._flatten_layers())


def metrics_of_layers(model):
  """The metrics that layers make of their own accord, with add_metric or as attributes."""
  return [metric for layer in all_layers(model) for metric in layer._metrics]
