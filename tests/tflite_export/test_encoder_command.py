"""`tflite-export encoder` and `decoder`."""

import json

import numpy as np
import pytest

from tff_compress.codec import artefacts
from tff_compress.codec import network
from tflite_export import cli
from tflite_export import encoder
from tflite_export import flatbuffer

pytestmark = pytest.mark.xdist_group('encoder')


@pytest.fixture
def spec(tmp_path):
  path = tmp_path / 'model.npz'
  np.savez(path, **{'dense/kernel': np.zeros((30, 10), np.float32), 'steps': np.zeros(2, np.int64)})
  return str(path)


def test_an_encoder_is_written_and_described(spec, tmp_path, capsys):
  path = tmp_path / 'encoder.tflite'
  assert cli.main(['encoder', 'uniform:2|pack', spec, '-o', str(path), '--json']) == 0
  said = capsys.readouterr()
  described = json.loads(said.out)
  assert described.pop('file') == str(path)
  update = {'dense/kernel': np.zeros((30, 10), np.float32), 'steps': np.zeros(2, np.int64)}
  expected = encoder.export_encoder('uniform:bits=2 | pack', update)
  assert described == expected.describe() and path.read_bytes() == expected.data
  assert '300 parameters' not in said.out and '302 parameters' in said.err


def test_a_decoder_says_what_goes_in_and_comes_out(spec, tmp_path, capsys):
  path = tmp_path / 'decoder.tflite'
  assert cli.main(['decoder', 'hadamard | float16', spec, '-o', str(path), '--words', 'passed']) == 0
  lines = [line.split() for line in capsys.readouterr().out.splitlines()]
  assert ['values_0', 'uint8', '600'] in lines and ['update_0', 'float32', '300'] in lines
  # 256 values and 256 once more: 512 signs, 32 to a word.
  assert ['words_0', 'int32', '16'] in lines and ['0', 'round', 'dense/kernel', '1', '0', '16'] in lines
  assert not flatbuffer.operators(path).foreign


@pytest.mark.parametrize('arguments, message', [
    (['encoder', 'unifrm | pack', 'SPEC', '-o', 'OUT'], 'did you mean uniform'),
    (['encoder', 'drive', 'absent.json', '-o', 'OUT'], 'absent.json cannot be read'),
    (['decoder', 'drive', 'SPEC', '-o', 'TAKEN'], 'exists already'),
    (['encoder', 'bias => drive', 'SPEC', '-o', 'OUT'], 'is a preset'),
    (['encoder', 'bias => float32', 'SPEC', '-o', 'OUT'], "no rule of the codec matches variable 'dense/kernel'"),
    (['decoder', 'drive', 'SPEC', '-o', 'OUT', '--error-feedback'], '--error-feedback'),
    (['encoder', 'drive', 'SPEC', '-o', 'OUT', '--words', 'pased'], 'did you mean passed'),
])
def test_bad_input_is_one_line_and_writes_nothing(spec, tmp_path, capsys, arguments, message):
  (tmp_path / 'taken').write_bytes(b'')
  before = sorted(tmp_path.iterdir())
  places = {'SPEC': spec, 'OUT': str(tmp_path / 'out'), 'TAKEN': str(tmp_path / 'taken')}
  assert cli.main([places.get(text, text) for text in arguments]) == 2
  said = capsys.readouterr()
  *progress, error = said.err.splitlines()
  assert message in error and not said.out and len(progress) <= 1
  assert sorted(tmp_path.iterdir()) == before


LEARNED = 'concat | autoencoder:4,length=60 | uniform:bits=8 | pack'


