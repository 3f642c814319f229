"""What is written, described and refused by the exports of codecs."""

import dataclasses
import json
from typing import ClassVar

import numpy as np
import pytest

from tff_compress import codec as codec_lib
from tff_compress.codec import stage as stage_lib
from tff_compress.codec.codec import Codec
from tff_compress.codec.codec import Condition
from tff_compress.codec.codec import Rule
from tff_compress.codec.pipeline import Pipeline
from tflite_export import encoder
from tflite_export import errors
from tflite_export import flatbuffer

pytestmark = pytest.mark.xdist_group('encoder')

UPDATE = {'a': np.linspace(-1, 1, 300, dtype=np.float32).reshape(3, 100), 'steps': np.arange(3),
          'nothing': np.zeros((0, 2), np.float32)}
SPEC = codec_lib.Spec.of(UPDATE)
TEXT = 'topk:1/3 | uniform:bits=3 | rice'


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  """An encoder and where it is."""
  path = tmp_path_factory.mktemp('encoder') / 'encode.tflite'
  return encoder.export_encoder(TEXT, SPEC, path=path), path


def test_the_file_is_what_the_result_says(written):
  export, path = written
  assert path.read_bytes() == export.data and export.path == path
  assert export.data == encoder.export_encoder(TEXT, SPEC).data, 'the same codec and spec give the same bytes'
  model = flatbuffer.load(export.data)
  signature, = model.signatureDefs
  graph = model.subgraphs[0]
  for defined, arrays in ((signature.inputs, export.inputs), (signature.outputs, export.outputs)):
    shapes = {entry.name.decode(): list(graph.tensors[entry.tensorIndex].shape) for entry in defined}
    assert shapes == {array.name: [array.size] for array in arrays}
  assert not export.operators.keys() & {'QUANTIZE', 'DEQUANTIZE'}
  assert all(tensor.shapeSignature is None for tensor in graph.tensors), 'every shape is known'


def test_the_description_holds_all_that_an_app_needs(written):
  export, _ = written
  described = json.loads(json.dumps(export.describe()))
  assert described['codec'] == TEXT and described['signature'] == 'encode' and described['bytes'] == len(export.data)
  assert described['inputs'] == [{'name': 'update_0', 'dtype': 'float32', 'size': 300},
                                 {'name': 'keys', 'dtype': 'int32', 'size': 2}]
  assert described['requests'] == [
      {'scope': 'client', 'name': 'a', 'purpose': 4, 'chunk': 0, 'words': 50, 'input': 'keys'}]
  kernel, steps, nothing = described['segments']
  assert (kernel['values'], kernel['coder'], kernel['alphabet']) == ('values_0', 'rice', [0, 7])
  assert [(side['name'], side['width'], side['below']) for side in kernel['sides']] == [
      ('positions', None, 300), ('low', 2, None), ('high', 2, None)]
  assert steps['codec'] is None and 'values' not in steps and 'values' not in nothing


def test_values_that_fill_up_a_block_are_not_in_the_file():
  spec = codec_lib.Spec.of({'a': np.zeros((1 << 16) + 1, np.float32)})
  for export in (encoder.export_encoder, encoder.export_decoder):
    assert len(export('uniform:bits=4,block=65536 | pack', spec).data) < 20_000


def test_buffers_are_aligned_as_runtimes_expect(written):
  export, _ = written
  for buffer in flatbuffer.load(export.data).buffers:
    if buffer.data is not None and len(buffer.data) > 64:
      data = bytes(bytearray(buffer.data))
      places = [i for i in range(len(export.data) - len(data) + 1) if export.data[i:i + len(data)] == data]
      assert any(place % 16 == 0 for place in places)


def test_outputs_of_another_codec_are_refused():
  outputs = {'valid': np.ones(1, np.int32), 'values_0': np.zeros(300, np.uint8)}
  with pytest.raises(errors.ExportError, match=r'values_0 is int8\[100\], not uint8\[300\]'):
    encoder.finish(TEXT, SPEC, outputs, {'steps': UPDATE['steps']})
  with pytest.raises(errors.ExportError, match='valid is missing'):
    encoder.finish(TEXT, SPEC, {}, {})
  outputs = {'valid': np.ones(1, np.int32), 'values_0': np.zeros(1200, np.uint8)}
  with pytest.raises(errors.ExportError, match='steps is missing'):
    encoder.finish('float32', SPEC, outputs)
  with pytest.raises(errors.ExportError, match=r'steps is int64\[3\], not int32\[3\]'):
    encoder.finish('float32', SPEC, outputs, {'steps': np.arange(3, dtype=np.int32)})


@dataclasses.dataclass(frozen=True)
class Foreign(stage_lib.Stage):
  """A stage that only runs on a server, in one of several ways."""
  name: ClassVar[str] = 'foreign'
  how: str = 'operator'

  def output(self, signal):
    return stage_lib.Real(signal.size)

  def side(self, signal):
    return (stage_lib.Side('list', None, 2),) if self.how == 'side' else ()

  def encode(self, xp, x, draws, signal):
    if self.how == 'numpy':
      return np.sort(x), {}
    if self.how == 'shape':
      return xp.gather(x, xp.where_nonzero(x)), {}
    import tensorflow as tf
    return tf.math.erf(x), {}

  def decode(self, xp, values, side, draws, signal):
    return values


@pytest.mark.parametrize('how, reason', [('operator', 'tf.Erf'), ('numpy', 'needs values'),
                                         ('shape', 'only known when it runs'), ('side', 'fixed sizes')])
def test_a_stage_that_cannot_run_on_a_device_is_named(how, reason):
  pipeline = Pipeline((Foreign(how), *codec_lib('uniform | pack').rules[0].pipeline.stages))
  with pytest.raises(errors.ExportError, match=str(Foreign(how)) + ' .*' + reason) as caught:
    encoder.export_encoder(Codec((Rule((Condition('*'),), pipeline),)), SPEC)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize('arguments, options, message', [
    (('unifrm | pack', SPEC), {}, 'did you mean uniform'),
    (('b => float32', SPEC), {}, "no rule of the codec matches variable 'a'"),
    (('float32', {'steps': np.arange(3)}), {}, 'send them as they are'),
    (('float32', SPEC), {'words': 'given'}, "inside or passed, not 'given'"),
    (('float32', 7), {}, 'a spec is made from'),
])
def test_bad_input_is_one_sentence(arguments, options, message):
  for export in (encoder.export_encoder, encoder.export_decoder):
    with pytest.raises(codec_lib.CompressionError, match=message):
      export(*arguments, **options)


def test_a_path_that_is_taken_is_refused_before_any_work(tmp_path, monkeypatch):
  monkeypatch.setattr('tflite_export.conversion.convert', lambda *_: pytest.fail('converted'))
  taken = tmp_path / 'there.tflite'
  taken.write_bytes(b'old')
  for path in (taken, tmp_path, tmp_path / 'absent' / 'x.tflite'):
    with pytest.raises(errors.FileError):
      encoder.export_encoder('float32', SPEC, path=path)
  assert taken.read_bytes() == b'old'


def test_an_interrupted_export_leaves_nothing(tmp_path, monkeypatch):
  def interrupted(*_):
    raise KeyboardInterrupt
  monkeypatch.setattr('tflite_export.conversion.convert', interrupted)
  with pytest.raises(KeyboardInterrupt):
    encoder.export_encoder('float32', SPEC, path=tmp_path / 'x.tflite')
  assert not list(tmp_path.iterdir())
