"""The tables of operations of NumPy, TensorFlow and TensorFlow Lite are what `table.Ops` says, name by name."""

import inspect

import pytest

from tff_compress.codec.ops import NumpyOps
from tff_compress.codec.table import Ops
from tff_compress.tensorflow.ops import TensorFlowOps
from tflite_export.encoder.ops import TFLiteOps


def _operations(table):
  return {name: value for name, value in inspect.getmembers(table, inspect.isfunction) if not name.startswith('_')}


def _parameters(function):
  return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize('table, own', [
    (NumpyOps, set()), (TensorFlowOps, {'checked'}), (TFLiteOps, {'checked', 'shift_left'})])
def test_a_table_has_the_operations_of_the_protocol_and_their_parameters(table, own):
  expected, found = _operations(Ops), _operations(table)
  assert set(found) - own == set(expected)
  different = [name for name in expected if _parameters(expected[name]) != _parameters(found[name])]
  assert not different, f'{table.__name__} differs from table.Ops in the parameters of {", ".join(different)}'


def test_every_operation_says_what_it_takes_and_gives():
  silent = [name for name, function in _operations(Ops).items()
            if not function.__doc__ or inspect.Signature.empty in (
                inspect.signature(function).return_annotation,
                *(p.annotation for p in list(inspect.signature(function).parameters.values())[1:]))]
  assert not silent, silent
