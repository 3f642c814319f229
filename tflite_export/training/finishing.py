"""The last touches to a converted file: readable names, random numbers without a seed, and nothing that varies."""

from ai_edge_litert import schema_py_generated as schema
import flatbuffers
import numpy as np

from tflite_export import flatbuffer


def finish(data: bytes, signatures: dict) -> bytes:
  """Gives inputs and outputs their names.

  TensorFlow allows only some characters in names of arguments; the file itself allows all, so variables keep their
  names.

  Args:
    data: bytes of a file whose inputs are a0000, a0001, … and outputs r0000, ….
    signatures: {signature: object with lists `inputs` and `outputs`}.

  Returns:
    bytes
  """
  model = flatbuffer.load(data)
  for definition in model.signatureDefs:
    names = signatures[definition.signatureKey.decode()]
    for entries, wanted in ((definition.inputs, names.inputs), (definition.outputs, names.outputs)):
      for entry in entries:
        entry.name = wanted[int(entry.name[1:])].encode()
      entries.sort(key=lambda entry: wanted.index(entry.name.decode()))
  model.signatureDefs.sort(key=lambda definition: definition.signatureKey)
  for graph in model.subgraphs:
    for operator in graph.operators or ():
      if operator.builtinOptionsType == schema.BuiltinOptions.RandomOptions:
        # Zeros let each run draw its own numbers. Keras puts a random number here.
        operator.builtinOptions.seed = operator.builtinOptions.seed2 = 0
    for tensor in graph.tensors:
      tensor.name = b''
  _fill(model)
  builder = flatbuffers.Builder(len(data))
  builder.Finish(model.Pack(builder), b'TFL3')
  return bytes(builder.Output())


def _fill(model):
  """Computes initial values that are all the same, such as the zeros of an optimizer's slots, instead of storing
  them."""
  codes = [_builtin(code) for code in model.operatorCodes]
  replaced = set()
  for graph in model.subgraphs:
    added = []
    for position, operator in enumerate(graph.operators or ()):
      if codes[operator.opcodeIndex] != schema.BuiltinOperator.ASSIGN_VARIABLE:
        continue
      tensor = graph.tensors[operator.inputs[1]]
      value = _uniform(model, tensor)
      if value is not None:
        added.append((position, operator, operator.inputs[1], value))
    for position, operator, _, value in reversed(added):
      graph.operators.insert(position, _filling(model, graph, operator, value))
    read = {index for operator in graph.operators or () for index in operator.inputs}
    for index in {index for _, _, index, _ in added} - read:
      replaced.add(graph.tensors[index].buffer)
      graph.tensors[index].buffer = 0
  used = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
  for index in replaced - used:
    model.buffers[index].data = None


SMALLEST = 256
"""Bytes from which on computing a value takes less of the file than storing it."""


def _uniform(model, tensor):
  """The value of a float constant whose elements are all the same bits; None for other tensors."""
  data = model.buffers[tensor.buffer].data
  if data is None or len(data) < SMALLEST or tensor.type != schema.TensorType.FLOAT32:
    return None
  words = np.frombuffer(bytes(data), '<u4')
  return words[:1].tobytes() if np.all(words == words[0]) else None


def _filling(model, graph, operator, value):
  """Gives the operator another input, and returns the operator that computes it."""
  tensor = graph.tensors[operator.inputs[1]]
  def constant(shape, kind, data):
    made = schema.TensorT()
    made.shape, made.type, made.name, made.buffer = np.array(shape, np.int32), kind, b'', len(model.buffers)
    model.buffers.append(schema.BufferT())
    model.buffers[-1].data = np.frombuffer(data, np.uint8)
    graph.tensors.append(made)
    return len(graph.tensors) - 1
  shape = constant([len(tensor.shape)], schema.TensorType.INT32, np.asarray(tensor.shape, '<i4').tobytes())
  scalar = constant([], schema.TensorType.FLOAT32, value)
  result = schema.TensorT()
  result.shape, result.type, result.name, result.buffer = tensor.shape, tensor.type, b'', 0
  graph.tensors.append(result)
  operator.inputs = np.array([operator.inputs[0], len(graph.tensors) - 1], np.int32)
  made = schema.OperatorT()
  made.opcodeIndex = _fill_code(model)
  made.inputs, made.outputs = np.array([shape, scalar], np.int32), operator.inputs[1:]
  made.builtinOptionsType, made.builtinOptions = schema.BuiltinOptions.FillOptions, schema.FillOptionsT()
  return made


def _fill_code(model):
  for index, code in enumerate(model.operatorCodes):
    if _builtin(code) == schema.BuiltinOperator.FILL:
      return index
  code = schema.OperatorCodeT()
  code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FILL
  code.version = 1
  model.operatorCodes.append(code)
  return len(model.operatorCodes) - 1


def _builtin(code):
  return max(code.builtinCode, code.deprecatedBuiltinCode)
