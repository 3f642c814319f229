"""`tff-compress fit-autoencoder` and `--autoencoder`: what is learned, what it is measured against, and one sentence
for bad files."""

import json
import zipfile

import numpy as np
import pytest

from tff_compress import codec as codec_lib
from tff_compress import wire
from tff_compress.cli import autoencoders
from tff_compress.cli import main
from tff_compress.codec import artefacts

CODEC = 'size>=100 => concat | autoencoder:3,length=24,order=columns | uniform:bits=8 | rans; * => float16'
SHAPES = {'dense/kernel': (24, 10), 'dense/bias': (10,)}


@pytest.fixture
def known(monkeypatch):
  """What is loaded is forgotten after the test."""
  monkeypatch.setattr(artefacts, '_known', {})
  return artefacts._known


@pytest.fixture
def snapshots(tmp_path):
  """Five updates in files: the kernel's columns are combinations of two."""
  rng = np.random.default_rng(1)
  basis, updates = rng.standard_normal((24, 2)), []
  for i in range(5):
    kernel = basis @ rng.standard_normal((2, 10)) + 0.01 * rng.standard_normal((24, 10))
    updates.append({'dense/kernel': kernel.astype(np.float32), 'dense/bias': np.ones(10, np.float32)})
    np.savez(tmp_path / f'{i}.npz', **updates[-1])
  return updates


def fit(folder, *more, files=None):
  files = files or [str(folder / f'{i}.npz') for i in range(5)]
  return main(['fit-autoencoder', *files, '-o', str(folder / 'updates.autoencoder'), '--codec', CODEC, *more])


def refused(arguments, capsys, word):
  assert main(arguments) == 2
  captured = capsys.readouterr()
  assert captured.out == '' and captured.err.count('\n') == 1 and word in captured.err and len(captured.err) < 500
  return captured.err


@pytest.mark.tf
def test_what_is_learned_is_written_measured_and_named(snapshots, tmp_path, capsys, known):
  assert fit(tmp_path, '--json') == 0
  shown = json.loads(capsys.readouterr().out)
  assert shown['parameters'] == 2 * 24 * 3 + 24 + 3 and (shown['snapshots'], shown['held_out']) == (4, 1)
  # The fifth was not learned from, and lies in the same plane; cosines know nothing of it.
  assert shown['error'] < 0.01 < 0.5 < shown['error_cosines'] <= 1.1 and shown['error_nothing'] == 1
  data = (tmp_path / 'updates.autoencoder').read_bytes()
  assert len(data) == shown['file_bytes'] > shown['decoder_bytes'] > 24 * 3
  # The codec as printed, for whoever has the file.
  known.clear()
  assert artefacts.load(str(tmp_path / 'updates.autoencoder')) == shown['digest'] and shown['digest'] in shown['codec']
  payload = codec_lib(shown['codec']).encode(snapshots[4], seed=0, round=0, client=0)
  assert len(payload) == shown['message_bytes']
  assert shown['bits_per_parameter'] == pytest.approx(8 * len(payload) / 250)
  assert fit(tmp_path, '--held-out', '2') == 0
  shown = capsys.readouterr().out
  assert fit(tmp_path, '--no-center') == 0 and not artefacts.find(
      artefacts.load(str(tmp_path / 'updates.autoencoder'))).means.any()
  assert 'sending nothing' in shown and 'weights=' in shown and '2 held out' in shown


@pytest.mark.tf
def test_rows_of_an_array_are_the_same_snapshots(snapshots, tmp_path, capsys):
  rows = np.stack([np.concatenate([update[name].reshape(-1) for name in SHAPES]) for update in snapshots])
  np.save(tmp_path / 'all.npy', rows)
  spec = tmp_path / 'spec.json'
  spec.write_text(json.dumps({'variables': [{'name': name, 'shape': list(shape)} for name, shape in SHAPES.items()]}))
  shown = []
  for more, files in (((), None), (('--spec', str(spec)), [str(tmp_path / 'all.npy')])):
    assert fit(tmp_path, '--json', *more, files=files) == 0
    shown.append(json.loads(capsys.readouterr().out))
  assert shown[0]['digest'] == shown[1]['digest'] and shown[0] == shown[1]
  # Changes between weights are what is learned where they are asked for.
  np.save(tmp_path / 'weights.npy', np.cumsum(np.concatenate([np.zeros_like(rows[:1]), rows]), axis=0))
  assert fit(tmp_path, '--json', '--spec', str(spec), '--changes', files=[str(tmp_path / 'weights.npy')]) == 0
  changed = json.loads(capsys.readouterr().out)
  assert changed['snapshots'] == 4 and changed['error'] == pytest.approx(shown[0]['error'], rel=0.1)


@pytest.mark.tf
def test_layers_are_learned_by_gradients_and_say_so(snapshots, tmp_path, capsys):
  assert fit(tmp_path, '--architecture', 'dense', '--epochs', '20', '--learning-rate', '0.01', '--json') == 0
  captured = capsys.readouterr()
  assert json.loads(captured.out)['architecture'] == 'dense' and captured.err.count('epoch') == 10


