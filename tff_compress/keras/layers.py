"""The layers of a Keras model and what is in them."""

import tensorflow as tf


def all_layers(model: tf.keras.Model) -> list[tf.keras.layers.Layer]:
  """The model and all layers in it, at any depth. (`submodules` fails on recurrent layers with dropout.)"""
  return list(model._flatten_layers())


def metrics_of_layers(model: tf.keras.Model) -> list[tf.keras.metrics.Metric]:
  """The metrics that layers make of their own accord, with add_metric or as attributes."""
  return [metric for layer in all_layers(model) for metric in layer._metrics]
