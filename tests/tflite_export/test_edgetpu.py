"""The static check against the Edge TPU's documented operator list: each limit is kept, broken, and named."""

import argparse
import json

from ai_edge_litert import schema_py_generated as schema
import flatbuffers
import numpy as np
import pytest

from tflite_export import check_edgetpu
from tflite_export.cli import edgetpu as command
from tflite_export.edgetpu.operators import OPERATORS

WORDING = 'tatically compatible with the documented operator list'


def tensor(*sizes, kind='INT8', values=None, scale=(.5,), zero=(0,), signature=None, **more):
  """What `model` makes a `TensorT` of; with values it is a constant."""
  return dict(sizes=sizes, kind=kind, values=values, scale=scale if kind in ('INT8', 'UINT8') else None, zero=zero,
              signature=signature, **more)


def ints(*values, sizes=None):
  """A constant of 32-bit integers."""
  return tensor(*(sizes or [len(values)]), kind='INT32', values=np.array(values, '<i4'))


def weights(*sizes):
  return tensor(*sizes, values=np.ones(sizes, np.int8))


def model(*operators, graphs=1):
  """A file in which each operator (name, inputs, outputs, options) stands for itself.

  Tensors without values that no operator writes are the inputs.
  """
  codes = sorted({name for name, *_ in operators})
  tensors, buffers, seen = [], [schema.BufferT()], []

  def index(given):
    for position, other in enumerate(seen):
      if other is given:
        return position
    buffer = 0
    if given['values'] is not None:
      buffer = len(buffers)
      buffers.append(schema.BufferT(data=np.frombuffer(given['values'].tobytes(), np.uint8)))
    quantization = None
    if given['scale'] is not None:
      quantization = schema.QuantizationParametersT(scale=np.array(given['scale'], np.float32),
                                                    zeroPoint=np.array(given['zero']))
    signature = None if given['signature'] is None else np.array(given['signature'], np.int32)
    tensors.append(schema.TensorT(
        shape=np.array(given['sizes'], np.int32), shapeSignature=signature, buffer=buffer, quantization=quantization,
        type=getattr(schema.TensorType, given['kind']),
        sparsity=schema.SparsityParametersT() if given.get('sparse') else None))
    seen.append(given)
    return len(tensors) - 1

  listed = []
  for name, inputs, outputs, *options in operators:
    made = schema.OperatorT(opcodeIndex=codes.index(name), inputs=np.array([index(t) for t in inputs], np.int32),
                            outputs=np.array([index(t) for t in outputs], np.int32))
    if options:
      made.builtinOptions = options[0]
      made.builtinOptionsType = getattr(schema.BuiltinOptions, type(options[0]).__name__[:-1])
    listed.append(made)
  written = {id(t) for _, _, outputs, *_ in operators for t in outputs}
  inputs = [i for i, given in enumerate(seen) if given['values'] is None and id(given) not in written]
  graph = schema.SubGraphT(tensors=tensors, operators=listed, inputs=np.array(inputs, np.int32),
                           outputs=np.array([], np.int32))
  codes = [schema.OperatorCodeT(builtinCode=getattr(schema.BuiltinOperator, name),
                                deprecatedBuiltinCode=min(127, getattr(schema.BuiltinOperator, name)))
           for name in codes]
  builder = flatbuffers.Builder(1024)
  made = schema.ModelT(version=3, operatorCodes=codes, subgraphs=[graph] * graphs, buffers=buffers)
  builder.Finish(made.Pack(builder), b'TFL3')
  return bytes(builder.Output())


def verdicts(*operators):
  """[(maps, reason)] of the operators of a file."""
  return [(operator.maps, operator.reason) for operator in check_edgetpu(model(*operators)).operators]


X = tensor(1, 8, 8, 4)
FILTER, BIAS, ROW = weights(4, 3, 3, 4), ints(0, 0, 0, 0), tensor(1, 10)
RELU = schema.ActivationFunctionType.RELU
SIGN = schema.ActivationFunctionType.SIGN_BIT

