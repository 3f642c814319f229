"""A small recurrent model for characters."""

from tff_compress.simulation import kinds
from tff_compress.simulation.models.base import Architecture


class CharLSTM(Architecture):
  name = 'char_lstm'
  layers = 'embedding 16, LSTM 64, dense'
  source = 'ours: next-character prediction in seconds'
  kinds = (kinds.TEXT,)
  input_shape = (None,)
  num_classes = 28
  parameters = 23_004

  @classmethod
  def build(cls, make, shape, classes):
    layers, initializers = make.keras.layers, make.keras.initializers
    return make.sequential(
        shape,
        layers.Embedding(classes, 16, name='embedding',
                         embeddings_initializer=initializers.RandomUniform(-1, 1, make.seed('embedding'))),
        make.lstm('lstm', 64),
        make.dense('logits', classes),
    )
