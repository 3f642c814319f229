"""Reading and tidying .tflite files: operators, tensors, signatures."""

import collections
import dataclasses
import re
from typing import Any

from ai_edge_litert import schema_py_generated as schema
import flatbuffers
import numpy as np

from tflite_export import files
from tflite_export.errors import FileError

LARGEST = 1 << 30
"""Bytes of the largest file that is read."""

MOST_TABLES = 1 << 18
"""Tables (tensors, operators, buffers, names) of the largest file that is read: fifty times those of a large
network."""

LONGEST_NAME = 200
"""Bytes of the name of a custom operator that are shown."""

_DTYPES = {value: name.lower() for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
_OPERATOR_NAMES = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}


# By kind of table, what `_check_extent` follows: vectors of tables, single tables, texts, numbers, unions by type.
_VECTORS = {
    'Model': ('OperatorCodes', 'Subgraphs', 'Buffers', 'Metadata', 'SignatureDefs',
              'ExternalBufferGroups', 'ExternalBuffers'),
    'SubGraph': ('Tensors', 'Operators'),
    'Tensor': ('VariantTensors',),
    'SparsityParameters': ('DimMetadata',),
    'SignatureDef': ('Inputs', 'Outputs'),
}
_TABLES = {'Tensor': ('Sparsity',)}
_TEXTS = {
    'Model': ('Description',), 'SubGraph': ('Name',), 'Tensor': ('Name',), 'OperatorCode': ('CustomCode',),
    'Metadata': ('Name',), 'SignatureDef': ('SignatureKey',), 'TensorMap': ('Name',), 'ExternalBufferGroup': ('Name',),
    'ExternalBuffer': ('Packing',), 'VarHandleOptions': ('Container', 'SharedName'),
    'StableHLOCompositeOptions': ('Name',),
    'StablehloCustomCallOptions': ('CallTargetName', 'BackendConfig'),
}
_NUMBERS = {'Tensor': ('Shape', 'ShapeSignature'), 'Operator': ('Inputs', 'Outputs'), 'SubGraph': ('Inputs', 'Outputs')}
_UNIONS = {'Operator': (
    ('BuiltinOptions', {schema.BuiltinOptions.VarHandleOptions: schema.VarHandleOptions}),
    ('BuiltinOptions2', {
        schema.BuiltinOptions2.StableHLOCompositeOptions: schema.StableHLOCompositeOptions,
        schema.BuiltinOptions2.StablehloCustomCallOptions: schema.StablehloCustomCallOptions,
    }),
)}


def load(source: Any) -> Any:
  """Parses a .tflite file.

  Args:
    source: path or bytes.

  Returns:
    The schema's `ModelT`. Its indices of operator codes, tensors, buffers and subgraphs are in range.

  Raises:
    FileError: it is missing, too large, or no whole .tflite file. Time and memory are limited by the file's size,
      whatever is in it.
  """
  name, data = _read(source)
  if len(data) < 8 or data[4:8] != b'TFL3':
    raise FileError(f'{name} is not a .tflite file (its identifier is not TFL3).')
  try:
    _check_extent(data)
    model = schema.ModelT.InitFromPackedBuf(bytearray(data), 0)
    _check_indices(model)
  except Exception:
    # The generated parser follows offsets without checking them and fails in whatever way the bytes lead to.
    raise FileError(f'{name} is corrupt: its tables cannot be read.') from None
  return model


def _read(source):
  """(what messages call it, bytes)"""
  if isinstance(source, (bytes, bytearray)):
    return 'this file', bytes(source)
  return str(source), files.read(source, LARGEST, 'model for a device')


