"""`tff-compress inspect`: what a frame says, and one sentence about everything that is not a frame."""

import io
import json
import os
import struct
import sys
import zipfile
import zlib

import hypothesis
from hypothesis import strategies
import numpy as np
import pytest

from tff_compress import codec as codec_lib
from tff_compress import wire
from tff_compress.cli import frames
from tff_compress.cli import main
from tff_compress.cli import specs

CODEC = '*/bias => float32; * => hadamard:rotations=2,key=client | ternary:threshold=1.728 | rice'


def update():
  rng = np.random.Generator(np.random.Philox(key=3))
  return {'dense/kernel': rng.standard_normal((40, 25), np.float32), 'dense/bias': np.zeros(25, np.float32),
          'step': np.asarray(7, np.int64)}


@pytest.fixture
def files(tmp_path):
  """A folder with a frame and the spec in JSON and as .npz; returns (folder, frame bytes)."""
  data = wire.pack(CODEC, update(), seed=42, round=3, client=17)
  (tmp_path / 'frame.tfc').write_bytes(data)
  spec = {'variables': [{'name': name, 'shape': list(value.shape), 'dtype': value.dtype.name}
                        for name, value in update().items()]}
  (tmp_path / 'spec.json').write_text(json.dumps(spec))
  np.savez_compressed(tmp_path / 'spec.npz', **update())
  return tmp_path, data


def refused(arguments, capsys):
  """Runs a command that must fail on bad input and returns its one sentence."""
  assert main(arguments) == 2
  captured = capsys.readouterr()
  assert captured.out == ''
  assert captured.err.count('\n') == 1 and 'Traceback' not in captured.err and len(captured.err) < 500
  return captured.err


def test_a_rule_that_fits_nothing_is_one_line(files, capsys):
  folder, _ = files
  codec = f'*/bais => float16; {CODEC}'
  with pytest.warns(codec_lib.UnmatchedRuleWarning):
    (folder / 'other.tfc').write_bytes(wire.pack(codec, update(), seed=1, round=0, client=0))
  codec_lib.Codec.plan.cache_clear()  # A command is a process of its own.
  assert main(['inspect', str(folder / 'other.tfc'), '--codec', codec, '--spec', str(folder / 'spec.json')]) == 0
  error = capsys.readouterr().err
  assert error.startswith("tff-compress: the rule '*/bais' fits no variable") and error.count('\n') == 1


def test_header_is_shown_without_codec_or_spec(files, capsys):
  folder, data = files
  assert main(['inspect', str(folder / 'frame.tfc'), '--json']) == 0
  shown = json.loads(capsys.readouterr().out)
  assert (shown['round'], shown['client'], shown['bytes']) == (3, 17, len(data))
  assert shown['payload_bytes'] + shown['overhead_bytes'] == len(data)
  assert shown['checksum'] == f'{zlib.crc32(data[:-4]):08x}'
  assert main(['inspect', str(folder / 'frame.tfc')]) == 0
  assert f'{zlib.crc32(data[:-4]):08x}, correct' in capsys.readouterr().out


def test_message_to_all_clients_is_named_so(files, capsys):
  folder, _ = files
  (folder / 'down.tfc').write_bytes(wire.pack('int8', update(), seed=1, round=0, client=codec_lib.SHARED_CLIENT))
  assert main(['inspect', str(folder / 'down.tfc')]) == 0
  assert 'to all clients' in capsys.readouterr().out


@pytest.mark.parametrize('spec', ['spec.json', 'spec.npz'])
def test_segments_add_up_to_the_payload(files, spec, capsys):
  folder, data = files
  arguments = ['inspect', str(folder / 'frame.tfc'), '--codec', CODEC, '--spec', str(folder / spec), '--json']
  assert main(arguments) == 0
  shown = json.loads(capsys.readouterr().out)
  assert sum(part['bytes'] + part['length_bytes'] for part in shown['segments']) == shown['payload_bytes']
  sizes = {part['name']: part['bytes'] for part in shown['segments']}
  assert sizes['dense/bias'] == 4 * 25 and sizes['step'] == 8
  assert shown['bits_per_parameter'] == 8 * len(data) / 1026
  assert 'variables' not in shown  # The values depend on the seed, which was not given.