@pytest.mark.tf
def test_a_frame_is_inspected_with_the_file_alone(snapshots, tmp_path, capsys, known):
  assert fit(tmp_path, '--json') == 0
  codec = json.loads(capsys.readouterr().out)['codec']
  (tmp_path / 'frame').write_bytes(wire.pack(codec, snapshots[4], seed=1, round=2, client=3))
  known.clear()
  arguments = ['inspect', str(tmp_path / 'frame'), '--codec', codec, '--spec', str(tmp_path / '0.npz'), '--seed', '1']
  assert '--autoencoder' in refused(arguments, capsys, 'are not here')
  assert main([*arguments, '--autoencoder', str(tmp_path / 'updates.autoencoder'), '--json']) == 0
  norm = json.loads(capsys.readouterr().out)['variables'][0]['norm']
  assert norm == pytest.approx(float(np.linalg.norm(snapshots[4]['dense/kernel'])), rel=0.05)
  # A file with one bit changed is of another digest, or none.
  data = bytearray((tmp_path / 'updates.autoencoder').read_bytes())
  for place, word in ((-1, ''), (0, 'not the file of an autoencoder')):
    broken = bytearray(data)
    broken[place] ^= 1
    (tmp_path / 'broken').write_bytes(broken)
    known.clear()
    refused([*arguments, '--autoencoder', str(tmp_path / 'broken')], capsys, word or 'are not here')
  refused([*arguments, '--autoencoder', str(tmp_path / 'nowhere')], capsys, 'cannot be read')
  refused(['run', '--autoencoder', str(tmp_path)], capsys, 'is not the file')


def _header(shape, descr='<f4'):
  text = str({'descr': descr, 'fortran_order': False, 'shape': shape}).encode() + b'\n'
  return b'\x93NUMPY\x01\x00' + len(text).to_bytes(2, 'little') + text


def _zip(path, name, data):
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr(name, data)


BAD = {
    'no such file': (lambda path: None, 'npz', 'cannot be read'),
    'another kind': (lambda path: path.write_bytes(b''), 'txt', '.npz or .npy'),
    'empty': (lambda path: path.write_bytes(b''), 'npy', 'cannot be read'),
    'no zip': (lambda path: path.write_bytes(b'PK\x03\x04' + bytes(99)), 'npz', 'cannot be read'),
    'four gigabytes in an npz': (lambda path: _zip(path, 'a.npy', _header((1 << 15, 1 << 15))), 'npz', 'values'),
    'a terabyte in an npy': (lambda path: path.write_bytes(_header((1 << 19, 1 << 19))), 'npy', 'cannot be read'),
    'cut short': (lambda path: _zip(path, 'a.npy', _header((100,)) + bytes(8)), 'npz', 'cannot be read'),
    'a bomb': (lambda path: _zip(path, 'a.npy', bytes(1 << 24)), 'npz', 'not an array'),
    'code': (lambda path: np.save(path, np.array([{}, {}], object), allow_pickle=True), 'npy', 'cannot be read'),
    'texts': (lambda path: np.save(path, np.array(['a', 'b'])), 'npy', 'not numbers'),
    'nothing': (lambda path: np.save(path, np.zeros((5, 0), np.float32)), 'npy', 'no values'),
    'three dimensions': (lambda path: np.save(path, np.zeros((5, 5, 50), np.float32)), 'npy', 'one row for each'),
    'one snapshot': (lambda path: np.save(path, np.zeros((1, 250), np.float32)), 'npy', 'at least 2'),
    'NaN': (lambda path: np.save(path, np.full((5, 250), np.nan, np.float32)), 'npy', 'NaN'),
    'too large for float32': (lambda path: np.save(path, np.full((5, 250), 1e300)), 'npy', 'infinite'),
}


@pytest.mark.filterwarnings('ignore:overflow')
@pytest.mark.parametrize('write, kind, word', BAD.values(), ids=BAD)
def test_bad_snapshots_are_one_sentence(write, kind, word, tmp_path, capsys):
  path = tmp_path / f'snapshots.{kind}'
  write(path)
  refused(['fit-autoencoder', str(path), '-o', str(tmp_path / 'out'), '--codec', 'autoencoder:4,length=25 | float32'],
          capsys, word)
  assert not (tmp_path / 'out').exists()


def test_bad_settings_are_one_sentence(snapshots, tmp_path, capsys, monkeypatch):
  del snapshots
  files = [str(tmp_path / f'{i}.npz') for i in range(5)]
  base = ['fit-autoencoder', '-o', str(tmp_path / 'out'), *files]
  for more, word in ((['--codec', 'int8'], 'begin with an autoencoder'),
                     (['--codec', CODEC.replace('100', '999')], 'variable'),
                     (['--codec', 'concat | autoencoder:24,length=24 | float32'], 'compress nothing'),
                     (['--codec', 'concat | autoencoder:3,length=24,weights=cosine | float32'], 'without weights'),
                     (['--held-out', '0'], '--held-out'), (['--held-out', '4'], 'at least 2'),
                     (['--epochs', '0'], '--epochs'),
                     (['--learning-rate', 'nan'], '--learning-rate'), (['--architecture', 'pca'], 'pca'),
                     (['--architecture', 'convolutional', '--codec', 'concat | autoencoder:3,length=25 | float32'],
                      'multiple')):
    refused([*base, *more], capsys, word)
  np.savez(tmp_path / 'other.npz', **{'dense/kernel': np.zeros((24, 9), np.float32)})
  refused([*base, str(tmp_path / 'other.npz')], capsys, 'other variables')
  refused(['fit-autoencoder', *files, '-o', str(tmp_path / 'nowhere' / 'out')], capsys, 'no such folder')
  monkeypatch.setattr(autoencoders, 'MAX_VALUES', 1000)
  refused(base, capsys, 'more than 1,000 values')
  assert not (tmp_path / 'out').exists()
