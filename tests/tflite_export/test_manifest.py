"""A plan is whole, the same every time, and enough to take part in a round with nothing but its files."""

import functools
import hashlib
import json

import numpy as np
import pytest

from tff_compress import codec as codec_lib
from tff_compress import wire

UPLINK = 'hadamard | uniform:bits=4 | pack'
pytestmark = pytest.mark.xdist_group('plan')


@pytest.fixture(scope='module')
def model():
  import tensorflow as tf
  tf.keras.utils.set_random_seed(3)
  return tf.keras.Sequential([tf.keras.Input((6,)), tf.keras.layers.Dense(5, activation='relu', name='first'),
                              tf.keras.layers.Dense(3, name='second')], name='small')


@pytest.fixture(scope='module')
def data():
  return np.random.default_rng(0).standard_normal((20, 6)).astype(np.float32)


def settings():
  import tensorflow as tf
  return {'uplink': UPLINK, 'downlink': 'int8', 'batch_size': 4, 'optimizer': tf.keras.optimizers.SGD(0.1),
          'loss': tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)}


@pytest.fixture(scope='module')
def plan(model, data, tmp_path_factory):
  from tflite_export import manifest
  return manifest.export_plan(model, path=tmp_path_factory.mktemp('plans') / 'plan', representative_data=data,
                              **settings())


@pytest.fixture
def copy(plan, tmp_path):
  """A copy of the plan that a test may damage."""
  for path in plan.path.iterdir():
    (tmp_path / path.name).write_bytes(path.read_bytes())
  return tmp_path


def load(path):
  from tflite_export import manifest
  return manifest.load_plan(path)


def test_the_manifest_says_what_the_files_are(plan, model):
  manifest = json.loads((plan.path / 'plan.json').read_text())
  assert load(plan.path).manifest == manifest == plan.manifest
  assert {path.name for path in plan.path.iterdir()} == {'plan.json', *(f'{role}.tflite' for role in manifest['files'])}
  for entry in manifest['files'].values():
    content = (plan.path / entry['file']).read_bytes()
    assert (len(content), hashlib.sha256(content).hexdigest()) == (entry['bytes'], entry['sha256'])
    assert not [name for name in entry['operators'] if ':' in name]
  assert plan.spec == codec_lib.Spec.of(model)
  assert manifest['model']['parameters'] == 6 * 5 + 5 + 5 * 3 + 3
  assert manifest['files']['inference']['recipe'] == 'int8'


