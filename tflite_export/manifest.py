"""A plan: one folder with every file that a device needs to take part, and plan.json, which says what they are.

    plan.json          the manifest; docs/plan.md has its schema
    training.tflite    trains (tflite_export.training)
    encoder.tflite     update -> symbols and side values of the uplink's codec (tflite_export.encoder)
    decoder.tflite     symbols and side values of the downlink's codec -> weights
    inference.tflite   predicts (tflite_export.inference)

The same model and arguments give the same bytes.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import sys
import tempfile

from tff_compress import codec as codec_lib
from tflite_export import encoder as encoder_lib
from tflite_export import files
from tflite_export import flatbuffer
from tflite_export import inference as inference_lib
from tflite_export import training as training_lib
from tflite_export.errors import ExportError
from tflite_export.errors import FileError

FORMAT = 'tff-compress plan'
VERSION = 1
MANIFEST = 'plan.json'
LARGEST = 16 << 20
"""Bytes of the largest manifest that is read."""

ROLES = ('training', 'encoder', 'decoder', 'inference')


@dataclasses.dataclass(frozen=True)
class Plan:
  """A plan that was made or read.

  Attributes:
    path: pathlib.Path of its folder.
    manifest: what plan.json holds, a dict.
  """
  path: pathlib.Path
  manifest: dict

  @property
  def spec(self):
    """`Spec` of the variables that travel."""
    return codec_lib.Spec(tuple(codec_lib.TensorSpec(v['name'], tuple(v['shape']), v['dtype'])
                                for v in self.manifest['variables']))

  def file(self, role):
    """pathlib.Path of the file of a role; ExportError if the plan has none."""
    if role not in self.manifest['files']:
      raise ExportError(f'the plan {self.path} has no {role} file; it has {", ".join(self.manifest["files"])}.')
    return self.path / self.manifest['files'][role]['file']


def export_plan(model, *, uplink, downlink=None, path, overwrite=False, loss=None, optimizer=None, batch_size=32,
                proximal_mu=0., structure=None, words='inside', error_feedback=False, recipe=None,
                representative_data=None):
  """Makes a plan.

  Args:
    model: a built Keras model; see `export_training`.
    uplink: codec of the clients' updates, or its text.
    downlink: codec of the weights that the server sends, or its text; None: they are sent as float32, and there is no decoder.
    path: folder to make.
    overwrite: whether a plan that is there already may be replaced.
    loss, optimizer, batch_size, proximal_mu, structure: as for `export_training`.
    words, error_feedback: as for `export_encoder`.
    recipe: how the inference model is made, see `export_inference`; None: 'int8' with representative data, 'dynamic' without.
    representative_data: examples that calibrate an int8 model.

  Returns:
    `Plan`

  Raises:
    ExportError, CompressionError: see the exports.
    FileError: the folder is taken or cannot be made.
  """
  path = _check_free(path, overwrite)
  uplink = codec_lib(uplink)
  downlink = None if downlink is None else codec_lib(downlink)
  if recipe is None:
    recipe = 'dynamic' if representative_data is None else 'int8'
  spec = codec_lib.Spec.of(model)
  made = {}
  _say('the encoder')
  made['encoder'] = encoder_lib.export_encoder(uplink, spec, words=words, error_feedback=error_feedback)
  if downlink is not None:
    _say('the decoder')
    made['decoder'] = encoder_lib.export_decoder(downlink, spec, words=words)
  _say('the training model')
  made['training'] = training_lib.export_training(model, loss=loss, optimizer=optimizer, batch_size=batch_size,
                                                  proximal_mu=proximal_mu, structure=structure)
  for note in made['training'].notes:
    _say(note)
  _say('the inference model')
  made['inference'] = inference_lib.export_inference(model, recipe=recipe, representative_data=representative_data)
  manifest = _manifest(model, spec, uplink, downlink, batch_size, proximal_mu, made)
  text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False) + '\n'
  _write(path, {MANIFEST: text.encode(), **{f'{role}.tflite': made[role].data for role in made}}, overwrite)
  return Plan(path, json.loads(text))


def _say(what):
  print(f'plan: {what}', file=sys.stderr, flush=True)


def _manifest(model, spec, uplink, downlink, batch_size, proximal_mu, made):
  entries = {role: _file_entry(role, made[role].data) for role in ROLES if role in made}
  training = made['training']
  entries['training'] |= {
      'batch_size': batch_size, 'learning_rate': training.learning_rate, 'proximal_mu': proximal_mu,
      'weights': list(training.weights), 'state': list(training.state),
      'signatures': {name: {side: {key: {'dtype': dtype, 'shape': list(shape)} for key, (dtype, shape) in arrays.items()}
                            for side, arrays in signature.items()} for name, signature in training.signatures.items()},
  }
  for role in ('encoder', 'decoder'):
    if role in made:
      described = made[role].describe()
      # What the file's entry or the manifest says already.
      for key in ('bytes', 'sha256', 'operators', 'codec', 'fingerprint'):
        described.pop(key)
      entries[role] |= described
  inference = made['inference']
  entries['inference'] |= {'recipe': inference.recipe, 'inputs': inference.inputs, 'outputs': inference.outputs}
  versions = [entry['min_runtime_version'] for entry in entries.values()]
  return {
      'format': FORMAT, 'version': VERSION,
      'model': {'name': model.name, 'parameters': spec.parameters, 'float32_bytes': 4 * spec.parameters},
      'variables': [{'name': t.name, 'shape': list(t.shape), 'dtype': t.dtype} for t in spec.tensors],
      'uplink': _codec_entry(uplink, spec),
      'downlink': None if downlink is None else _codec_entry(downlink, spec),
      'min_runtime_version': max(versions, key=lambda text: [int(part) for part in text.split('.')]),
      'operators': sorted({name for entry in entries.values() for name in entry['operators']}),
      'files': entries,
  }


def _codec_entry(codec, spec):
  return {'codec': str(codec), 'fingerprint': codec.fingerprint(spec).hex()}


def _file_entry(role, data):
  model = flatbuffer.load(data)
  return {'file': f'{role}.tflite', 'bytes': len(data), 'sha256': hashlib.sha256(data).hexdigest(),
          'min_runtime_version': flatbuffer.min_runtime_version(model), 'operators': flatbuffer.operators(model).counts}


def _check_free(path, overwrite):
  path = pathlib.Path(path)
  if path.is_symlink() or (path.exists() and not path.is_dir()):
    raise FileError(f'{path} is a file: name a folder.')
  if path.exists() and any(path.iterdir()):
    if not overwrite:
      raise FileError(f'the folder {path} is not empty: name another one, or give overwrite=True.')
    strangers = sorted({entry.name for entry in path.iterdir()} - {MANIFEST, *(f'{role}.tflite' for role in ROLES)})
    if strangers:
      raise FileError(f'{path} holds {strangers[0]!r}, which is not part of a plan: name another folder.')
  if not path.absolute().parent.is_dir():
    raise FileError(f'the folder {path.absolute().parent} does not exist: make it first.')
  return path


def _write(path, contents, overwrite):
  """Makes the folder under another name, then renames it: it is there whole or not at all."""
  path = _check_free(path, overwrite)
  try:
    temporary = pathlib.Path(tempfile.mkdtemp(dir=path.absolute().parent, prefix=f'.{path.name}.'))
  except OSError as error:
    raise FileError(f'{path} cannot be made: {error.strerror or error}.') from None
  try:
    for name, data in contents.items():
      with open(temporary / name, 'wb') as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    os.chmod(temporary, 0o755)
    old = None
    if path.exists():
      old = pathlib.Path(tempfile.mkdtemp(dir=path.absolute().parent, prefix=f'.{path.name}.')) / 'old'
      os.rename(path, old)
    try:
      os.rename(temporary, path)
    except OSError:
      if old is not None:
        os.rename(old, path)
      raise
    finally:
      if old is not None:
        shutil.rmtree(old.parent, ignore_errors=True)
  except OSError as error:
    raise FileError(f'{path} cannot be written: {error.strerror or error}.') from None
  finally:
    with contextlib.suppress(FileNotFoundError):
      shutil.rmtree(temporary)


def load_plan(path):
  """Reads a plan and checks it: the manifest's form, and the size and SHA-256 of every file.

  Args:
    path: the plan's folder.

  Returns:
    `Plan`

  Raises:
    FileError: something is missing, damaged or of a later version.
  """
  path = pathlib.Path(path)
  text = files.read(path / MANIFEST, LARGEST, 'manifest of a plan')
  try:
    manifest = json.loads(text)
    if manifest['format'] != FORMAT:
      raise ValueError
    version = manifest['version']
  except (ValueError, KeyError, TypeError, RecursionError):
    raise FileError(f'{path / MANIFEST} is no manifest of a plan.') from None
  if version != VERSION:
    raise FileError(f'{path / MANIFEST} has version {version!r:.20}; this release reads version {VERSION}.')
  plan = Plan(path, manifest)
  try:
    _check_manifest(manifest)
    spec = plan.spec
    for direction in ('uplink', 'downlink'):
      entry = manifest[direction]
      if entry is not None and codec_lib(entry['codec']).fingerprint(spec).hex() != entry['fingerprint']:
        raise FileError(f"{path / MANIFEST}: the fingerprint of the {direction}'s codec is not that of its text.")
  except FileError:
    raise
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise FileError(f'{path / MANIFEST} is damaged: {" ".join(str(error).split())[:120] or type(error).__name__}.') from None
  for entry in manifest['files'].values():
    data = files.read(path / entry['file'], flatbuffer.LARGEST, 'model for a device')
    if len(data) != entry['bytes'] or hashlib.sha256(data).hexdigest() != entry['sha256']:
      raise FileError(f'{path / entry["file"]} is not the file that the manifest names: its SHA-256 differs.')
  return plan


def _check_manifest(manifest):
  """Raises ValueError or KeyError where a manifest lacks what this module reads."""
  entries = manifest['files']
  if not {'training', 'encoder', 'inference'} <= set(entries) <= set(ROLES):
    raise ValueError(f'it names the files {", ".join(sorted(entries))[:60]}')
  if ('decoder' in entries) != (manifest['downlink'] is not None):
    raise ValueError('a decoder and a downlink go together')
  for role, entry in entries.items():
    if entry['file'] != f'{role}.tflite':
      raise ValueError(f'the {role} file has another name')
    if not isinstance(entry['bytes'], int) or not isinstance(entry['sha256'], str):
      raise ValueError(f'the {role} file has no size or no SHA-256')
  if not isinstance(manifest['variables'], list):
    raise ValueError('the variables are no list')
