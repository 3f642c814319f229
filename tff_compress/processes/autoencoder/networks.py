"""The networks of autoencoders as clients and server keep and send them."""

import numpy as np
import tensorflow as tf

from tff_compress import codec as codec_lib
from tff_compress.codec import network
from tff_compress.tensorflow import MessageFunctions
from tff_compress.tensorflow.ops import TensorFlowOps


class Networks:
  """The networks of one architecture: as one vector, as the frame of a decoder, and as the frame of the whole.

  Args:
    architecture: `Architecture`.
    sizes: numbers of values of the variables that it encodes.
    seed: session seed of the frames.

  Attributes:
    size: number of values of a vector.
    decoders, whole: `MessageFunctions` of a decoder's arrays, and of all arrays.
  """

  def __init__(self, architecture, sizes, seed):
    self._architecture, self._sizes = architecture, sizes
    count = (len(sizes),)
    encoder = _specs(architecture.encoder, 'encoder')
    decoder = (*_specs(architecture.decoder, 'decoder'), codec_lib.TensorSpec('means', count),
               codec_lib.TensorSpec('deviations', count))
    self._spec, self._encoder = codec_lib.Spec((*encoder, *decoder)), len(encoder)
    self.size = self._spec.parameters
    self.decoders = MessageFunctions('float32', codec_lib.Spec(decoder), seed)
    self.whole = MessageFunctions('float32', self._spec, seed)

  def vector(self, autoencoder):
    """`network.Autoencoder` of tensors -> float32[size]."""
    layers = (*autoencoder.encoder, *autoencoder.decoder)
    arrays = [x for layer in layers for x in (layer.weights, layer.scale, layer.bias)]
    return tf.concat([tf.reshape(tf.cast(x, tf.float32), [-1])
                      for x in (*arrays, autoencoder.means, autoencoder.deviations)], 0)

  def of_vector(self, vector):
    """Inverse of `vector`."""
    return self._of_arrays(self._arrays(vector))

  def decoder_frame(self, vector, round_number, client):
    """uint8[n]: the decoder and the normalisation."""
    return self.decoders.encode(self._typed(vector)[self._encoder:], round_number, client)

  def of_decoder(self, frame):
    """The `network.Autoencoder` of a decoder's frame; its encoder is of zeros."""
    zeros = [np.zeros(tensor.shape, np.float32) for tensor in self._spec.tensors[:self._encoder]]
    return self._of_arrays(zeros + self.decoders.decode(frame))

  def whole_frame(self, vector, round_number, client):
    """uint8[n]: encoder, decoder and normalisation."""
    return self.whole.encode(self._typed(vector), round_number, client)

  def of_whole(self, frame):
    """Inverse of `whole_frame`, as a `network.Autoencoder`."""
    return self._of_arrays(self.whole.decode(frame))

  def _arrays(self, vector):
    return self._spec.split(TensorFlowOps(), vector)

  def _typed(self, vector):
    return [tf.cast(x, tensor.dtype) for x, tensor in zip(self._arrays(vector), self._spec.tensors)]

  def _of_arrays(self, arrays):
    arrays = [tf.cast(x, tf.float32) for x in arrays]
    layers = [network.Layer(arrays[3 * i], arrays[3 * i + 1], arrays[3 * i + 2], shape.positions, shape.activation)
              for i, shape in enumerate((*self._architecture.encoder, *self._architecture.decoder))]
    count = len(self._architecture.encoder)
    return network.Autoencoder(self._architecture.length, tuple(layers[:count]), tuple(layers[count:]), self._sizes,
                               *arrays[-2:])


def _specs(layers, name):
  """`TensorSpec`s of the arrays of layers."""
  found = []
  for i, layer in enumerate(layers):
    found += [codec_lib.TensorSpec(f'{name}/{i}/weights', (layer.inputs, layer.outputs), 'int8'),
              codec_lib.TensorSpec(f'{name}/{i}/scale', (layer.outputs,)),
              codec_lib.TensorSpec(f'{name}/{i}/bias', (layer.outputs,))]
  return found