def test_the_same_input_gives_the_same_bytes(plan, model, data, tmp_path):
  from tflite_export import manifest
  again = manifest.export_plan(model, path=tmp_path / 'again', representative_data=data, **settings())
  for path in plan.path.iterdir():
    assert (again.path / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize('runtime', ['tf.lite', 'litert'])
def test_a_round_needs_nothing_but_the_plan(plan, runtime):
  """Down, training, up: with the plan's files and the app's half of the codec alone, against the server's NumPy."""
  from tflite_export import encoder
  from tflite_export import interpreters
  plan = load(plan.path)
  spec, entries = plan.spec, plan.manifest['files']
  files = {role: interpreters.Interpreter(plan.file(role).read_bytes(), runtime) for role in entries}
  names = [variable['name'] for variable in plan.manifest['variables']]
  rng = np.random.default_rng(1)
  weights = {t.name: rng.standard_normal(t.shape).astype(np.float32) for t in spec.tensors}

  down = plan.manifest['downlink']['codec']
  frame = wire.pack(down, weights, seed=9, round=5, client=codec_lib.SHARED_CLIENT)
  received, _ = wire.unpack(down, frame, spec, seed=9)
  payload = codec_lib(down).encode(weights, seed=9, round=5, client=codec_lib.SHARED_CLIENT)
  assert frame[16:-4] == payload
  inputs, _ = encoder.start(down, spec, payload)
  outputs = files['decoder'].run('decode', **inputs, **_keys(entries['decoder'], 9, 5, codec_lib.SHARED_CLIENT))
  decoded = {v['name']: outputs[v['array']].reshape(weights[v['name']].shape) for v in entries['decoder']['variables']}
  for name in names:
    np.testing.assert_allclose(decoded[name], received[name], rtol=1e-6, atol=1e-7)

  training = files['training']
  training.run('set_weights', **decoded)
  batch = {'x': rng.standard_normal((4, 6)).astype(np.float32), 'y': np.array([0, 1, 2, 0], np.int32),
           'sample_weight': np.array([1, 1, 1, 0], np.float32)}
  losses = [float(training.run('train', **batch, learning_rate=np.float32(0.1))['loss']) for _ in range(3)]
  assert losses[2] < losses[1] < losses[0]
  trained = training.run('get_weights', unused=np.zeros(1, np.int32))
  update = {name: trained[name] - decoded[name] for name in names}

  uplink = plan.manifest['uplink']['codec']
  inputs = {v['array']: update[v['name']].reshape(-1) for v in entries['encoder']['variables']}
  outputs = files['encoder'].run('encode', **inputs, **_keys(entries['encoder'], 9, 5, 77))
  payload = encoder.finish(uplink, spec, outputs)
  assert payload == codec_lib(uplink).encode(update, seed=9, round=5, client=77)


def _keys(entry, seed, round_number, client):
  """The input of the random numbers, made of nothing but the manifest's list of requests."""
  from tff_compress.codec import random
  keys = [random.derive_key(seed, round_number, client if request['scope'] == 'client' else codec_lib.SHARED_CLIENT,
                            request['name'],
                            request['purpose'], request['chunk']) for request in entry['requests']]
  return {'keys': np.concatenate(keys)} if keys else {}


@pytest.mark.parametrize('damage, message', [
    (lambda folder: (folder / 'encoder.tflite').write_bytes(b'TFL3'), 'SHA-256'),
    (lambda folder: (folder / 'training.tflite').unlink(), 'cannot be read'),
    (lambda folder: (folder / 'plan.json').unlink(), 'cannot be read'),
    (lambda folder: (folder / 'plan.json').write_bytes(b'[1]'), 'no manifest'),
    (lambda folder: (folder / 'plan.json').write_bytes(b'[' * 100_000), 'no manifest'),
    (lambda folder: (folder / 'plan.json').write_bytes(b'\xff\xfe'), 'no manifest'),
    (lambda folder: change(folder, version=2), 'version 2'),
    (lambda folder: change(folder, variables=[]), 'at variables'),
    (lambda folder: change(folder, variables=[{'name': 'w'}]), "at variables/0, 'shape' is a required property"),
    (lambda folder: change(folder, variables=[{'name': 'w', 'shape': [4], 'dtype': 'float32'}]),
     'does not train the variables'),
    (lambda folder: change(folder, uplink={'codec': 'hadamrd', 'fingerprint': '00000000', 'error_feedback': None}),
     'hadamard'),
    (lambda folder: change(folder, uplink={'codec': 'drive', 'fingerprint': '00000000', 'error_feedback': None}),
     'the encoder file has other'),
    (lambda folder: change(folder, downlink=None), 'damaged: '),
    (lambda folder: change(folder, files={}), "at files, .* is a required property"),
    (lambda folder: rename(folder, '../training.tflite'), 'at files/training/file'),
    (lambda folder: change(folder, model={'name': 'small', 'parameters': float('nan'), 'float32_bytes': 212}),
     'no manifest'),
])
def test_a_damaged_plan_is_refused_in_one_sentence(copy, damage, message):
  from tflite_export.errors import FileError
  load(copy)
  damage(copy)
  with pytest.raises(FileError, match=message) as caught:
    load(copy)
  assert '\n' not in str(caught.value)


def nodes(value, path=()):
  """(path, value) of everything in a manifest below the top; of lists and tables of operators, the last item."""
  if path:
    yield path, value
  children = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
  if isinstance(value, list) or path[-1:] == ('operators',):
    children = children[-1:]
  for key, child in children:
    yield from nodes(child, (*path, key))


def replacements(value):
  """Nothing, another type, and another value of the same type."""
  if isinstance(value, bool) or value is None:
    return [3, not value]
  if isinstance(value, (int, float)):
    return [None, str(value), value + 1, -value - 1]
  if isinstance(value, str):
    return [None, [value], value[:-1]]
  return [None, 'x', value[1:] if isinstance(value, list) else dict(list(value.items())[1:])]


FREE = {
    # What nothing else in a plan says, and every value that is one is as good as another.
    ('model', 'name'): lambda value: isinstance(value, str) and value,
    ('files', 'training', 'learning_rate'): lambda value: value is None or (type(value) in (int, float) and value >= 0),
    ('files', 'training', 'proximal_mu'): lambda value: type(value) in (int, float) and value >= 0,
    ('downlink', 'changes'): lambda value: value in (None, 'last', 'start'),
}


def test_every_change_of_a_manifest_is_refused_but_of_what_nothing_else_says(copy, monkeypatch):
  from tflite_export import encoder
  from tflite_export import flatbuffer
  from tflite_export.errors import FileError
  # Files and codecs are the same each time.
  for module, name in ((flatbuffer, 'load'), (encoder, 'interface')):
    monkeypatch.setattr(module, name, functools.cache(getattr(module, name)))
  manifest = json.loads((copy / 'plan.json').read_text())
  tried, accepted = 0, []
  for position, (path, value) in enumerate(list(nodes(manifest))):
    parent = manifest
    for key in path[:-1]:
      parent = parent[key]
    first, *others = replacements(value)
    for other in (first, others[position % len(others)]):
      if other == value:
        continue
      parent[path[-1]] = other
      (copy / 'plan.json').write_text(json.dumps(manifest))
      tried += 1
      try:
        load(copy)
        accepted.append((path, other))
      except FileError as error:
        assert '\n' not in str(error)
    parent[path[-1]] = value
  assert tried > 300
  assert not [(path, other) for path, other in accepted if path not in FREE or not FREE[path](other)]


def test_the_writer_keeps_to_the_schema_and_the_guide_shows_it(model, data, tmp_path, monkeypatch):
  import pathlib

  from tflite_export import manifest
  from tflite_export import plans
  from tflite_export.errors import FileError
  guide = (pathlib.Path(__file__).parents[2] / 'docs' / 'plan.md').read_text(encoding='utf-8')
  assert '(../tflite_export/plan.schema.json)' in guide
  assert not [name for name in [*plans.schema()['properties'], *plans.schema()['$defs']['coded']['required']]
              if f'`{name}`' not in guide]
  monkeypatch.setattr(manifest, 'FORMAT', 'another plan')
  with pytest.raises(FileError, match='form of a plan: at format'):
    manifest.export_plan(model, path=tmp_path / 'plan', representative_data=data, **settings())
  assert not list(tmp_path.iterdir())


def change(folder, **values):
  manifest = json.loads((folder / 'plan.json').read_text())
  (folder / 'plan.json').write_text(json.dumps({**manifest, **values}))


def rename(folder, name):
  manifest = json.loads((folder / 'plan.json').read_text())
  manifest['files']['training']['file'] = name
  (folder / 'plan.json').write_text(json.dumps(manifest))


def test_a_folder_that_is_in_use_is_left_alone(model, plan, tmp_path):
  from tflite_export import manifest
  from tflite_export.errors import FileError
  before = {path.name: path.read_bytes() for path in plan.path.iterdir()}
  with pytest.raises(FileError, match='not empty'):
    manifest.export_plan(model, path=plan.path, **settings())
  (tmp_path / 'thesis.txt').write_text('years of work')
  with pytest.raises(FileError, match='thesis.txt'):
    manifest.export_plan(model, path=tmp_path, overwrite=True, **settings())
  with pytest.raises(FileError, match='does not exist'):
    manifest.export_plan(model, path=tmp_path / 'no' / 'where', **settings())
  assert before == {path.name: path.read_bytes() for path in plan.path.iterdir()}
  assert [path.name for path in tmp_path.iterdir()] == ['thesis.txt']


def test_an_export_that_fails_leaves_nothing_behind(model, tmp_path):
  from tff_compress.codec.errors import CompressionError
  from tflite_export import manifest
  for wrong in ({'uplink': 'hadamrd'}, {'uplink': 'topk:2 | float32'}, {'batch_size': 0}, {'recipe': 'int9'}):
    with pytest.raises(CompressionError):
      manifest.export_plan(model, path=tmp_path / 'plan', **{**settings(), **wrong})
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('options, feedback, changes', [
    (dict(uplink='stc:p=1/4', downlink='rpn'), True, 'start'),
    (dict(uplink='ef-topk', downlink='stc:p=1/4'), True, 'last'),
    (dict(uplink='stc:p=1/4', downlink='int8', error_feedback=False), False, None),
    (dict(uplink='sparse-ternary:1/4 | rice', downlink='sparse-ternary:1/4 | rice'), False, None),
    (dict(uplink=UPLINK, downlink='int8', error_feedback=True), True, None),
])
def test_a_plan_says_what_its_presets_are_meant_for(model, tmp_path, monkeypatch, options, feedback, changes):
  from tflite_export import inference
  from tflite_export import manifest
  from tflite_export import training
  for module, name in ((training, 'export_training'), (inference, 'export_inference')):
    monkeypatch.setattr(module, name, _once(getattr(module, name)))
  path = manifest.export_plan(model, path=tmp_path / 'plan', **{**settings(), **options}).path
  plan = load(path).manifest
  assert plan['uplink']['error_feedback'] == ({'residual_bytes': 4 * 53} if feedback else None)
  assert plan['downlink']['changes'] == changes
  encoder = plan['files']['encoder']
  assert encoder['error_feedback'] == feedback
  assert [v['residual'] for v in encoder['variables']] == [f'residual_{i}' if feedback else None for i in range(4)]


@functools.cache
def _once(export):
  """An export that makes its file the first time alone."""
  made = []

  def exported(*args, **kwargs):
    if not made:
      made.append(export(*args, **kwargs))
    return made[0]
  return exported
