"""Learned encoders on the device: exact in an encoder's file, and in int8 in a file of their own."""

import dataclasses
import functools
import json

import numpy as np
import pytest

from tests.contract import cases
from tff_compress import autoencoders
from tff_compress import codec as codec_lib
from tff_compress.codec import artefacts
from tff_compress.codec import keys as keys_lib
from tff_compress.codec import network as network_lib
from tff_compress.codec.ops import numpy_ops
from tflite_export import encoder
from tflite_export import errors
from tflite_export import flatbuffer
from tflite_export import interpreters

KEYS = {'seed': cases.SEED, 'round': cases.ROUND, 'client': cases.CLIENT}
ARCHITECTURES = ('linear', 'dense', 'convolutional')
SHAPES = {'kernel': (30, 40), 'bias': (40,), 'steps': (2,), 'logits': (40, 9)}
SPEC = codec_lib.Spec.of({name: np.zeros(shape, np.int32 if name == 'steps' else np.float32)
                          for name, shape in SHAPES.items()})
SIZES = (1200, 40, 360)

pytestmark = pytest.mark.xdist_group('encoder')


def snapshots(count, first=0):
  """float32[count, 1600]: pieces of 128 values, all made of the same four; variables of different scale; some noise."""
  rng = np.random.default_rng(5)
  basis = rng.standard_normal((4, 128))
  rng = np.random.default_rng([6, first])
  x = rng.standard_normal((count, 13, 4)) @ basis + 0.1 * rng.standard_normal((count, 13, 128))
  return (x.reshape(count, -1)[:, :1600] * np.repeat([0.01, 3.0, 0.2], SIZES)).astype(np.float32)


def update_of(row):
  kernel, bias, logits = np.split(row, np.cumsum(SIZES)[:-1])
  return {'kernel': kernel.reshape(30, 40), 'bias': bias, 'steps': np.asarray([3, -1], np.int32),
          'logits': logits.reshape(40, 9)}


@functools.lru_cache
def learned(architecture):
  """Digest of an autoencoder that was learned from `snapshots`."""
  shape = autoencoders.ARCHITECTURES[architecture](128, 8)
  epochs = 1 if architecture == 'linear' else 20
  return artefacts.add(autoencoders.fit(shape, snapshots(8), SIZES, epochs=epochs, learning_rate=1e-2))


def text_of(architecture, order='rows'):
  return f'concat | autoencoder:8,length=128,order={order},weights={learned(architecture)} | uniform:bits=8 | rans'


@functools.lru_cache
def exported(text, error_feedback=False):
  return encoder.export_encoder(text, SPEC, representative_data=snapshots(8), error_feedback=error_feedback)


def run(made, name, update, **more):
  """(pieces, latents, outputs) of an encoder with a network in an interpreter."""
  with interpreters.quiet():
    interpreter, network = interpreters.Interpreter(made.data, name), interpreters.Interpreter(made.network.data, name)
    found = interpreter.run('pieces', **made.update_inputs(update, 'pieces'), **more)
    latents = made.network.run(network, found)
    outputs = interpreter.run('encode', **made.update_inputs(update), **more, **latents, **made.random_inputs(**KEYS))
    return found, latents, outputs


def nmse(decoded, update):
  flat = [np.concatenate([values[name].reshape(-1) for name in SHAPES if name != 'steps']).astype(np.float64)
          for values in (decoded, update)]
  return np.sum((flat[0] - flat[1])**2) / np.sum(flat[1]**2)


@pytest.mark.parametrize('order', ['rows', 'columns'])
@pytest.mark.parametrize('architecture', ARCHITECTURES)
def test_without_int8_the_payload_is_that_of_numpy(architecture, order):
  codec, update = codec_lib(text_of(architecture, order)), update_of(snapshots(1, 9)[0])
  made = encoder.export_encoder(codec, SPEC)
  for name in interpreters.NAMES:
    with interpreters.quiet():
      interpreter = interpreters.Interpreter(made.data, name)
      outputs = interpreter.run('encode', **made.update_inputs(update), **made.random_inputs(**KEYS))
    assert encoder.finish(codec, SPEC, outputs, update) == codec.encode(update, **KEYS)


@pytest.mark.parametrize('architecture', ARCHITECTURES)
def test_the_network_is_on_the_list_of_the_edge_tpu(architecture):
  made = exported(text_of(architecture))
  report = made.network.check_edgetpu()
  assert report.compatible and not any(operator.note for operator in report.operators)
  # Residual layers add; what is clipped at zero is clipped by the convolution or the addition.
  assert made.network.operators == ({'CONV_2D': 5, 'ADD': 2} if architecture == 'convolutional' else {'CONV_2D': 1})
  again = encoder.export_encoder(text_of(architecture), SPEC, representative_data=snapshots(8))
  assert (again.data, again.network.data) == (made.data, made.network.data), 'the same examples give the same bytes'


