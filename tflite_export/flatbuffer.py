"""Reading and tidying .tflite files: operators, tensors, signatures."""

import collections
import dataclasses
import pathlib

from ai_edge_litert import schema_py_generated as schema
import flatbuffers
import numpy as np

from tflite_export.errors import FileError

LARGEST = 1 << 30
"""Bytes of the largest file that is read."""

_OPERATOR_NAMES = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}


def load(source):
  """Parses a .tflite file.

  Args:
    source: path or bytes.

  Returns:
    The schema's `ModelT`.

  Raises:
    FileError: it is missing, too large, or no .tflite file.
  """
  name = 'this file'
  if isinstance(source, (bytes, bytearray)):
    data = bytes(source)
  else:
    path = pathlib.Path(source)
    name = str(path)
    try:
      if path.stat().st_size > LARGEST:
        raise FileError(f'{name} has more than {LARGEST} bytes: it is no model for a device.')
      data = path.read_bytes()
    except OSError as error:
      raise FileError(f'{name} cannot be read: {error.strerror or error}.') from None
  if len(data) < 8 or data[4:8] != b'TFL3':
    raise FileError(f'{name} is not a .tflite file (its identifier is not TFL3).')
  try:
    model = schema.ModelT.InitFromPackedBuf(bytearray(data), 0)
    if not model.subgraphs or any(graph.tensors is None for graph in model.subgraphs):
      raise ValueError
    for graph in model.subgraphs:
      for operator in graph.operators or ():
        if not 0 <= operator.opcodeIndex < len(model.operatorCodes):
          raise ValueError
  except Exception:  # pylint: disable=broad-exception-caught
    # The generated parser follows offsets without checking them and fails in whatever way the bytes lead to.
    raise FileError(f'{name} is corrupt: its tables cannot be read.') from None
  return model


def operator_name(model, operator):
  """'CONV_2D', or 'FLEX:Relu' / 'CUSTOM:name' for what the built-in runtime does not have."""
  code = model.operatorCodes[operator.opcodeIndex]
  builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
  if builtin == schema.BuiltinOperator.CUSTOM:
    custom = (code.customCode or b'').decode('utf-8', 'replace')
    return f'FLEX:{custom[4:]}' if custom.startswith('Flex') else f'CUSTOM:{custom}'
  return _OPERATOR_NAMES.get(builtin, f'UNKNOWN:{builtin}')


@dataclasses.dataclass(frozen=True)
class Operators:
  """How often each operator occurs in a file.

  Attributes:
    counts: dict of name to count, in the order of names.
  """
  counts: dict

  @property
  def foreign(self):
    """Names of operators that need more than the built-in runtime."""
    return [name for name in self.counts if ':' in name]


def operators(source):
  """Counts the operators of a file (path, bytes or `ModelT`)."""
  model = source if isinstance(source, schema.ModelT) else load(source)
  counts = collections.Counter(operator_name(model, operator) for graph in model.subgraphs
                               for operator in graph.operators or ())
  return Operators(dict(sorted(counts.items())))


def compact(data):
  """The same model in fewer bytes: without the names of inner tensors, with one empty buffer, equal data only once.

  What a graph of many small operators takes most of is not its constants. The inputs and outputs of signatures are named as
  the signatures name them.

  Args:
    data: bytes of a .tflite file without external buffers.

  Returns:
    bytes; equal models give equal bytes.
  """
  model = load(data)
  buffers, positions = [schema.BufferT()], {}

  def moved(index):
    content = model.buffers[index].data
    if content is None or not len(content):
      return 0
    key = np.asarray(content, np.uint8).tobytes()
    if key not in positions:
      positions[key] = len(buffers)
      buffers.append(model.buffers[index])
    return positions[key]

  for graph in model.subgraphs:
    for tensor in graph.tensors:
      tensor.buffer = moved(tensor.buffer)
      tensor.name = None
      quantization = tensor.quantization
      if quantization is not None and quantization.scale is None and quantization.details is None:
        tensor.quantization = None
  for entry in model.metadata or ():
    entry.buffer = moved(entry.buffer)
  for signature in model.signatureDefs or ():
    for named in [*signature.inputs, *signature.outputs]:
      model.subgraphs[signature.subgraphIndex].tensors[named.tensorIndex].name = named.name
  model.buffers = buffers
  builder = _Builder(1 << 16)
  builder.Finish(model.Pack(builder), b'TFL3')
  return bytes(builder.Output())


class _Builder(flatbuffers.Builder):
  """Writes equal vectors once, and the data of buffers at the multiples of 16 that runtimes expect."""

  def __init__(self, size):
    super().__init__(size)
    self._vectors = {}

  def CreateNumpyVector(self, x):  # pylint: disable=invalid-name
    x = np.ascontiguousarray(x)
    key = x.dtype.str, x.tobytes()
    if key not in self._vectors:
      if x.dtype == np.uint8:
        self.StartVector(1, x.size, 16)
        self.head -= x.size
        self.Bytes[self.head:self.head + x.size] = x.tobytes()
        self._vectors[key] = self.EndVector()
      else:
        self._vectors[key] = super().CreateNumpyVector(x)
    return self._vectors[key]
