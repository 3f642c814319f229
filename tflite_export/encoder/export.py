"""`export_encoder` and `export_decoder`: a codec and a spec in, one .tflite file out."""

from collections.abc import Mapping
import dataclasses
import hashlib
import os
import pathlib
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tff_compress.codec import meaning
from tff_compress.codec.codec import Codec
from tff_compress.codec.spec import SpecSource
from tflite_export import conversion
from tflite_export import files
from tflite_export import flatbuffer
from tflite_export.encoder import graph
from tflite_export.encoder import networks
from tflite_export.encoder import requests
from tflite_export.encoder import streams
from tflite_export.encoder.layout import Array
from tflite_export.encoder.layout import Layout
from tflite_export.encoder.ops import TFLiteOps
from tflite_export.errors import ExportError
from tflite_export.errors import FileError

WORDS = ('inside', 'passed')

PIECES = 'pieces'
"""The signature that gives what a network takes."""


@dataclasses.dataclass(frozen=True, eq=False)
class Export:
  """An encoder or a decoder.

  Attributes:
    signature: 'encode' or 'decode', the name of its one signature.
    data: bytes of the .tflite file.
    path: pathlib.Path of the file, or None.
    layout: `Layout`.
    requests: tuple of `Request`: the keys that an app derives, in order.
    words: 'inside' where the file makes its random numbers out of the keys, 'passed' where the app makes them.
    error_feedback: whether residuals go in and come out.
    inputs, outputs: tuples of `Array`.
    operators: {operator: how often}.
    network: `networks.Network`, which computes the first stages in int8; None if this file computes everything.
    network_path: pathlib.Path of its file, or None.
    pieces_inputs: tuple of `Array`: what the signature 'pieces' takes, if there is a network.
  """
  signature: str
  data: bytes
  path: pathlib.Path | None
  layout: Layout
  requests: tuple
  words: str
  error_feedback: bool
  inputs: tuple
  outputs: tuple
  operators: dict
  network: networks.Network | None = None
  network_path: pathlib.Path | None = None
  pieces_inputs: tuple = ()

  def random_inputs(self, *, seed: int, round: int, client: int) -> dict[str, np.ndarray]:
    """{name: array} of the inputs that random numbers are made of, for one message; arguments as for `Codec.encode`."""
    keys = requests.derive(self.requests, seed=seed, round=round, client=client)
    if self.words == 'passed':
      return {array.name: requests.draw(request, key)
              for array, request, key in zip(_random_arrays(self.requests, self.words), self.requests, keys)}
    return {'keys': keys.reshape(-1)} if self.requests else {}

  def update_inputs(self, update: Mapping[str, npt.ArrayLike], signature: str = 'encode') -> dict[str, np.ndarray]:
    """{name: array} of what a signature of an encoder takes of an update; without the residuals.

    Raises:
      SpecError: the update does not fit the spec.
    """
    self.layout.spec.check(update)
    inputs = self.inputs if signature == 'encode' else self.pieces_inputs
    return {array.name: np.asarray(update[self.layout.spec.tensors[i].name]).astype(np.float32).reshape(-1)
            for i, array in self.layout.variables.items() if array in inputs}

  def describe(self) -> dict[str, Any]:
    """Everything an app needs to know about the file, as a dict for JSON."""
    layout = self.layout
    parts = {part.index: part for part in layout.parts}
    names = [tensor.name for tensor in layout.spec.tensors]
    segments = []
    for index, segment in enumerate(layout.plan.segments):
      entry = {'name': segment.name, 'variables': [names[i] for i in segment.tensors], 'size': segment.size,
               'codec': None if segment.pipeline is None else str(segment.pipeline)}
      if index in parts:
        part, pipeline = parts[index], parts[index].segment.pipeline
        stages, signal = pipeline.stages, pipeline.signals(segment.size)[pipeline.coder]
        entry['values'] = part.values.name
        entry['coder'] = None if part.is_bytes else str(stages[pipeline.coder])
        entry['alphabet'] = None if part.is_bytes else [signal.low, signal.high]
        entry['sides'] = [{'array': array.name, 'stage': str(stages[t]), 'name': side.name, 'width': side.width,
                           'below': side.below if side.width is None else None} for t, side, array in part.sides]
      segments.append(entry)
    arrays = _random_arrays(self.requests, self.words)
    requests = []
    for r, request in enumerate(self.requests):
      entry = {**dataclasses.asdict(request), 'input': arrays[r if self.words == 'passed' else 0].name}
      requests.append(entry)
    return {
        'signature': self.signature,
        'codec': str(layout.codec),
        'fingerprint': layout.codec.fingerprint(layout.spec).hex(),
        'bytes': len(self.data),
        'sha256': hashlib.sha256(self.data).hexdigest(),
        'operators': dict(self.operators),
        'words': self.words,
        'error_feedback': self.error_feedback,
        'inputs': [dataclasses.asdict(array) for array in self.inputs],
        'outputs': [dataclasses.asdict(array) for array in self.outputs],
        'variables': [{'name': names[i], 'array': array.name,
                       'residual': layout.residuals[i].name if self.error_feedback else None}
                      for i, array in layout.variables.items()],
        'segments': segments,
        'requests': requests,
        **({} if self.network is None else {'pieces': self._describe_pieces(), 'network': self.network.describe()}),
    }

  def _describe_pieces(self):
    outputs = [tensor.array for tensor in self.network.inputs.values()]
    return {'signature': PIECES, 'inputs': [dataclasses.asdict(array) for array in self.pieces_inputs],
            'outputs': [dataclasses.asdict(array) for array in (*outputs, _VALID)]}


