"""Networks of int8 weights: as exact as they say, the same bits in TensorFlow, and files that are refused where they
are damaged."""

import dataclasses

import numpy as np
import pytest

from tff_compress import codec as codec_lib
from tff_compress.codec import artefacts
from tff_compress.codec import network
from tff_compress.codec.errors import ArtefactError
from tff_compress.codec.ops import numpy_ops as xp

RNG = np.random.default_rng(0)


def layer(inputs, outputs, positions=1, activation=network.NONE):
  return network.Layer.of(RNG.standard_normal((inputs, outputs)), RNG.standard_normal(outputs), positions, activation)


def made(sizes=()):
  """All kinds of layers: shared over positions, residual, and with more inputs than are added up at once."""
  encoder = (layer(16, 8, 75, network.RELU), layer(600, 600, 1, network.RESIDUAL), layer(600, 20))
  decoder = (layer(20, 1100, 1, network.RELU), layer(1100, 1200))
  count = len(sizes)
  return network.Autoencoder(1200, encoder, decoder, sizes, RNG.standard_normal(count).astype(np.float32),
                             RNG.uniform(1, 2, count).astype(np.float32))


def reference(x, layers):
  """The same layers in double precision."""
  for layer in layers:
    rows = x.reshape(-1, layer.weights.shape[0])
    y = rows @ (layer.weights.astype(np.float64) * layer.scale) + layer.bias
    y = y + rows if layer.activation == network.RESIDUAL else y
    x = (np.maximum(y, 0) if layer.activation else y).reshape(len(x), -1)
  return x


@pytest.mark.parametrize('inputs', [1, 7, 32, 1024, 1025, 5000])
def test_a_product_is_exact_for_inputs_of_the_stated_precision(inputs):
  one = network.Layer.of(RNG.standard_normal((inputs, 5)))
  x = (RNG.standard_normal((40, inputs)) * 10.0**RNG.integers(-8, 8, (40, 1))).astype(np.float32)
  error = np.abs(one.apply(xp, x) - reference(x.astype(np.float64), [one]))
  most = 2.0**-13 * np.max(np.abs(x), axis=1, keepdims=True) * np.abs(one.weights.astype(np.float64)).sum(0) * one.scale
  assert np.all(error <= most) and np.any(one.apply(xp, x))


def test_weights_are_rounded_to_127_steps_of_the_largest_of_a_column():
  weights = RNG.standard_normal((50, 3)).astype(np.float32)
  weights[:, 1] = 0
  one = network.Layer.of(weights)
  np.testing.assert_allclose(one.weights * one.scale, weights, atol=0.5001 * np.max(np.abs(weights)) / 127)
  assert np.max(np.abs(one.weights[:, 0])) == 127 and not np.any(one.weights[:, 1])


def test_encoding_and_decoding_are_the_layers_on_pieces_with_a_normalisation():
  sizes = (700, 0, 1800)
  net = made(sizes)
  x = RNG.standard_normal(2500).astype(np.float32)
  means, deviations = (np.repeat(v, sizes) for v in (net.means, net.deviations))
  pieces = np.concatenate([(x.astype(np.float64) - means) / deviations, np.zeros(1100)]).reshape(3, 1200)
  latent = reference(pieces, net.encoder)
  encoded = net.encode(xp, x, 2500)
  np.testing.assert_allclose(encoded, latent.reshape(-1), atol=3e-3 * np.std(latent))
  decoded = reference(encoded.reshape(3, 20).astype(np.float64), net.decoder).reshape(-1)[:2500] * deviations + means
  np.testing.assert_allclose(net.decode(xp, encoded, 2500), decoded, atol=3e-3 * np.std(decoded))


@pytest.mark.parametrize('size', [0, 1, 64, 65, 640])
def test_all_cosines_but_the_last_give_back_what_lies_in_them(size):
  net = network.cosine(64, 63)
  x = np.cos(np.arange(size) / 7).astype(np.float32)
  y = net.decode(xp, net.encode(xp, x, size), size)
  assert y.shape == x.shape and (not size or np.sum((y - x)**2) <= 0.03 * np.sum(x**2) + 1e-9)
  assert network.cosine(64, 8).digest == network.cosine(64, 8).digest != net.digest


def test_tensorflow_makes_the_same_bits():
  tf = pytest.importorskip('tensorflow', reason='codecs need NumPy alone, and this compares with TensorFlow')
  from tff_compress.tensorflow.ops import TensorFlowOps
  net = made((1000, 1400))
  x = (RNG.standard_normal(2400) * 0.01).astype(np.float32)

  @tf.function
  def both(x):
    encoded = net.encode(TensorFlowOps(), x, 2400)
    return encoded, net.decode(TensorFlowOps(), encoded, 2400)
  encoded, decoded = both(x)
  np.testing.assert_array_equal(encoded, net.encode(xp, x, 2400))
  np.testing.assert_array_equal(decoded, net.decode(xp, encoded.numpy(), 2400))