def test_statistics_are_those_of_the_decoded_variables(files, capsys):
  folder, data = files
  arguments = ['inspect', str(folder / 'frame.tfc'), '--codec', CODEC, '--spec', str(folder / 'spec.json'), '--seed',
               '42']
  assert main([*arguments, '--json']) == 0
  shown = {v['name']: v for v in json.loads(capsys.readouterr().out)['variables']}
  decoded, _ = wire.unpack(CODEC, data, update(), seed=42)
  kernel = decoded['dense/kernel'].astype(np.float64)
  assert shown['dense/kernel']['norm'] == pytest.approx(np.linalg.norm(kernel))
  assert shown['dense/kernel']['largest'] == kernel.max() and shown['dense/bias']['zeros'] == 1
  assert main(arguments) == 0
  text = capsys.readouterr().out
  assert '40x25' in text and 'scalar' in text


def test_standard_input_is_read(files, capsys, monkeypatch):
  _, data = files
  monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(io.BytesIO(data)))
  assert main(['inspect', '-', '--json']) == 0
  assert json.loads(capsys.readouterr().out)['round'] == 3


class _Endless(io.RawIOBase):
  """An endless stream that counts what is read from it."""

  def __init__(self):
    super().__init__()
    self.given = 0

  def readable(self):
    return True

  def readinto(self, buffer):
    self.given += len(buffer)
    return len(buffer)


def test_an_endless_input_is_refused_within_bounds(capsys, monkeypatch):
  monkeypatch.setattr(frames, 'MAX_FRAME', 1 << 20)
  endless = _Endless()
  monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(io.BufferedReader(endless)))
  assert 'more than' in refused(['inspect', '-'], capsys)
  assert endless.given < 2 << 20


