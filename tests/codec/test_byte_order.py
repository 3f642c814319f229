"""Frames are the golden ones also where the bytes of a number lie in memory the other way round.

Processors whose numbers begin with their highest byte are imitated: between two operations of a stage every array has
the order of bytes that this processor does not have. What looks at memory without saying what lies there then sees
other numbers.
"""

import ast
import pathlib

import numpy as np
import pytest

from tests.contract import cases
from tests.golden import regenerate
from tff_compress import codec as codec_lib
from tff_compress import wire
from tff_compress.codec import keys as keys_lib
from tff_compress.codec.ops import NumpyOps

KEYS = keys_lib.MessageKeys(cases.SEED, cases.ROUND, cases.CLIENT)
SOURCES = [path for package in (codec_lib, wire)
           for path in sorted(pathlib.Path(package.__file__).parent.rglob('*.py'))]


def swapped(x):
  """The same numbers, with their bytes the other way round in memory."""
  if isinstance(x, (tuple, list)):
    return type(x)(map(swapped, x))
  if isinstance(x, (np.ndarray, np.generic)) and x.dtype.itemsize > 1:
    return np.asarray(x).astype(x.dtype.newbyteorder('S'))
  return x


class SwappedOps(NumpyOps):
  """The operation table on such arrays."""

  def __getattribute__(self, name):
    found = super().__getattribute__(name)
    if name.startswith('_') or not callable(found) or name == 'dtype':
      return found
    return lambda *args, **kwargs: swapped(found(*args, **kwargs))

  def reduce_sum(self, x):
    return super().reduce_sum(np.asarray(x, x.dtype.type))  # Only a dtype without an order can be asked for there.

  def by_rows(self, function, *arrays):
    return super().by_rows(lambda *parts: function(*swapped(parts)), *arrays)


@pytest.mark.thorough
@pytest.mark.parametrize('golden', regenerate.goldens(), ids=str)
def test_frames_do_not_depend_on_the_order_of_bytes_in_memory(golden):
  update = regenerate.update_of(golden)
  plan, xp = golden.codec.plan(codec_lib.Spec.of(update)), SwappedOps()
  frame = (regenerate.FOLDER / golden.file).read_bytes()
  with np.errstate(all='ignore'):
    made = plan.encode(xp, swapped(list(update.values())), KEYS)
    assert np.asarray(made).tobytes() == frame[wire.frame.HEADER_BYTES:-wire.frame.CHECKSUM_BYTES]
    decoded = plan.decode(xp, made, KEYS)
  expected, _ = wire.unpack(golden.codec, frame, codec_lib.Spec.of(update), seed=cases.SEED)
  for found, wanted in zip(decoded, expected.values()):
    np.testing.assert_array_equal(found, wanted)


def _calls(path, name):
  """The calls of methods or functions of a module's code that have this name."""
  return [node for node in ast.walk(ast.parse(path.read_text(encoding='utf-8')))
          if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == name]


@pytest.mark.parametrize('path', SOURCES, ids=lambda path: '/'.join(path.parts[-2:]))
def test_memory_is_looked_at_in_the_operation_table_alone_and_bytes_have_an_order(path):
  if path.name != 'ops.py':
    assert not [ast.unparse(call) for call in _calls(path, 'view')], 'use an operation of codec/ops.py'
  for call in _calls(path, 'frombuffer'):
    # A name is that of a parameter, whose values are such texts.
    assert ast.unparse(call.args[1]) in ('np.uint8', 'dtype') or call.args[1].value.startswith('<'), ast.unparse(call)