def export_encoder(codec: Codec | str, spec: SpecSource, *, path: str | os.PathLike[str] | None = None,
                   overwrite: bool = False, words: str = 'inside', error_feedback: bool | None = None,
                   representative_data: Any = None, network_path: str | os.PathLike[str] | None = None) -> Export:
  """Exports what computes with real values in a codec: from an update to symbols and side values.

  The rest, coders and frame, is integer arithmetic on them that an app does: `finish` is that in NumPy.

  Args:
    codec: `Codec` or its text.
    spec: `Spec`, Keras model or mapping of name to array.
    path: where to write the file; None for not at all.
    overwrite: whether a file at that path may be replaced.
    words: 'inside' if the file makes its random numbers from keys, 'passed' if the app passes in the streams' words.
    error_feedback: whether what a message leaves out is an output, and an input of the next message; None: as a preset
      is meant, and not for other codecs.
    representative_data: updates, float[n, d], all values of the float variables one variable after the other, for a
      codec with an autoencoder: then its network is computed in int8, in a file of its own. The encoder gets a second
      signature, `pieces`, whose outputs go into the network, and its signature `encode` takes what the network gives in
      the place of the variables.
    network_path: where to write the network's file; None for not at all.

  Returns:
    `Export`

  Raises:
    CompressionError: no such codec, or one that does not fit the spec.
    ExportError: a stage of the codec cannot be expressed with built-in operators, or its network not in int8.
    FileError: a path is taken.
  """
  error_feedback = remembers(codec, error_feedback)
  layout = Layout(codec, spec)
  network, more = None, {}
  if representative_data is not None:
    _check_paths(path, network_path, overwrite)
    network = networks.quantized(layout, representative_data)
    pieces_inputs = _inputs(layout, _apart(layout, network), error_feedback)
    more[PIECES] = pieces_inputs, lambda arrays: graph.pieces(layout, arrays, network, error_feedback)
  elif network_path is not None:
    raise ExportError('a network in int8 is measured with examples: give updates as representative_data.')
  parts = _encoder(layout, error_feedback, network)
  made = _export('encode', layout, parts, path, overwrite, words, error_feedback, more)
  if network is None:
    return made
  if network_path is not None:
    network_path = files.write(network_path, network.data, overwrite)
  return dataclasses.replace(made, network=network, network_path=network_path, pieces_inputs=tuple(pieces_inputs))


def remembers(codec: Codec | str, error_feedback: bool | None) -> bool:
  """Whether a codec (`Codec` or text) is used with error feedback: as asked for, or, for None, as a preset is meant."""
  return meaning.needing_feedback(codec) is not None if error_feedback is None else error_feedback


def interface(signature: str, codec: Codec | str, spec: SpecSource, *, words: str,
              error_feedback: bool = False) -> Export:
  """What `describe` says of an encoder or a decoder apart from its file, which is not made.

  Args:
    signature: 'encode' or 'decode'.
    codec, spec, words, error_feedback: as for `export_encoder`, without a network of its own.

  Returns:
    `Export` without data and operators.

  Raises:
    CompressionError, ExportError: as for `export_encoder`.
  """
  layout = Layout(codec, spec)
  parts = _encoder(layout, error_feedback) if signature == 'encode' else _decoder(layout)
  return _interface(signature, layout, parts, words, error_feedback)[0]


def _encoder(layout, error_feedback, network=None):
  """(inputs, outputs, function of {name: tensor} and keys to the outputs) of the signature `encode`."""
  # What is left out of a message is known from the variables alone.
  apart = () if error_feedback else _apart(layout, network)
  inputs = _inputs(layout, [i for i in layout.variables if i not in apart], error_feedback)
  outputs = [*layout.encoded_arrays, _VALID, *(layout.residuals.values() if error_feedback else ())]
  if network:
    inputs += [tensor.array for tensor in network.outputs.values()]
  return inputs, outputs, lambda arrays, keys: graph.encode(layout, arrays, keys, error_feedback, network)


def _decoder(layout):
  """As `_encoder`, of the signature `decode`."""
  outputs = [*layout.variables.values(), _VALID]
  return list(layout.encoded_arrays), outputs, lambda arrays, keys: graph.decode(layout, arrays, keys)


def _apart(layout, network):
  """Positions in the spec of the variables that go through a network, or None, in a file of its own."""
  return [i for part in layout.parts if network and part.index in network.inputs for i in part.variables]