@pytest.fixture
def learned(tmp_path):
  """{what messages of the test call it: path} of two autoencoders and of examples."""
  names = ('cosine', 'other', 'updates.npy', 'broken.npy', 'short.npy', 'one.npz', 'out', 'network')
  paths = {name: str(tmp_path / name) for name in names}
  for name, count in (('cosine', 4), ('other', 5)):
    artefacts.save(network.cosine(60, count), paths[name])
  x = np.random.default_rng(0).standard_normal((3, 302)).astype(np.float32)
  np.save(paths['updates.npy'], x)
  np.save(paths['broken.npy'], np.where(x > 2, np.nan, x))
  np.save(paths['short.npy'], x[:, :200])
  np.savez(paths['one.npz'], **{'dense/kernel': x[0, :300].reshape(30, 10), 'steps': np.zeros(2, np.int64)})
  return paths


def test_an_encoder_with_an_autoencoder_from_a_file_and_its_network(spec, learned, capsys):
  digest = network.cosine(60, 4).digest
  arguments = ['encoder', LEARNED, spec, '--autoencoder', learned['cosine'], '--int8', learned['network'],
               '--examples', learned['updates.npy'], learned['one.npz'], '-o', learned['out']]
  assert cli.main([*arguments, '--json']) == 0
  described = json.loads(capsys.readouterr().out)
  assert f'weights={digest}' in described['codec'] and described['network_file'] == learned['network']
  assert described['network']['operators'] == {'CONV_2D': 1}
  assert cli.main([*arguments, '--overwrite']) == 0
  said = capsys.readouterr().out
  assert 'all 1 operators are on it' in said and '1 x 5 x 1 x 60' in said and 'without int8' in said
  assert cli.main(['check-edgetpu', learned['network']]) == 0


def test_a_decoder_takes_the_file_of_an_autoencoder(spec, learned):
  text = LEARNED.replace('60', f'60,weights={network.cosine(60, 4).digest}')
  assert cli.main(['decoder', text, spec, '--autoencoder', learned['cosine'], '-o', learned['out']]) == 0


NAMED = LEARNED.replace('60', '60,weights=' + 32 * 'a')
INT8 = ['--int8', 'network', '--examples']


@pytest.mark.parametrize('codec, more, message', [
    (LEARNED, [], 'leaves the weights of an autoencoder open'),
    (LEARNED, ['--autoencoder', 'cosine', '--autoencoder', 'other'], 'leaves the weights of an autoencoder open'),
    (NAMED, ['--autoencoder', 'cosine'], f'asks for the weights {32 * "a"}; '),
    (LEARNED, ['--autoencoder', 'other'], 'make 5 values of 60, not 4'),
    (LEARNED, ['--autoencoder', 'one.npz'], 'not the file of an autoencoder'),
    (LEARNED, ['--autoencoder', 'absent'], 'absent cannot be read'),
    ('drive', ['--autoencoder', 'cosine'], 'the codec does not use'),
    ('drive', [*INT8, 'updates.npy'], 'has no autoencoder'),
    (LEARNED, ['--autoencoder', 'cosine', '--int8', 'network'], 'go together'),
    (LEARNED, ['--autoencoder', 'cosine', '--examples', 'updates.npy'], 'go together'),
    (LEARNED, ['--autoencoder', 'cosine', *INT8, 'broken.npy'], 'NaN'),
    (LEARNED, ['--autoencoder', 'cosine', *INT8, 'short.npy'], 'holds other variables'),
    (LEARNED, ['--autoencoder', 'cosine', *INT8, 'cosine'], 'does not end in .npz or .npy'),
    (LEARNED, ['--autoencoder', 'cosine', '--int8', 'other', '--examples', 'updates.npy'], 'exists already'),
])
def test_bad_input_around_autoencoders_is_one_line(spec, learned, tmp_path, capsys, codec, more, message):
  before = sorted(tmp_path.iterdir())
  places = {'SPEC': spec, **learned}
  assert cli.main(['encoder', codec, spec, '-o', learned['out'], *(places.get(text, text) for text in more)]) == 2
  said = capsys.readouterr()
  *progress, error = said.err.splitlines()
  assert message in error and not said.out and len(progress) <= 1
  assert sorted(tmp_path.iterdir()) == before
