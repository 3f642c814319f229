"""A plan: one folder with every file that a device needs to take part, and plan.json, which says what they are.

    plan.json          the manifest; plan.schema.json is its JSON Schema, docs/plan.md the guide
    training.tflite    trains (tflite_export.training)
    encoder.tflite     update -> symbols and side values of the uplink's codec (tflite_export.encoder)
    decoder.tflite     symbols and side values of the downlink's codec -> weights
    inference.tflite   predicts (tflite_export.inference)

The same model and arguments give the same bytes.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import sys
from typing import Any

from tff_compress import codec as codec_lib
from tff_compress.codec import meaning
from tff_compress.codec.codec import Codec
from tff_compress.codec.errors import CompressionError
from tflite_export import files
from tflite_export import flatbuffer
from tflite_export import inference as inference_lib
from tflite_export import training as training_lib
from tflite_export.encoder import export as encoder_lib
from tflite_export.errors import FileError
from tflite_export.inference import recipes
from tflite_export.plans import check_form
from tflite_export.plans import FORMAT
from tflite_export.plans import LARGEST
from tflite_export.plans import MANIFEST
from tflite_export.plans import Plan
from tflite_export.plans import read_form
from tflite_export.plans import ROLES
from tflite_export.plans import VERSION


def export_plan(model: Any, *, uplink: Codec | str, downlink: Codec | str | None = None, path: str | os.PathLike[str],
                overwrite: bool = False, loss: Any = None, optimizer: Any = None, batch_size: int = 32,
                proximal_mu: float = 0., structure: Any = None, words: str = 'inside',
                error_feedback: bool | None = None, recipe: str | None = None, representative_data: Any = None) -> Plan:
  """Makes a plan.

  Args:
    model: a built Keras model; see `export_training`.
    uplink: codec of the clients' updates, or its text.
    downlink: codec of what the server sends, or its text: of the weights, or, if it is a preset that is meant for that,
      of what changed in them; None: the weights are sent as float32, and there is no decoder.
    path: folder to make.
    overwrite: whether a plan that is there already may be replaced.
    loss, optimizer, batch_size, proximal_mu, structure: as for `export_training`.
    words: as for `export_encoder`.
    error_feedback: whether clients keep what their messages leave out, and add it to the next; None: as a preset is
      meant.
    recipe: how the inference model is made, see `export_inference`; None: 'int8' with representative data, 'dynamic'
      without.
    representative_data: examples that calibrate an int8 model.

  Returns:
    `Plan`

  Raises:
    ExportError, CompressionError: see the exports.
    FileError: the folder is taken or cannot be written.
  """
  path = _check_free(path, overwrite)
  error_feedback = encoder_lib.remembers(uplink, error_feedback)
  meant = None if downlink is None else meaning.needing_changes(downlink)
  uplink = codec_lib(uplink)
  downlink = None if downlink is None else codec_lib(downlink)
  if recipe is None:
    recipe = 'dynamic' if representative_data is None else 'int8'
  spec = codec_lib.Spec.of(model)
  made: dict[str, Any] = {}
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
  chosen = Choices(
      name=model.name, learning_rate=made['training'].learning_rate, proximal_mu=float(proximal_mu),
      recipe=made['inference'].recipe, words=words, error_feedback=error_feedback, uplink=uplink, downlink=downlink,
      changes=None if meant is None else meant.changes)
  contents = {role: made[role].data for role in ROLES if role in made}
  manifest = _manifest(chosen, spec, contents)
  check_form(manifest)
  text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False) + '\n'
  written = {MANIFEST: text.encode(), **{f'{role}.tflite': data for role, data in contents.items()}}
  files.write_folder(_check_free(path, overwrite), written)
  return Plan(pathlib.Path(path), json.loads(text))


def _say(what):
  print(f'plan: {what}', file=sys.stderr, flush=True)


@dataclasses.dataclass(frozen=True)
class Choices:
  """What a manifest says that follows neither from the files nor from anything else in it.

  Attributes:
    name: of the model.
    learning_rate: of the optimizer; None where it follows a schedule.
    proximal_mu: FedProx's mu.
    recipe: text of the inference model's recipe.
    words, error_feedback: as for `export_encoder`.
    uplink, downlink: `Codec`; the downlink may be None.
    changes: what the downlink's messages hold: None for the weights, 'last' or 'start' for what changed since then.
  """
  name: str
  learning_rate: float | None
  proximal_mu: float
  recipe: str
  words: str
  error_feedback: bool
  uplink: Codec
  downlink: Codec | None
  changes: str | None

  @classmethod
  def of(cls, manifest: dict) -> 'Choices':
    """Those of a manifest that fits the schema. Raises CompressionError for a codec or a recipe that does not exist."""
    training, encoder, downlink = manifest['files']['training'], manifest['files']['encoder'], manifest['downlink']
    return cls(manifest['model']['name'], training['learning_rate'], training['proximal_mu'],
               str(recipes.parse(manifest['files']['inference']['recipe'])), encoder['words'],
               encoder['error_feedback'], codec_lib(manifest['uplink']['codec']),
               downlink and codec_lib(downlink['codec']), downlink and downlink['changes'])


def _manifest(chosen, spec, contents):
  """The manifest of files: both what is written, and what is to be found when a plan is read.

  Args:
    chosen: `Choices`.
    spec: `Spec` of the variables that travel.
    contents: {role: bytes}

  Raises:
    CompressionError: a codec does not fit the spec, or a file is none.
    FileError: a file has other inputs or outputs than what it should be.
  """
  models = {role: flatbuffer.load(data) for role, data in contents.items()}
  entries = {role: {'file': f'{role}.tflite', 'bytes': len(data), 'sha256': hashlib.sha256(data).hexdigest(),
                    'min_runtime_version': flatbuffer.min_runtime_version(models[role]),
                    'operators': flatbuffer.operators(models[role]).counts} for role, data in contents.items()}
  signatures = {role: flatbuffer.signatures(model) for role, model in models.items()}
  entries['training'] |= _training_entry(chosen, spec, signatures['training'])
  entries['encoder'] |= _codec_entry('encode', chosen, spec, signatures['encoder'])
  if 'decoder' in entries:
    entries['decoder'] |= _codec_entry('decode', chosen, spec, signatures['decoder'])
  entries['inference'] |= {'recipe': chosen.recipe, **_signature(signatures['inference'], 'infer', 'inference')}
  versions = [entry['min_runtime_version'] for entry in entries.values()]
  residuals = [4 * tensor.size for tensor in spec.tensors if tensor.is_float]

  def named(codec):
    return {'codec': str(codec), 'fingerprint': codec.fingerprint(spec).hex()}
  return {
      'format': FORMAT, 'version': VERSION,
      'model': {'name': chosen.name, 'parameters': spec.parameters, 'float32_bytes': 4 * spec.parameters},
      'variables': [{'name': t.name, 'shape': list(t.shape), 'dtype': t.dtype} for t in spec.tensors],
      'uplink': {**named(chosen.uplink),
                 'error_feedback': {'residual_bytes': sum(residuals)} if chosen.error_feedback else None},
      'downlink': chosen.downlink and {**named(chosen.downlink), 'changes': chosen.changes},
      'min_runtime_version': max(versions, key=lambda text: [int(part) for part in text.split('.')]),
      'operators': sorted({name for entry in entries.values() for name in entry['operators']}),
      'files': entries,
  }


def _training_entry(chosen, spec, signatures):
  found = {name: {side: {key: {'dtype': tensor['dtype'], 'shape': tensor['shape']} for key, tensor in tensors.items()}
                  for side, tensors in signature.items()} for name, signature in signatures.items()}
  for name in ('train', 'infer', 'get_weights', 'set_weights'):
    _signature(found, name, 'training')
  weights = found['get_weights']['outputs']
  # A number is an array of one in a file.
  if (weights != {t.name: {'dtype': 'float32', 'shape': list(t.shape) or [1]} for t in spec.tensors}
      or 'sample_weight' not in found['train']['inputs']):
    raise FileError('the training file does not train the variables of the manifest.')
  return {'batch_size': found['train']['inputs']['sample_weight']['shape'][0], 'learning_rate': chosen.learning_rate,
          'proximal_mu': chosen.proximal_mu, 'weights': list(weights),
          'state': list(found.get('get_state', {'outputs': ()})['outputs']), 'signatures': found}


def _codec_entry(signature, chosen, spec, signatures):
  role = f'{signature}r'
  encodes = signature == 'encode'
  described = encoder_lib.interface(signature, chosen.uplink if encodes else chosen.downlink, spec, words=chosen.words,
                                    error_feedback=encodes and chosen.error_feedback).describe()
  for side, tensors in _signature(signatures, signature, role).items():
    arrays = {array['name']: (array['dtype'], [array['size']]) for array in described[side]}
    if {name: (tensor['dtype'], tensor['shape']) for name, tensor in tensors.items()} != arrays:
      raise FileError(f'the {role} file has other {side} than the {role} of this codec, with these words and '
                      'residuals.')
  # What the file's entry or the manifest says already.
  said = ('bytes', 'sha256', 'operators', 'codec', 'fingerprint')
  return {key: value for key, value in described.items() if key not in said}


def _signature(signatures, name, role):
  if name not in signatures:
    raise FileError(f'the {role} file has no signature {name!r}.')
  return signatures[name]


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


def load_plan(path: str | os.PathLike) -> Plan:
  """Reads a plan and checks it.

  The manifest must have the form of the schema, and every file the size and SHA-256 that it names. All that follows
  from the files and from the codecs (see `Choices` for what does not) is computed again, and must be what the manifest
  says.

  Args:
    path: the plan's folder.

  Returns:
    `Plan`

  Raises:
    FileError: something is missing, damaged or of a later version.
  """
  path = pathlib.Path(path)
  manifest = read_form(files.read(path / MANIFEST, LARGEST, 'manifest of a plan'), path / MANIFEST)
  contents = {}
  try:
    check_form(manifest)
    for role, entry in manifest['files'].items():
      data = contents[role] = files.read(path / entry['file'], flatbuffer.LARGEST, 'model for a device')
      if len(data) != entry['bytes'] or hashlib.sha256(data).hexdigest() != entry['sha256']:
        raise FileError(f'{path / entry["file"]} is not the file that the manifest names: its SHA-256 differs.')
    plan = Plan(path, manifest)
    wanted = _manifest(Choices.of(manifest), plan.spec, contents)
  except FileError:
    raise
  except CompressionError as error:
    raise FileError(f'{path / MANIFEST} is damaged: {" ".join(str(error).split())[:200].rstrip(".")}.') from None
  different = _difference(wanted, manifest)
  if different:
    raise FileError(f'{path / MANIFEST} is damaged: {different} does not fit the files and what else it says.')
  return plan


def _difference(wanted, found, where=''):
  """The place of the first value that is not what it should be, 'files/training/batch_size'; '' if there is none.

  Names that are only in `found` are those of a later release.
  """
  if isinstance(wanted, dict) and isinstance(found, dict):
    pairs = [(key, value, found.get(key, _MISSING)) for key, value in wanted.items()]
  elif isinstance(wanted, (list, tuple)) and isinstance(found, list) and len(wanted) == len(found):
    pairs = [(position, *values) for position, values in enumerate(zip(wanted, found))]
  else:
    return '' if type(wanted) is type(found) and wanted == found else where
  places = (_difference(a, b, f'{where}/{key}'.lstrip('/')) for key, a, b in pairs)
  return next(filter(None, places), '')


_MISSING = object()
