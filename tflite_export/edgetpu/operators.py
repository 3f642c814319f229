"""The documented operator list of the Edge TPU, as data: which operators map, and within which limits.

The list is that of Coral's "TensorFlow models on the Edge TPU", as its copy at Axis (ARTPEC-7, supported operators)
gives it. An entry or a limit with `verified=False` is not in that copy: it is remembered from newer versions of the
list or seen in logs of the vendor's compiler, and may be wrong. Nothing here was tried with that compiler, which is not
available.
"""

import dataclasses

from tflite_export.edgetpu import limits


@dataclasses.dataclass(frozen=True)
class Limit:
  """A condition that an operator has to meet.

  Attributes:
    check: function of a `limits.Node` to a text that says why it is not met, or None.
    verified: whether the limit is in the copy of the list.
  """
  check: object
  verified: bool = True


@dataclasses.dataclass(frozen=True)
class Entry:
  """An operator of the list.

  Attributes:
    name: as the list writes it.
    limits: `Limit`s, all of which have to be met.
    note: what the list says of it that cannot be checked in a file; '' for most.
    verified: whether the operator is in the copy of the list.
  """
  name: str
  limits: tuple = ()
  note: str = ''
  verified: bool = True


_LISTED_ACTIVATION = Limit(limits.listed_activation, verified=False)
_NO_ACTIVATION = Limit(limits.no_activation)
_CONSTANT_WEIGHTS = Limit(limits.constant_weights)
_DILATION = Limit(limits.equal_dilation)
_NOT_BATCH = Limit(limits.axes_without_batch)
_LARGE_RESIZE = 'may not be mapped, to avoid a loss in precision: that depends on the sizes'

OPERATORS = {
    'ADD': Entry('Add', (_LISTED_ACTIVATION,)),
    'AVERAGE_POOL_2D': Entry('AveragePool2d', (_NO_ACTIVATION,)),
    'CONCATENATION': Entry('Concatenation', (_NO_ACTIVATION, Limit(limits.constant_zero_padding))),
    'CONV_2D': Entry('Conv2d', (_CONSTANT_WEIGHTS, _DILATION, _LISTED_ACTIVATION)),
    'DEPTHWISE_CONV_2D': Entry('DepthwiseConv2d', (_CONSTANT_WEIGHTS, _DILATION, _LISTED_ACTIVATION)),
    'EXPAND_DIMS': Entry('ExpandDims'),
    'FULLY_CONNECTED': Entry('FullyConnected', (_CONSTANT_WEIGHTS, Limit(limits.default_weights_format),
                                                Limit(limits.one_dimensional_output), _LISTED_ACTIVATION)),
    'L2_NORMALIZATION': Entry('L2Normalization', (_LISTED_ACTIVATION,)),
    'LOGISTIC': Entry('Logistic'),
    'LSTM': Entry('LSTM', (_CONSTANT_WEIGHTS,)),
    'MAXIMUM': Entry('Maximum'),
    'MAX_POOL_2D': Entry('MaxPool2d', (_NO_ACTIVATION,)),
    'MEAN': Entry('Mean', (_NOT_BATCH, Limit(limits.channels_multiple_of_four))),
    'MINIMUM': Entry('Minimum'),
    'MUL': Entry('Mul', (_LISTED_ACTIVATION,)),
    'PACK': Entry('Pack', (Limit(limits.axis_without_batch),)),
    'PAD': Entry('Pad', (Limit(limits.padding_without_batch),)),
    'PRELU': Entry('PReLU', (Limit(limits.one_dimensional_alpha),)),
    'QUANTIZE': Entry('Quantize'),
    'REDUCE_MAX': Entry('ReduceMax', (_NOT_BATCH,)),
    'REDUCE_MIN': Entry('ReduceMin', (_NOT_BATCH,)),
    'RELU': Entry('ReLU'),
    'RELU6': Entry('ReLU6'),
    'RELU_N1_TO_1': Entry('ReLUN1To1'),
    'RESHAPE': Entry('Reshape', note='may not be mapped for large tensors'),
    'RESIZE_BILINEAR': Entry('ResizeBilinear', note=_LARGE_RESIZE),
    'RESIZE_NEAREST_NEIGHBOR': Entry('ResizeNearestNeighbor', note=_LARGE_RESIZE),
    'RSQRT': Entry('Rsqrt', verified=False),
    'SLICE': Entry('Slice'),
    'SOFTMAX': Entry('Softmax', (Limit(limits.short_softmax),)),
    'SPACE_TO_DEPTH': Entry('SpaceToDepth'),
    'SPLIT': Entry('Split', (Limit(limits.split_without_batch, verified=False),)),
    'SQUARED_DIFFERENCE': Entry('SquaredDifference', verified=False),
    'SQUEEZE': Entry('Squeeze', (Limit(limits.squeeze_of_leading_ones),)),
    'STRIDED_SLICE': Entry('StridedSlice', (Limit(limits.plain_strides),)),
    'SUB': Entry('Sub', (_LISTED_ACTIVATION,)),
    'SUM': Entry('Sum', (Limit(limits.axes_without_batch, verified=False),), verified=False),
    'TANH': Entry('Tanh'),
    'TRANSPOSE': Entry('Transpose', note='was seen to be refused in cases that the list does not name', verified=False),
    'TRANSPOSE_CONV': Entry('TransposeConv', (_CONSTANT_WEIGHTS,), verified=False),
    'UNIDIRECTIONAL_SEQUENCE_LSTM': Entry('LSTM', (_CONSTANT_WEIGHTS,)),
}
"""Entries by the name of the operator in a .tflite file."""