# One that meets the list per limit, one that breaks it, and a word of the reason.
LIMITS = {
    'activation of a pool': (
        ('MAX_POOL_2D', [X], [X], schema.Pool2DOptionsT()),
        ('MAX_POOL_2D', [X], [X], schema.Pool2DOptionsT(fusedActivationFunction=RELU)), 'fused activation'),
    'activation of an average': (
        ('AVERAGE_POOL_2D', [X], [X], schema.Pool2DOptionsT()),
        ('AVERAGE_POOL_2D', [X], [X], schema.Pool2DOptionsT(fusedActivationFunction=RELU)), 'fused activation'),
    'activation of a sum': (
        ('ADD', [X, X], [X], schema.AddOptionsT(fusedActivationFunction=RELU)),
        ('ADD', [X, X], [X], schema.AddOptionsT(fusedActivationFunction=SIGN)), 'unverified limit'),
    'activation of a concatenation': (
        ('CONCATENATION', [X, X, X], [X], schema.ConcatenationOptionsT(axis=3)),
        ('CONCATENATION', [X, X], [X], schema.ConcatenationOptionsT(axis=3, fusedActivationFunction=RELU)),
        'fused activation'),
    'zeros in a concatenation': (
        ('CONCATENATION', [X, tensor(1, 8, 8, 1, values=np.full(64, 5, np.int8), zero=(5,))], [X]),
        ('CONCATENATION', [X, tensor(1, 8, 8, 1, values=np.full(64, 0, np.int8), zero=(5,))], [X]), 'not all zeros'),
    'two inputs beside a constant': (
        ('CONCATENATION', [X, tensor(1, 8, 8, 1, values=np.zeros(64, np.int8))], [X]),
        ('CONCATENATION', [X, X, tensor(1, 8, 8, 1, values=np.zeros(64, np.int8))], [X]), '3 inputs'),
    'dilation': (
        ('CONV_2D', [X, FILTER, BIAS], [X], schema.Conv2DOptionsT(dilationWFactor=2, dilationHFactor=2)),
        ('CONV_2D', [X, FILTER, BIAS], [X], schema.Conv2DOptionsT(dilationWFactor=2, dilationHFactor=1)),
        'dilations of 1 and 2'),
    'dilation of a depthwise one': (
        ('DEPTHWISE_CONV_2D', [X, weights(1, 3, 3, 4), BIAS], [X], schema.DepthwiseConv2DOptionsT()),
        ('DEPTHWISE_CONV_2D', [X, weights(1, 3, 3, 4), BIAS], [X], schema.DepthwiseConv2DOptionsT(dilationHFactor=3)),
        'dilations'),
    'constant weights': (
        ('CONV_2D', [X, FILTER, BIAS], [X]), ('CONV_2D', [X, tensor(1, 3, 3, 4), BIAS], [X]), 'have to be constants'),
    'format of weights': (
        ('FULLY_CONNECTED', [ROW, weights(10, 10)], [ROW], schema.FullyConnectedOptionsT()),
        ('FULLY_CONNECTED', [ROW, weights(10, 10)], [ROW], schema.FullyConnectedOptionsT(weightsFormat=1)), 'shuffled'),
    'one-dimensional output': (
        ('FULLY_CONNECTED', [tensor(1, 1, 10), weights(10, 10)], [tensor(1, 1, 10)]),
        ('FULLY_CONNECTED', [tensor(2, 10), weights(10, 10)], [tensor(2, 10)]), '2x10'),
    'batch in a mean': (
        ('MEAN', [X, ints(1, -2)], [tensor(1, 4)]), ('MEAN', [X, ints(0, 1)], [tensor(8, 4)]), 'batch'),
    'batch in a mean, from behind': (
        ('MEAN', [X, ints(-1)], [tensor(1, 8, 8)]), ('MEAN', [X, ints(-4)], [tensor(8, 8, 4)]), 'batch'),
    'channels of a mean': (
        ('MEAN', [X, ints(3)], [tensor(1, 8, 8)]), ('MEAN', [tensor(1, 8, 8, 6), ints(3)], [tensor(1, 8, 8)]),
        'multiple of 4'),
    'axes of a mean': (
        ('MEAN', [X, ints(1, 2)], [tensor(1, 4)]), ('MEAN', [X, tensor(1, kind='INT8')], [tensor(1, 4)]), 'computed'),
    'batch in a maximum': (
        ('REDUCE_MAX', [X, ints(1, 2)], [tensor(1, 4)]), ('REDUCE_MAX', [X, ints(0)], [tensor(8, 8, 4)]), 'batch'),
    'batch in a minimum': (
        ('REDUCE_MIN', [X, ints(1, 2)], [tensor(1, 4)]), ('REDUCE_MIN', [X, ints(0)], [tensor(8, 8, 4)]), 'batch'),
    'batch in a pack': (
        ('PACK', [ROW, ROW], [tensor(1, 2, 10)], schema.PackOptionsT(axis=1)),
        ('PACK', [ROW, ROW], [tensor(2, 1, 10)], schema.PackOptionsT(axis=0)), 'batch'),
    'batch in a padding': (
        ('PAD', [X, ints(0, 0, 1, 1, 1, 1, 0, 0, sizes=(4, 2))], [tensor(1, 10, 10, 4)]),
        ('PAD', [X, ints(0, 1, 0, 0, 0, 0, 0, 0, sizes=(4, 2))], [tensor(1, 8, 8, 4)]), 'batch'),
    'alpha': (
        ('PRELU', [X, weights(1, 1, 4)], [X]), ('PRELU', [X, weights(1, 8, 4)], [X]), 'share it'),
    'length of a softmax': (
        ('SOFTMAX', [tensor(1, 16000)], [tensor(1, 16000)]), ('SOFTMAX', [tensor(1, 16001)], [tensor(1, 16001)]),
        '16,000'),
    'rank of a softmax': (
        ('SOFTMAX', [tensor(1, 10)], [tensor(1, 10)]), ('SOFTMAX', [tensor(1, 2, 10)], [tensor(1, 2, 10)]),
        'one-dimensional'),
    'batch in a split': (
        ('SPLIT', [ints(3, sizes=()), X], [tensor(1, 8, 8, 2)]), ('SPLIT', [ints(-4, sizes=()), X], [X]),
        'unverified limit'),
    'leading ones': (
        ('SQUEEZE', [tensor(1, 1, 10)], [tensor(10)], schema.SqueezeOptionsT(squeezeDims=np.array([0, 1], np.int32))),
        ('SQUEEZE', [tensor(1, 1, 10)], [tensor(1, 10)], schema.SqueezeOptionsT(squeezeDims=np.array([1], np.int32))),
        'leading'),
    'strides of a slice': (
        ('STRIDED_SLICE', [ROW, ints(0, 0), ints(1, 5), ints(1, 1)], [tensor(1, 5)], schema.StridedSliceOptionsT()),
        ('STRIDED_SLICE', [ROW, ints(0, 0), ints(1, 5), ints(1, 2)], [tensor(1, 3)], schema.StridedSliceOptionsT()),
        'strides'),
    'masks of a slice': (
        ('STRIDED_SLICE', [ROW, ints(0, 0), ints(1, 5), ints(1, 1)], [ROW], schema.StridedSliceOptionsT(beginMask=3)),
        ('STRIDED_SLICE', [ROW, ints(0, 0), ints(1, 5), ints(1, 1)], [ROW], schema.StridedSliceOptionsT(newAxisMask=1)),
        'new axis'),
    'static shapes': (
        ('LOGISTIC', [tensor(1, 10, signature=(1, 10))], [ROW]),
        ('LOGISTIC', [tensor(1, 10, signature=(-1, 10))], [ROW]),
        'fixed batch size'),
    'eight bits': (
        ('TANH', [tensor(1, 10, kind='UINT8')], [ROW]), ('TANH', [tensor(1, 10, kind='INT16')], [ROW]), 'int16'),
    'a scale': (
        ('TANH', [ROW], [ROW]), ('TANH', [tensor(1, 10, scale=())], [ROW]), 'not quantized'),
    'three dimensions': (
        ('RELU', [tensor(1, 1, 8, 8, 4)], [X]), ('RELU', [tensor(2, 8, 8, 4)], [X]), 'three innermost'),
    'constants in full': (
        ('CONV_2D', [X, FILTER, BIAS], [X]), ('CONV_2D', [X, {**FILTER, 'sparse': True}, BIAS], [X]), 'sparse'),
}