def test_every_truncation_and_every_flipped_byte_is_refused(files, capsys):
  folder, data = files
  path = folder / 'bad.tfc'
  for length in [*range(0, 40), len(data) - 1]:
    path.write_bytes(data[:length])
    refused(['inspect', str(path)], capsys)
  for position in [*range(20), len(data) // 2, len(data) - 1]:
    path.write_bytes(data[:position] + bytes([data[position] ^ 0x40]) + data[position + 1:])
    refused(['inspect', str(path)], capsys)


def test_frame_with_a_right_checksum_and_a_wrong_payload_is_refused(files, capsys):
  folder, data = files
  body = data[:16] + struct.pack('<I', 0xFFFFFFF0) + data[20:-4]
  (folder / 'bad.tfc').write_bytes(body + struct.pack('<I', zlib.crc32(body)))
  refused(['inspect', str(folder / 'bad.tfc'), '--codec', CODEC, '--spec', str(folder / 'spec.json')], capsys)


def test_frame_of_another_codec_or_model_is_refused(files, capsys):
  folder, _ = files
  arguments = ['inspect', str(folder / 'frame.tfc'), '--codec', 'int8', '--spec', str(folder / 'spec.json')]
  assert 'another codec' in refused(arguments, capsys)


@pytest.mark.parametrize('arguments, says', [
    (['{folder}/missing.tfc'], 'No such file'),
    (['{folder}'], 'not a file'),
    (['{folder}/pipe'], 'not a file'),
    (['{folder}/frame.tfc', '--codec', 'int8'], 'together'),
    (['{folder}/frame.tfc', '--seed', '1'], '--codec'),
    (['{folder}/frame.tfc', '--codec', 'hadamrd | pack', '--spec', '{folder}/spec.json'], 'did you mean hadamard'),
    (['{folder}/frame.tfc', '--codec', CODEC, '--spec', '{folder}/none.json'], 'No such file'),
    (['{folder}/frame.tfc', '--codec', CODEC, '--spec', '{folder}/frame.tfc'], '.json, .npz or .h5'),
    (['{folder}/frame.tfc', '--codec', CODEC, '--spec', '{folder}/spec.json', '--seed', '-1'], 'seed'),
    (['{folder}/frame.tfc', '--codec', CODEC, '--spec', '{folder}/spec.json', '--seed', 'nan'], 'seed'),
    (['{folder}/frame.tfc', '--colour'], '--colour'),
    (['{folder}/frame.tfc', 'other.tfc'], 'too many'),
    ([], 'FILE'),
])
def test_bad_arguments_are_one_sentence(files, arguments, says, capsys):
  folder, _ = files
  os.mkfifo(folder / 'pipe')
  assert says in refused(['inspect', *(text.format(folder=folder) for text in arguments)], capsys)


@pytest.mark.parametrize('text', [
    '', '[', '3', '{}', '[]', '{"variables": {}}', '[{"name": "a"}]', '[{"name": 1, "shape": []}]',
    '[{"name": "a", "shape": [-1]}]',
    '[{"name": "a", "shape": [1.5]}]', '[{"name": "a", "shape": [true]}]', '[{"name": "a", "shape": [99999999999]}]',
    '[{"name": "a", "shape": [1], "dtype": "complex64"}]', '[{"name": "a", "shape": [1], "color": "red"}]', '[[[[1]]]]',
    '[{"name": "a", "shape": [1]}, {"name": "a", "shape": [1]}]', '[{"name": "a\\tb", "shape": [1]}]',
    '[{"name": "", "shape": [1]}]', '[{"name": "a", "shape": [0, 2147483647, 2147483647, 2147483647]}]',
    f'[{{"name": "a", "shape": {[1] * 33}}}]', pytest.param('[' * 100_000, id='nested'), '{"name": "\ud800"}',
    '[{"name": "a", "shape": [NaN]}]',
])
def test_bad_spec_in_json_is_one_sentence(files, text, capsys):
  folder, _ = files
  (folder / 'bad.json').write_bytes(text.encode('utf-8', 'surrogatepass'))
  refused(['inspect', str(folder / 'frame.tfc'), '--codec', 'int8', '--spec', str(folder / 'bad.json')], capsys)


def test_small_frame_cannot_ask_for_a_large_model(files, capsys):
  folder, _ = files
  side = frames.MAX_VALUES // 1024 + 1
  (folder / 'large.json').write_text(json.dumps([{'name': 'a', 'shape': [1024, side]}]))
  said = refused(['inspect', str(folder / 'frame.tfc'), '--codec', 'int8', '--spec', str(folder / 'large.json')],
                 capsys)
  assert 'at most' in said


def test_spec_of_an_npz_is_read_from_headers_alone(tmp_path):
  # A gigabyte of zeros in a megabyte of file: only its first bytes are unpacked.
  header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (16384, 16384), }"
  with zipfile.ZipFile(tmp_path / 'bomb.npz', 'w', zipfile.ZIP_DEFLATED) as archive:
    with archive.open('kernel.npy', 'w', force_zip64=True) as stream:
      stream.write(b'\x93NUMPY\x01\x00' + struct.pack('<H', len(header)) + header)
      for _ in range(16):
        stream.write(bytes(1 << 20))
  spec = specs.read_spec(str(tmp_path / 'bomb.npz'))
  assert spec.tensors == (codec_lib.TensorSpec('kernel', (16384, 16384)),)


def npy(shape, kind="'<f4'"):
  header = f"{{'descr': {kind}, 'fortran_order': False, 'shape': ({shape})}}".encode('ascii')
  return b'\x93NUMPY\x01\x00' + struct.pack('<H', len(header)) + header


LONG_HEADER = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}" + b' ' * 20_000
LONG_HEADER = b'\x93NUMPY\x01\x00' + struct.pack('<H', len(LONG_HEADER)) + LONG_HEADER


