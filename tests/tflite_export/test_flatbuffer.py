"""Reading .tflite files: what is whole is read, what is not is refused in one sentence, in bounded time and memory."""

import os
import time
import tracemalloc

from ai_edge_litert import schema_py_generated as schema
import flatbuffers
import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from tflite_export import edgetpu
from tflite_export import flatbuffer
from tflite_export.errors import FileError


def small():
  """A file with what real ones have: constants, quantization, options, a signature, metadata."""
  quantized = schema.QuantizationParametersT(scale=np.array([.5], np.float32), zeroPoint=np.array([3]))
  tensors = [schema.TensorT(shape=np.array(sizes, np.int32), type=kind, buffer=buffer, name=name, quantization=scale)
             for sizes, kind, buffer, name, scale in [
                 ([1, 4], schema.TensorType.INT8, 0, b'x', quantized),
                 ([2, 4], schema.TensorType.INT8, 1, b'w', quantized),
                 ([2], schema.TensorType.INT32, 2, b'b', None), ([1, 2], schema.TensorType.INT8, 0, b'y', quantized),
                 ([2], schema.TensorType.INT32, 3, b's', None), ([2, 1], schema.TensorType.INT8, 0, b'z', quantized)]]
  operators = [
      schema.OperatorT(opcodeIndex=0, inputs=np.array([0, 1, 2]), outputs=np.array([3]),
                       builtinOptionsType=schema.BuiltinOptions.FullyConnectedOptions,
                       builtinOptions=schema.FullyConnectedOptionsT()),
      schema.OperatorT(opcodeIndex=1, inputs=np.array([3, 4]), outputs=np.array([5]),
                       builtinOptionsType=schema.BuiltinOptions.ReshapeOptions,
                       builtinOptions=schema.ReshapeOptionsT(newShape=np.array([2, 1])))]
  for operator in operators:
    operator.inputs, operator.outputs = operator.inputs.astype(np.int32), operator.outputs.astype(np.int32)
  names = [[schema.TensorMapT(name=name, tensorIndex=index)] for name, index in ((b'x', 0), (b'y', 5))]
  return pack(schema.ModelT(
      version=3, description=b'small',
      operatorCodes=[schema.OperatorCodeT(builtinCode=code, deprecatedBuiltinCode=code)
                     for code in (schema.BuiltinOperator.FULLY_CONNECTED, schema.BuiltinOperator.RESHAPE)],
      subgraphs=[schema.SubGraphT(tensors=tensors, inputs=np.array([0], np.int32), outputs=np.array([5], np.int32),
                                  operators=operators, name=b'main')],
      buffers=[schema.BufferT(data=None if data is None else np.frombuffer(data, np.uint8)) for data in (
          None, bytes(range(8)), np.arange(2, dtype='<i4').tobytes(), np.array([2, 1], '<i4').tobytes(), b'1.5.0')],
      metadata=[schema.MetadataT(name=b'min_runtime_version', buffer=4)],
      signatureDefs=[schema.SignatureDefT(inputs=names[0], outputs=names[1], signatureKey=b'serving',
                                          subgraphIndex=0)]))


def pack(model):
  builder = flatbuffers.Builder(1024)
  builder.Finish(model.Pack(builder), b'TFL3')
  return bytes(builder.Output())


def mutated(change):
  """The small file after a function changed its `ModelT`."""
  model = flatbuffer.load(small())
  change(model, model.subgraphs[0])
  return pack(model)


def attempt(data):
  """Whether a file is read; a file that is not must be refused with a sentence, whatever reads it."""
  try:
    report = edgetpu.check_edgetpu(data)
  except FileError as error:
    assert str(error).endswith('.') and '\n' not in str(error)
    return False
  assert len(report.summary) < 1000
  return True


def test_a_whole_file_is_read():
  assert flatbuffer.operators(small()).counts == {'FULLY_CONNECTED': 1, 'RESHAPE': 1}
  assert attempt(small())


def test_every_truncation_is_refused_or_loses_nothing_that_is_needed():
  data = small()
  whole = edgetpu.check_edgetpu(data)
  refused = 0
  for end in range(len(data)):
    if attempt(data[:end]):
      assert len(edgetpu.check_edgetpu(data[:end]).operators) <= len(whole.operators)
    else:
      refused += 1
  assert refused > .9 * len(data)


@hypothesis.given(st.lists(st.tuples(st.integers(0, len(small()) - 1), st.integers(1, 255)), min_size=1, max_size=8))
@hypothesis.settings(max_examples=400)
def test_flipped_bits_give_a_report_or_a_sentence(flips):
  data = bytearray(small())
  for position, mask in flips:
    data[position] ^= mask
  data[4:8] = b'TFL3'
  attempt(data)