@pytest.mark.parametrize('limit', LIMITS)
def test_a_limit_is_kept_and_broken(limit):
  kept, broken, word = LIMITS[limit]
  assert verdicts(kept) == [(True, '')]
  (maps, reason), = verdicts(broken)
  assert not maps and word in reason


def test_every_function_of_the_list_is_tried():
  """A limit that no case above breaks would be dead."""
  tried = {name for _, (name, *_), _ in LIMITS.values()}
  assert {name for name, entry in OPERATORS.items() if entry.limits} - tried <= {
      'L2_NORMALIZATION', 'LSTM', 'UNIDIRECTIONAL_SEQUENCE_LSTM', 'TRANSPOSE_CONV', 'MUL', 'SUB', 'SUM'}


def test_what_comes_after_the_first_that_falls_back_runs_on_the_cpu():
  a, b, c = tensor(1, 10), tensor(1, 10), tensor(1, 10)
  report = check_edgetpu(model(('TANH', [ROW], [a]), ('ELU', [a], [b]), ('TANH', [b], [c])))
  assert [operator.maps for operator in report.operators] == [True, False, False]
  assert [operator.listed for operator in report.operators] == [True, False, True]
  assert 'after ELU (1)' in report.operators[2].reason
  assert report.summary.startswith('Not s' + WORDING) and '2 of 3' in report.summary