@pytest.mark.parametrize('architecture', ARCHITECTURES)
def test_weights_in_the_file_are_those_of_the_autoencoder(architecture):
  model = flatbuffer.load(exported(text_of(architecture)).network.data)
  stored = [np.asarray(buffer.data, np.uint8).view(np.int8) for buffer in model.buffers if buffer.data is not None]
  for layer in artefacts.find(learned(architecture)).encoder:
    kernel = layer.weights.T.reshape(-1)  # One row for each output.
    # The scale of a column is max / 127 in both, but for the last bit of a float32.
    assert any(len(data) == len(kernel) and np.max(np.abs(data.astype(int) - kernel)) <= 1 for data in stored)


@pytest.mark.parametrize('name', interpreters.NAMES)
@pytest.mark.parametrize('architecture', ARCHITECTURES)
def test_int8_costs_little_and_anyone_can_decode_it(architecture, name):
  made, codec, update = exported(text_of(architecture)), codec_lib(text_of(architecture)), update_of(snapshots(1, 9)[0])
  payload = encoder.finish(codec, SPEC, run(made, name, update)[2], update)
  exact = codec.decode(codec.encode(update, **KEYS), SPEC, **KEYS)
  decoded = codec.decode(payload, SPEC, **KEYS)
  assert nmse(exact, update) < 0.6 and nmse(decoded, update) < nmse(exact, update) + 0.005
  assert nmse(decoded, exact) < 0.01
  assert made.network.errors[1] == pytest.approx(made.network.errors[0], abs=0.003)


@pytest.mark.parametrize('name', interpreters.NAMES)
def test_what_stands_around_the_network_is_that_of_numpy(name):
  text = text_of('dense', 'columns')
  made, update = exported(text), update_of(snapshots(1, 9)[0])
  pieces, latents, outputs = run(made, name, update)
  segment = made.layout.parts[0].segment
  stage, signal = segment.pipeline.stages[0], segment.pipeline.signals(segment.size)[0]
  x = np.concatenate([update[variable].reshape(-1) for variable in ('kernel', 'bias', 'logits')])
  given = stage.network(signal).pieces(numpy_ops, stage.turned(numpy_ops, x, signal), signal.size)
  expected = made.network.inputs[0].rounded(numpy_ops, given).astype(np.int8).reshape(-1)
  np.testing.assert_array_equal(pieces['pieces_0'], expected)
  # Payloads of the same latent values, quantized and coded without the first stage.
  x = made.network.outputs[0].values(numpy_ops, latents['latent_0'])
  keys = keys_lib.MessageKeys(*KEYS.values())
  values, sides = segment.pipeline.encode_stages(numpy_ops, x, [1], segment.size, keys, segment.name)
  np.testing.assert_array_equal(outputs['values_0'], values)
  for side in ('low', 'high'):
    np.testing.assert_array_equal(outputs[f'side_0_1_{side}'], sides[0][side])


def test_a_value_of_an_output_stands_for_its_own_scale():
  made, net = exported(text_of('linear')), artefacts.find(learned('linear'))
  tensor, update = made.network.outputs[0], update_of(snapshots(1)[0])
  assert tensor.scale.shape == (8,) and len(set(tensor.scale)) > 4
  latents = tensor.values(numpy_ops, run(made, 'tf.lite', update)[1]['latent_0']).reshape(-1, 8)
  exact = net.encode(numpy_ops, snapshots(1)[0], 1600).reshape(-1, 8)
  # Half a step of the output and what the rounding of 128 inputs makes of it.
  noise = made.network.inputs[0].scale * np.sqrt(128 / 12)
  assert np.max(np.abs(latents - exact)) < 4 * (np.max(tensor.scale) + noise / np.sqrt(128))
  # The ranges are used: the largest value of each output is near the end of it.
  largest = np.max([np.abs(net.encode(numpy_ops, x, 1600)).reshape(-1, 8).max(0) for x in snapshots(8)], axis=0)
  assert np.all(np.abs(largest / (127 * tensor.scale) - 1) < 0.1)


@pytest.mark.parametrize('order', ['rows', 'columns'])
def test_means_and_deviations_are_not_written_out_for_every_value(order):
  net = dataclasses.replace(network_lib.cosine(600, 4), sizes=(600_000, 600_000),
                            means=np.asarray([0.1, 3], np.float32), deviations=np.asarray([2, 3], np.float32))
  text = f'concat | autoencoder:4,length=600,order={order},weights={artefacts.add(net)} | uniform:bits=8 | rans'
  spec = codec_lib.Spec.of({name: np.zeros((600, 1000), np.float32) for name in ('a', 'b')})
  examples = np.random.default_rng(0).standard_normal((1, 1_200_000))
  made = encoder.export_encoder(text, spec, representative_data=examples)
  files = (made, made.network, encoder.export_encoder(text, spec), encoder.export_decoder(text, spec))
  assert max(len(file.data) for file in files) < 60_000