def test_files_are_read_as_written_and_damage_is_a_typed_error(tmp_path):
  net = made((1200,))
  again = network.unpack(net.packed)
  assert again.digest == net.digest and again.packed == net.packed and again.latent == 20
  assert net.decoder_bytes < len(net.packed) and net.decoder_bytes > 20 * 1100 + 1100 * 1200
  small = network.Autoencoder(6, (layer(6, 2),), (layer(2, 6),), (6,), np.zeros(1, np.float32),
                              np.ones(1, np.float32)).packed
  for length in range(len(small)):
    with pytest.raises(ArtefactError):
      network.unpack(small[:length])
  with pytest.raises(ArtefactError):
    network.unpack(small + b'\0')
  refused = 0
  for place in range(40):  # The fixed part, the normalisation and the head of the first layer.
    try:
      network.unpack(small[:place] + b'\xff' + small[place + 1:])
    except ArtefactError:
      refused += 1
  assert refused >= 25

  path = tmp_path / 'a.autoencoder'
  artefacts.save(net, str(path))
  assert path.read_bytes() == net.packed and artefacts.load(str(path)) == net.digest
  assert [p.name for p in tmp_path.iterdir()] == [path.name]
  path.write_bytes(net.packed[:-1])
  for wrong in (path, tmp_path / 'missing', tmp_path):
    with pytest.raises(ArtefactError):
      artefacts.load(str(wrong))
  with pytest.raises(ArtefactError, match='written'):
    artefacts.save(net, str(tmp_path / 'no' / 'folder'))


def test_layers_that_do_not_fit_are_refused():
  for encoder, decoder in (((layer(6, 2),), (layer(3, 6),)), ((layer(5, 2),), (layer(2, 6),)),
                           ((layer(6, 6),), (layer(6, 6),)),
                           ((), (layer(6, 6),)), ((layer(6, 2, 1, network.RESIDUAL),), (layer(2, 6),))):
    with pytest.raises(ArtefactError):
      network.Autoencoder(6, encoder, decoder)


def test_a_codec_names_its_weights_by_digest():
  update = {'a': RNG.standard_normal((30, 30)).astype(np.float32), 'b': RNG.standard_normal(300).astype(np.float32)}
  digest = artefacts.add(made((900, 300)))
  codec = codec_lib(f'concat | autoencoder:20,length=1200,weights={digest} | uniform:bits=8 | rans')
  assert str(codec_lib(str(codec))) == str(codec) and digest in str(codec)
  payload = codec.encode(update, seed=1, round=0, client=0)
  assert codec.decode(payload, update, seed=1, round=0, client=0)['b'].shape == (300,)
  other = {'a': update['a'].reshape(-1)[:800], 'b': np.zeros(400, np.float32)}
  for text, given, error, message in (
      (str(codec).replace(digest, 32 * '0'), update, ArtefactError, 'are not here'),
      (str(codec), other, codec_lib.SpecError, 'other sizes'),
      (str(codec).replace('20,', '21,'), update, codec_lib.SpecError, 'make 20 values of 1200'),
      ('autoencoder:8,length=64 | float32', update, codec_lib.CodecError, 'to be learned')):
    with pytest.raises(error, match=message):
      codec_lib(text).encode(given, seed=1, round=0, client=0)
  for wrong in ('autoencoder:8,length=8 | float32', 'autoencoder:0 | float32', 'autoencoder:8,weights=ABC | float32',
                'autoencoder:8,length=-1 | float32', 'hadamard | autoencoder:8 | float32'):
    with pytest.raises(codec_lib.CodecError):
      codec_lib(wrong)


def test_columns_are_the_rows_of_the_transposed_matrix():
  x = RNG.standard_normal((2, 3, 5, 7)).astype(np.float32)
  keys = dict(seed=0, round=0, client=0)
  rows, columns = (codec_lib(f'concat | autoencoder:9,length=30,order={order},weights=cosine | float32')
                   for order in ('rows', 'columns'))
  bias = np.arange(6, dtype=np.float32)
  update, turned = {'a': x, 'b': bias}, {'a': np.ascontiguousarray(x.reshape(30, 7).T), 'b': bias}
  assert columns.encode(update, **keys) == rows.encode(turned, **keys) != rows.encode(update, **keys)
  decoded, expected = columns.decode(columns.encode(update, **keys), update,
                                     **keys), rows.decode(rows.encode(turned, **keys), turned, **keys)
  np.testing.assert_array_equal(decoded['a'].reshape(30, 7), expected['a'].T)
  np.testing.assert_array_equal(decoded['b'], expected['b'])


def test_what_is_decoded_after_the_sum_of_messages_is_the_sum():
  """Layers without activation or bias are linear, which other ones are not."""
  net = network.cosine(64, 8)
  x = RNG.standard_normal((2, 640)).astype(np.float32)
  sums = [net.encode(xp, v, 640) for v in x]
  np.testing.assert_allclose(net.decode(xp, sums[0] + sums[1], 640), sum(net.decode(xp, s, 640) for s in sums),
                             atol=1e-3)
  assert net.linear and not made().linear
  assert not dataclasses.replace(net, means=np.ones(1, np.float32), deviations=np.ones(1, np.float32),
                                 sizes=(640,)).digest == net.digest