def _inputs(layout, positions, error_feedback):
  """List of `Array`: variables at these positions in the spec, and their residuals."""
  residuals = [layout.residuals[i] for i in positions] if error_feedback else []
  return [layout.variables[i] for i in positions] + residuals


def _check_paths(path, network_path, overwrite):
  """Refuses paths that two files could not be written to, before any long work is done."""
  for wanted in filter(None, (path, network_path)):
    files.check_free(wanted, overwrite)
  if None not in (path, network_path) and pathlib.Path(path).resolve() == pathlib.Path(network_path).resolve():
    raise ExportError(f'the encoder and its network are two files, and {path} is one: name another one for the '
                      'network.')


def export_decoder(codec: Codec | str, spec: SpecSource, *, path: str | os.PathLike[str] | None = None,
                   overwrite: bool = False, words: str = 'inside') -> Export:
  """Exports the inverse, for messages from the server: symbols and side values in, float32 variables out.

  `start` is what an app does before, in NumPy. Arguments and errors are those of `export_encoder`.
  """
  layout = Layout(codec, spec)
  return _export('decode', layout, _decoder(layout), path, overwrite, words, False)


_VALID = Array('valid', 'int32', 1)

# Graphs of more operations than this are announced, as they take more than a few seconds.
_MANY = 5000


def _random_arrays(requests, words):
  if words == 'passed':
    return [Array(f'words_{r}', 'int32', request.words) for r, request in enumerate(requests)]
  return [Array('keys', 'int32', 2 * len(requests))] if requests else []


def _interface(signature, layout, parts, words, error_feedback):
  """(`Export` without its file, how many operations its graph has); `parts` are those of `_encoder` or `_decoder`."""
  if words not in WORDS:
    raise ExportError(f'words are {" or ".join(WORDS)}, not {words!r}.')
  networks.check_sizes(layout)
  inputs, outputs, build = parts
  recorder = streams.Recorder()
  with tf.Graph().as_default() as traced:
    build({array.name: tf.compat.v1.placeholder(array.dtype, [array.size]) for array in inputs},
          lambda xp: recorder)
  requests = recorder.requests
  described = Export(signature, b'', None, layout, requests, words, error_feedback,
                     (*inputs, *_random_arrays(requests, words)), tuple(outputs), {})
  return described, len(traced.get_operations())


def _export(signature, layout, parts, path, overwrite, words, error_feedback, more=None):
  """Makes a file of one signature and, {name: (inputs, function of {name: tensor})}, `more` that draw nothing."""
  if path is not None:
    files.check_free(path, overwrite)
  described, operations = _interface(signature, layout, parts, words, error_feedback)
  requests, build = described.requests, parts[-1]
  if operations > _MANY:
    # It takes some milliseconds for each.
    print(f'{signature}r: converting {operations:,} operations; a codec that starts with concat makes fewer',
          file=sys.stderr, flush=True)

  def function(**arrays):
    def keys(xp):
      drawn = ([arrays[f'words_{r}'] for r in range(len(requests))] if words == 'passed'
               else streams.generate(xp, requests, arrays.get('keys')))
      return streams.Words(requests, drawn)
    return build(arrays, keys)

  functions = {signature: _concrete(function, described.inputs)}
  for name, (inputs, made) in (more or {}).items():
    functions[name] = _concrete(lambda made=made, **arrays: made(arrays), inputs)
  try:
    data = conversion.convert(tf.Module(), functions)
  except FileError:
    raise
  except ExportError as error:
    stage = _culprit(layout)
    if stage is None:
      raise
    raise ExportError(f'{stage} needs an operator that the built-in runtime does not have, so choose another stage: '
                      f'{error}') from error
  data = flatbuffer.compact(data)
  if path is not None:
    path = files.write(path, data, overwrite)
  return dataclasses.replace(described, data=data, path=path, operators=flatbuffer.operators(data).counts)


def _concrete(function, inputs):
  return tf.function(function, autograph=False).get_concrete_function(
      **{array.name: tf.TensorSpec([array.size], array.dtype, name=array.name) for array in inputs})


def _culprit(layout):
  """The first stage that cannot be converted when it stands alone; None if each of them can."""
  tried = set()
  for part in layout.parts:
    pipeline, size = part.segment.pipeline, part.segment.size
    for t in range(pipeline.coder):
      if (pipeline.stages[t], size) in tried:
        continue
      tried.add((pipeline.stages[t], size))

      def alone(x, pipeline=pipeline, size=size, t=t):
        xp = TFLiteOps(tf.bitcast(x, tf.int32))
        values, sides = pipeline.encode_stages(xp, x, [t], size, streams.Recorder(), '')
        decoded = pipeline.decode_stages(xp, values, [{}] * t + sides, [t], size, streams.Recorder(), '')
        return {'values': decoded, **{name: array for arrays in sides for name, array in arrays.items()}}

      concrete = tf.function(alone, autograph=False).get_concrete_function(
          tf.TensorSpec([pipeline.signals(size)[t].size], tf.float32, name='x'))
      try:
        conversion.convert(tf.Module(), {'stage': concrete})
      except FileError:
        raise
      except ExportError:
        return pipeline.stages[t]
  return None