def test_quantizing_float_inputs_does_not_end_the_part_that_maps():
  image, a, b = tensor(1, 10, kind='FLOAT32'), tensor(1, 10), tensor(1, 10)
  report = check_edgetpu(model(('QUANTIZE', [image], [a]), ('TANH', [a], [b])))
  assert [operator.maps for operator in report.operators] == [False, True]
  assert 'unverified' in report.operators[0].note


def test_operators_of_other_subgraphs_fall_back():
  report = check_edgetpu(model(('TANH', [ROW], [tensor(1, 10)]), graphs=2))
  assert [operator.maps for operator in report.operators] == [True, False]


def test_the_sentence_never_says_that_it_compiles():
  for operators in ([('TANH', [ROW], [ROW])], [('ELU', [ROW], [ROW])], []):
    report = check_edgetpu(model(*operators))
    assert WORDING in report.summary and 'compiles' not in report.summary
    assert report.summary.startswith('S') == report.compatible
  assert not check_edgetpu(model()).compatible


def test_an_entry_that_is_not_in_the_copy_of_the_list_says_so():
  operator, = check_edgetpu(model(('RSQRT', [ROW], [ROW]))).operators
  assert operator.maps and 'unverified' in operator.note


def run(capsys, *arguments):
  parser = argparse.ArgumentParser()
  command.add_check_edgetpu(parser)
  options = parser.parse_args(arguments)
  code = options.function(options)
  return code, capsys.readouterr().out


def test_the_command_says_what_maps(capsys, tmp_path):
  good, bad = tmp_path / 'good.tflite', tmp_path / 'bad.tflite'
  good.write_bytes(model(('TANH', [ROW], [ROW])))
  bad.write_bytes(model(('TANH', [ROW], [ROW]), ('ELU', [ROW], [ROW])))
  code, text = run(capsys, str(good))
  assert code == 0 and 'maps' in text and WORDING in text
  code, text = run(capsys, str(bad), '--json')
  result = json.loads(text)
  assert code == 3 and not result['compatible'] and [o['maps'] for o in result['operators']] == [True, False]