def test_layers_that_share_no_windows_are_reshaped_between():
  rng = np.random.default_rng(1)

  def layer(k, m, *rest):
    return network_lib.Layer.of(rng.standard_normal((k, m)) / np.sqrt(k), rng.standard_normal(m), *rest)

  # 6 positions of 20 values become 6 of 4, 24 values; then 4 positions of 6 of these.
  net = network_lib.Autoencoder(120, (layer(20, 4, 6, network_lib.RELU), layer(6, 2, 4)), (layer(8, 120),))
  text = f'kernel => autoencoder:8,length=120,weights={artefacts.add(net)} | uniform:bits=8 | pack; * => float32'
  made, update = exported(text), update_of(snapshots(1, 9)[0])
  assert made.network.check_edgetpu().compatible and made.network.operators == {'CONV_2D': 2, 'RESHAPE': 1}
  latents = made.network.outputs[0].values(numpy_ops, run(made, 'tf.lite', update)[1]['latent_0'])
  exact = net.encode(numpy_ops, update['kernel'].reshape(-1), 1200)
  assert np.sqrt(np.mean((latents - exact)**2)) < 0.05 * np.sqrt(np.mean(exact**2))


MIXED = ('kernel => autoencoder:8,length=64,order=columns,weights=cosine | uniform:bits=8 | pack; '
         'logits => autoencoder:4,length=20,weights=cosine | uniform:bits=4 | pack; '
         '* => hadamard | uniform:bits=2 | pack')


@pytest.mark.parametrize('name', interpreters.NAMES)
def test_segments_have_networks_of_their_own_and_others_stay_as_they_are(name):
  codec, update = codec_lib(MIXED), update_of(snapshots(1, 9)[0])
  made = exported(MIXED)
  assert list(made.network.inputs) == [0, 3] and [array.name for array in made.inputs] == [
      'update_1', 'latent_0', 'latent_3', 'keys']
  assert [array.name for array in made.pieces_inputs] == ['update_0', 'update_3']
  payload, expected = encoder.finish(codec, SPEC, run(made, name, update)[2], update), codec.encode(update, **KEYS)
  decoded, exact = codec.decode(payload, SPEC, **KEYS), codec.decode(expected, SPEC, **KEYS)
  np.testing.assert_array_equal(decoded['bias'], exact['bias'])
  for variable in ('kernel', 'logits'):
    assert 0 < np.linalg.norm(decoded[variable] - exact[variable]) < 0.1 * np.linalg.norm(exact[variable])


@pytest.mark.parametrize('name', interpreters.NAMES)
def test_error_feedback_carries_what_the_message_leaves_out(name):
  text, row = text_of('linear'), snapshots(1, 9)[0]
  made, codec = exported(text, True), codec_lib(text)
  residual = np.linspace(-0.01, 0.02, 1600, dtype=np.float32)
  parts = np.split(residual, np.cumsum(SIZES)[:-1])
  residuals = {array.name: part for array, part in zip(made.layout.residuals.values(), parts)}
  outputs = run(made, name, update_of(row), **residuals)[2]
  decoded = codec.decode(encoder.finish(codec, SPEC, outputs, update_of(row)), SPEC, **KEYS)
  for i, variable in ((0, 'kernel'), (1, 'bias'), (3, 'logits')):
    left = update_of(row + residual)[variable] - decoded[variable]
    np.testing.assert_allclose(outputs[f'residual_{i}'], left.reshape(-1), rtol=0, atol=1e-6 * np.abs(row).max())


@pytest.mark.parametrize('bad', [np.nan, np.inf, 1e30])
def test_what_the_codec_refuses_is_not_valid(bad):
  update = update_of(snapshots(1)[0])
  for codec, variable in ((text_of('linear'), 'kernel'), (MIXED, 'kernel'), (MIXED, 'bias')):
    spoilt = {**update, variable: update[variable].copy()}
    spoilt[variable].flat[7] = bad
    with pytest.raises(codec_lib.UpdateError, match='NaN'):
      encoder.finish(codec, SPEC, run(exported(codec), 'tf.lite', spoilt)[2], spoilt)


