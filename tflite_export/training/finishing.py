"""The last touches to a converted file: readable names, random numbers without a seed, and nothing that varies."""

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

from tflite_export import flatbuffer


def finish(data, signatures):
  """Gives inputs and outputs their names.

  TensorFlow allows only some characters in names of arguments; the file itself allows all, so variables keep their names.

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
  builder = flatbuffers.Builder(len(data))
  builder.Finish(model.Pack(builder), b'TFL3')
  return bytes(builder.Output())