@pytest.mark.parametrize('content', [
    b'', b'PK\x05\x06' + bytes(18), b'not a zip', {'a.npy': b'', }, {'a.npy': b'\x93NUMPY\x01\x00\xff\xff'},
    {'a.npy': b'\x93NUMPY\x01\x00\x05\x00{1:2}'}, {'a.npy': LONG_HEADER},
    {'a.npy': npy('(0, 2147483647, 2147483647, 2147483647)')},
    {'a.npy': npy('1,' * 33)}, {'.npy': npy('()')}, {'a\tb.npy': npy('()')}, {'a.npy': npy('()', "'<f4,<f4'")},
    {'a.npy': npy('()', "[('a', '<f4')]")}, {'a.npy': npy('()', "'|O'")},
    {'a.npy': b'\x93NUMPY\x01\x00\x0b\x00__import__('},
])
def test_bad_npz_is_a_spec_error(tmp_path, content):
  path = tmp_path / 'bad.npz'
  if isinstance(content, bytes):
    path.write_bytes(content)
  else:
    with zipfile.ZipFile(path, 'w') as archive:
      for name, value in content.items():
        archive.writestr(name, value)
  with pytest.raises(codec_lib.SpecError):
    specs.read_spec(str(path))


@pytest.mark.parametrize('compression', [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_npz_damaged_anywhere_is_no_more_than_a_spec_error(tmp_path, compression):
  whole = io.BytesIO()
  with zipfile.ZipFile(whole, 'w', compression) as archive:
    archive.writestr('a.npy', npy('3, 4') + bytes(48))
  whole, path = whole.getvalue(), str(tmp_path / 'bad.npz')
  damaged = [whole[:n] for n in range(0, len(whole), 5)] + [whole]
  for at in range(len(whole)):
    damaged += [whole[:at] + bytes([value]) + whole[at + 1:] for value in {255, whole[at] ^ 1}]
  for data in damaged:
    with open(path, 'wb') as file:
      file.write(data)
    try:
      spec = specs.read_spec(path)
      assert compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) and len(spec.tensors) == 1
    except codec_lib.SpecError as error:
      assert len(str(error)) < 500


@pytest.mark.parametrize('config, says', [
    ({'class_name': 'Sequential', 'config': {'layers': [{'class_name': 'Lambda', 'config': {}}]}}, 'Lambda'),
    ({'class_name': 'Sequential', 'config': {'layers': [{'module': 'os', 'class_name': 'system', 'config': {}}]}},
     'os.system'),
    (None, 'save the whole model'),
])
def test_h5_that_may_run_code_is_refused_before_keras_sees_it(tmp_path, config, says):
  h5py = pytest.importorskip('h5py')
  with h5py.File(tmp_path / 'model.h5', 'w') as file:
    if config:
      file.attrs['model_config'] = json.dumps(config)
  loaded = 'tensorflow' in sys.modules
  with pytest.raises(codec_lib.SpecError, match=says):
    specs.read_spec(str(tmp_path / 'model.h5'))
  assert loaded or 'tensorflow' not in sys.modules


@pytest.fixture(scope='module')
def folder_of_one(tmp_path_factory):
  folder = tmp_path_factory.mktemp('one')
  (folder / 'spec.json').write_text('[{"name": "a", "shape": [3]}]')
  return folder


@pytest.mark.thorough
@hypothesis.settings(max_examples=150)
@hypothesis.given(strategies.binary(max_size=60))
def test_no_bytes_whatever_are_more_than_an_error(folder_of_one, payload):
  # With a right header and checksum, so that the payload is what is looked at.
  body = wire.pack('int8', {'a': np.zeros(3, np.float32)}, seed=0, round=0, client=0)[:16] + payload
  path = folder_of_one / 'frame.tfc'
  path.write_bytes(body + struct.pack('<I', zlib.crc32(body)))
  assert main(['inspect', str(path), '--codec', 'int8', '--spec', str(folder_of_one / 'spec.json'), '--seed',
               '0']) in (0, 2)
