"""The language model of Konecny et al.: one embedding for input and output."""

import functools

from tff_compress.simulation import kinds
from tff_compress.simulation.models.base import Architecture


class TiedLSTM(Architecture):
  name = 'tied_lstm'
  layers = ("embedding 96, LSTM 256, dense 96, times the transposed embedding; the rows of the embedding have L2"
            " norm 1, at the start and, through a constraint that Keras's own optimizers apply, after each step")
  source = 'Konecny et al. 2016, section 4: next-word prediction'
  kinds = (kinds.TEXT,)
  input_shape = (None,)
  num_classes = 10_017
  parameters = 1_347_776

  @classmethod
  def build(cls, make, shape, classes):
    keras = make.keras
    embedding = _tied_embedding_class()(
        classes, 96, name='embedding',
        embeddings_initializer=_unit_rows_class()(seed=make.seed('embedding')),
        embeddings_constraint=keras.constraints.UnitNorm(axis=1),
    )
    tokens = keras.Input(shape, dtype='int32', name='tokens')
    state = make.lstm('lstm', 256)(embedding(tokens))
    logits = embedding(make.dense('projection', 96)(state), transpose=True)
    return keras.Model(tokens, logits, name='tied_lstm')


# The two classes below derive from Keras classes, so they are made when TensorFlow is first needed, and then only once.


@functools.cache
def _tied_embedding_class():
  import tensorflow as tf

  @tf.keras.utils.register_keras_serializable('tff_compress')
  class TiedEmbedding(tf.keras.layers.Embedding):
    """An embedding whose transpose is also the output layer: one variable in both places."""

    def call(self, inputs, transpose=False):
      return tf.matmul(inputs, self.embeddings, transpose_b=True) if transpose else super().call(inputs)

  return TiedEmbedding


@functools.cache
def _unit_rows_class():
  import tensorflow as tf

  @tf.keras.utils.register_keras_serializable('tff_compress')
  class UnitRows(tf.keras.initializers.RandomNormal):
    """Random directions: rows of L2 norm 1."""

    def __call__(self, shape, dtype=None, **kwargs):
      return tf.math.l2_normalize(super().__call__(shape, dtype, **kwargs), axis=1)

  return UnitRows