def _check_extent(data):
  """Refuses files whose tables would take far more memory than the file.

  Offsets may lead to the same table many times, so that a few kilobytes unpack to more than any memory holds. What is
  counted here, without unpacking anything, is what grows: tables in vectors, texts, and lists of numbers that are gone
  through. Writers that store equal lists once are allowed for.
  """
  # A table and the offset that leads to it take 8 bytes at least.
  tables, contents = min(MOST_TABLES, 1 + len(data) // 8), 4 * len(data)

  def visit(table):
    nonlocal tables, contents
    tables -= 1
    kind = type(table).__name__
    contents -= sum(len(getattr(table, field)() or b'') for field in _TEXTS.get(kind, ()))
    contents -= sum(getattr(table, f'{field}Length')() for field in _NUMBERS.get(kind, ()))
    if min(tables, contents) < 0:
      raise ValueError
    for field in _VECTORS.get(kind, ()):
      if getattr(table, f'{field}Length')() > tables:
        raise ValueError
      for position in range(getattr(table, f'{field}Length')()):
        visit(getattr(table, field)(position))
    for field in _TABLES.get(kind, ()):
      child = getattr(table, field)()
      if child is not None:
        visit(child)
    for field, kinds in _UNIONS.get(kind, ()):
      options, union = kinds.get(getattr(table, f'{field}Type')()), getattr(table, field)()
      if options is not None and union is not None:
        child = options()
        child.Init(union.Bytes, union.Pos)
        visit(child)

  visit(schema.Model.GetRootAs(bytearray(data), 0))


def _check_indices(model):
  """Raises something unless every index of a model points to something, and no vector has holes."""
  codes, buffers, graphs = len(model.operatorCodes or ()), len(model.buffers or ()), model.subgraphs
  if not graphs:
    raise ValueError
  for graph in graphs:
    tensors = len(graph.tensors)
    for tensor in graph.tensors:
      _within([tensor.buffer], 0, buffers)
    _within(graph.inputs, 0, tensors)
    _within(graph.outputs, 0, tensors)
    for operator in graph.operators or ():
      _within([operator.opcodeIndex], 0, codes)
      _within(operator.inputs, -1, tensors)  # -1 stands for an optional input that is not there.
      _within(operator.outputs, 0, tensors)
  for signature in model.signatureDefs or ():
    _within([signature.subgraphIndex], 0, len(graphs))
    for named in [*(signature.inputs or ()), *(signature.outputs or ())]:
      _within([named.tensorIndex], 0, len(graphs[signature.subgraphIndex].tensors))
  for entry in model.metadata or ():
    _within([entry.buffer], 0, buffers)


def _within(indices, low, high):
  if indices is not None and len(indices) and not (low <= min(indices) and max(indices) < high):
    raise ValueError


def operator_name(model: Any, operator: Any) -> str:
  """'CONV_2D', or 'FLEX:Relu' / 'CUSTOM:name' for what the built-in runtime does not have."""
  code = model.operatorCodes[operator.opcodeIndex]
  builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
  if builtin == schema.BuiltinOperator.CUSTOM:
    custom = (code.customCode or b'')[:LONGEST_NAME].decode('utf-8', 'replace')
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
  def foreign(self) -> list[str]:
    """Names of operators that need more than the built-in runtime."""
    return [name for name in self.counts if ':' in name]


def operators(source: Any) -> Operators:
  """Counts the operators of a file (path, bytes or `ModelT`)."""
  model = source if isinstance(source, schema.ModelT) else load(source)
  counts = collections.Counter(operator_name(model, operator) for graph in model.subgraphs
                               for operator in graph.operators or ())
  return Operators(dict(sorted(counts.items())))


def signatures(model: Any) -> dict:
  """What goes into the signatures of a `ModelT` and comes out.

  Returns:
    {signature: {'inputs': {name: {'dtype', 'shape', 'scale', 'zero_point'}}, 'outputs': {…}}}. A value v of an 8-bit
    tensor stands for scale · (v - zero_point); scale is None where values are what they are.
  """
  return {_text(definition.signatureKey): {
      side: {_text(named.name): _described(model.subgraphs[definition.subgraphIndex].tensors[named.tensorIndex])
             for named in entries or ()}
      for side, entries in (('inputs', definition.inputs), ('outputs', definition.outputs))}
          for definition in model.signatureDefs or ()}


def _text(name):
  return (name or b'').decode('utf-8', 'replace')


def _described(tensor):
  quantization = tensor.quantization
  scales = None if quantization is None else quantization.scale
  scale = None if scales is None or not len(scales) else scales[0]
  return {'dtype': _DTYPES.get(tensor.type, f'type {tensor.type}'),
          'shape': [] if tensor.shape is None else [int(size) for size in tensor.shape],
          'scale': float(scale) if scale else None, 'zero_point': int(quantization.zeroPoint[0]) if scale else None}


_VARIABLES = {'CALL_ONCE', 'VAR_HANDLE', 'READ_VARIABLE', 'ASSIGN_VARIABLE'}


def remembering(model: Any, variables: bool) -> list[str]:
  """Names of operators of a `ModelT` that keep something from one call to the next, sorted.

  Args:
    model: `ModelT`
    variables: whether the operators of variables, which the graph reads and writes by name, are meant to be there.
  """
  found = set()
  for graph in model.subgraphs:
    for operator in graph.operators or ():
      name = operator_name(model, operator)
      inputs = operator.inputs if operator.inputs is not None else ()
      kept = any(graph.tensors[index].isVariable for index in inputs if index >= 0)
      if kept or (name in _VARIABLES and not variables):
        found.add(name)
  return sorted(found)


def min_runtime_version(source: Any) -> str:
  """The oldest TensorFlow Lite that has every operator of a file, as its converter noted: '2.14.0'; '1.5.0' without a
  note."""
  model = source if isinstance(source, schema.ModelT) else load(source)
  for entry in model.metadata or ():
    content = model.buffers[entry.buffer].data
    if entry.name == b'min_runtime_version' and content is not None:
      text = bytes(content).rstrip(b'\0').decode('ascii', 'replace')
      if re.fullmatch(r'\d{1,3}(\.\d{1,3}){1,3}', text):
        return text
  return '1.5.0'


def compact(data: bytes) -> bytes:
  """The same model in fewer bytes: without the names of inner tensors, with one empty buffer, equal data only once.

  What a graph of many small operators takes most of is not its constants. The inputs and outputs of signatures are
  named as the signatures name them.

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

  def CreateNumpyVector(self, x):
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
