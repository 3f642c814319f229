"""A plan's files in LiteRT: the model of a message, training, and an update as a frame."""

from collections.abc import Mapping
import contextlib
import dataclasses
from typing import Any

import numpy as np

from tff_compress import codec as codec_lib
from tff_compress import wire
from tff_compress.codec import random
from tff_compress.codec.codec import Codec
from tff_compress.codec.errors import PayloadError
from tff_compress.codec.spec import Spec
from tff_compress.device.errors import DeviceError
from tff_compress.simulation import splits
from tff_compress.timeline.whole import FLOAT32
from tff_compress.timeline.whole import WholeRules
from tflite_export import interpreters
from tflite_export import plans
from tflite_export.encoder import host
from tflite_export.encoder.requests import derive
from tflite_export.encoder.requests import draw
from tflite_export.encoder.requests import Request

VERSION = '2.17.0'
"""Of TensorFlow Lite. LiteRT counts anew from 1.0, which came after it."""

Weights = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Trained:
  """Attributes:
    weights: {variable: float32 array}.
    loss: mean over the last pass, each batch as its examples count.
  """
  weights: Weights
  loss: float


class Runtime:
  """Args:
    manifest: of a plan, as `plans.read_form` gives it.
    files: {role: bytes} of the training, encoder and decoder files, the last where the plan has one.

  Raises:
    FileError: the manifest or a file is not what it should be.
  """

  def __init__(self, manifest: dict, files: Mapping[str, bytes]) -> None:
    plans.check_form(manifest)
    self._manifest = manifest
    self.spec: Spec = plans.spec_of(manifest)
    self.uplink: Codec = codec_lib(manifest['uplink']['codec'])
    self.downlink: Codec = codec_lib((manifest['downlink'] or {}).get('codec', FLOAT32))
    self.history = WholeRules(self.downlink.fingerprint(self.spec))
    with interpreters.quiet():
      self._interpreters = {role: interpreters.Interpreter(data, 'litert') for role, data in files.items()}
    self._ran: set[tuple[str, str]] = set()

  @property
  def fingerprint(self) -> str:
    """8 hexadecimal digits of uplink and model."""
    return self.uplink.fingerprint(self.spec).hex()

  def model(self, frame: bytes, seed: int) -> Weights:
    """The weights in a frame of the server. Raises PayloadError."""
    found = wire.read_header(frame)
    if 'decoder' not in self._interpreters:
      return wire.unpack(self.downlink, frame, self.spec, seed=seed, client=random.SHARED_CLIENT)[0]
    if found.fingerprint != self.history.fingerprint or found.client != random.SHARED_CLIENT:
      raise PayloadError('the frame is not one of the model of this plan.')
    inputs, others = host.start(self.downlink, self.spec, found.payload)
    entry = self._manifest['files']['decoder']
    outputs = self._run('decoder', 'decode', **inputs, **_random(entry, seed, found.round, found.client))
    if not np.all(outputs['valid']):
      raise PayloadError('the frame holds a scale or a range that no encoder sends.')
    arrays = {item['name']: outputs[item['array']] for item in entry['variables']}
    return {t.name: np.asarray({**arrays, **others}[t.name] if t.size else np.zeros(0, np.float32)).reshape(t.shape)
            for t in self.spec.tensors}

  def train(self, weights: Weights, x: np.ndarray, y: np.ndarray, *, epochs: int, learning_rate: float | None,
            order: tuple[int, ...]) -> Trained:
    """Trains from these weights.

    Args:
      weights: {variable: array}.
      x, y: examples, as the file's `train` takes them.
      epochs: passes over them.
      learning_rate: None for the plan's.
      order: whole numbers that the order of examples follows from.

    Raises:
      DeviceError: the examples are not such as the plan trains on, or there is no learning rate.
    """
    entry = self._manifest['files']['training']
    batch, rate = entry['batch_size'], entry['learning_rate'] if learning_rate is None else learning_rate
    inputs = entry['signatures']['train']['inputs']
    if rate is None:
      raise DeviceError('the plan has no learning rate, and the server named none.')
    for name, array in (('x', x), ('y', y)):
      if name not in inputs or list(array.shape[1:]) != inputs[name]['shape'][1:]:
        raise DeviceError(f'the plan trains on other data: {name} of these examples has shape '
                          f'{list(array.shape[1:])}.')
    self._run('training', 'set_weights', **{name: np.asarray(value, np.float32) for name, value in weights.items()})
    generator, loss = splits.generator('device/batches', order), 0.0
    for _ in range(epochs):
      shuffled, total = generator.permutation(len(x)), 0.0
      for start in range(0, len(x), batch):
        chosen = shuffled[start:start + batch]
        values = {'x': _filled(x[chosen], batch, inputs['x']), 'y': _filled(y[chosen], batch, inputs['y']),
                  'sample_weight': _filled(np.ones(len(chosen)), batch, inputs['sample_weight']),
                  'learning_rate': np.asarray([rate], np.float32)}
        if 'noise' in inputs:
          values['noise'] = np.ones(1, np.float32)
        total += len(chosen) * float(self._run('training', 'train', **values)['loss'].reshape(-1)[0])
      loss = total / len(x)
    unused = np.zeros(entry['signatures']['get_weights']['inputs']['unused']['shape'], np.int32)
    found = self._run('training', 'get_weights', unused=unused)
    return Trained({t.name: found[t.name].reshape(t.shape).copy() for t in self.spec.tensors}, loss)

  def encode(self, update: Weights, residuals: Weights, *, seed: int, round: int,
             client: int) -> tuple[bytes, Weights]:
    """An update as a frame.

    Args:
      update: {variable: float32 array}.
      residuals: {name of an input: array} of the message before; {} for zeros.
      seed, round, client: as for `Codec.encode`.

    Returns:
      (the frame, the residuals to keep once it is counted; {} where the plan has none)

    Raises:
      UpdateError: the update holds what is not finite.
    """
    entry = self._manifest['files']['encoder']
    inputs = {item['array']: np.asarray(update[item['name']], np.float32).reshape(-1) for item in entry['variables']}
    names = [item['residual'] for item in entry['variables'] if item['residual'] is not None]
    sizes = {item['name']: item['size'] for item in entry['inputs']}
    inputs |= {name: residuals[name] if name in residuals and residuals[name].size == sizes[name]
               else np.zeros(sizes[name], np.float32) for name in names}
    outputs = self._run('encoder', 'encode', **inputs, **_random(entry, seed, round, client))
    others = {t.name: update[t.name] for t in self.spec.tensors if not t.is_float}
    payload = host.finish(self.uplink, self.spec, outputs, others)
    frame = wire.framed(wire.Frame(self.uplink.fingerprint(self.spec), round, client, payload))
    return frame, {name: outputs[name].copy() for name in names}

  def _run(self, role: str, signature: str, **inputs: Any) -> dict[str, np.ndarray]:
    # The first time, a signature says which delegate it uses.
    with contextlib.nullcontext() if (role, signature) in self._ran else interpreters.quiet():
      outputs = self._interpreters[role].run(signature, **inputs)
    self._ran.add((role, signature))
    return outputs


def _random(entry: dict, seed: int, round: int, client: int) -> dict[str, np.ndarray]:
  """{name: array} of the inputs that random numbers are made of."""
  requests = [Request(r['scope'], r['name'], r['purpose'], r['chunk'], r['words']) for r in entry['requests']]
  keys = derive(requests, seed=seed, round=round, client=client)
  if entry['words'] == 'passed':
    return {described['input']: draw(request, key)
            for described, request, key in zip(entry['requests'], requests, keys)}
  return {'keys': keys.reshape(-1)} if requests else {}


def _filled(rows: np.ndarray, batch: int, described: dict) -> np.ndarray:
  """Rows, and zeros up to a whole batch, in the dtype of an input."""
  found = np.zeros((batch, *rows.shape[1:]), described['dtype'])
  found[:len(rows)] = rows
  return found