def test_every_byte_set_to_extremes_gives_a_report_or_a_sentence():
  data = small()
  for position in range(8, len(data)):
    for value in (0, 0x7f, 0x80, 0xff):
      attempt(data[:position] + bytes([value]) + data[position + 1:])


@hypothesis.given(st.binary(max_size=300))
def test_random_bytes_give_a_sentence(data):
  assert not attempt(data)
  attempt(data[:4] + b'TFL3' + data[4:])


@pytest.mark.parametrize('change', [
    lambda model, graph: setattr(graph.operators[0], 'opcodeIndex', 2),
    lambda model, graph: setattr(graph.operators[0], 'inputs', np.array([0, 6, 2], np.int32)),
    lambda model, graph: setattr(graph.operators[0], 'inputs', np.array([-2], np.int32)),
    lambda model, graph: setattr(graph.operators[0], 'outputs', np.array([-1], np.int32)),
    lambda model, graph: setattr(graph.tensors[1], 'buffer', 5),
    lambda model, graph: setattr(graph, 'outputs', np.array([6], np.int32)),
    lambda model, graph: setattr(graph, 'inputs', np.array([-1], np.int32)),
    lambda model, graph: setattr(model.signatureDefs[0], 'subgraphIndex', 1),
    lambda model, graph: setattr(model.signatureDefs[0].outputs[0], 'tensorIndex', 6),
    lambda model, graph: setattr(model.metadata[0], 'buffer', 5),
    lambda model, graph: setattr(model, 'subgraphs', []),
    lambda model, graph: setattr(graph, 'tensors', None),
], ids=['opcode', 'input', 'negative input', 'absent output', 'buffer', 'graph output', 'graph input',
        'signature graph', 'signature tensor', 'metadata', 'no subgraph', 'no tensors'])
def test_an_index_out_of_range_is_refused(change):
  with pytest.raises(FileError, match='corrupt'):
    flatbuffer.load(mutated(change))


def test_an_optional_input_may_be_absent():
  inputs = np.array([0, 1, -1], np.int32)
  model = flatbuffer.load(mutated(lambda model, graph: setattr(graph.operators[0], 'inputs', inputs)))
  assert list(model.subgraphs[0].operators[0].inputs) == [0, 1, -1]


def bomb(wide, name):
  """A file whose vectors hold the same table over and over: `wide` subgraphs with `wide` tensors with one name."""
  builder = flatbuffers.Builder(1024)
  text = builder.CreateString(name)
  schema.TensorStart(builder)
  schema.TensorAddName(builder, text)
  tensor = schema.TensorEnd(builder)

  def vector(start, item):
    start(builder, wide)
    for _ in range(wide):
      builder.PrependUOffsetTRelative(item)
    return builder.EndVector()
  tensors = vector(schema.SubGraphStartTensorsVector, tensor)
  schema.SubGraphStart(builder)
  schema.SubGraphAddTensors(builder, tensors)
  graph = schema.SubGraphEnd(builder)
  graphs = vector(schema.ModelStartSubgraphsVector, graph)
  schema.ModelStart(builder)
  schema.ModelAddSubgraphs(builder, graphs)
  builder.Finish(schema.ModelEnd(builder), b'TFL3')
  return bytes(builder.Output())


@pytest.mark.parametrize('data', [bomb(30_000, 'x'), bomb(300, 'x' * 100_000)], ids=['tables', 'texts'])
def test_a_small_file_does_not_unpack_to_gigabytes(data):
  assert len(data) < 300_000
  tracemalloc.start()
  with pytest.raises(FileError, match='corrupt'):
    flatbuffer.load(data)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 20 << 20


def test_what_is_no_file_is_said(tmp_path):
  with pytest.raises(FileError, match='No such file'):
    flatbuffer.load(tmp_path / 'absent.tflite')
  with pytest.raises(FileError, match='not a file'):
    flatbuffer.load(tmp_path)
  os.mkfifo(tmp_path / 'pipe')
  start = time.monotonic()
  with pytest.raises(FileError, match='not a file'):
    flatbuffer.load(tmp_path / 'pipe')
  assert time.monotonic() - start < 60
  with pytest.raises(FileError, match='no path'):
    flatbuffer.load('a\0b')
  (tmp_path / 'text.tflite').write_text('not a model at all')
  with pytest.raises(FileError, match='not TFL3'):
    flatbuffer.load(tmp_path / 'text.tflite')
  with open(tmp_path / 'huge.tflite', 'wb') as stream:
    stream.truncate(flatbuffer.LARGEST + 1)
  with pytest.raises(FileError, match='no model for a device'):
    flatbuffer.load(tmp_path / 'huge.tflite')