def test_the_description_says_how_the_files_belong_together():
  made = exported(text_of('linear'))
  described = json.loads(json.dumps(made.describe()))
  assert described['pieces'] == {
      'signature': 'pieces',
      'inputs': [{'name': f'update_{i}', 'dtype': 'float32', 'size': size} for i, size in zip((0, 1, 3), SIZES)],
      'outputs': [{'name': 'pieces_0', 'dtype': 'int8', 'size': 13 * 128},
                  {'name': 'valid', 'dtype': 'int32', 'size': 1}]}
  given, = described['network']['inputs']
  assert (given['name'], given['shape'], len(given['scale'])) == ('pieces_0', [1, 13, 1, 128], 1)
  gives, = described['network']['outputs']
  assert (gives['name'], gives['shape'], len(gives['scale'])) == ('latent_0', [1, 13, 1, 8], 8)
  assert described['inputs'] == [{'name': 'latent_0', 'dtype': 'int8', 'size': 104},
                                 {'name': 'keys', 'dtype': 'int32', 'size': 2}]
  assert 'network' not in encoder.export_encoder('uniform | pack', SPEC).describe()


def test_both_files_are_written_or_none(tmp_path):
  path, network_path = tmp_path / 'encoder.tflite', tmp_path / 'network.tflite'
  arguments = {'representative_data': snapshots(4), 'path': path}
  made = encoder.export_encoder(text_of('linear'), SPEC, network_path=network_path, **arguments)
  assert path.read_bytes() == made.data and network_path.read_bytes() == made.network.data
  assert (made.path, made.network_path) == (path, network_path)
  path.unlink()
  with pytest.raises(errors.FileError, match='exists already'):
    encoder.export_encoder(text_of('linear'), SPEC, network_path=network_path, **arguments)
  (tmp_path / 'x').mkdir()
  with pytest.raises(errors.ExportError, match='two files'):
    encoder.export_encoder(text_of('linear'), SPEC, network_path=tmp_path / 'x' / '..' / 'encoder.tflite', **arguments)
  assert not path.exists()


def spoilt(value):
  found = snapshots(3).astype(np.float64)
  found[1, 7] = value
  return found


@pytest.mark.parametrize('codec, given, message', [
    ('LINEAR', snapshots(3)[:, 1:], r"\(3, 1599\): give one update per row, with the 1,600 values"),
    ('LINEAR', snapshots(1)[0], 'give one update per row'),
    ('LINEAR', snapshots(3)[:0], 'has no examples'),
    ('LINEAR', spoilt(np.nan), 'NaN or infinity'),
    ('LINEAR', spoilt(1e300), 'beyond float32'),
    ('LINEAR', 'snapshots', 'array of numbers'),
    ('LINEAR', {'kernel': 1}, 'array of numbers'),
    ('uniform:bits=8 | rans', snapshots(3), 'has no autoencoder'),
    (f'concat | autoencoder:8,length=128,weights={32 * "a"} | float32', snapshots(3), 'are not here: load their file'),
    ('concat | autoencoder:8,length=128 | float32', snapshots(3), 'are to be learned yet'),
    ('concat | autoencoder:7,length=128,weights=DIGEST | float32', snapshots(3), 'make 8 values of 128, not 7'),
    ('kernel => autoencoder:8,length=128,weights=DIGEST | float32; * => float32', snapshots(3),
     'variables of other sizes'),
], ids=range(12))
def test_bad_input_is_one_sentence(codec, given, message):
  codec = text_of('linear') if codec == 'LINEAR' else codec.replace('DIGEST', learned('linear'))
  with pytest.raises(codec_lib.CompressionError, match=message) as caught:
    encoder.export_encoder(codec, SPEC, representative_data=given)
  assert '\n' not in str(caught.value)


def test_a_network_path_without_examples_is_refused(tmp_path):
  with pytest.raises(errors.ExportError, match='is measured with examples'):
    encoder.export_encoder(text_of('linear'), SPEC, network_path=tmp_path / 'network.tflite')


def test_examples_without_values_do_not_break_it():
  made = encoder.export_encoder('concat | autoencoder:8,length=128,weights=cosine | uniform | rans', SPEC,
                                representative_data=np.zeros((2, 1600)))
  assert made.network.check_edgetpu().compatible


def test_networks_that_are_too_large_are_refused_before_any_work(monkeypatch):
  monkeypatch.setattr('tflite_export.conversion.convert', lambda *_: pytest.fail('converted'))
  spec = codec_lib.Spec.of({'w': np.zeros(140_000, np.float32)})
  text = 'autoencoder:1,weights=cosine | uniform | pack'
  with pytest.raises(errors.ExportError, match='adds up 140,000 products'):
    encoder.export_encoder(text, spec, representative_data=np.ones((2, 140_000), np.float32))
  monkeypatch.setattr('tflite_export.encoder.networks.MOST_WEIGHTS', 1000)
  for export in (encoder.export_encoder, encoder.export_decoder):
    with pytest.raises(errors.ExportError, match='1,024 weights, and a file at most 1,000'):
      export('concat | autoencoder:8,length=128,weights=cosine | uniform | pack', SPEC)
